// Bytes as they are read: text of one byte a character (TextDecoder's latin1 is another one), and several made one.

export const latin1 = bytes => Array.from(bytes, b => String.fromCharCode(b)).join('');

export function join(parts) {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
