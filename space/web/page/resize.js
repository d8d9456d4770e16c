// Pillow's bilinear resize (src/libImaging/Resample.c and Reduce.c describe it), so that the network sees the
// pixels that it sees in Python.

const BITS = 22; // of the fixed-point weights for 8-bit pixels

/** For each output pixel: the first input pixel, how many there are, and their weights, `most` apart. */
function taps(length, wanted, from = 0, to = length) {
  const scale = (to - from) / wanted;
  const support = Math.max(scale, 1); // a triangle as wide as an output pixel on both sides: antialiasing
  const most = 2 * Math.ceil(support) + 1;
  const first = new Int32Array(wanted), count = new Int32Array(wanted);
  const weights = new Float64Array(wanted * most);
  for (let i = 0; i < wanted; i++) {
    const centre = from + (i + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - support + 0.5), 0);
    const n = Math.min(Math.trunc(centre + support + 0.5), length) - start;
    let total = 0;
    for (let k = 0; k < n; k++) {
      const weight = Math.max(1 - Math.abs(k + start - centre + 0.5) / support, 0);
      weights[i * most + k] = weight;
      total += weight;
    }
    for (let k = 0; k < n; k++) weights[i * most + k] /= total;
    first[i] = start;
    count[i] = n;
  }
  return {first, count, weights, most};
}

function rounded({first, count, weights, most}) {
  return {first, count, weights: Int32Array.from(weights, weight => weight * 2 ** BITS + 0.5), most};
}

/**
 * Resize 8-bit pixels: `channels` of each `stride` values -> Uint8Array (H, W, channels).
 * @param box left, top, right and bottom of the part to resize, in pixels, which may be fractions.
 */
export function resizeBytes({data, width, height, stride, channels}, W, H, box = [0, 0, width, height]) {
  const across = rounded(taps(width, W, box[0], box[2]));
  const down = rounded(taps(height, H, box[1], box[3]));
  const top = down.first[0], bottom = down.first[H - 1] + down.count[H - 1];
  const wide = new Uint8Array((bottom - top) * W * channels);
  const half = 1 << (BITS - 1);
  for (let y = top; y < bottom; y++) {
    const row = y * width * stride, to = (y - top) * W * channels;
    for (let c = 0; c < channels; c++) {
      for (let x = 0; x < W; x++) {
        let total = half, at = row + across.first[x] * stride + c;
        const end = x * across.most + across.count[x];
        for (let k = x * across.most; k < end; k++, at += stride) total += data[at] * across.weights[k];
        total >>= BITS;
        wide[to + x * channels + c] = total > 255 ? 255 : total;
      }
    }
  }
  const line = W * channels, out = new Uint8Array(H * line);
  for (let y = 0; y < H; y++) {
    for (let i = 0; i < line; i++) {
      let total = half, at = (down.first[y] - top) * line + i;
      const end = y * down.most + down.count[y];
      for (let k = y * down.most; k < end; k++, at += line) total += wide[at] * down.weights[k];
      total >>= BITS;
      out[y * line + i] = total > 255 ? 255 : total;
    }
  }
  return {data: out, width: W, height: H, stride: channels, channels};
}

/** Resize numbers: (h, w) -> Float32Array (H, W). */
export function resizeFloats(plane, width, height, W, H) {
  const across = taps(width, W), down = taps(height, H);
  const wide = new Float32Array(height * W);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < W; x++) {
      let total = 0;
      const base = y * width + across.first[x];
      for (let k = 0; k < across.count[x]; k++) total += plane[base + k] * across.weights[x * across.most + k];
      wide[y * W + x] = total;
    }
  }
  const out = new Float32Array(H * W);
  for (let y = 0; y < H; y++) {
    for (let k = 0; k < down.count[y]; k++) {
      const weight = down.weights[y * down.most + k], base = (down.first[y] + k) * W;
      for (let x = 0; x < W; x++) out[y * W + x] += weight * wide[base + x];
    }
  }
  return out;
}

/** The means of blocks of `fx` × `fy` pixels, as Pillow's `reduce`. */
function reduce({data, width, height, stride, channels}, fx, fy) {
  const W = Math.ceil(width / fx), H = Math.ceil(height / fy);
  const out = new Uint8Array(W * H * channels);
  const sums = new Uint32Array(W * channels);
  for (let Y = 0; Y < H; Y++) {
    sums.fill(0);
    const bottom = Math.min((Y + 1) * fy, height);
    for (let y = Y * fy; y < bottom; y++) {
      for (let x = 0, X = 0, at = y * width * stride; x < width; X++) {
        for (const end = Math.min(x + fx, width); x < end; x++, at += stride) {
          for (let c = 0; c < channels; c++) sums[X * channels + c] += data[at + c];
        }
      }
    }
    for (let X = 0; X < W; X++) {
      const n = (bottom - Y * fy) * (Math.min((X + 1) * fx, width) - X * fx);
      const factor = Math.floor(Math.fround(2 ** 24 / n));
      for (let c = 0; c < channels; c++) {
        out[(Y * W + X) * channels + c] = ((sums[X * channels + c] + (n >> 1)) * factor) / 2 ** 24;
      }
    }
  }
  return {data: out, width: W, height: H, stride: channels, channels};
}

/** Resize in two steps, as Pillow does with reducing_gap=2: means of blocks, and then bilinear. */
export function resizeGap(picture, W, H) {
  const {width, height} = picture;
  if (width === W && height === H && picture.stride === picture.channels) return picture;
  const fx = Math.max(Math.trunc(width / W / 2), 1), fy = Math.max(Math.trunc(height / H / 2), 1);
  const reduced = fx > 1 || fy > 1 ? reduce(picture, fx, fy) : picture;
  return resizeBytes(reduced, W, H, [0, 0, width / fx, height / fy]);
}

/** The size of a picture with its longest side of `side` pixels at most: [width, height]. */
export function shrunk(width, height, side) {
  const scale = Math.min(side / Math.max(width, height), 1);
  return [width, height].map(length => Math.max(roundEven(length * scale), 1));
}

/** Round to the nearest whole number, and halves to the even one, as Python does. */
export function roundEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/**
 * Linear interpolation from `small` to `length` pixels with their centres aligned: the pixel before each
 * pixel, and the share of the one after it.
 */
export function between(small, length) {
  const before = new Int32Array(length), share = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    const position = Math.min(Math.max((i + 0.5) * (small / length) - 0.5, 0), small - 1);
    before[i] = Math.min(Math.trunc(position), Math.max(small - 2, 0));
    share[i] = position - before[i];
  }
  return {before, share};
}

/** A map at the size of a photo, in 256 levels: (h, w) in [0, 1] -> Uint8Array (H, W). */
export function toGrey(map, width, height, W, H) {
  const grey = new Uint8ClampedArray(W * H); // rounds to the nearest whole number
  if (H < height || W < width) {
    const resized = resizeFloats(map, width, height, W, H);
    for (let i = 0; i < grey.length; i++) grey[i] = resized[i] * 255;
  } else {
    const wide = resizeFloats(map, width, height, W, height);
    const {before, share} = between(height, H);
    const next = height > 1 ? W : 0;
    for (let y = 0; y < H; y++) {
      const above = before[y] * W, part = share[y];
      for (let x = 0, at = above, to = y * W; x < W; x++, at++, to++) {
        grey[to] = (wide[at] + part * (wide[at + next] - wide[at])) * 255;
      }
    }
  }
  return new Uint8Array(grey.buffer);
}
