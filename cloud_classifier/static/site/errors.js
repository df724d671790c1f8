// A photo that can't be used: `images.BadImage`, with its kinds.
export class BadImage extends Error {
  constructor(kind, reason) {
    // 'empty', 'not an image', 'unsupported', 'truncated' or 'too large'
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
    throw tooLarge(
      `${width} x ${height} is over the limit of ${pixels.toLocaleString('en')} pixels; save a smaller copy`,
    );
  if (Math.max(width, height) > side)
    throw tooLarge(`${width} x ${height} has a side of over ${side.toLocaleString('en')} pixels; crop it`);
}

// Refuse what would take too much memory to open: of a pixel so many bytes, and as many more while it is made RGB.
export function checkMemory(width, height, bytes, more, {memory}) {
  const cost = width * height * (bytes + more);
  const millions = n => Math.round(n / 1e6);
  if (cost > memory)
    throw tooLarge(
      `${width} x ${height} pixels take ${millions(cost)} MB to open, over the limit of ${millions(memory)} MB; ` +
        'save a smaller copy, or a JPEG',
    );
}
