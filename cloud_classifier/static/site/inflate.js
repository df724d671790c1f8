// What zlib has compressed, by the browser's own means.

import {damaged} from './errors.js';

// Decompress `size` bytes; an error where there are fewer.
export async function inflate(parts, size) {
  const out = new Uint8Array(size);
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream('deflate'));
  const reader = stream.getReader();
  let at = 0;
  while (at < size) {
    const {value, done} = await reader.read().catch(() => ({done: true}));
    if (done) throw damaged('image file is truncated');
    out.set(value.subarray(0, size - at), at);
    at += value.length;
  }
  reader.cancel().catch(() => {});
  return out;
}
