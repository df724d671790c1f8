// JPEG, decoded here. A browser's own decoder gives all pixels of a large photo, and each browser other ones; this
// gives what Python sees: the pixels that libjpeg gives at a half, a quarter or an eighth of the size, to the bit.

import {damaged, unsupported} from './errors.js';
import {putBlock} from './jpeg-blocks.js';
import {readJpeg} from './jpeg-parts.js';
import {decodeScan} from './jpeg-scan.js';

// The pixels across a block of a component: more than the least where another one has more of them (jdmaster.c).
function blockSize({h, v}, {maxH, maxV}, least) {
  let size = least;
  while (size < 8 && (maxH * least) % (h * size * 2) === 0 && (maxV * least) % (v * size * 2) === 0) size *= 2;
  return size;
}

// Planes for the pixels of each component, and for the coefficients of a progressive JPEG.
function prepare(frame, by) {
  frame.unitsAcross = Math.ceil(frame.width / (8 * frame.maxH));
  frame.unitsDown = Math.ceil(frame.height / (8 * frame.maxV));
  for (const c of frame.components) {
    c.size = blockSize(c, frame, 8 / by);
    c.across = frame.unitsAcross * c.h;
    c.down = frame.unitsDown * c.v;
    c.stride = c.across * c.size;
    c.width = Math.ceil((frame.width * c.h * c.size) / (frame.maxH * 8));
    c.height = Math.ceil((frame.height * c.v * c.size) / (frame.maxV * 8));
    c.plane = new Uint8Array(c.stride * c.down * c.size);
    if (frame.progressive) c.coefficients = new Int16Array(64 * c.across * c.down);
    else c.plane.fill(128); // of blocks that no scan has
  }
}

function put(c, x, y, block, at) {
  putBlock(block, at, c.quantisation, c.size, c.plane, (y * c.stride + x) * c.size, c.stride);
}

function decodePlanes(jpeg) {
  const {frame} = jpeg;
  for (const scan of jpeg.scans) decodeScan(jpeg, scan, put);
  if (!frame.progressive) return;
  for (const c of frame.components) {
    if (!c.quantisation) throw damaged('a table is missing');
    for (let y = 0; y < c.down; y++)
      for (let x = 0; x < c.across; x++) put(c, x, y, c.coefficients, 64 * (y * c.across + x));
    c.coefficients = null;
  }
}

// Rows of a plane, `times` as wide, weighed by distance (jdsample.c, "fancy upsampling"). `sums` are of 4 times `unit`.
function widen(sums, n, unit, line) {
  const bits = unit === 1 ? 2 : 4;
  const before = unit === 1 ? 1 : 8;
  const behind = unit === 1 ? 2 : 7;
  line[0] = (sums[0] * 4 + before) >> bits;
  line[1] = (sums[0] * 3 + sums[1] + behind) >> bits;
  for (let x = 1; x < n - 1; x++) {
    line[2 * x] = (sums[x] * 3 + sums[x - 1] + before) >> bits;
    line[2 * x + 1] = (sums[x] * 3 + sums[x + 1] + behind) >> bits;
  }
  line[2 * n - 2] = (sums[n - 1] * 3 + sums[n - 2] + before) >> bits;
  line[2 * n - 1] = (sums[n - 1] * 4 + behind) >> bits;
}

// A function that gives the row `y` of a component at the size of the image.
function rowReader(c, frame, least) {
  const across = (frame.maxH * least) / (c.h * c.size);
  const down = (frame.maxV * least) / (c.v * c.size);
  if (!Number.isInteger(across) || !Number.isInteger(down)) throw unsupported('JPEG (fractional sampling)');
  const {plane, stride, width, height} = c;
  const row = y => plane.subarray(y * stride, (y + 1) * stride);
  if (across === 1 && down === 1) return row;
  const smooth = least > 1;
  const near = y => row(Math.min(Math.max((y >> 1) + (y & 1 ? 1 : -1), 0), height - 1));
  const line = new Uint8Array(stride * across + 2);
  const sums = new Int32Array(width);
  if (across === 2 && down === 1 && smooth && width > 2)
    return y => {
      widen(row(y), width, 1, line);
      return line;
    };
  if (across === 1 && down === 2 && smooth)
    return y => {
      const here = row(y >> 1);
      const other = near(y);
      const bias = y & 1 ? 2 : 1;
      for (let x = 0; x < width; x++) line[x] = (here[x] * 3 + other[x] + bias) >> 2;
      return line;
    };
  if (across === 2 && down === 2 && smooth && width > 2)
    return y => {
      const here = row(y >> 1);
      const other = near(y);
      for (let x = 0; x < width; x++) sums[x] = here[x] * 3 + other[x];
      widen(sums, width, 4, line);
      return line;
    };
  return y => {
    const here = row(Math.floor(y / down));
    for (let x = 0, i = 0; x < width; x++) for (let k = 0; k < across; k++) line[i++] = here[x];
    return line;
  };
}

const table = factor => Int32Array.from({length: 256}, (_, i) => Math.imul(factor, i - 128));
const CR_R = table(91881).map(v => (v + 32768) >> 16);
const CB_B = table(116130).map(v => (v + 32768) >> 16);
const CR_G = table(-46802);
const CB_G = table(-22554).map(v => v + 32768);

function isYcc({adobe, jfif, frame: {components}}) {
  if (components.length === 4) return adobe === 2;
  if (components.length === 1) return false;
  if (jfif) return true;
  if (adobe !== null) return adobe !== 0;
  return components.map(c => String.fromCharCode(c.id)).join('') !== 'RGB';
}

// Of inked pixels, as Pillow turns CMYK into RGB; JPEGs hold ink inverted.
function ink(value, key) {
  const product = (255 - value) * key + 128;
  return key - (((product >> 8) + product) >> 8);
}

// One line of RGBA from lines of its components.
function putLine(data, at, width, [first, second, third, fourth], ycc) {
  for (let x = 0; x < width; x++, at += 4) {
    let r = first[x];
    let g = r;
    let b = r;
    if (ycc) {
      const cb = second[x];
      const cr = third[x];
      const y = r;
      r = y + CR_R[cr];
      g = y + ((CB_G[cb] + CR_G[cr]) >> 16);
      b = y + CB_B[cb];
    } else if (second) {
      g = second[x];
      b = third[x];
    }
    data[at] = r;
    data[at + 1] = g;
    data[at + 2] = b;
    if (fourth) {
      const k = fourth[x];
      const turn = v => ink(ycc ? 255 - v : v, k);
      data[at] = turn(data[at]);
      data[at + 1] = turn(data[at + 1]);
      data[at + 2] = turn(data[at + 2]);
    }
    data[at + 3] = 255;
  }
}

// The image of a JPEG that `readJpeg` read, shrunk by 1, 2, 4 or 8.
export function decodeJpeg(jpeg, by) {
  const {frame} = jpeg;
  if (frame.marker > 0xc2) throw unsupported('JPEG (arithmetic or lossless)');
  prepare(frame, by);
  decodePlanes(jpeg);
  const width = Math.ceil(jpeg.width / by);
  const height = Math.ceil(jpeg.height / by);
  const data = new Uint8ClampedArray(4 * width * height);
  const ycc = isYcc(jpeg);
  const readers = frame.components.map(c => rowReader(c, frame, 8 / by));
  for (let y = 0; y < height; y++)
    putLine(
      data,
      4 * width * y,
      width,
      readers.map(row => row(y)),
      ycc,
    );
  return {width, height, data};
}

export {readJpeg};
