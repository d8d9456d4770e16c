// Cuts photos out with transformers.js. The arguments are a JSON object:
//   modules: a node_modules folder; host and repo: those of a Hub; cache: a folder for its files; dtype;
//   photos: paths; out: a folder for RGBA PNGs.
// It prints a JSON object: the version, and the seconds of loading and of each photo.
import { createRequire } from "node:module";
import { basename, extname, join } from "node:path";
import { pathToFileURL } from "node:url";

const job = JSON.parse(process.argv[2]);
const require = createRequire(join(job.modules, "package.json"));
const entry = require.resolve("@huggingface/transformers").replace("transformers.node.cjs", "transformers.node.mjs");
const { env, pipeline, RawImage } = await import(pathToFileURL(entry));

env.allowLocalModels = false;
env.remoteHost = job.host;
env.cacheDir = job.cache;

const start = performance.now();
const cut = await pipeline("background-removal", job.repo, { dtype: job.dtype });
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
