"""Runs the JavaScript of docs/phones.md in Chromium, and compares its map with that of LiteRT in Python.

    npm install --prefix FOLDER @litertjs/core@2.5.3 @litertjs/wasm-utils@2.5.3
    python model_cards/phones/browser.py FOLDER

It needs u2net-hub[litert,test] and Chromium, and adds to results.json the largest and the mean difference for
a photo of the size of the input, for which the browser's resize does nothing.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import sys
import tempfile
import threading
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from u2net_hub import export
from u2net_hub.engines.litert import open_litert

ROOT = Path(__file__).parents[2]
OUT = Path(__file__).with_name("results.json")
PAGE = """<!doctype html><script type="importmap">{"imports": {
  "@litertjs/core": "/node_modules/@litertjs/core/dist/index.js",
  "@litertjs/wasm-utils": "/node_modules/@litertjs/wasm-utils/dist/index.js"}}</script>
<script type="module">
  import { openNetwork } from "./snippet.js";
  try {
    const find = await openNetwork("/node_modules/@litertjs/core/wasm/", "u2netp.tflite");
    const photo = await createImageBitmap(await (await fetch("photo.png")).blob());
    window.saliency = Array.from(await find(photo));
  } catch (e) { window.problem = String(e && e.stack || e); }
  window.done = true;
</script>"""


def main() -> None:
    """Serve the files on loopback, run the page, and compare."""
    packages = Path(sys.argv[1], "node_modules").resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "node_modules").symlink_to(packages)
        text = (ROOT / "docs" / "phones.md").read_text(encoding="utf-8")
        (snippet,) = re.findall(r"```js\n(.*?)```", text, re.DOTALL)
        (folder / "snippet.js").write_text(snippet, encoding="utf-8")
        (folder / "index.html").write_text(PAGE, encoding="utf-8")
        content = export("u2netp", folder / "u2netp.tflite").read_bytes()
        with Image.open(ROOT / "examples" / "chelsea.jpg") as photo:
            small = photo.convert("RGB").resize((320, 320))
        small.save(folder / "photo.png")
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=name)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            tab = browser.new_page()
            tab.on("console", lambda message: print(message.text, file=sys.stderr))
            tab.goto(f"http://127.0.0.1:{server.server_address[1]}/index.html")
            tab.wait_for_function("window.done", timeout=180_000)
            problem = tab.evaluate("window.problem")
            if problem:
                raise RuntimeError(problem)
            found = np.array(tab.evaluate("window.saliency"), np.float32).reshape(320, 320)
            browser.close()
        server.shutdown()
    difference = np.abs(found - open_litert(content)(np.asarray(small))["saliency"][0])
    package = json.loads((packages / "@litertjs" / "core" / "package.json").read_text(encoding="utf-8"))
    record = json.loads(OUT.read_text(encoding="utf-8"))
    record["browser"] = {
        "command": "python model_cards/phones/browser.py FOLDER",
        "litert.js": package["version"],
        "largest": round(float(difference.max()), 6),
        "mean": round(float(difference.mean()), 7),
        "bytes": len(content),
        "date": date.today().isoformat(),
    }
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(record["browser"])


if __name__ == "__main__":
    main()
