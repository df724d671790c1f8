// PNG, decoded here: a browser would convert colours, round 16 bits and multiply by alpha in its own way.

import {latin1} from './bytes.js';
import {checkSize, damaged, notAnImage} from './errors.js';
import {orientationOf} from './exif.js';
import {inflate} from './inflate.js';

const CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}; // by the type of the colours
const DEPTHS = {0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16]};
// Of an interlaced PNG's seven passes: first column and row, steps.
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
];

const CRC = Uint32Array.from({length: 256}, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let c = 0xffffffff;
  for (const byte of bytes) c = CRC[(c ^ byte) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

// The chunks up to the last one with pixels, the pixels' compressed bytes apart.
function readChunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const chunks = {};
  const pixels = [];
  const texts = [];
  for (let at = 8; at + 8 <= bytes.length;) {
    const length = view.getUint32(at);
    const name = latin1(bytes.subarray(at + 4, at + 8));
    const content = bytes.subarray(at + 8, at + 8 + length);
    if (name === 'IDAT') pixels.push(content);
    else if (name === 'IEND') break;
    else if (!pixels.length && at + 8 + length > bytes.length) throw damaged('its end is missing');
    else if (!pixels.length && at + 12 + length > bytes.length) throw notAnImage();
    else if (!pixels.length && crc32(bytes.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length)) {
      chunks.broken = true;
      chunks[name] ??= content;
    } else if (['tEXt', 'zTXt', 'iTXt'].includes(name)) texts.push(content);
    else chunks[name] ??= content;
    at += 12 + length;
  }
  return {...chunks, pixels, texts};
}

export function readHeader(bytes, limits) {
  const chunks = readChunks(bytes);
  if (bytes.length < 16) throw notAnImage();
  if (!chunks.IHDR || chunks.IHDR.length < 13) throw damaged('its beginning is missing');
  const view = new DataView(chunks.IHDR.buffer, chunks.IHDR.byteOffset, 13);
  const header = {
    width: view.getUint32(0),
    height: view.getUint32(4),
    depth: view.getUint8(8),
    type: view.getUint8(9),
    interlaced: view.getUint8(12) === 1,
  };
  checkSize(header.width, header.height, limits);
  if (
    chunks.broken ||
    !chunks.pixels.length ||
    !DEPTHS[header.type]?.includes(header.depth) ||
    !header.width ||
    !header.height
  )
    throw notAnImage();
  return {...header, chunks, bits: header.depth * CHANNELS[header.type]};
}

const lineBytes = (width, bits) => Math.ceil((width * bits) / 8);

function passesOf({width, height, interlaced}) {
  if (!interlaced) return [{x: 0, y: 0, dx: 1, dy: 1, w: width, h: height}];
  return PASSES.map(([x, y, dx, dy]) => ({
    x,
    y,
    dx,
    dy,
    w: Math.ceil((width - x) / dx),
    h: Math.ceil((height - y) / dy),
  })).filter(({w, h}) => w > 0 && h > 0);
}

function paeth(a, b, c) {
  const p = a + b - c;
  const pa = Math.abs(p - a);
  const pb = Math.abs(p - b);
  const pc = Math.abs(p - c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

// Undo the filter of a line of `n` bytes at `at`; `above` is where the line before begins, negative for none.
function unfilter(data, filter, at, above, n, step) {
  const up = i => (above < 0 ? 0 : data[above + i]);
  const left = i => (i < step ? 0 : data[at + i - step]);
  const corner = i => (above < 0 || i < step ? 0 : data[above + i - step]);
  if (filter === 1) for (let i = step; i < n; i++) data[at + i] += data[at + i - step];
  else if (filter === 2 && above >= 0) for (let i = 0; i < n; i++) data[at + i] += data[above + i];
  else if (filter === 3) for (let i = 0; i < n; i++) data[at + i] += (left(i) + up(i)) >> 1;
  else if (filter === 4) for (let i = 0; i < n; i++) data[at + i] += paeth(left(i), up(i), corner(i));
  else if (filter > 4) throw damaged('unknown filter');
}

// A function that puts the pixel `x` of the line at `at` into RGBA at `to`, by the type of the colours.
function pixelReader({type, depth, chunks}) {
  const wide = depth === 16 ? 2 : 1;
  const {tRNS} = chunks;
  const clear = i => tRNS && (tRNS[2 * i] << 8) | tRNS?.[2 * i + 1];
  const small = (data, at, x) =>
    (data[at + ((x * depth) >> 3)] >> (8 - depth - ((x * depth) & 7))) & ((1 << depth) - 1);
  const put = (out, to, r, g, b, a) => {
    out[to] = r;
    out[to + 1] = g;
    out[to + 2] = b;
    out[to + 3] = a;
  };
  if (type === 0 && depth === 16)
    return (data, at, x, out, to) => {
      const v = Math.round(((data[at + 2 * x] << 8) | data[at + 2 * x + 1]) / 257);
      put(out, to, v, v, v, 255);
    };
  if (type === 0) {
    const scale = 255 / ((1 << depth) - 1);
    const none = !tRNS ? -1 : depth === 1 ? (clear(0) ? 255 : 0) : clear(0);
    return (data, at, x, out, to) => {
      const v = (depth === 8 ? data[at + x] : small(data, at, x)) * scale;
      put(out, to, v, v, v, v === none ? 0 : 255);
    };
  }
  if (type === 3) {
    const palette = chunks.PLTE ?? [];
    return (data, at, x, out, to) => {
      const i = depth === 8 ? data[at + x] : small(data, at, x);
      put(out, to, palette[3 * i] ?? 0, palette[3 * i + 1] ?? 0, palette[3 * i + 2] ?? 0, tRNS?.[i] ?? 255);
    };
  }
  if (type === 4)
    return (data, at, x, out, to) => {
      const v = data[at + 2 * wide * x];
      put(out, to, v, v, v, data[at + 2 * wide * x + wide]);
    };
  if (type === 6)
    return (data, at, x, out, to) => {
      for (let c = 0, from = at + 4 * wide * x; c < 4; c++, from += wide) out[to + c] = data[from];
    };
  const none = tRNS && [0, 1, 2].map(clear);
  return (data, at, x, out, to) => {
    const from = at + 3 * wide * x;
    const r = data[from];
    const g = data[from + wide];
    const b = data[from + 2 * wide];
    put(out, to, r, g, b, none && r === none[0] && g === none[1] && b === none[2] ? 0 : 255);
  };
}

function textOf(texts, key) {
  const found = texts.find(t => latin1(t.subarray(0, key.length + 1)) === key + '\0');
  return found ?? null;
}

// Of the two places where a PNG keeps its Exif only the chunk is read by cameras' software.
export const orientationOfPng = ({chunks}) => orientationOf(chunks.eXIf, textOf(chunks.texts, 'XML:com.adobe.xmp'));

// The pixels, RGBA.
export async function decodePng(header) {
  const {width, height, bits, chunks} = header;
  const passes = passesOf(header);
  const step = Math.max(1, bits >> 3);
  const size = passes.reduce((n, {w, h}) => n + h * (1 + lineBytes(w, bits)), 0);
  const data = await inflate(chunks.pixels, size);
  const out = new Uint8ClampedArray(4 * width * height);
  const put = pixelReader(header);
  let at = 0;
  for (const {x, y, dx, dy, w, h} of passes) {
    const n = lineBytes(w, bits);
    for (let row = 0, above = -1; row < h; row++, at += n + 1) {
      unfilter(data, data[at], at + 1, above, n, step);
      above = at + 1;
      for (let i = 0, to = 4 * ((y + row * dy) * width + x); i < w; i++, to += 4 * dx) put(data, at + 1, i, out, to);
    }
  }
  return {width, height, data: out};
}
