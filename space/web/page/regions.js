// Filters and regions of small pictures, as in scipy.ndimage: planes of (h, w) numbers, row by row.

/** Number the connected regions of the pixels that are not 0, from 1 on; `corners` joins diagonal neighbours. */
export function label(wanted, width, height, corners = false) {
  const numbers = new Int32Array(wanted.length), stack = new Int32Array(wanted.length);
  let n = 0;
  for (let start = 0; start < wanted.length; start++) {
    if (!wanted[start] || numbers[start]) continue;
    numbers[start] = ++n;
    let depth = 0;
    stack[depth++] = start;
    while (depth) {
      const at = stack[--depth], x = at % width, y = (at - x) / width;
      for (let dy = -1; dy <= 1; dy++) {
        for (let dx = -1; dx <= 1; dx++) {
          if (!corners && dx && dy) continue;
          if (x + dx < 0 || x + dx >= width || y + dy < 0 || y + dy >= height) continue;
          const next = at + dy * width + dx;
          if (wanted[next] && !numbers[next]) {
            numbers[next] = n;
            stack[depth++] = next;
          }
        }
      }
    }
  }
  return {numbers, n};
}

/** The largest (`sign` 1) or smallest (-1) value in the square of `side` pixels around each pixel. */
export function extreme(plane, width, height, side, sign) {
  const reach = side >> 1, rows = plane.slice(), out = plane.slice();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let best = plane[y * width + x];
      const end = Math.min(x + reach, width - 1);
      for (let i = Math.max(x - reach, 0); i <= end; i++) {
        const value = plane[y * width + i];
        if (sign * value > sign * best) best = value;
      }
      rows[y * width + x] = best;
    }
  }
  for (let y = 0; y < height; y++) {
    const end = Math.min(y + reach, height - 1);
    for (let x = 0; x < width; x++) {
      let best = rows[y * width + x];
      for (let i = Math.max(y - reach, 0); i <= end; i++) {
        const value = rows[i * width + x];
        if (sign * value > sign * best) best = value;
      }
      out[y * width + x] = best;
    }
  }
  return out;
}

/** Where a plane varies within squares of `side` pixels. */
export function varying(plane, width, height, side) {
  const high = extreme(plane, width, height, side, 1), low = extreme(plane, width, height, side, -1);
  return Uint8Array.from(high, (value, i) => value !== low[i] ? 1 : 0);
}

/** A Gaussian blur that is cut at four standard deviations and mirrored at the border. */
export function blur(plane, width, height, deviation) {
  const reach = Math.trunc(4 * deviation + 0.5);
  const weights = Float64Array.from({length: 2 * reach + 1}, (_, i) => Math.exp(-0.5 * ((i - reach) / deviation) ** 2));
  const total = weights.reduce((sum, weight) => sum + weight);
  const pass = (source, length, step, lines, stride) => {
    const out = new Float32Array(source.length);
    for (let line = 0; line < lines; line++) {
      for (let i = 0; i < length; i++) {
        let sum = 0;
        for (let k = -reach; k <= reach; k++) {
          sum += weights[k + reach] * source[line * stride + mirrored(i + k, length) * step];
        }
        out[line * stride + i * step] = sum / total;
      }
    }
    return out;
  };
  return pass(pass(plane, height, width, width, 1), width, 1, height, width);
}

function mirrored(i, length) { // d c b a | a b c d | d c b a
  const period = 2 * length;
  i = ((i % period) + period) % period;
  return i < length ? i : period - 1 - i;
}
