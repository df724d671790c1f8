// From coefficients to 8 x 8 pixels, or to a half, a quarter or an eighth of them: libjpeg's accurate integer
// transforms (jidctint.c and jidctred.c), to the bit. All are in fixed point, 13 bits behind the point, 2 after the
// first pass.

const imul = Math.imul;
const clamp = v => (v < 0 ? 0 : v > 255 ? 255 : v);
const work = new Int32Array(64);

// One dimension of eight values, `step` apart, as they come from `a` and go to `work`.
function full(out, at, stride) {
  for (let column = 0; column < 8; column++) transform8(work, column, 8, 11, 0);
  for (let row = 0; row < 8; row++) {
    transform8(work, 8 * row, 1, 18, 128);
    for (let x = 0; x < 8; x++) out[at + row * stride + x] = clamp(work[8 * row + x]);
  }
}

function transform8(w, at, step, shift, centre) {
  const i1 = at + step;
  const i2 = i1 + step;
  const i3 = i2 + step;
  const i4 = i3 + step;
  const i5 = i4 + step;
  const i6 = i5 + step;
  const i7 = i6 + step;
  const c0 = w[at];
  const c1 = w[i1];
  const c2 = w[i2];
  const c3 = w[i3];
  const c4 = w[i4];
  const c5 = w[i5];
  const c6 = w[i6];
  const c7 = w[i7];
  const half = 1 << (shift - 1);
  if (!(c1 | c2 | c3 | c4 | c5 | c6 | c7)) {
    const dc = (((c0 << 13) + half) >> shift) + centre;
    w[at] = w[i1] = w[i2] = w[i3] = w[i4] = w[i5] = w[i6] = w[i7] = dc;
    return;
  }
  const e1 = imul(c2 + c6, 4433);
  const t2 = e1 - imul(c6, 15137);
  const t3 = e1 + imul(c2, 6270);
  const t0 = (c0 + c4) << 13;
  const t1 = (c0 - c4) << 13;
  const a0 = t0 + t3 + half;
  const a3 = t0 - t3 + half;
  const a1 = t1 + t2 + half;
  const a2 = t1 - t2 + half;
  const z5 = imul(c7 + c3 + c5 + c1, 9633);
  const z1 = -imul(c7 + c1, 7373);
  const z2 = -imul(c5 + c3, 20995);
  const z3 = z5 - imul(c7 + c3, 16069);
  const z4 = z5 - imul(c5 + c1, 3196);
  const o0 = imul(c7, 2446) + z1 + z3;
  const o1 = imul(c5, 16819) + z2 + z4;
  const o2 = imul(c3, 25172) + z2 + z3;
  const o3 = imul(c1, 12299) + z1 + z4;
  w[at] = ((a0 + o3) >> shift) + centre;
  w[i7] = ((a0 - o3) >> shift) + centre;
  w[i1] = ((a1 + o2) >> shift) + centre;
  w[i6] = ((a1 - o2) >> shift) + centre;
  w[i2] = ((a2 + o1) >> shift) + centre;
  w[i5] = ((a2 - o1) >> shift) + centre;
  w[i3] = ((a3 + o0) >> shift) + centre;
  w[i4] = ((a3 - o0) >> shift) + centre;
}

// Averages of two neighbours each: the fifth coefficient cancels out.
function half(out, at, stride) {
  for (let column = 0; column < 8; column++) if (column !== 4) transform4(work, column, 8, 12, 0);
  for (let row = 0; row < 4; row++) {
    transform4(work, 8 * row, 1, 19, 128);
    for (let x = 0; x < 4; x++) out[at + row * stride + x] = clamp(work[8 * row + x]);
  }
}

function transform4(w, at, step, shift, centre) {
  const c1 = w[at + step];
  const c2 = w[at + 2 * step];
  const c3 = w[at + 3 * step];
  const c5 = w[at + 5 * step];
  const c6 = w[at + 6 * step];
  const c7 = w[at + 7 * step];
  const t0 = (w[at] << 14) + (1 << (shift - 1));
  const t2 = imul(c2, 15137) - imul(c6, 6270);
  const o0 = -imul(c7, 1730) + imul(c5, 11893) - imul(c3, 17799) + imul(c1, 8697);
  const o2 = -imul(c7, 4176) - imul(c5, 4926) + imul(c3, 7373) + imul(c1, 20995);
  w[at] = ((t0 + t2 + o2) >> shift) + centre;
  w[at + step] = ((t0 - t2 + o0) >> shift) + centre;
  w[at + 2 * step] = ((t0 - t2 - o0) >> shift) + centre;
  w[at + 3 * step] = ((t0 + t2 - o2) >> shift) + centre;
}

// Averages of four neighbours each: the even coefficients cancel out.
function quarter(out, at, stride) {
  for (const column of [0, 1, 3, 5, 7]) transform2(work, column, 8, 13, 0);
  for (let row = 0; row < 2; row++) {
    transform2(work, 8 * row, 1, 20, 128);
    out[at + row * stride] = clamp(work[8 * row]);
    out[at + row * stride + 1] = clamp(work[8 * row + 1]);
  }
}

function transform2(w, at, step, shift, centre) {
  const even = (w[at] << 15) + (1 << (shift - 1));
  const odd =
    imul(w[at + step], 29692) -
    imul(w[at + 3 * step], 10426) +
    imul(w[at + 5 * step], 6967) -
    imul(w[at + 7 * step], 5906);
  w[at] = ((even + odd) >> shift) + centre;
  w[at + step] = ((even - odd) >> shift) + centre;
}

function eighth(out, at) {
  out[at] = clamp(((work[0] + 4) >> 3) + 128);
}

const TRANSFORMS = {8: full, 4: half, 2: quarter, 1: eighth};

// Put a block of `size` x `size` pixels into `out` at `at`; `coefficients` begin at `from`.
export function putBlock(coefficients, from, quantisation, size, out, at, stride) {
  for (let i = 0; i < 64; i++) work[i] = imul(coefficients[from + i], quantisation[i]);
  TRANSFORMS[size](out, at, stride);
}
