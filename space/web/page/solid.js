// Solid objects: see-through patches that are doubts of the network are closed, in its map and in the matte.
// This is u2net_hub/imaging/solid.py; all sizes are those at which mattes are solved.

import {blur, extreme, label} from "./regions.js";

const SURE_BACKGROUND = 0.25;
const RIMS = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95].map(Math.fround);
const TRANSPARENT = Math.fround(0.1);
const DEPTH = 8;
const AROUND = 2;
const LINE = 0.7;

/** The saliency without see-through patches that the object encloses. */
export function closePatches(saliency, width, height) {
  const background = saliency.map(value => value <= SURE_BACKGROUND ? 1 : 0);
  if (!background.includes(1)) return saliency;
  const closed = saliency.slice();
  for (const rim of RIMS) {
    const {numbers, n} = label(saliency.map(value => value < rim ? 1 : 0), width, height);
    const open = new Uint8Array(n + 1);
    open[0] = 1;
    for (let i = 0; i < saliency.length; i++) if (background[i]) open[numbers[i]] = 1;
    for (let i = 0; i < saliency.length; i++) if (!open[numbers[i]]) closed[i] = 1;
  }
  return closed;
}

/** A matte without regions wider than an edge that are neither opaque nor transparent. */
export function decide(matte, width, height, side) {
  const doubtful = Uint8Array.from(matte, value => value > TRANSPARENT && value < 1 - TRANSPARENT ? 1 : 0);
  if (!doubtful.includes(0)) return matte;
  const inner = extreme(doubtful, width, height, side, -1);
  if (!inner.includes(1)) return matte;
  const wide = extreme(inner, width, height, side, 1);
  const opaque = blur(matte, width, height, AROUND).map(value => value >= 0.5 ? 1 : 0);
  const line = blur(opaque, width, height, LINE);
  return matte.map((value, i) => wide[i] && doubtful[i] ? line[i] : value);
}

/** A matte that is opaque far from the background. */
export function makeSolid(matte, width, height, solid) {
  if (!matte.some(value => value <= TRANSPARENT)) return matte;
  const reach = [];
  for (let dy = -DEPTH; dy <= DEPTH; dy++) {
    for (let dx = -DEPTH; dx <= DEPTH; dx++) if (dx * dx + dy * dy <= DEPTH * DEPTH) reach.push([dx, dy]);
  }
  const shallow = (x, y) => reach.some(([dx, dy]) =>
    x + dx >= 0 && x + dx < width && y + dy >= 0 && y + dy < height && matte[(y + dy) * width + x + dx] <= TRANSPARENT);
  return matte.map((value, i) =>
    value >= solid && value < 1 && !shallow(i % width, Math.trunc(i / width)) ? 1 : value);
}
