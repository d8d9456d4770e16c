// All the work on photos, away from the page, so that the page never freezes. One request after another:
// {id, do: "open" | "cut" | "save" | "zip", ...} is answered by {id, ...} or {id, error}.

import {cleanColours} from "./foreground.js";
import {refine} from "./matting.js";
import {openNetwork} from "./network.js";
import {opaque, readPhoto} from "./photo.js";
import {encodePng} from "./png.js";
import {zip} from "./zip.js";

const PREVIEW = 1600; // longest side in pixels

let network = null;
let photo = null; // of the last "open": its pixels, as the network sees them, its map, and the last cutout

const requests = {
  start: async ({engine}) => {
    network = await openNetwork(engine);
    return {how: network.how, name: network.name, threads: network.threads};
  },

  open: async ({file}) => {
    photo = null; // its memory is needed
    const {bitmap, ...pixels} = await readPhoto(file);
    const before = await preview(bitmap, pixels.width, pixels.height);
    bitmap.close();
    const seen = opaque(pixels), started = performance.now();
    const {map, confidence, found} = await run(seen);
    photo = {...pixels, seen, map, cut: null};
    const {width, height} = photo;
    return {width, height, confidence, found, before, milliseconds: performance.now() - started};
  },

  cut: async ({edges}) => {
    const {data, soft} = cutOut(edges), {width, height} = photo;
    const picture = new ImageData(data, width, height);
    return {after: await preview(picture, width, height), soft: soft && edges !== "soft"};
  },

  save: async ({edges, background}) => {
    const {data} = cutOut(edges), {width, height} = photo;
    if (!background) {
      return {file: await encodePng(width, height, 4, (rows, top, n) => {
        rows.set(data.subarray(4 * top * width, 4 * (top + n) * width));
      })};
    }
    return {file: await encodePng(width, height, 3, (rows, top, n) => {
      for (let at = 4 * top * width, to = 0; to < 3 * n * width; at += 4) {
        const alpha = data[at + 3] / 255;
        for (let c = 0; c < 3; c++) rows[to++] = background[c] + alpha * (data[at + c] - background[c]) + 0.5;
      }
    })};
  },

  zip: async ({files}) => ({file: await zip(files)}),
};

/** Run the network; on the processor, if the graphics processor fails, as it does when a device sleeps. */
async function run(seen) {
  try {
    return await network.run(seen);
  } catch (error) {
    if (network.name !== "webgpu") throw error;
    console.warn("the graphics processor failed, the processor takes over:", error);
    network = await openNetwork("wasm");
    return network.run(seen);
  }
}

/** The cutout of the photo: RGBA, black where it is transparent. It is kept, since saving follows showing. */
function cutOut(edges) {
  if (photo.cut?.edges === edges) return photo.cut;
  photo.cut = null;
  const {alpha, soft} = refine(photo.seen, photo.map, edges);
  const data = photo.data.slice(), n = alpha.length;
  if (!soft) cleanColours({...photo, data, stride: 4, channels: 3}, alpha);
  for (let i = 0, at = 0; i < n; i++, at += 4) {
    const value = data[at + 3] === 255 ? alpha[i] : Math.round(alpha[i] * data[at + 3] / 255);
    data[at + 3] = value;
    if (!value) data[at] = data[at + 1] = data[at + 2] = 0;
  }
  photo.cut = {edges, data, soft};
  return photo.cut;
}

function preview(picture, width, height) {
  const scale = Math.min(PREVIEW / Math.max(width, height), 1);
  if (scale === 1) return createImageBitmap(picture);
  return createImageBitmap(picture, {
    resizeWidth: Math.max(Math.round(width * scale), 1), resizeHeight: Math.max(Math.round(height * scale), 1),
    resizeQuality: "medium",
  });
}

let last = Promise.resolve();
addEventListener("message", ({data: {id, ...request}}) => {
  last = last.then(async () => {
    try {
      const answer = await requests[request.do](request);
      postMessage({id, ...answer}, Object.values(answer).filter(value => value instanceof ImageBitmap));
    } catch (error) {
      const memory = error instanceof RangeError ? "There is not enough memory for this photo. Make it smaller." : null;
      postMessage({id, error: memory ?? error.message});
      console.warn(error);
    }
  });
});
