"""The rows of the page of space/web in Chromium, for measure.py.

The page's soft cutouts are compared, and the time of the network is what the page shows. A first visit runs
on one thread, because plain hosts do not allow more; from the second visit on the page's service worker does.
Each row also tells the time from the choice of a photo of 12 megapixels to its cutout with sharp edges.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from measure import Context, Found
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
LARGE = (4000, 3000)
"""Width and height of the 12 megapixels."""


def add_rows(row: Callable[[str, str], Any], make_found: Callable[..., Found]) -> None:
    """Add the rows of the browser; `row` and `make_found` are those of measure.py."""

    @row("browser", "[the page](#in-the-browser)")
    def _first_visit(context: Context) -> Found | None:
        return visit(context, make_found, again=False)

    @row("browser-threads", "[the page](#in-the-browser)")
    def _later_visit(context: Context) -> Found | None:
        return visit(context, make_found, again=True)


def visit(context: Context, make_found: Callable[..., Found], *, again: bool) -> Found | None:
    """Cut out all photos in the page, at a first visit or at the second one."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if (chromium := shutil.which("chromium")) is None:
        return None
    folder = context.scratch / "page"
    size = build(folder, context.model)
    with served(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("html[data-ready]", timeout=120_000)
        if again:
            page.reload()
            page.wait_for_selector("html[data-ready]", timeout=120_000)
        maps, seconds = list[np.ndarray[Any, np.dtype[np.float32]]](), list[float]()
        page.check("[value=soft]")
        for photo in context.photos:
            cut(page, photo)
            seconds.append(float(page.inner_text("#facts").split()[-2]) / 1000)
            with page.expect_download() as download:
                page.click("#save")
            with Image.open(download.value.path()) as picture:
                maps.append(np.asarray(picture.getchannel("A"), np.float32) / np.float32(255))
        threads = page.inner_text("#how").rpartition(", ")[2]
        what = (
            f"soft cutouts in Chromium {browser.version.partition('.')[0]}, WebAssembly, {threads}; "
            f"12 megapixels with sharp edges take {large_photo(page, context.photos[0]):.1f} s in all"
        )
        browser.close()
    return make_found(what, iter(maps), seconds, size, eight_bits=True)


def large_photo(page: Page, photo: Path) -> float:
    """Return the median seconds from the choice of a large photo to its cutout."""
    page.check("[value=sharp]")
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, "large.jpg")
        Image.open(photo).convert("RGB").resize(LARGE).save(large, quality=90)
        for _ in range(3):
            start = time.perf_counter()
            cut(page, large)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def cut(page: Page, photo: Path) -> None:
    """Choose a photo and wait for its cutout."""
    page.set_input_files("#files", photo)
    page.wait_for_selector("#save:enabled", timeout=120_000)
    page.wait_for_selector("#working:empty", state="attached")


@functools.cache
def build(folder: Path, model: str) -> int:
    """Build the page; returns the bytes of a first visit with WebAssembly."""
    spec = importlib.util.spec_from_file_location("build_web", ROOT / "space" / "web" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return int(script.build(folder, model)["wasm"])


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; gives its address."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
