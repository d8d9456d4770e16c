// Full-size pictures are worked on in tiles, and only in those where something is to be done.

export const TILE = 64;

/** The tiles of a picture that hold wanted pixels of a smaller version of it: boxes [left, top, right, bottom]. */
export function tilesOf(wanted, width, height, W, H) {
  const boxes = [];
  for (let top = 0; top < H; top += TILE) {
    const bottom = Math.min(top + TILE, H);
    const firstRow = Math.trunc(top * height / H), lastRow = Math.ceil(bottom * height / H);
    for (let left = 0; left < W; left += TILE) {
      const right = Math.min(left + TILE, W);
      const first = Math.trunc(left * width / W), last = Math.ceil(right * width / W);
      if (holds(wanted, width, first, firstRow, last, lastRow)) boxes.push([left, top, right, bottom]);
    }
  }
  return boxes;
}

function holds(wanted, width, left, top, right, bottom) {
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) if (wanted[y * width + x]) return true;
  }
  return false;
}
