// Images {width, height, data: RGBA}: over white, and turned upright.

// Lay pixels over white, as Pillow's alpha_composite does; `data` is changed.
export function overWhite(data) {
  for (let i = 0; i < data.length; i += 4) {
    const a = data[i + 3];
    if (a === 255) continue;
    for (let c = i; c < i + 3; c++) {
      const sum = data[c] * a * 128 + 255 * (255 - a) * 128 + 128 * 128;
      data[c] = (((sum >> 8) + sum) >> 8) >> 7;
    }
    data[i + 3] = 255;
  }
  return data;
}

// Where Exif's eight orientations put the pixel x, y of an image of w x h pixels.
const TURNS = {
  2: (x, y, w) => [w - 1 - x, y],
  3: (x, y, w, h) => [w - 1 - x, h - 1 - y],
  4: (x, y, w, h) => [x, h - 1 - y],
  5: (x, y) => [y, x],
  6: (x, y, w, h) => [h - 1 - y, x],
  7: (x, y, w, h) => [h - 1 - y, w - 1 - x],
  8: (x, y, w) => [y, w - 1 - x],
};

// The image as it was seen: Exif 2.32, section 4.6.4. Any other number leaves it as it is.
export function upright(image, orientation) {
  const turn = TURNS[orientation];
  if (!turn) return image;
  const {width: w, height: h} = image;
  const [width, height] = orientation >= 5 ? [h, w] : [w, h];
  const from = new Uint32Array(image.data.buffer, image.data.byteOffset, w * h);
  const to = new Uint32Array(w * h);
  const origin = turn(0, 0, w, h);
  const right = turn(1, 0, w, h);
  const below = turn(0, 1, w, h);
  const place = ([x, y]) => y * width + x;
  const start = place(origin);
  const across = place(right) - start;
  const down = place(below) - start;
  for (let y = 0, i = 0; y < h; y++)
    for (let x = 0, at = start + y * down; x < w; x++, i++, at += across) to[at] = from[i];
  return {width, height, data: new Uint8ClampedArray(to.buffer)};
}
