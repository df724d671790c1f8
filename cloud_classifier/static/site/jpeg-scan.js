// The Huffman codes of a JPEG's scans, sequential and progressive (ITU T.81, annexes F and G).

import {damaged} from './errors.js';
import {ZIGZAG} from './jpeg-parts.js';

class Bits {
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at;
    this.restart();
  }

  restart() {
    this.bits = this.count = this.missing = 0; // missing: how many of the bits are zeros that stand behind the end
    this.ended = false;
  }

  // Have 24 bits or more; behind the end of the scan they are 0.
  fill() {
    const {bytes} = this;
    while (this.count <= 23) {
      let byte = 0;
      if (!this.ended) {
        byte = bytes[this.at++];
        if (byte === 0xff) {
          while (bytes[this.at] === 0xff) this.at++;
          if (bytes[this.at] === 0) this.at++;
          else {
            this.ended = true;
            byte = 0;
          }
        }
      }
      if (this.ended) this.missing += 8;
      this.bits = (this.bits << 8) | byte;
      this.count += 8;
    }
  }

  get exhausted() {
    return this.missing > this.count;
  }

  take(n) {
    if (n === 0) return 0;
    if (this.count < n) this.fill();
    this.count -= n;
    return (this.bits >>> this.count) & ((1 << n) - 1);
  }

  // A number of n bits whose first bit is its sign.
  signed(n) {
    const value = this.take(n);
    return n && value < 1 << (n - 1) ? value - (1 << n) + 1 : value;
  }

  symbol({fast, max, offset, symbols}) {
    if (this.count < 16) this.fill();
    const code = (this.bits >>> (this.count - 16)) & 0xffff;
    const entry = fast[code >> 7];
    if (entry) {
      this.count -= entry >> 8;
      return entry & 255;
    }
    for (let n = 10; n <= 16; n++) {
      const c = code >> (16 - n);
      if (c > max[n]) continue;
      this.count -= n;
      return symbols[offset[n] + c];
    }
    this.count -= 16;
    return 0; // no such code: libjpeg warns and goes on
  }
}

function sequential(bits, part, block, at) {
  const t = bits.symbol(part.dc);
  part.predicted += bits.signed(t & 15);
  block[at] = part.predicted;
  for (let k = 1; k < 64; k++) {
    const rs = bits.symbol(part.ac);
    const s = rs & 15;
    k += rs >> 4;
    if (s) {
      const value = bits.signed(s);
      if (k < 64) block[at + ZIGZAG[k]] = value;
    } else if (rs !== 0xf0) return;
  }
}

function firstDc(bits, part, block, at, scan) {
  part.predicted += bits.signed(bits.symbol(part.dc) & 15);
  block[at] = part.predicted << scan.low;
}

function laterDc(bits, part, block, at, scan) {
  if (bits.take(1)) block[at] |= 1 << scan.low;
}

function firstAc(bits, part, block, at, scan) {
  if (scan.run > 0) return void scan.run--;
  for (let k = scan.from; k <= scan.to; k++) {
    const rs = bits.symbol(part.ac);
    const r = rs >> 4;
    const s = rs & 15;
    if (s) {
      k += r;
      const value = bits.signed(s);
      if (k < 64) block[at + ZIGZAG[k]] = value << scan.low;
    } else if (r === 15) k += 15;
    else {
      scan.run = (1 << r) - 1 + bits.take(r);
      return;
    }
  }
}

function refine(bits, block, i, bit) {
  if (bits.take(1) && !(Math.abs(block[i]) & bit)) block[i] += block[i] < 0 ? -bit : bit;
}

function laterAc(bits, part, block, at, scan) {
  const bit = 1 << scan.low;
  let k = scan.from;
  if (scan.run === 0) {
    for (; k <= scan.to; k++) {
      const rs = bits.symbol(part.ac);
      const s = rs & 15;
      let r = rs >> 4;
      let value = 0;
      if (s) value = bits.take(1) ? bit : -bit;
      else if (r < 15) {
        scan.run = (1 << r) + bits.take(r);
        break;
      }
      for (; k <= scan.to; k++) {
        const i = at + ZIGZAG[k];
        if (block[i]) refine(bits, block, i, bit);
        else if (--r < 0) break;
      }
      if (value && k < 64) block[at + ZIGZAG[k]] = value;
    }
  }
  if (scan.run > 0) {
    for (; k <= scan.to; k++) if (block[at + ZIGZAG[k]]) refine(bits, block, at + ZIGZAG[k], bit);
    scan.run--;
  }
}

function decoderOf({progressive}, {from, high}) {
  if (!progressive) return sequential;
  if (from === 0) return high ? laterDc : firstDc;
  return high ? laterAc : firstAc;
}

function checkTables({components, from}, {progressive}) {
  for (const {dc, ac} of components)
    if (((!progressive || from === 0) && !dc) || ((!progressive || from > 0) && !ac))
      throw damaged('a table is missing');
}

// Where the blocks of a scan are, one after the other: of a single component row by row, of several unit by unit.
function* unitsOf(frame, components) {
  if (components.length === 1) {
    const [part] = components;
    const {component: c} = part;
    const across = Math.ceil(Math.ceil((frame.width * c.h) / frame.maxH) / 8);
    const down = Math.ceil(Math.ceil((frame.height * c.v) / frame.maxV) / 8);
    for (let y = 0; y < down; y++) for (let x = 0; x < across; x++) yield [[part, x, y]];
    return;
  }
  const list = components.flatMap(part =>
    Array.from({length: part.component.h * part.component.v}, () => [part, 0, 0]),
  );
  for (let v = 0; v < frame.unitsDown; v++)
    for (let u = 0; u < frame.unitsAcross; u++) {
      let i = 0;
      for (const {component: c} of components)
        for (let y = 0; y < c.v; y++)
          for (let x = 0; x < c.h; x++, i++) {
            list[i][1] = u * c.h + x;
            list[i][2] = v * c.v + y;
          }
      yield list;
    }
}

// Step over a restart marker.
function nextInterval(bits, scan) {
  const {bytes} = bits;
  let at = bits.ended ? bits.at - 1 : bits.at - (bits.count >> 3);
  while (at < bytes.length && !(bytes[at] === 0xff && bytes[at + 1] >= 0xd0 && bytes[at + 1] <= 0xd9)) at++;
  if (bytes[at + 1] <= 0xd7) {
    bits.at = at + 2;
    bits.restart();
  }
  for (const part of scan.components) part.predicted = 0;
  scan.run = 0;
}

// Decode a scan; `put(component, x, y, block, at)` gets each block of a sequential one, the others keep theirs.
export function decodeScan({bytes, frame}, scan, put) {
  checkTables(scan, frame);
  const bits = new Bits(bytes, scan.begin);
  const decode = decoderOf(frame, scan);
  const own = new Int32Array(64);
  for (const part of scan.components) part.predicted = 0;
  scan.run = 0;
  let left = scan.interval;
  for (const unit of unitsOf(frame, scan.components)) {
    if (scan.interval && left-- === 0) {
      nextInterval(bits, scan);
      left = scan.interval - 1;
    }
    const exhausted = bits.exhausted;
    for (const [part, x, y] of unit) {
      const {component} = part;
      if (frame.progressive) {
        if (!exhausted) decode(bits, part, component.coefficients, 64 * (y * component.across + x), scan);
        continue;
      }
      own.fill(0);
      if (!exhausted) decode(bits, part, own, 0, scan);
      put(component, x, y, own, 0);
    }
  }
}
