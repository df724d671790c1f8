// How a photo becomes the square of numbers that the network sees: `images.Preprocess`, bit for bit. A canvas would
// resample in its own way in each browser, so this is Pillow's resampling: separable, antialiased, in whole numbers.

const PRECISION = 22; // bits of a weight behind the point: 8 bits of a pixel, 2 of headroom, in 32

// For each of `size` outputs: the first input that it depends on, and the weights of the inputs from there on.
function weights(inputs, from, to, size) {
  const scale = Math.fround(Math.fround(to) - Math.fround(from)) / size;
  const support = Math.max(scale, 1); // of a triangle: bilinear, widened where the image shrinks
  const list = [];
  for (let i = 0; i < size; i++) {
    const centre = Math.fround(from) + (i + .5) * scale;
    const first = Math.max(Math.trunc(centre - support + .5), 0);
    const last = Math.min(Math.trunc(centre + support + .5), inputs);
    const triangle = [];
    let sum = 0;
    for (let x = first; x < last; x++) {
      const w = Math.max(0, 1 - Math.abs((x - centre + .5) * (1 / support)));
      triangle.push(w);
      sum += w;
    }
    list.push({first, k: Int32Array.from(triangle, w => Math.trunc(.5 + (w / sum) * (1 << PRECISION)))});
  }
  return list;
}

function clip(sum) {
  const value = sum >> PRECISION;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

// Resample along one axis: `step` bytes from an input to the next, `across` from a line to the next.
function resample(data, list, {lines, step, across, outStep, outAcross, firstLine = 0}) {
  const out = new Uint8ClampedArray(lines * list.length * 4);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < list.length; i++) {
      const {first, k} = list[i];
      let r = 1 << (PRECISION - 1), g = r, b = r;
      let at = (firstLine + line) * across + first * step;
      for (let x = 0; x < k.length; x++, at += step) {
        const w = k[x];
        r += data[at] * w;
        g += data[at + 1] * w;
        b += data[at + 2] * w;
      }
      const to = line * outAcross + i * outStep;
      out[to] = clip(r);
      out[to + 1] = clip(g);
      out[to + 2] = clip(b);
      out[to + 3] = 255;
    }
  }
  return out;
}

// The part of an image that becomes the square: left, top, right, bottom.
function box(width, height, {resize, crop}) {
  const short = Math.min(width, height);
  const w = (resize === 'short' ? short : width) * crop, h = (resize === 'short' ? short : height) * crop;
  return [(width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2];
}

// The square of an image {width, height, data: RGBA}.
export function square(image, preprocess) {
  const {width, height, data} = image, size = preprocess.size;
  const [left, top, right, bottom] = box(width, height, preprocess);
  const columns = weights(width, left, right, size), rows = weights(height, top, bottom, size);
  const firstLine = rows[0].first, lastRow = rows[size - 1];
  const lines = lastRow.first + lastRow.k.length - firstLine;
  const narrow = resample(data, columns, {lines, step: 4, across: 4 * width, outStep: 4, outAcross: 4 * size, firstLine});
  for (const row of rows) row.first -= firstLine;
  return {width: size, height: size,
          data: resample(narrow, rows, {lines: size, step: 4 * size, across: 4, outStep: 4 * size, outAcross: 4})};
}

// Pixels less `mean`, over `std`: (3, size, size) float32.
export function normalise({width, height, data}, {mean, std}) {
  const n = width * height, out = new Float32Array(3 * n);
  for (let c = 0; c < 3; c++) {
    const m = Math.fround(mean[c]), s = Math.fround(std[c]);
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
