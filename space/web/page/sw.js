// Keeps the files of the page, so that it works offline. Each file is stored under the hash of its content and
// is stored only if it has that content. A new build is fetched beside the old one and takes over as a whole.

const VERSION = "{{VERSION}}";
const POLICY = "{{POLICY}}";
const FILES = {{FILES}}; // SHA-256 by path
const LATER = {{LATER}}; // files that only some browsers need: kept when they are asked for
const SCOPE = new URL(self.registration.scope);
const CACHE = `u2net-web ${SCOPE.pathname}`; // other pages of this host have their own

const key = path => `${new URL(path, SCOPE)}?sha256=${FILES[path]}`;

addEventListener("install", event => event.waitUntil(install()));
addEventListener("activate", event => event.waitUntil(activate()));
addEventListener("message", event => {
  if (event.data === "take over") self.skipWaiting();
});
addEventListener("fetch", event => {
  const path = pathOf(event.request);
  if (path !== null) event.respondWith(answer(path));
});

async function install() {
  const cache = await caches.open(CACHE);
  const kept = new Set((await cache.keys()).map(request => new URL(request.url).pathname));
  const used = LATER.filter(path => kept.has(new URL(path, SCOPE).pathname)); // by the build before
  const core = Object.keys(FILES).filter(path => !LATER.includes(path));
  for (const path of [...core, ...used]) await stored(path);
}

async function activate() {
  const cache = await caches.open(CACHE), wanted = new Set(Object.keys(FILES).map(key));
  for (const request of await cache.keys()) {
    if (!wanted.has(request.url)) await cache.delete(request);
  }
  await self.clients.claim();
}

/** The file that a request is for, or null for what is none of the page's. */
function pathOf(request) {
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== SCOPE.origin || !url.pathname.startsWith(SCOPE.pathname)) return null;
  const path = decodeURIComponent(url.pathname.slice(SCOPE.pathname.length)) || "index.html";
  return Object.hasOwn(FILES, path) ? path : null;
}

async function answer(path) {
  const response = await stored(path).catch(() => fetch(new URL(path, SCOPE)));
  const headers = new Headers(response.headers);
  // With these two the browser allows threads. Many hosts cannot send them.
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  headers.set("Content-Security-Policy", POLICY); // the one in the page does not hold for its workers
  // Not the stream: one that a visitor leaves half read would keep the next build from taking over.
  return new Response(await response.blob(), {status: response.status, headers});
}

/** A file of this build, from the cache or else from the host, which then must have the right content. */
async function stored(path) {
  const cache = await caches.open(CACHE);
  const found = await cache.match(key(path));
  if (found) return found;
  const response = await fetch(new URL(path, SCOPE), {cache: "no-cache"});
  if (!response.ok) throw new Error(`${path}: the host answered ${response.status}`);
  const body = await response.arrayBuffer();
  if (!await isRight(path, body)) throw new Error(`${path} is not of the build ${VERSION}`);
  const headers = {"Content-Type": response.headers.get("Content-Type") ?? "application/octet-stream"};
  await cache.put(key(path), new Response(body, {headers}));
  return new Response(body, {headers});
}

async function isRight(path, body) {
  // Hosts may add a script to the page, which the policy then keeps from running.
  if (path === "index.html") return new TextDecoder().decode(body).includes(`data-version="${VERSION}"`);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  return Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join("") === FILES[path];
}
