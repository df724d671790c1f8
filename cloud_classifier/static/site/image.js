// Images {width, height, data: RGBA}: over white, turned upright, shrunk by whole numbers.

// Lay pixels over white, as Pillow's alpha_composite does; `data` is changed.
export function overWhite(data) {
  for (let i = 0; i < data.length; i += 4) {
    const a = data[i + 3];
    if (a === 255) continue;
    for (let c = i; c < i + 3; c++) {
      const sum = data[c] * a * 128 + 255 * (255 - a) * 128 + 128 * 128;
      data[c] = ((sum >> 8) + sum >> 8) >> 7;
    }
    data[i + 3] = 255;
  }
  return data;
}

// Where Exif's eight orientations put the pixel x, y of an image of w x h pixels.
const TURNS = {
  2: (x, y, w, h) => [w - 1 - x, y],
  3: (x, y, w, h) => [w - 1 - x, h - 1 - y],
  4: (x, y, w, h) => [x, h - 1 - y],
  5: (x, y, w, h) => [y, x],
  6: (x, y, w, h) => [h - 1 - y, x],
  7: (x, y, w, h) => [h - 1 - y, w - 1 - x],
  8: (x, y, w, h) => [y, w - 1 - x],
};

// The image as it was seen: Exif 2.32, section 4.6.4. Any other number leaves it as it is.
export function upright(image, orientation) {
  const turn = TURNS[orientation];
  if (!turn) return image;
  const {width: w, height: h} = image, [width, height] = orientation >= 5 ? [h, w] : [w, h];
  const from = new Uint32Array(image.data.buffer, image.data.byteOffset, w * h), to = new Uint32Array(w * h);
  const origin = turn(0, 0, w, h), right = turn(1, 0, w, h), below = turn(0, 1, w, h);
  const place = ([x, y]) => y * width + x;
  const start = place(origin), across = place(right) - start, down = place(below) - start;
  for (let y = 0, i = 0; y < h; y++)
    for (let x = 0, at = start + y * down; x < w; x++, i++, at += across) to[at] = from[i];
  return {width, height, data: new Uint8ClampedArray(to.buffer)};
}

// Average squares of `by` x `by` pixels; those at the right and bottom edge may be smaller. What libjpeg's decoding at a
// half, a quarter or an eighth comes to. `rows` of `source` pixels are put into `target` from the row `top` on.
export function shrinkInto(target, top, source, by) {
  const {width: w, height: h, data} = source;
  const rows = Math.ceil(h / by);
  for (let y = 0; y < rows; y++) {
    const y1 = Math.min((y + 1) * by, h);
    for (let x = 0; x < target.width; x++) {
      const x1 = Math.min((x + 1) * by, w);
      let r = 0, g = 0, b = 0, n = 0;
      for (let v = y * by; v < y1; v++)
        for (let u = x * by, at = 4 * (v * w + u); u < x1; u++, at += 4) {
          r += data[at];
          g += data[at + 1];
          b += data[at + 2];
          n++;
        }
      const to = 4 * ((top + y) * target.width + x);
      target.data[to] = Math.floor(r / n + .5);
      target.data[to + 1] = Math.floor(g / n + .5);
      target.data[to + 2] = Math.floor(b / n + .5);
      target.data[to + 3] = 255;
    }
  }
}
