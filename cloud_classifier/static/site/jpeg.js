// What the segments of a JPEG say: its size, its orientation, whether all of it is there, and what decoding would take.
// A browser shows a JPEG that is cut off, and none says so; Python refuses it, and so does this.

import {damaged, notAnImage, tooLarge, unsupported} from './errors.js';
import {orientationOf} from './exif.js';

const SOI = 0xd8, EOI = 0xd9, SOS = 0xda, DNL = 0xdc, APP1 = 0xe1, APP14 = 0xee;
const isFrame = m => m >= 0xc0 && m < 0xd0 && ![0xc4, 0xc8, 0xcc].includes(m);
const PROGRESSIVE = [0xc2, 0xc6, 0xca, 0xce];
// Those that decoders need: tables, frames, scans, and Adobe's note about the colours. Without the others no browser
// turns the picture or converts its colours on its own.
const isNeeded = m => isFrame(m) || [0xc4, 0xcc, SOS, 0xdb, DNL, 0xdd, 0xe0, APP14].includes(m);

const startsWith = (content, text) => [...text].every((c, i) => content[i] === c.charCodeAt(0));

function join(parts) {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// The first marker from a place on, {marker, at: the place of its second byte}; null at the end of the file.
function nextMarker(bytes, at) {
  for (at = bytes.indexOf(0xff, at); at >= 0 && at + 1 < bytes.length; at = bytes.indexOf(0xff, at + 1)) {
    const m = bytes[at + 1];
    if (m > 1 && m < 0xff && !(m >= 0xd0 && m < SOI)) return {marker: m, at: at + 1};
  }
  return null;
}

function readFrame(content) {
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const components = Array.from({length: content[5]}, (_, i) => content.subarray(6 + 3 * i, 9 + 3 * i));
  return {bits: content[0], height: view.getUint16(1), width: view.getUint16(3),
          components: components.map(([id, sampling]) => ({id, h: sampling >> 4, v: sampling & 15}))};
}

// Blocks of 8 x 8 pixels of each component, by its id.
function blocksOf({width, height, components}) {
  const h = Math.max(...components.map(c => c.h)), v = Math.max(...components.map(c => c.v));
  if (!(h * v)) return {};
  const units = Math.ceil(width / (8 * h)) * Math.ceil(height / (8 * v));
  return Object.fromEntries(components.map(c => [c.id, units * c.h * c.v]));
}

// Count a scan in `work`; refuse what would take too long.
function addScan(work, content, limits) {
  work.scans++;
  for (let i = 0; i < content[0]; i++) work.scanBlocks += work.blocks[content[1 + 2 * i]] ?? 0;
  if (work.scans > limits.jpeg_scans) throw tooLarge(`has more than ${limits.jpeg_scans} scans; save it again`);
  if (work.scanBlocks > limits.jpeg_blocks)
    throw tooLarge(`has too many blocks to decode in all its scans; save it again as JPEG or PNG`);
}

function checkFrame({bits, components}) {
  if (bits !== 8 || ![1, 3, 4].includes(components.length)) throw notAnImage();
}

// Size, orientation and a plain copy of a JPEG; `BadImage` where it is cut off, or no decoder would take it.
export function readJpeg(bytes, limits) {
  const exif = [], kept = [bytes.subarray(0, 2)];
  const work = {scans: 0, scanBlocks: 0, blocks: {}};
  let frame = null, xmp = null, ended = false, begin = 2;
  for (let next = nextMarker(bytes, 2); next; next = nextMarker(bytes, begin)) {
    const {marker, at} = next;
    if (work.scans) kept.push(bytes.subarray(begin, at - 1)); // the pixels of the scan before
    if (marker === EOI) {
      ended = true;
      break;
    }
    begin = at + 1;
    if (marker < 0xc0 || marker === SOI) continue; // no length follows
    const length = bytes[at + 1] << 8 | bytes[at + 2], content = bytes.subarray(at + 3, at + 1 + Math.max(length, 2));
    begin = at + 1 + Math.max(length, 2);
    if (begin > bytes.length) break;
    if (marker === APP1 && startsWith(content, 'Exif\0\0')) exif.push(content.subarray(6));
    if (marker === APP1 && startsWith(content, 'http://ns.adobe.com/xap/1.0/\0')) xmp = content;
    if (isFrame(marker)) {
      frame = {...readFrame(content), progressive: PROGRESSIVE.includes(marker)};
      checkFrame(frame);
      work.blocks = blocksOf(frame);
    }
    if (marker === SOS && frame) addScan(work, content, limits);
    if (isNeeded(marker)) kept.push(bytes.subarray(at - 1, begin));
  }
  if (!frame) throw notAnImage();
  if (!ended || !work.scans || !frame.width || !frame.height) throw damaged('its end is missing');
  kept.push(Uint8Array.of(0xff, EOI));
  return {...frame, orientation: orientationOf(exif.length && join(exif), xmp), plain: new Blob(kept, {type: 'image/jpeg'})};
}
