// What the segments of a JPEG say: its size, its orientation, its tables and scans, and what decoding would take.
// A browser shows a JPEG that is cut off, and none says so; Python refuses it, and so does this.

import {join} from './bytes.js';
import {damaged, notAnImage, tooLarge} from './errors.js';
import {orientationOf} from './exif.js';

const SOI = 0xd8, EOI = 0xd9, SOS = 0xda, DQT = 0xdb, DHT = 0xc4, DRI = 0xdd, APP0 = 0xe0, APP1 = 0xe1, APP14 = 0xee;
const isFrame = m => m >= 0xc0 && m < 0xd0 && ![0xc4, 0xc8, 0xcc].includes(m);
export const ZIGZAG = Uint8Array.of(
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55,
  62, 63);

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
  const frame = {marker, progressive: marker === 0xc2, bits: content[0], height: view.getUint16(1), width: view.getUint16(3),
                 components: components.map(([id, sampling, table]) => ({id, h: sampling >> 4, v: sampling & 15, table}))};
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
    const wide = content[at] >> 4, table = tables[content[at++] & 3] = new Int32Array(64);
    for (let i = 0; i < 64; i++, at += wide ? 2 : 1) table[ZIGZAG[i]] = wide ? content[at] << 8 | content[at + 1] : content[at];
  }
}

// A Huffman code: of 9 bits the length and the symbol at once, of more the largest code and where its symbols are.
function huffman(counts, symbols) {
  const fast = new Uint16Array(512), max = new Int32Array(18).fill(-1), offset = new Int32Array(17);
  let code = 0, k = 0;
  for (let n = 1; n <= 16; n++, code <<= 1) {
    offset[n] = k - code;
    for (let i = 0; i < counts[n - 1]; i++, code++, k++)
      if (n <= 9) fast.fill(n << 8 | symbols[k], code << (9 - n), (code + 1) << (9 - n));
    if (counts[n - 1]) max[n] = code - 1;
  }
  return {fast, max, offset, symbols};
}

function readHuffman(content, tables) {
  for (let at = 0; at + 17 <= content.length;) {
    const counts = content.subarray(at + 1, at + 17), n = counts.reduce((a, b) => a + b, 0);
    tables[content[at] & 0x13] = huffman(counts, content.subarray(at + 17, at + 17 + n));
    at += 17 + n;
  }
}

// A scan with the tables that are in force where it begins.
function readScan(content, frame, state, begin) {
  const components = [];
  for (let i = 0; i < content[0]; i++) {
    const component = frame.components.find(c => c.id === content[1 + 2 * i]), tables = content[2 + 2 * i];
    if (!component) throw damaged('a scan of an unknown component');
    components.push({component, dc: state.huffman[tables >> 4 & 3], ac: state.huffman[16 | tables & 3]});
    component.quantisation ??= state.quantisation[component.table];
  }
  const [from, to, approximation] = content.subarray(1 + 2 * content[0]);
  return {components, from, to, high: approximation >> 4, low: approximation & 15, interval: state.interval, begin};
}

function checkCost({frame, scans}, limits) {
  const blocks = scans.flatMap(s => s.components).reduce((n, {component}) => n + component.blocks, 0);
  if (scans.length > limits.jpeg_scans)
    throw tooLarge(`has ${scans.length} scans, over the limit of ${limits.jpeg_scans}; save it again as JPEG or PNG`);
  if (scans.length > 1 && blocks > limits.jpeg_blocks)
    throw tooLarge('has too many blocks to decode in all its scans; save it again as JPEG or PNG');
}

// Size, orientation, tables and scans; `BadImage` where the file is cut off, or no decoder would take it.
export function readJpeg(bytes, limits) {
  const jpeg = {bytes, frame: null, scans: [], adobe: null, jfif: false};
  const state = {quantisation: [], huffman: [], interval: 0}, exif = [];
  let xmp = null, ended = false, cut = false, begin = 2;
  for (let next = nextMarker(bytes, 2); next; next = nextMarker(bytes, begin)) {
    const {marker, at} = next;
    begin = at + 1;
    if (marker === EOI) {
      ended = true;
      break;
    }
    if (marker < 0xc0 || marker === SOI) continue; // no length follows
    const length = Math.max(bytes[at + 1] << 8 | bytes[at + 2], 2), content = bytes.subarray(at + 3, at + 1 + length);
    begin += length;
    if (begin > bytes.length) {
      cut = at + 3 <= bytes.length;
      break;
    }
    if (marker === APP0 && startsWith(content, 'JFIF\0')) jpeg.jfif = true;
    else if (marker === APP1 && startsWith(content, 'Exif\0\0')) exif.push(content.subarray(6));
    else if (marker === APP1 && startsWith(content, 'http://ns.adobe.com/xap/1.0/\0')) xmp = content;
    else if (marker === APP14 && startsWith(content, 'Adobe') && content.length >= 12) jpeg.adobe = content[11];
    else if (marker === DQT) readQuantisation(content, state.quantisation);
    else if (marker === DHT) readHuffman(content, state.huffman);
    else if (marker === DRI) state.interval = content[0] << 8 | content[1];
    else if (isFrame(marker)) jpeg.frame = readFrame(marker, content);
    else if (marker === SOS && jpeg.frame) {
      jpeg.scans.push(readScan(content, jpeg.frame, state, begin));
      checkCost(jpeg, limits);
    }
  }
  if (!jpeg.scans.length && !cut) throw notAnImage();
  if (!ended) throw damaged('its end is missing');
  const {width, height} = jpeg.frame;
  if (!width || !height) throw notAnImage();
  return {...jpeg, width, height, orientation: orientationOf(exif.length && join(exif), xmp)};
}

