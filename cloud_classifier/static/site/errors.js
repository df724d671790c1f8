// A photo that can't be used: `images.BadImage`, with its kinds.
export class BadImage extends Error {
  constructor(kind, reason) { // 'empty', 'not an image', 'unsupported', 'truncated' or 'too large'
    super(reason);
    this.kind = kind;
  }
}

export const empty = () => new BadImage('empty', 'is empty');
export const notAnImage = () => new BadImage('not an image', 'is not a photo in a known format');
export const damaged = why => new BadImage('truncated', `is cut off or damaged (${why})`);
export const tooLarge = reason => new BadImage('too large', reason);
export const unsupported = format =>
  new BadImage('unsupported', `is a ${format} photo, which can't be opened here; save it as JPEG or PNG`);

// Refuse what has too many pixels.
export function checkSize(width, height, {pixels, side}) {
  if (width * height > pixels)
    throw tooLarge(`${width} x ${height} is over the limit of ${pixels.toLocaleString('en')} pixels; save a smaller copy`);
  if (Math.max(width, height) > side)
    throw tooLarge(`${width} x ${height} has a side of over ${side.toLocaleString('en')} pixels; crop it`);
}
