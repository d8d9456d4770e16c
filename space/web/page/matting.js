// Mattes: from a soft saliency map to an alpha matte that follows the photo's own edges. This is
// u2net_hub/imaging/matting.py, where the papers are named and the numbers explained.

import {extreme, label, varying} from "./regions.js";
import {between, resizeFloats, resizeGap, shrunk, toGrey} from "./resize.js";
import {closePatches, decide, makeSolid} from "./solid.js";
import {tilesOf} from "./tiles.js";

const SIDE = 320;
const BANDS = {
  sharp: {low: 0.3, high: 0.7, margin: 0, noise: 1e-2, trust: 5e-4, solid: 0.5, share: 0.3, width: 9},
  hair: {low: 0.06, high: 0.94, margin: 3, noise: 3e-6, trust: 5e-4, solid: 0.7, share: 0, width: 23},
};
const SURE = 10;
const TOLERANCE = 1e-4;
const MOST_STEPS = 1000;
const SMOOTH = 1e-4;

/**
 * The alpha matte of a photo at its full size.
 * @param photo 8-bit pixels without transparency: {data, width, height, stride, channels: 3}.
 * @param saliency the network's map, {data, width, height}, in [0, 1].
 * @param edges "soft", "sharp" or "hair".
 * @returns {alpha, soft}: Uint8Array (H, W), and whether it had to be the soft one.
 */
export function refine(photo, saliency, edges) {
  const soft = () => ({
    alpha: toGrey(saliency.data, saliency.width, saliency.height, photo.width, photo.height), soft: true,
  });
  if (edges === "soft") return soft();
  const band = BANDS[edges], low = Math.fround(band.low), high = Math.fround(band.high);
  const [width, height] = shrunk(photo.width, photo.height, SIDE);
  const small = resizeGap(photo, width, height);
  const resized = resizeFloats(saliency.data, saliency.width, saliency.height, width, height);
  const guess = closePatches(resized.map(value => Math.min(Math.max(value, 0), 1)), width, height);
  const known = trimap(guess, width, height, low, high, band.margin);
  if (guess.some(value => value >= 0.5) && !known.includes(1)) return soft();
  const trust = guess.map(value => value <= low || value >= high ? SURE * band.trust : band.trust);
  const colours = Float64Array.from(small.data, value => value / 255);
  let matte = solve(colours, known, guess, width, height, band.noise, trust);
  if (!matte) return soft();
  if (band.share) {
    matte = matte.map((value, i) => {
      const stretched = Math.min(Math.max((guess[i] - band.low) / (band.high - band.low), 0), 1);
      return value + band.share * (stretched - value);
    });
  }
  matte = makeSolid(decide(matte, width, height, band.width), width, height, band.solid);
  return {alpha: enlarge(photo, colours, matte, width, height), soft: false};
}

/** What is known of alpha: 0 background, 1 foreground, ½ unknown. */
function trimap(saliency, width, height, low, high, margin) {
  let background = saliency.map(value => value <= low ? 1 : 0);
  let foreground = saliency.map(value => value >= high ? 1 : 0);
  if (margin) {
    const side = 2 * margin + 1;
    background = extreme(background, width, height, side, -1);
    const core = extreme(foreground, width, height, side, -1);
    // of an object so small that the margin would leave nothing, all that was sure stays
    const {numbers, n} = label(saliency.map(value => value > low ? 1 : 0), width, height, true);
    const small = new Uint8Array(n + 1).fill(1);
    for (let i = 0; i < core.length; i++) if (core[i]) small[numbers[i]] = 0;
    foreground = foreground.map((value, i) => core[i] || (value && small[numbers[i]]) ? 1 : 0);
  }
  return saliency.map((_, i) => foreground[i] ? 1 : background[i] ? 0 : 0.5);
}

/** Closed-form matting of the unknown pixels; null where the iteration does not converge. */
function solve(colours, known, guess, width, height, noise, trust) {
  const number = new Int32Array(known.length).fill(-1), places = [];
  for (let i = 0; i < known.length; i++) {
    if (known[i] === 0.5) {
      number[i] = places.length;
      places.push(i);
    }
  }
  const n = places.length;
  if (!n) return known;
  const matrix = laplacian(colours, number, n, width, height, noise);
  const columns = new Int32Array(n * 25).fill(-1);
  const right = new Float64Array(n), start = new Float64Array(n), scale = new Float64Array(n);
  for (let row = 0; row < n; row++) {
    const at = places[row], x = at % width, y = (at - x) / width;
    start[row] = guess[at];
    right[row] = trust[at] * guess[at];
    for (let k = 0; k < 25; k++) {
      const px = x + k % 5 - 2, py = y + Math.trunc(k / 5) - 2;
      if (px < 0 || px >= width || py < 0 || py >= height) continue;
      const other = py * width + px;
      columns[row * 25 + k] = number[other];
      if (number[other] < 0) right[row] -= matrix[row * 25 + k] * known[other];
    }
    matrix[row * 25 + 12] += trust[at];
    scale[row] = 1 / matrix[row * 25 + 12];
  }
  const solution = conjugateGradients(matrix, columns, right, start, scale);
  if (!solution) return null;
  const matte = known.slice();
  for (let row = 0; row < n; row++) matte[places[row]] = Math.min(Math.max(solution[row], 0), 1);
  return matte;
}

/** The rows of the matting Laplacian for the n numbered pixels, over the 25 pixels around each: (n, 25). */
function laplacian(colours, number, n, width, height, noise) {
  const rows = new Float64Array(n * 25);
  const centres = extreme(number.map(value => value < 0 ? 0 : 1), width, height, 3, 1);
  const values = new Float64Array(27), weighted = new Float64Array(27), inverse = new Float64Array(6);
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      if (!centres[y * width + x]) continue;
      const mean = [0, 0, 0];
      for (let i = 0; i < 9; i++) {
        const at = 3 * ((y + Math.trunc(i / 3) - 1) * width + x + i % 3 - 1);
        for (let c = 0; c < 3; c++) mean[c] += (values[3 * i + c] = colours[at + c]);
      }
      let rr = 0, rg = 0, rb = 0, gg = 0, gb = 0, bb = 0;
      for (let i = 0; i < 27; i += 3) {
        const r = values[i] -= mean[0] / 9, g = values[i + 1] -= mean[1] / 9, b = values[i + 2] -= mean[2] / 9;
        rr += r * r; rg += r * g; rb += r * b; gg += g * g; gb += g * b; bb += b * b;
      }
      invert(rr / 9, rg / 9, rb / 9, gg / 9, gb / 9, bb / 9, noise / 9, inverse);
      for (let i = 0; i < 27; i += 3) multiply(inverse, values[i], values[i + 1], values[i + 2], weighted, i);
      for (let i = 0; i < 9; i++) {
        const iy = Math.trunc(i / 3), ix = i % 3, row = number[(y + iy - 1) * width + x + ix - 1];
        if (row < 0) continue;
        for (let j = 0; j < 9; j++) {
          const product = weighted[3 * i] * values[3 * j] + weighted[3 * i + 1] * values[3 * j + 1]
            + weighted[3 * i + 2] * values[3 * j + 2];
          rows[row * 25 + (2 + Math.trunc(j / 3) - iy) * 5 + 2 + j % 3 - ix] += (i === j ? 1 : 0) - (1 + product) / 9;
        }
      }
    }
  }
  return rows;
}

/** Of a symmetric 3 × 3 matrix with `added` to its diagonal: the six numbers of its inverse. */
function invert(rr, rg, rb, gg, gb, bb, added, out) {
  rr += added; gg += added; bb += added;
  const crr = gg * bb - gb * gb, crg = gb * rb - rg * bb, crb = rg * gb - gg * rb;
  const determinant = rr * crr + rg * crg + rb * crb;
  out[0] = crr / determinant;
  out[1] = crg / determinant;
  out[2] = crb / determinant;
  out[3] = (rr * bb - rb * rb) / determinant;
  out[4] = (rb * rg - rr * gb) / determinant;
  out[5] = (rr * gg - rg * rg) / determinant;
}

function multiply(matrix, r, g, b, out, at) {
  out[at] = matrix[0] * r + matrix[1] * g + matrix[2] * b;
  out[at + 1] = matrix[1] * r + matrix[3] * g + matrix[4] * b;
  out[at + 2] = matrix[2] * r + matrix[4] * g + matrix[5] * b;
}

/** Solve a symmetric system with 25 numbers in each row, from `x` on; null without convergence. */
function conjugateGradients(matrix, columns, right, x, scale) {
  const n = right.length;
  const times = (vector, out) => {
    for (let row = 0, k = 0; row < n; row++) {
      let sum = 0;
      for (const end = k + 25; k < end; k++) if (columns[k] >= 0) sum += matrix[k] * vector[columns[k]];
      out[row] = sum;
    }
  };
  const product = (a, b) => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
  };
  const residual = new Float64Array(n), direction = new Float64Array(n), step = new Float64Array(n);
  const scaled = new Float64Array(n);
  times(x, residual);
  for (let i = 0; i < n; i++) residual[i] = right[i] - residual[i];
  const enough = TOLERANCE * Math.sqrt(product(right, right));
  let before = 0;
  for (let steps = 0; ; steps++) {
    const length = Math.sqrt(product(residual, residual));
    if (length <= enough) return x;
    if (steps === MOST_STEPS || !Number.isFinite(length)) return null;
    for (let i = 0; i < n; i++) scaled[i] = residual[i] * scale[i];
    const now = product(residual, scaled), share = steps ? now / before : 0;
    for (let i = 0; i < n; i++) direction[i] = scaled[i] + share * direction[i];
    times(direction, step);
    const far = now / product(direction, step);
    for (let i = 0; i < n; i++) {
      x[i] += far * direction[i];
      residual[i] -= far * step[i];
    }
    before = now;
  }
}

/** A small matte at the photo's size, by local linear functions of the colours. */
function enlarge(photo, colours, matte, width, height) {
  const {width: W, height: H, data, stride} = photo;
  const grey = Uint8ClampedArray.from(matte, value => value * 255);
  if (W === width && H === height) return new Uint8Array(grey.buffer);
  const alpha = new Uint8ClampedArray(W * H);
  const columns = Int32Array.from({length: W}, (_, x) => Math.trunc((2 * x + 1) * width / (2 * W)));
  for (let y = 0, to = 0; y < H; y++) {
    const row = Math.trunc((2 * y + 1) * height / (2 * H)) * width;
    for (let x = 0; x < W; x++) alpha[to++] = grey[row + columns[x]];
  }
  const boxes = tilesOf(varying(matte, width, height, 7), width, height, W, H);
  if (!boxes.length) return new Uint8Array(alpha.buffer);
  const planes = coefficients(colours, matte, width, height);
  const across = between(width, W), down = between(height, H);
  const lines = planes.map(() => new Float32Array(width));
  const next = width > 1 ? 1 : 0, below = height > 1 ? width : 0;
  for (const [left, top, right, bottom] of boxes) {
    const first = across.before[left], last = across.before[right - 1] + next;
    for (let y = top; y < bottom; y++) {
      const part = down.share[y];
      planes.forEach((plane, p) => {
        for (let x = first, at = down.before[y] * width + first; x <= last; x++, at++) {
          lines[p][x] = plane[at] + part * (plane[at + below] - plane[at]);
        }
      });
      const [red, green, blue, offset] = lines;
      for (let x = left, to = y * W + left; x < right; x++, to++) {
        const at = across.before[x], share = across.share[x], pixel = to * stride;
        alpha[to] = (red[at] + share * (red[at + next] - red[at])) * data[pixel]
          + (green[at] + share * (green[at + next] - green[at])) * data[pixel + 1]
          + (blue[at] + share * (blue[at + next] - blue[at])) * data[pixel + 2]
          + offset[at] + share * (offset[at + next] - offset[at]);
      }
    }
  }
  return new Uint8Array(alpha.buffer);
}

/** a and b of alpha = a · I + b, for I and alpha from 0 to 255: four planes. */
function coefficients(colours, matte, width, height) {
  const mean = plane => windowMeans(plane, width, height);
  const guide = [0, 1, 2].map(c => Float32Array.from(matte, (_, i) => colours[3 * i + c]));
  const [r, g, b] = guide, [mr, mg, mb] = guide.map(mean), alpha = mean(matte);
  const times = (one, other) => mean(one.map((value, i) => value * other[i]));
  const pairs = [times(r, r), times(r, g), times(r, b), times(g, g), times(g, b), times(b, b)];
  const withAlpha = guide.map(plane => times(plane, matte));
  const edge = varying(matte, width, height, 3);
  const slopes = [0, 1, 2].map(() => new Float32Array(matte.length)), offset = new Float32Array(matte.length);
  const inverse = new Float64Array(6), slope = new Float64Array(3);
  for (let i = 0; i < matte.length; i++) {
    slope.fill(0); // away from the edge
    if (edge[i]) {
      const [rr, rg, rb, gg, gb, bb] = pairs.map(plane => plane[i]);
      invert(rr - mr[i] * mr[i], rg - mr[i] * mg[i], rb - mr[i] * mb[i], gg - mg[i] * mg[i], gb - mg[i] * mb[i],
        bb - mb[i] * mb[i], SMOOTH, inverse);
      const [ar, ag, ab] = withAlpha.map(plane => plane[i]);
      multiply(inverse, ar - mr[i] * alpha[i], ag - mg[i] * alpha[i], ab - mb[i] * alpha[i], slope, 0);
    }
    for (let c = 0; c < 3; c++) slopes[c][i] = slope[c];
    offset[i] = 255 * (alpha[i] - slope[0] * mr[i] - slope[1] * mg[i] - slope[2] * mb[i]);
  }
  return [...slopes, offset].map(mean);
}

/** The means of the windows of 3 × 3 pixels; at the border the outermost pixels repeat. */
function windowMeans(plane, width, height) {
  const out = new Float32Array(plane.length);
  for (let y = 0; y < height; y++) {
    const rows = [Math.max(y - 1, 0), y, Math.min(y + 1, height - 1)].map(row => row * width);
    for (let x = 0; x < width; x++) {
      const left = Math.max(x - 1, 0), right = Math.min(x + 1, width - 1);
      let sum = 0;
      for (const row of rows) sum += plane[row + left] + plane[row + x] + plane[row + right];
      out[y * width + x] = sum / 9;
    }
  }
  return out;
}
