// What the segments of a JPEG say: its size, its orientation, its tables and scans, and what decoding would take.
// A browser shows a JPEG that is cut off, and none says so; Python refuses it, and so does this.

import {join} from './bytes.js';
import {damaged, notAnImage, tooLarge} from './errors.js';
import {orientationOf} from './exif.js';

const SOI = 0xd8;
const EOI = 0xd9;
const SOS = 0xda;
const DQT = 0xdb;
const DHT = 0xc4;
const DRI = 0xdd;
const APP0 = 0xe0;
const APP1 = 0xe1;
const APP14 = 0xee;
const isFrame = m => m >= 0xc0 && m < 0xd0 && ![0xc4, 0xc8, 0xcc].includes(m);
export const ZIGZAG = Uint8Array.of(
  0,
  1,
  8,
  16,
  9,
  2,
  3,
  10,
  17,
  24,
  32,
  25,
  18,
  11,
  4,
  5,
  12,
  19,
  26,
  33,
  40,
  48,
  41,
  34,
  27,
  20,
  13,
  6,
  7,
  14,
  21,
  28,
  35,
  42,
  49,
  56,
  57,
  50,
  43,
  36,
  29,
  22,
  15,
  23,
  30,
  37,
  44,
  51,
  58,
  59,
  52,
  45,
  38,
  31,
  39,
  46,
  53,
  60,
  61,
  54,
  47,
  55,
  62,
  63,
);

const startsWith = (content, text) => [...text].every((c, i) => content[i] === c.charCodeAt(0));

// The first marker from a place on, {marker, at: the place of its second byte}; null at the end of the file.
function nextMarker(bytes, at) {
  for (at = bytes.indexOf(0xff, at); at >= 0 && at + 1 < bytes.length; at = bytes.indexOf(0xff, at + 1)) {
    const m = bytes[at + 1];
    if (m > 1 && m < 0xff && !(m >= 0xd0 && m < SOI)) return {marker: m, at: at + 1};
  }
  return null;
}

function readFrame(marker, content) {
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const components = Array.from({length: content[5]}, (_, i) => content.subarray(6 + 3 * i, 9 + 3 * i));
  const frame = {
    marker,
    progressive: marker === 0xc2,
    bits: content[0],
    height: view.getUint16(1),
    width: view.getUint16(3),
    components: components.map(([id, sampling, table]) => ({id, h: sampling >> 4, v: sampling & 15, table})),
  };
  if (frame.bits !== 8 || ![1, 3, 4].includes(frame.components.length)) throw notAnImage();
  if (frame.components.some(c => !c.h || !c.v || c.h > 4 || c.v > 4)) throw damaged('bogus sampling factors');
  frame.maxH = Math.max(...frame.components.map(c => c.h));
  frame.maxV = Math.max(...frame.components.map(c => c.v));
  for (const c of frame.components) {
    c.blocks = Math.ceil(frame.width / (8 * frame.maxH)) * Math.ceil(frame.height / (8 * frame.maxV)) * c.h * c.v;
  }
  return frame;
}

// Tables of quantisation, in the order of a block's rows.
function readQuantisation(content, tables) {
  for (let at = 0; at < content.length;) {
    const wide = content[at] >> 4;
    const table = (tables[content[at++] & 3] = new Int32Array(64));
    for (let i = 0; i < 64; i++, at += wide ? 2 : 1)
      table[ZIGZAG[i]] = wide ? (content[at] << 8) | content[at + 1] : content[at];
  }
}

// A Huffman code: of 9 bits the length and the symbol at once, of more the largest code and where its symbols are.
function huffman(counts, symbols) {
  const fast = new Uint16Array(512);
  const max = new Int32Array(18).fill(-1);
  const offset = new Int32Array(17);
  let code = 0;
  let k = 0;
  for (let n = 1; n <= 16; n++, code <<= 1) {
    offset[n] = k - code;
    for (let i = 0; i < counts[n - 1]; i++, code++, k++)
      if (n <= 9) fast.fill((n << 8) | symbols[k], code << (9 - n), (code + 1) << (9 - n));
    if (counts[n - 1]) max[n] = code - 1;
  }
  return {fast, max, offset, symbols};
}

function readHuffman(content, tables) {
  for (let at = 0; at + 17 <= content.length;) {
    const counts = content.subarray(at + 1, at + 17);
    const n = counts.reduce((a, b) => a + b, 0);
    tables[content[at] & 0x13] = huffman(counts, content.subarray(at + 17, at + 17 + n));
    at += 17 + n;
  }
}

// A scan with the tables that are in force where it begins.
function readScan(content, frame, tables, begin) {
  const components = [];
  for (let i = 0; i < content[0]; i++) {
    const component = frame.components.find(c => c.id === content[1 + 2 * i]);
    const codes = content[2 + 2 * i];
    if (!component) throw damaged('a scan of an unknown component');
    components.push({component, dc: tables.huffman[(codes >> 4) & 3], ac: tables.huffman[16 | (codes & 3)]});
    component.quantisation ??= tables.quantisation[component.table];
  }
  const [from, to, approximation] = content.subarray(1 + 2 * content[0]);
  return {components, from, to, high: approximation >> 4, low: approximation & 15, interval: tables.interval, begin};
}

function checkCost({scans}, limits) {
  const blocks = scans.flatMap(s => s.components).reduce((n, {component}) => n + component.blocks, 0);
  if (scans.length > limits.jpeg_scans)
    throw tooLarge(`has ${scans.length} scans, over the limit of ${limits.jpeg_scans}; save it again as JPEG or PNG`);
  if (scans.length > 1 && blocks > limits.jpeg_blocks)
    throw tooLarge('has too many blocks to decode in all its scans; save it again as JPEG or PNG');
}

// The segments of a JPEG up to its end, {marker, content, end: the place behind it}; of one that is cut off no content.
function* segmentsOf(bytes) {
  let at = 2;
  for (let next = nextMarker(bytes, at); next; next = nextMarker(bytes, at)) {
    const {marker} = next;
    at = next.at + 1;
    if (marker === EOI) return void (yield {marker});
    if (marker < 0xc0 || marker === SOI) continue; // no length follows
    const length = Math.max((bytes[at] << 8) | bytes[at + 1], 2);
    if (at + length > bytes.length) return void (at + 2 <= bytes.length && (yield {marker}));
    yield {marker, content: bytes.subarray(at + 2, at + length), end: at + length};
    at += length;
  }
}

function readTags(content, jpeg) {
  if (startsWith(content, 'Exif\0\0')) jpeg.exif.push(content.subarray(6));
  else if (startsWith(content, 'http://ns.adobe.com/xap/1.0/\0')) jpeg.xmp = content;
}

const READERS = {
  [APP0]: (content, jpeg) => (jpeg.jfif ||= startsWith(content, 'JFIF\0')),
  [APP1]: readTags,
  [APP14]: (content, jpeg) => {
    if (startsWith(content, 'Adobe') && content.length >= 12) jpeg.adobe = content[11];
  },
  [DQT]: (content, {tables}) => readQuantisation(content, tables.quantisation),
  [DHT]: (content, {tables}) => readHuffman(content, tables.huffman),
  [DRI]: (content, {tables}) => (tables.interval = (content[0] << 8) | content[1]),
  [SOS]: (content, {frame, scans, tables}, end) => frame && scans.push(readScan(content, frame, tables, end)),
};

// Size, orientation, tables and scans; `BadImage` where the file is cut off, or no decoder would take it.
export function readJpeg(bytes, limits) {
  const tables = {quantisation: [], huffman: [], interval: 0};
  const jpeg = {bytes, frame: null, scans: [], adobe: null, jfif: false, exif: [], xmp: null, tables};
  let last = {};
  for (const segment of segmentsOf(bytes)) {
    const {marker, content, end} = (last = segment);
    if (!content) break;
    if (isFrame(marker)) jpeg.frame = readFrame(marker, content);
    else READERS[marker]?.(content, jpeg, end);
    checkCost(jpeg, limits);
  }
  const {frame, scans, exif, xmp} = jpeg;
  if (!scans.length && (last.content || last.marker === EOI || !last.marker)) throw notAnImage();
  if (last.marker !== EOI) throw damaged('its end is missing');
  if (!frame.width || !frame.height) throw notAnImage();
  return {
    ...jpeg,
    width: frame.width,
    height: frame.height,
    orientation: orientationOf(exif.length && join(exif), xmp),
  };
}
