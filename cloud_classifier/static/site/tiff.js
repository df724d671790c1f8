// TIFF, which browsers don't show: the first image of a file, of whole bytes, in strips or tiles.

import {checkSize, damaged, notAnImage, unsupported} from './errors.js';
import {inflate} from './inflate.js';

const SIZES = {1: 1, 3: 2, 4: 4}; // bytes of a whole number, by the type of its tag
const TAGS = {
  256: 'width',
  257: 'height',
  258: 'bits',
  259: 'compression',
  262: 'photometric',
  273: 'strips',
  274: 'orientation',
  277: 'samples',
  278: 'rows',
  279: 'sizes',
  284: 'planar',
  317: 'predictor',
  320: 'palette',
  322: 'tileWidth',
  323: 'tileHeight',
  324: 'tiles',
  325: 'tileSizes',
  338: 'extra',
  339: 'format',
  50706: 'dng',
};
const DEFAULTS = {
  bits: [1],
  compression: [1],
  samples: [1],
  planar: [1],
  predictor: [1],
  orientation: [1],
  format: [1],
};

function readTags(view, little) {
  const tags = {...DEFAULTS};
  const start = view.getUint32(4, little);
  for (let i = 0, n = view.getUint16(start, little), at = start + 2; i < n; i++, at += 12) {
    const name = TAGS[view.getUint16(at, little)];
    const size = SIZES[view.getUint16(at + 2, little)];
    if (!name || !size) continue;
    const count = view.getUint32(at + 4, little);
    const from = count * size <= 4 ? at + 8 : view.getUint32(at + 8, little);
    const get = {1: 'getUint8', 2: 'getUint16', 4: 'getUint32'}[size];
    tags[name] = Array.from({length: count}, (_, k) => view[get](from + k * size, little));
  }
  return tags;
}

function tagsOf(view, little) {
  try {
    return readTags(view, little);
  } catch {
    throw notAnImage();
  } // they end too early
}

// Codes of 9 to 12 bits, the highest bit first (TIFF 6.0, section 13).
function unpackLzw(bytes, size) {
  const out = new Uint8Array(size);
  const start = new Uint32Array(4097);
  const length = new Uint16Array(4097);
  let at = 0;
  let next = 258;
  let width = 9;
  let before = -1;
  let bits = 0;
  let count = 0;
  for (const byte of bytes) {
    bits = (bits << 8) | byte;
    count += 8;
    if (count < width) continue;
    count -= width;
    const code = (bits >>> count) & ((1 << width) - 1);
    bits &= (1 << count) - 1;
    if (code === 257 || at >= size) break;
    if (code === 256) {
      [next, width, before] = [258, 9, -1];
      continue;
    }
    const begin = at;
    if (code < 256) out[at++] = code;
    else if (code < next) for (let k = 0; k < length[code]; k++) out[at++] = out[start[code] + k];
    else if (code > next || before < 0) throw damaged('bad LZW code');
    if (code === next)
      for (let k = 0; k <= before; k++) out[at++] = k < before ? out[begin - before + k] : out[begin - before];
    if (before >= 0 && next < 4096) {
      start[next] = begin - before;
      length[next++] = before + 1;
    }
    before = at - begin;
    if (next >= (1 << width) - 1 && width < 12) width++;
  }
  if (at < size) throw damaged('image file is truncated');
  return out;
}

function unpackBits(bytes, size) {
  const out = new Uint8Array(size);
  let at = 0;
  for (let i = 0; at < size;) {
    const n = bytes[i++];
    if (n === undefined) throw damaged('image file is truncated');
    if (n < 128) {
      out.set(bytes.subarray(i, i + Math.min(n + 1, size - at)), at);
      i += n + 1;
      at += n + 1;
    } else if (n > 128) {
      out.fill(bytes[i++], at, at + 257 - n);
      at += 257 - n;
    }
  }
  return out;
}

const UNPACK = {
  1: (bytes, size) => {
    if (bytes.length < size) throw damaged('image file is truncated');
    return bytes;
  },
  5: unpackLzw,
  8: (bytes, size) => inflate([bytes], size),
  32773: unpackBits,
  32946: (bytes, size) => inflate([bytes], size),
};

// Undo the differences between neighbours.
function addUp(data, width, height, step, wide, little) {
  for (let y = 0, line = width * step; y < height; y++)
    for (let i = y * line + step; i < (y + 1) * line; i++) {
      if (wide === 1) data[i] += data[i - step];
      else if (i % 2 === 0) {
        const [low, high] = little ? [i, i + 1] : [i + 1, i];
        const sum = data[low] + data[low - step] + 256 * (data[high] + data[high - step]);
        data[low] = sum;
        data[high] = sum >> 8;
      }
    }
}

// A function that makes RGBA of the samples of a pixel, each of which is a byte (or two, of which the first comes in).
function colouring({photometric: [kind], samples: [n], extra = [], palette = []}) {
  const alpha = extra[0] === 2 ? n - extra.length : -1;
  const last = (s, r, g, b) => [r, g, b, alpha < 0 ? 255 : s[alpha]];
  if (kind === 2 && n >= 3) return s => last(s, s[0], s[1], s[2]);
  if (kind === 1) return s => last(s, s[0], s[0], s[0]);
  if (kind === 0) return s => last(s, 255 - s[0], 255 - s[0], 255 - s[0]);
  if (kind === 3) return s => [0, 1, 2].map(c => palette[(c * palette.length) / 3 + s[0]] >> 8).concat(255);
  if (kind === 5 && n === 4)
    return s =>
      [0, 1, 2]
        .map(c => {
          const key = 255 - s[3];
          const product = s[c] * key + 128;
          return key - (((product >> 8) + product) >> 8);
        })
        .concat(255);
  throw unsupported('TIFF (of unusual colours)');
}

function check({bits, compression: [how], planar: [planar], format: [format], dng}) {
  if (dng) throw unsupported('RAW');
  if (!UNPACK[how]) throw unsupported(`TIFF (compression ${how})`);
  if (!bits.every(b => b === bits[0]) || ![8, 16].includes(bits[0]) || planar !== 1 || format !== 1)
    throw unsupported('TIFF (of unusual pixels)');
}

// The image, and the orientation that its tags tell.
export async function decodeTiff(bytes, limits) {
  const little = bytes[0] === 0x49;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const tags = tagsOf(view, little);
  const [[width], [height], [samples]] = [tags.width ?? [0], tags.height ?? [0], tags.samples];
  const wide = tags.bits[0] / 8;
  checkSize(width, height, limits);
  check(tags);
  const step = samples * wide;
  const colour = colouring(tags);
  const data = new Uint8ClampedArray(4 * width * height);
  const grey16 = wide === 2 && samples === 1;
  const [w, h] = tags.tiles
    ? [tags.tileWidth[0], tags.tileHeight[0]]
    : [width, Math.min(tags.rows?.[0] ?? height, height)];
  const places = tags.tiles ?? tags.strips ?? [];
  const sizes = tags.tileSizes ?? tags.sizes ?? [];
  const across = Math.ceil(width / w);
  if (places.length < across * Math.ceil(height / h)) throw damaged('its pixels are missing');
  for (let i = 0; i < places.length; i++) {
    const top = Math.floor(i / across) * h;
    const left = (i % across) * w;
    const rows = tags.tiles ? h : Math.min(h, height - top);
    const part = await UNPACK[tags.compression[0]](bytes.subarray(places[i], places[i] + sizes[i]), w * rows * step);
    const block = tags.predictor[0] === 2 ? part.slice() : part;
    const sample = [];
    if (tags.predictor[0] === 2) addUp(block, w, rows, step, wide, little);
    for (let y = 0; y < Math.min(rows, height - top); y++)
      for (let x = 0; x < Math.min(w, width - left); x++) {
        const at = (y * w + x) * step;
        const high = wide === 2 && little ? 1 : 0;
        for (let c = 0; c < samples; c++) sample[c] = block[at + c * wide + high];
        if (grey16) sample[0] = Math.round(((block[at + high] << 8) | block[at + 1 - high]) / 257);
        data.set(colour(sample), 4 * ((top + y) * width + left + x));
      }
  }
  return {image: {width, height, data}, orientation: tags.orientation[0]};
}
