// The page: what a visitor chooses, and what is shown. The work on photos is done in worker.js.

const $ = id => document.getElementById(id);
const desk = $("desk");
const PICTURE = /\.(jpe?g|jfif|png|webp|avif|gif|bmp|heic|heif|tiff?)$/i;

let photos = []; // of this choice: {name, file, outcome, saved}
let shown = null; // the one on the stage
let turn = 0; // counts the choices of photos; work for an older one is dropped

// ---- the worker

const waiting = new Map();
let worker = null, asked = 0;

function ask(request) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, {resolve, reject});
    worker.postMessage({id: asked, ...request});
  });
}

const ready = start();
ready.catch(error => {
  $("working").textContent = "";
  tell(error.message);
});
let last = ready.catch(() => {});

/** Do one thing after another, since the worker keeps one photo. */
function queue(job) {
  const done = last.then(() => ready).then(job);
  last = done.catch(() => {});
  return done;
}

async function start() {
  if (!("OffscreenCanvas" in window && "CompressionStream" in window && "WebAssembly" in window)) {
    throw new Error("This browser is too old for this page. Chrome 110, Firefox 114 and Safari 17 and later can show it.");
  }
  await keepOffline();
  worker = new Worker(new URL("worker.js", import.meta.url), {type: "module"});
  worker.onmessage = ({data: {id, error, ...answer}}) => {
    const {resolve, reject} = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(answer);
    else reject(new Error(error));
  };
  worker.onerror = () => {
    for (const {reject} of waiting.values()) {
      reject(new Error("The browser stopped the work, perhaps for want of memory. Load the page again."));
    }
    waiting.clear();
  };
  const engine = new URLSearchParams(location.search).get("engine") ?? "auto";
  const network = await ask({do: "start", engine});
  $("how").textContent = `ONNX Runtime, ${network.how}`;
  document.documentElement.dataset.ready = network.name;
  $("offline").hidden = !navigator.serviceWorker?.controller;
}

// ---- offline, and new versions of the page

async function keepOffline() {
  if (!navigator.serviceWorker) return; // a private window, or a host without https
  try {
    const registration = await navigator.serviceWorker.register("sw.js", {updateViaCache: "none"});
    if (registration.waiting && navigator.serviceWorker.controller) { // it came at the last visit
      reloadWith(registration.waiting);
      await new Promise(resolve => setTimeout(resolve, 5000)); // it may have to wait for another window
      offer(registration.waiting);
    }
    registration.addEventListener("updatefound", () => {
      const found = registration.installing;
      found.addEventListener("statechange", () => {
        if (found.state === "installed" && navigator.serviceWorker.controller) offer(found);
      });
    });
    if (navigator.serviceWorker.controller) return;
    // the worker's files go through the service worker only if it is there first
    const taken = new Promise(resolve => {
      navigator.serviceWorker.addEventListener("controllerchange", resolve, {once: true});
    });
    const failed = new Promise((_, reject) => {
      const installing = registration.installing ?? registration.waiting;
      installing?.addEventListener("statechange", () => {
        if (installing.state === "redundant") reject(new Error("its files could not be stored"));
      });
    });
    if (registration.active?.state !== "activated") await Promise.race([taken, failed]);
  } catch (error) {
    console.warn("the page will not work offline:", error);
  }
}

function offer(next) {
  if (!next) return;
  $("update").hidden = false;
  $("reload").onclick = () => {
    photos = []; // the visitor agrees to lose them
    reloadWith(next);
  };
}

/** Let a new build take over. A visitor who has chosen photos by then keeps this page and loads it later. */
function reloadWith(next) {
  if (!["installed", "activating"].includes(next.state)) return location.reload(); // another window let it take over
  navigator.serviceWorker.addEventListener("controllerchange", () => {
    if (!photos.length) return location.reload();
    $("update").hidden = false;
    $("reload").onclick = () => location.reload();
  }, {once: true});
  next.postMessage("take over");
}

// ---- choices

const edges = () => document.querySelector("[name=edges]:checked").value;
const hasColour = () => document.querySelector("[name=background]:checked").value === "colour";
const background = () => hasColour() ? [1, 3, 5].map(at => parseInt($("colour").value.slice(at, at + 2), 16)) : null;

document.querySelector(".choices").addEventListener("input", event => {
  desk.dataset.background = hasColour() ? "colour" : "transparent"; // the style sheet shows it
  desk.style.setProperty("--behind", $("colour").value);
  if (event.target.name === "edges") recut();
  $("again").hidden = photos.length < 2;
});

$("split").addEventListener("input", () => $("stage").style.setProperty("--split", $("split").value + "%"));

// ---- photos

$("files").addEventListener("change", event => chosen(event.target));
$("folder").addEventListener("change", event => chosen(event.target));
function chosen(input) {
  take([...input.files]);
  input.value = ""; // so that the same file can be chosen again
}

addEventListener("dragover", event => {
  event.preventDefault();
  $("drop").classList.add("dragged");
});
addEventListener("dragleave", event => {
  if (!event.relatedTarget) $("drop").classList.remove("dragged");
});
addEventListener("drop", async event => {
  event.preventDefault();
  $("drop").classList.remove("dragged");
  const entries = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...event.dataTransfer.files];
  if (!entries.some(entry => entry.isDirectory)) return take(files);
  const unread = [];
  take((await Promise.all(entries.map(entry => filesOf(entry, unread)))).flat(), unread);
});
addEventListener("paste", event => {
  const files = [...event.clipboardData.files];
  if (files.length) take(files);
});
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", async () => {
    const name = button.dataset.example, response = await fetch(name).catch(() => null);
    if (response?.ok) take([new File([await response.blob()], name)]);
    else tell(`${name} could not be loaded. Check the connection.`);
  });
}

/** The files in a folder that was dropped, and in the folders in it; names that cannot be read go to `unread`. */
async function filesOf(entry, unread) {
  const found = [];
  try {
    if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
    const reader = entry.createReader();
    for (;;) { // it gives a hundred at a time
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
      found.push(...some);
    }
  } catch {
    unread.push(entry.name);
  }
  return (await Promise.all(found.map(each => filesOf(each, unread)))).flat();
}

/** Begin with a new choice: files, and the names of those that could not be read. */
function take(files, unread = []) {
  if (files.length > 1) files = files.filter(file => file.type.startsWith("image/") || PICTURE.test(file.name));
  if (!files.length && !unread.length) return tell("There is no photo in what you chose.");
  const named = files.map(file => ({name: file.webkitRelativePath || file.name || "photo", file}));
  photos = [...named, ...unread.map(name => ({name, file: null}))];
  desk.dataset.photo = "chosen";
  work();
}

/** Cut out all photos of the choice, one after another; several are also made into files. */
function work() {
  const mine = ++turn, several = photos.length > 1;
  shown = null;
  $("again").hidden = true;
  $("save").disabled = true;
  for (const photo of photos) Object.assign(photo, {outcome: "waiting", saved: null, bad: false});
  list(true);
  if (!document.documentElement.dataset.ready) $("working").textContent = "Getting ready …";
  for (const photo of photos) {
    queue(async () => {
      if (mine !== turn) return;
      photo.outcome = "working";
      list(true);
      try {
        const {found} = await show(photo);
        if (several) photo.saved = (await ask({do: "save", edges: edges(), background: background()})).file;
        photo.outcome = found ? "done" : "done, but no salient object found";
      } catch (error) {
        Object.assign(photo, {outcome: error.message, bad: true});
        if (mine === turn && !several) tell(error.message, photo.name);
      }
      if (mine === turn) list(photo !== photos.at(-1));
    }).catch(() => {}); // the page is not ready, which is told already
  }
}

/** Bring a photo to the stage. */
async function show(photo) {
  $("problem").hidden = true;
  $("working").textContent = "Finding the object …";
  $("stage").ariaBusy = "true";
  try {
    if (!photo.file) throw new Error("The browser cannot read it. Are you allowed to open it?");
    const answer = await ask({do: "open", file: photo.file});
    await cut(() => {
      paint($("before"), answer.before);
      for (const [name, value] of [["--w", answer.width], ["--h", answer.height]]) $("stage").style.setProperty(name, value);
      report(answer);
    });
    shown = photo;
    $("save").disabled = false;
    return answer;
  } catch (error) {
    leave();
    throw error;
  } finally {
    $("working").textContent = "";
    $("stage").ariaBusy = "false";
  }
}

/** Make the cutout; `first` is done at the same moment as it is shown. */
async function cut(first = () => {}) {
  const {after, soft} = await ask({do: "cut", edges: edges()});
  first();
  paint($("after"), after);
  $("empty").hidden = true;
  $("stage").hidden = false;
  if (soft) tell("The network is too unsure of this object for such edges, so they are soft.");
}

function recut() {
  if (!shown) return;
  const mine = turn;
  queue(async () => {
    if (mine !== turn || !shown) return;
    $("working").textContent = "Cutting out …";
    try {
      await cut();
    } catch (error) {
      tell(error.message, shown.name);
    }
    $("working").textContent = "";
  }).catch(() => {});
}

function paint(canvas, bitmap) {
  canvas.getContext("bitmaprenderer").transferFromImageBitmap(bitmap);
}

function leave() {
  shown = null;
  $("stage").hidden = $("verdict").hidden = $("facts").hidden = true;
  $("empty").hidden = false;
  $("save").disabled = true;
}

// ---- words

function tell(text, name = "") {
  $("problem").textContent = name ? `${name}: ${text}` : text;
  $("problem").hidden = false;
}

function report({found, confidence, width, height, milliseconds}) {
  const verdict = $("verdict"), sure = confidence.toFixed(2), more = document.createElement("span");
  more.textContent = found ? `Confidence ${sure}`
    : `Nothing in this photo stands out to the network: confidence ${sure}, below 0.50.`;
  verdict.replaceChildren(found ? "Object found" : "No salient object found", more);
  verdict.classList.toggle("none", !found);
  $("facts").replaceChildren(fact("size", `${width} × ${height} px`), fact("network", `${Math.round(milliseconds)} ms`));
  verdict.hidden = $("facts").hidden = false;
}

function fact(name, value) {
  const pair = document.createElement("div"), term = document.createElement("dt"), description = document.createElement("dd");
  term.textContent = name;
  description.textContent = value;
  pair.append(term, description);
  return pair;
}

/** The list of several photos. */
function list(busy) {
  $("several").hidden = photos.length < 2;
  if (photos.length < 2) return;
  $("rows").replaceChildren(...photos.map(photo => {
    const [row, name, outcome, actions] = ["li", "b", "span", "div"].map(tag => document.createElement(tag));
    name.textContent = photo.name;
    outcome.textContent = photo.outcome;
    row.append(name, outcome);
    if (photo.saved) {
      actions.append(button("Show", photo, busy, () => queue(() => show(photo)).catch(error => tell(error.message, photo.name))));
      actions.append(" ", button("Download", photo, false, () => download(photo.saved, fileName(photo))));
    }
    if (photo.saved) row.append(actions);
    row.classList.toggle("bad", Boolean(photo.bad));
    return row;
  }));
  $("save-all").disabled = busy || !photos.some(photo => photo.saved);
}

function button(text, photo, disabled, act) {
  const made = document.createElement("button");
  Object.assign(made, {type: "button", textContent: text, disabled, onclick: act, ariaLabel: `${text} ${photo.name}`});
  return made;
}

// ---- downloads

const fileName = photo => photo.name.split("/").at(-1).replace(/\.[^.]*$/, "") + "_cutout.png";

$("save").addEventListener("click", () => {
  const photo = shown;
  if (!photo) return;
  $("save").disabled = true;
  $("working").textContent = "Writing the file …";
  queue(async () => {
    if (photo !== shown) return;
    download((await ask({do: "save", edges: edges(), background: background()})).file, fileName(photo));
  }).catch(error => tell(error.message, photo.name)).finally(() => {
    $("save").disabled = !shown;
    $("working").textContent = "";
  });
});

$("save-all").addEventListener("click", () => {
  const files = photos.filter(photo => photo.saved).map(photo => ({name: photo.name.replace(/\.[^./]*$/, "") + ".png", file: photo.saved}));
  queue(async () => download((await ask({do: "zip", files})).file, "cutouts.zip")).catch(error => tell(error.message));
});

$("again").addEventListener("click", work);

function download(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
