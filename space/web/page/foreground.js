// The object's own colours at its edge, without those of the background that shine through. This is
// u2net_hub/imaging/foreground.py, where the papers are named.

import {between, resizeGap, roundEven, shrunk} from "./resize.js";

const SIDE = 640;
const SMOOTH = 1e-5;
const STEPS = 12;
const LAST_STEPS = 2;
const REACH = 16;

/** Replace the colours of the pixels whose alpha is between 0 and 255 by the object's own. */
export function cleanColours(photo, alpha) {
  const {data, width: W, height: H, stride} = photo;
  if (!alpha.some(value => value > 0 && value < 255)) return;
  const [width, height] = shrunk(W, H, SIDE);
  const small = resizeGap(photo, width, height);
  const share = resizeGap({data: alpha, width: W, height: H, stride: 1, channels: 1}, width, height);
  const [fore, back] = aroundEdges(small, share.data);
  const across = between(width, W), down = between(height, H);
  const next = width > 1 ? 3 : 0, below = height > 1 ? 3 * width : 0;
  const colour = new Uint8ClampedArray(1);
  for (let y = 0; y < H; y++) {
    for (let x = 0, at = y * W; x < W; x++, at++) {
      if (alpha[at] === 0 || alpha[at] === 255) continue;
      const a = alpha[at] / 255, corner = 3 * (down.before[y] * width + across.before[x]);
      for (let c = 0; c < 3; c++) {
        const seen = data[at * stride + c];
        const f = blend(fore, corner + c, next, below, across.share[x], down.share[y]);
        const b = blend(back, corner + c, next, below, across.share[x], down.share[y]);
        colour[0] = f + a * (seen - a * f - (1 - a) * b); // rounds and clips
        data[at * stride + c] = colour[0];
      }
    }
  }
}

function blend(colours, at, next, below, right, under) {
  const upper = colours[at] + right * (colours[at + next] - colours[at]);
  const lower = colours[at + below] + right * (colours[at + below + next] - colours[at + below]);
  return upper + under * (lower - upper);
}

/** Estimate foreground and background around the soft pixels; farther away both are the photo. */
function aroundEdges({data, width, height, stride}, alpha) {
  let left = width, top = height, right = -1, bottom = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = alpha[y * width + x];
      if (value === 0 || value === 255) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  if (right < 0) [left, top, right, bottom] = [0, 0, width - 1, height - 1]; // soft at full size alone
  left = Math.max(left - REACH, 0);
  top = Math.max(top - REACH, 0);
  const w = Math.min(right + 1 + REACH, width) - left, h = Math.min(bottom + 1 + REACH, height) - top;
  const seen = [0, 1, 2].map(() => new Float32Array(w * h)), share = new Float32Array(w * h);
  for (let y = 0, to = 0; y < h; y++) {
    for (let x = 0; x < w; x++, to++) {
      const at = (y + top) * width + x + left;
      for (let c = 0; c < 3; c++) seen[c][to] = data[at * stride + c];
      share[to] = alpha[at] / 255;
    }
  }
  return estimate(seen, share, w, h).map(planes => {
    const picture = new Uint8ClampedArray(3 * width * height);
    for (let at = 0; at < width * height; at++) {
      for (let c = 0; c < 3; c++) picture[3 * at + c] = data[at * stride + c];
    }
    for (let y = 0, from = 0; y < h; y++) {
      for (let x = 0; x < w; x++, from++) {
        for (let c = 0; c < 3; c++) picture[3 * ((y + top) * width + x + left) + c] = planes[c][from];
      }
    }
    return picture;
  });
}

/** Estimate foreground and background from coarse to fine: three planes each. */
function estimate(seen, alpha, width, height) {
  let low = Infinity, high = -Infinity;
  for (const plane of seen) {
    for (const value of plane) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  const levels = Math.max(Math.ceil(Math.log2(Math.max(height, width))), 1);
  // foreground and background, three colours each, from the mean colours of both on
  let both = [false, true].flatMap(behind => seen.map(plane => {
    let sum = 0, total = 0;
    for (let i = 0; i < plane.length; i++) {
      const part = behind ? 1 - alpha[i] : alpha[i];
      sum += part * plane[i];
      total += part;
    }
    return Float32Array.of(sum / Math.max(total, 1e-3));
  }));
  let size = [1, 1];
  for (let level = 0; level <= levels; level++) {
    const [w, h] = [width, height].map(side => Math.max(roundEven(side ** (level / levels)), 1));
    both = both.map(plane => nearest(plane, ...size, w, h));
    size = [w, h];
    const scene = seen.map(plane => nearest(plane, width, height, w, h));
    relax(scene, nearest(alpha, width, height, w, h), both, w, h, level === levels ? LAST_STEPS : STEPS);
    for (const plane of both) {
      for (let i = 0; i < plane.length; i++) plane[i] = Math.min(Math.max(plane[i], low), high);
    }
  }
  return [both.slice(0, 3), both.slice(3)];
}

/** Resize by the nearest neighbour. */
function nearest(plane, width, height, w, h) {
  const out = new Float32Array(w * h);
  for (let y = 0, to = 0; y < h; y++) {
    const row = Math.trunc(y * height / h) * width;
    for (let x = 0; x < w; x++) out[to++] = plane[row + Math.trunc(x * width / w)];
  }
  return out;
}

/** Lower the energy of one level in place: both colours explain what is seen and are like their neighbours. */
function relax(seen, alpha, both, width, height, steps) {
  const n = width * height;
  const weights = [0, 1, 2, 3].map(() => new Float32Array(n)), shown = [0, 1].map(() => new Float32Array(n));
  const around = [0, 1, 2, 3].map(() => new Int32Array(n));
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      around[0][at] = y > 0 ? at - width : at;
      around[1][at] = y < height - 1 ? at + width : at;
      around[2][at] = x > 0 ? at - 1 : at;
      around[3][at] = x < width - 1 ? at + 1 : at;
      let total = 0;
      for (let k = 0; k < 4; k++) {
        weights[k][at] = Math.abs(alpha[around[k][at]] - alpha[at]) + SMOOTH;
        total += weights[k][at];
      }
      for (let k = 0; k < 4; k++) weights[k][at] /= total;
      const a = alpha[at], whole = total + a * a + (1 - a) * (1 - a);
      shown[0][at] = a / whole;
      shown[1][at] = (1 - a) / whole;
    }
  }
  const [wu, wd, wl, wr] = weights, [up, down, left, right] = around;
  const spare = [0, 1].map(() => new Float32Array(n));
  for (let step = 0; step < steps; step++) {
    for (let c = 0; c < 3; c++) {
      const f = both[c], b = both[3 + c], scene = seen[c], [newF, newB] = spare;
      for (let i = 0; i < n; i++) {
        const meanF = wu[i] * f[up[i]] + wd[i] * f[down[i]] + wl[i] * f[left[i]] + wr[i] * f[right[i]];
        const meanB = wu[i] * b[up[i]] + wd[i] * b[down[i]] + wl[i] * b[left[i]] + wr[i] * b[right[i]];
        const missing = scene[i] - alpha[i] * meanF - (1 - alpha[i]) * meanB;
        newF[i] = meanF + shown[0][i] * missing;
        newB[i] = meanB + shown[1][i] * missing;
      }
      f.set(newF);
      b.set(newB);
    }
  }
}
