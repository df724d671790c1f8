// The one way a file becomes an upright image: what `images.open_image` does, and the same refusals.

import {latin1} from './bytes.js';
import {BadImage, checkMemory, checkSize, damaged, empty, notAnImage, tooLarge, unsupported} from './errors.js';
import {orientationOf} from './exif.js';
import {overWhite, upright} from './image.js';
import {decodeJpeg, readJpeg} from './jpeg.js';
import {decodePng, orientationOfPng, readHeader} from './png.js';
import {shrinking} from './preprocess.js';
import {decodeTiff} from './tiff.js';

const BAND = 1 << 20; // pixels that are read from a canvas at a time: a phone's canvas holds no 48 megapixels
const AS_STORED = {colorSpaceConversion: 'none', imageOrientation: 'none'};

// Read a bitmap over white, in bands of rows.
function readBitmap(bitmap) {
  const {width, height} = bitmap;
  const rows = Math.max(1, Math.floor(BAND / width));
  const data = new Uint8ClampedArray(4 * width * height);
  const canvas = new OffscreenCanvas(width, Math.min(rows, height));
  const context = canvas.getContext('2d', {willReadFrequently: true, colorSpace: 'srgb'});
  context.fillStyle = 'white';
  for (let top = 0; top < height; top += rows) {
    const n = Math.min(rows, height - top);
    context.fillRect(0, 0, width, n);
    context.drawImage(bitmap, 0, top, width, n, 0, 0, width, n);
    data.set(context.getImageData(0, 0, width, n, {colorSpace: 'srgb'}).data, 4 * width * top);
  }
  return {width, height, data};
}

// The pixels with their alpha, where the browser gives them: a canvas would have multiplied one by the other.
async function readDecoded(blob, limits) {
  const decoder = new ImageDecoder({
    data: blob.stream(),
    type: blob.type,
    colorSpaceConversion: 'none',
    premultiplyAlpha: 'none',
  });
  try {
    const {image: frame} = await decoder.decode();
    if (frame.format === 'I420') { // of a photo that came whole, without alpha: a canvas rounds its colours as others do
      frame.close();
      throw new Error('YUV');
    }
    const {codedWidth: width, codedHeight: height} = frame;
    checkSize(width, height, limits);
    checkMemory(width, height, 4, limits.more, limits);
    const data = new Uint8ClampedArray(4 * width * height);
    await frame.copyTo(data, {format: 'RGBA'});
    frame.close();
    return {width, height, data: overWhite(data)};
  } finally {
    decoder.close();
  }
}

// What the browser decodes, colours and orientation as they are stored.
async function decodeNatively(blob, limits, failure = damaged("the browser can't decode it")) {
  if (blob.type === 'image/webp' && globalThis.ImageDecoder) {
    const image = await readDecoded(blob, limits).catch(error => error);
    if (image instanceof BadImage) throw image;
    if (!(image instanceof Error)) return image; // a browser whose decoder can't do it has a canvas still
  }
  const bitmap = await createImageBitmap(blob, AS_STORED).catch(() => {
    throw failure;
  });
  try {
    checkSize(bitmap.width, bitmap.height, limits);
    checkMemory(bitmap.width, bitmap.height, 4, limits.more, limits);
    return readBitmap(bitmap);
  } finally {
    bitmap.close();
  }
}

// What it takes to keep all coefficients of a JPEG of several scans, or to convert or turn its pixels.
function checkJpegMemory({width, height, scans, frame: {components}, orientation}, by, limits) {
  const w = Math.ceil(width / by);
  const h = Math.ceil(height / by);
  const plain = components.length === 3 && orientation === 1;
  const blocks = scans.length > 1 ? components.reduce((n, c) => n + c.blocks, 0) : 0;
  checkMemory(w, h, components.length === 1 ? 1 : 4, Math.max((128 * blocks) / (w * h), plain ? 0 : 4), limits);
}

async function openJpeg(bytes, side, limits) {
  const jpeg = readJpeg(bytes, limits);
  const by = shrinking(jpeg.width, jpeg.height, side);
  checkSize(jpeg.width, jpeg.height, limits);
  checkJpegMemory(jpeg, by, limits);
  return upright(decodeJpeg(jpeg, by), jpeg.orientation);
}

async function openPng(bytes, side, limits) {
  const header = readHeader(bytes, limits);
  const {width, height, type, depth, chunks} = header;
  const orientation = orientationOfPng(header);
  const plain = type === 2 && !chunks.tRNS && orientation === 1;
  checkMemory(width, height, type === 0 || type === 3 ? Math.ceil(depth / 8) : 4, plain ? 0 : 4, limits);
  const image = await decodePng(header);
  overWhite(image.data);
  return upright(image, orientation);
}

// The chunks of a WebP without its profile and its tags, and what the tags say of the orientation.
function readWebp(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const kept = [];
  const tags = {};
  if (view.getUint32(4, true) + 8 > bytes.length) throw damaged('its end is missing');
  for (let at = 12; at + 8 <= bytes.length;) {
    const name = latin1(bytes.subarray(at, at + 4));
    const size = view.getUint32(at + 4, true);
    const end = at + 8 + size + (size & 1);
    if (['EXIF', 'XMP ', 'ICCP'].includes(name)) tags[name] = bytes.subarray(at + 8, at + 8 + size);
    else kept.push(name === 'VP8X' ? withoutTags(bytes.slice(at, end)) : bytes.subarray(at, end));
    at = end;
  }
  const head = bytes.slice(0, 12);
  new DataView(head.buffer).setUint32(4, 4 + kept.reduce((n, part) => n + part.length, 0), true);
  return {
    orientation: orientationOf(tags.EXIF, tags['XMP ']),
    plain: new Blob([head, ...kept], {type: 'image/webp'}),
  };
}

function withoutTags(chunk) {
  chunk[8] &= ~0x2c; // flags: a profile, Exif, XMP
  return chunk;
}

async function openWebp(bytes, side, limits) {
  const {orientation, plain} = readWebp(bytes);
  return upright(await decodeNatively(plain, {...limits, more: 14}), orientation);
}

const openOther =
  (type, failure, more = 0) =>
  (bytes, side, limits) =>
    decodeNatively(new Blob([bytes], {type}), {...limits, more}, failure);

async function openTiff(bytes, side, limits) {
  const {image, orientation} = await decodeTiff(bytes, limits);
  overWhite(image.data);
  return upright(image, orientation);
}

// A portable pixmap or greymap, of bytes or of pairs of bytes.
function openPpm(bytes, side, limits) {
  const match =
    /^P([56])(?:\s+|#[^\r\n]*[\r\n])+(\d+)(?:\s+|#[^\r\n]*[\r\n])+(\d+)(?:\s+|#[^\r\n]*[\r\n])+(\d+)\s/.exec(
      latin1(bytes.subarray(0, 65536)),
    );
  if (!match) throw damaged('its header is missing');
  const [channels, width, height, top] = [match[1] === '6' ? 3 : 1, +match[2], +match[3], +match[4]];
  checkSize(width, height, limits);
  const n = width * height;
  const step = top > 255 ? 2 : 1;
  const data = new Uint8ClampedArray(4 * n);
  if (bytes.length - match[0].length < n * channels * step) throw damaged('image file is truncated');
  const value = i =>
    step === 1
      ? bytes[match[0].length + i]
      : (bytes[match[0].length + 2 * i] << 8) | bytes[match[0].length + 2 * i + 1];
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < 3; c++)
      data[4 * i + c] = Math.min(255, Math.round((value(channels * i + (c % channels)) / top) * 255));
    data[4 * i + 3] = 255;
  }
  return {width, height, data};
}

const FORMATS = [
  // by the first bytes; adding a format is adding a line
  [/^\xff\xd8\xff/, openJpeg],
  [/^\x89PNG\r\n\x1a\n/, openPng],
  [/^RIFF....WEBP/s, openWebp],
  [/^GIF8[79]a/, openOther('image/gif')],
  [/^....ftypavi[fs]/s, openOther('image/avif', notAnImage(), 12)],
  [/^BM/, openOther('image/bmp')],
  [/^(II\*\0|MM\0\*)/, openTiff],
  [/^P[56]/, openPpm],
  [
    /^P[1-4]\s/,
    () => {
      throw unsupported('plain PPM');
    },
  ],
];

const isRaw = (name, suffixes) => suffixes[name.toLowerCase().match(/\.[^.]*$/)?.[0]] === 'RAW';

// The format of a photo that Python can't open, and so this may not; '' for anything else.
function unreadableFormat(name, head, {magic, suffixes}) {
  if (/^(?:II\*\0|MM\0\*)/.test(head) && isRaw(name, suffixes)) return 'RAW';
  const format = Object.keys(magic).find(o => new RegExp(`^(?:${magic[o]})`, 's').test(head)) ?? '';
  return format === 'AVIF' || (format === 'HEIC' && head.includes('avif')) ? '' : format;
}

// The upright image of a photo {name, bytes}; `BadImage` says what is wrong with it. `side`: see `shrinking`.
export async function openPhoto({name, bytes}, side, {limits, unreadable}) {
  if (!bytes.length) throw empty();
  const head = latin1(bytes.subarray(0, 64));
  const format = unreadableFormat(name, head, unreadable);
  if (format) throw unsupported(format);
  const open = FORMATS.find(([magic]) => magic.test(head))?.[1];
  if (!open) throw notAnImage();
  try {
    return await open(bytes, side, limits);
  } catch (error) {
    if (error instanceof BadImage) throw error;
    if (error instanceof RangeError && /alloc|length/i.test(error.message))
      throw tooLarge('needs more memory than the browser gives');
    throw damaged(error.message);
  }
}
