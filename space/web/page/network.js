// The network in ONNX Runtime: on the graphics processor by WebGPU where there is one, else in WebAssembly.

import {resizeBytes} from "./resize.js";

const RUNTIMES = {
  wasm: {script: "./ort.wasm.min.mjs", glue: "ort-wasm-simd-threaded.mjs", provider: "wasm"},
  webgpu: {script: "./ort.webgpu.min.mjs", glue: "ort-wasm-simd-threaded.asyncify.mjs", provider: "webgpu"},
  // the same in browsers that can pause WebAssembly: two thirds of the bytes
  jspi: {script: "./ort.jspi.min.mjs", glue: "ort-wasm-simd-threaded.jspi.mjs", provider: "webgpu"},
};
const MOST_THREADS = 4;
const MOST_SECONDS = 60; // to start on a graphics processor, before WebAssembly is tried
const SAME = 0.01; // the largest mean difference of a map that is allowed on a graphics processor
const FOUND_FROM = 0.5; // u2net_hub.imaging.FOUND_FROM

/**
 * Load the network: {run, name}.
 * @param wanted the name of a runtime, for tests and for people with a slow graphics processor; any other word
 *   leaves the choice to the page.
 */
export async function openNetwork(wanted) {
  const about = await (await get("network.json")).json();
  const graph = await unpack("network.pack");
  const names = Object.hasOwn(RUNTIMES, wanted) ? [wanted] : await suitable();
  for (const name of names) {
    try {
      const opened = open(name, about, graph);
      return await (name === names.at(-1) ? opened : Promise.race([opened, late()]));
    } catch (error) {
      if (name === names.at(-1)) throw error;
      console.warn(`the network does not run with ${name}, the next one is tried:`, error);
    }
  }
}

function late() {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`it takes longer than ${MOST_SECONDS} seconds to start`)), 1000 * MOST_SECONDS);
  });
}

/** The runtimes that this browser can be expected to run, best first. */
async function suitable() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const real = adapter && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  if (!real) return ["wasm"]; // a graphics processor that is only simulated is slower
  return ["Suspending" in WebAssembly ? "jspi" : "webgpu", "wasm"];
}

async function open(name, about, graph) {
  const {script, glue, provider} = RUNTIMES[name];
  const [ort, wasmBinary] = await Promise.all([import(script), unpack(`${name}.pack`)]);
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
  ort.env.wasm.numThreads = provider === "wasm" ? threads : 1;
  ort.env.wasm.wasmPaths = {mjs: new URL(glue, import.meta.url).href};
  ort.env.wasm.wasmBinary = wasmBinary;
  const [height, width] = about.input_size;
  const session = await ort.InferenceSession.create(graph, {
    executionProviders: [provider],
    freeDimensionOverrides: {batch: 1, height, width},
    logSeverityLevel: 3,
  });
  const run = async photo => {
    const input = new ort.Tensor("float32", preprocess(photo, about), [1, 3, height, width]);
    const {saliency} = await session.run({input});
    const data = Float32Array.from(await saliency.getData());
    saliency.dispose?.();
    return {data, width, height};
  };
  if (provider === "webgpu") await check(run, about);
  const how = provider === "webgpu" ? "on the graphics processor"
    : `on the processor, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  return {
    name: provider, how, threads,
    run: async photo => found(await run(photo), about.minmax),
  };
}

/** The network's input, as u2net_hub.imaging.preprocess makes it: float32 (3, h, w). */
export function preprocess(photo, about) {
  const [height, width] = about.input_size;
  let picture = photo;
  if (width > photo.width && height < photo.height) picture = resizeBytes(photo, photo.width, height);
  const {data} = resizeBytes(picture, width, height);
  const top = about.scale === "image_max" ? Math.max(data.reduce((high, value) => Math.max(high, value), 0), 1) : 255;
  const n = width * height, x = new Float32Array(3 * n);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < n; i++) x[c * n + i] = (data[3 * i + c] / top - about.mean[c]) / about.std[c];
  }
  return x;
}

/** Compare the map of a known picture with the right one. Drivers of graphics processors have faults. */
async function check(run, about) {
  const {step, values} = about.check, map = await run(scene(about.input_size));
  let total = 0, n = 0;
  for (let y = 0; y < map.height; y += step) {
    for (let x = 0; x < map.width; x += step) total += Math.abs(map.data[y * map.width + x] - values[n++]);
  }
  if (!(total / n <= SAME)) throw new Error(`the map of a known picture is off by ${total / n} on average`);
}

/** The known picture: a disc on a background that grows lighter; build.py draws the same one. */
function scene([height, width]) {
  const data = new Uint8Array(3 * width * height), radius = width * 0.3;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius ** 2;
      for (const value of inside ? [200, 80, 40] : [30 + (x >> 3), 90, 120]) data[at++] = value;
    }
  }
  return {data, width, height, stride: 3, channels: 3};
}

/** Apply min–max as the pipeline does, and tell how sure the network is that there is an object. */
function found({data, width, height}, minmax) {
  let low = Infinity, high = -Infinity;
  for (const value of data) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (!Number.isFinite(low) || !Number.isFinite(high)) throw new Error("The network returned no map.");
  const stretched = data.map(value => high > low ? (value - low) / (high - low) : 0);
  let total = 0, n = 0;
  stretched.forEach((value, i) => {
    if (value >= 0.5) {
      total += data[i];
      n++;
    }
  });
  const confidence = n ? total / n : 0, isFound = confidence >= FOUND_FROM;
  const map = minmax === "never" ? data
    : minmax === "auto" && !isFound ? new Float32Array(data.length) : stretched;
  return {map: {data: map, width, height}, confidence, found: isFound};
}

async function get(name) {
  const response = await fetch(name).catch(() => null);
  if (!response?.ok) {
    throw new Error(`The part ${name} of this page could not be loaded. Check the connection and load the page again.`);
  }
  return response;
}

/** The bytes of a file that is kept compressed, so that a first visit is small whatever the host does. */
async function unpack(name) {
  const {body} = await get(name);
  const bytes = await new Response(body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  return new Uint8Array(bytes);
}
