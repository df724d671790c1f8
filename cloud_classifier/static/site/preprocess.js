// How a photo becomes the square of numbers that the network sees: `images.Preprocess`, bit for bit. A canvas would
// resample in its own way in each browser, so this is Pillow's resampling: separable, antialiased, in whole numbers.

const PRECISION = 22; // bits of a weight behind the point: 8 bits of a pixel, 2 of headroom, in 32

// For each of `size` outputs: the first input that it depends on, and the weights of the inputs from there on.
function weights(inputs, from, to, size) {
  const scale = Math.fround(Math.fround(to) - Math.fround(from)) / size;
  const support = Math.max(scale, 1); // of a triangle: bilinear, widened where the image shrinks
  const list = [];
  for (let i = 0; i < size; i++) {
    const centre = Math.fround(from) + (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), inputs);
    const triangle = [];
    let sum = 0;
    for (let x = first; x < last; x++) {
      const w = Math.max(0, 1 - Math.abs((x - centre + 0.5) * (1 / support)));
      triangle.push(w);
      sum += w;
    }
    list.push({first, k: Int32Array.from(triangle, w => Math.trunc(0.5 + (w / sum) * (1 << PRECISION)))});
  }
  return list;
}

function clip(sum) {
  const value = sum >> PRECISION;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

// Resample rows: each of them becomes as long as `list`.
function squeezeRows({width, height, data}, list) {
  const n = list.length;
  const out = new Uint8ClampedArray(4 * n * height);
  for (let y = 0, to = 0; y < height; y++)
    for (let i = 0; i < n; i++, to += 4) weigh(data, 4 * (y * width + list[i].first), 4, list[i].k, out, to);
  return {width: n, height, data: out};
}

// Resample columns likewise.
function squeezeColumns({width, data}, list) {
  const n = list.length;
  const out = new Uint8ClampedArray(4 * n * width);
  for (let i = 0, to = 0; i < n; i++)
    for (let x = 0; x < width; x++, to += 4)
      weigh(data, 4 * (list[i].first * width + x), 4 * width, list[i].k, out, to);
  return {width, height: n, data: out};
}

// Put the weighted sum of pixels that are `step` apart into `out`.
function weigh(data, at, step, k, out, to) {
  let r = 1 << (PRECISION - 1);
  let g = r;
  let b = r;
  for (let i = 0; i < k.length; i++, at += step) {
    const w = k[i];
    r += data[at] * w;
    g += data[at + 1] * w;
    b += data[at + 2] * w;
  }
  out[to] = clip(r);
  out[to + 1] = clip(g);
  out[to + 2] = clip(b);
  out[to + 3] = 255;
}

// The rows of an image that `list` needs, whose places are then counted from the first of them.
function neededRows({width, data}, list) {
  const first = list[0].first;
  const last = list.at(-1);
  const end = last.first + last.k.length;
  for (const row of list) row.first -= first;
  return {width, height: end - first, data: data.subarray(4 * width * first, 4 * width * end)};
}

// The part of an image that becomes the square: left, top, right, bottom.
function box(width, height, {resize, crop}) {
  const short = Math.min(width, height);
  const w = (resize === 'short' ? short : width) * crop;
  const h = (resize === 'short' ? short : height) * crop;
  return [(width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2];
}

// The square of an image {width, height, data: RGBA}. Which way comes first makes a difference of one in some pixels;
// Pillow 13 goes by what is left to do.
export function square(image, preprocess) {
  const {width, height} = image;
  const {size} = preprocess;
  const [left, top, right, bottom] = box(width, height, preprocess);
  const columns = weights(width, left, right, size);
  const rows = weights(height, top, bottom, size);
  const part = neededRows(image, rows);
  if (height > size && height - size > 2 * (width - size)) return squeezeRows(squeezeColumns(part, rows), columns);
  return squeezeColumns(squeezeRows(part, columns), rows);
}

// Pixels less `mean`, over `std`: (3, size, size) float32.
export function normalise({width, height, data}, {mean, std}) {
  const n = width * height;
  const out = new Float32Array(3 * n);
  for (let c = 0; c < 3; c++) {
    const m = Math.fround(mean[c]);
    const s = Math.fround(std[c]);
    const table = Float32Array.from({length: 256}, (_, v) => Math.fround(Math.fround(v / 255) - m) / s);
    for (let i = 0; i < n; i++) out[c * n + i] = table[data[4 * i + c]];
  }
  return out;
}

// The side that an image may be shrunk to beforehand: twice the square, so that there is something to average.
export const minSide = ({size, crop}) => 2 * Math.ceil(size / crop);

// By what a JPEG is shrunk while it is decoded: 1, 2, 4 or 8, so that both sides stay at least `side` long.
export function shrinking(width, height, side) {
  const scale = Math.min(Math.floor(width / side), Math.floor(height / side));
  return [8, 4, 2].find(s => scale >= s) ?? 1;
}
