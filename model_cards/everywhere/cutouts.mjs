// Cuts photos out with transformers.js. The arguments are a JSON object:
//   modules: a node_modules folder; folder: the laid out repo, or host and repo of a Hub; dtype;
//   photos: paths; out: a folder for RGBA PNGs.
// It prints a JSON object: the version, and the seconds of loading and of each photo.
import { createRequire } from "node:module";
import { basename, dirname, extname, join } from "node:path";
import { pathToFileURL } from "node:url";

const job = JSON.parse(process.argv[2]);
const require = createRequire(join(job.modules, "package.json"));
const entry = require.resolve("@huggingface/transformers").replace("transformers.node.cjs", "transformers.node.mjs");
const { env, pipeline, RawImage } = await import(pathToFileURL(entry));

env.useFSCache = false;
let name = job.repo;
if (job.host) {
  env.allowLocalModels = false;
  env.remoteHost = job.host;
} else {
  env.allowRemoteModels = false;
  env.localModelPath = dirname(job.folder) + "/";
  name = basename(job.folder);
}

const start = performance.now();
const cut = await pipeline("background-removal", name, { dtype: job.dtype });
const loading = (performance.now() - start) / 1000;
const seconds = [];
for (const photo of job.photos) {
  const image = await RawImage.read(photo);
  const begin = performance.now();
  const cutout = await cut(image);
  seconds.push((performance.now() - begin) / 1000);
  await cutout.save(join(job.out, basename(photo, extname(photo)) + ".png"));
}
console.log(JSON.stringify({ version: env.version, node: process.version, loading, seconds }));
