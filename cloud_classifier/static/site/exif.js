// The orientation that a photo was taken in.

import {latin1} from './bytes.js';

// The tag 0x0112 of Exif, which is a small TIFF file; 0 where it has none, or can't be read.
export function exifOrientation(bytes) {
  while (latin1(bytes.subarray(0, 6)) === 'Exif\0\0') bytes = bytes.subarray(6);
  const order = latin1(bytes.subarray(0, 4));
  if (!['II*\0', 'MM\0*', 'II\0*', 'MM*\0'].includes(order)) return 0;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const little = order[0] === 'I';
  try {
    const start = view.getUint32(4, little);
    for (let i = 0, n = view.getUint16(start, little), at = start + 2; i < n; i++, at += 12) {
      if (view.getUint16(at, little) !== 0x0112) continue;
      const type = view.getUint16(at + 2, little);
      return type === 3 ? view.getUint16(at + 8, little) : type === 4 ? view.getUint32(at + 8, little) : 0;
    }
  } catch {
    return 0;
  } // it ends too early
  return 0;
}

// Photo editors write the orientation into XMP, too.
export function xmpOrientation(bytes) {
  const match = /tiff:Orientation(?:="|>)([0-9])/.exec(latin1(bytes));
  return match ? +match[1] : 0;
}

export const orientationOf = (exif, xmp) => (exif && exifOrientation(exif)) || (xmp && xmpOrientation(xmp)) || 1;
