"""Measure the page of space/web in Chromium: python model_cards/everywhere/browser.py --photos FOLDER

For each photo, the page's soft cutout is compared with that of the pipeline in ONNX Runtime, and the time of
the network is read from the page. The first rows are those of a first visit, on one thread: plain
hosts do not allow more. On later visits the service worker does. The rows of 12 megapixels have the time
from the choice of a photo to its cutout with sharp edges. All rows go to browser.json beside this file.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import io
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import TypedDict

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from u2net_hub import SaliencyPipeline
from u2net_hub.benchmarks.machine import describe_machine
from u2net_hub.imaging import IMAGE_SUFFIXES

ROOT = Path(__file__).parents[2]
LARGE = (4000, 3000)
"""Width and height of the 12 megapixels."""


class Row(TypedDict):
    """One line of the table in docs/everywhere.md."""

    loader: str
    ran: str
    photos: int
    mean_difference: float | None
    """Mean difference from the pipeline's alpha, of all photos."""
    largest_difference: float | None
    """The largest mean difference of one photo."""
    milliseconds: float
    """Median."""
    bytes: int
    """What the browser downloads at its first visit."""


def main() -> None:
    """Read the options, measure, write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=ROOT / "examples", help="folder of photos")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("browser.json"))
    options = parser.parse_args()
    photos = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    record = measure(photos)
    options.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def measure(photos: Sequence[Path]) -> dict[str, object]:
    """Build the page, visit it twice, and measure."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_folder = Path(folder, "page")
        sizes = build_script().build(page_folder)
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page()
        ran = f"Chromium {chromium.version}, WebAssembly"
        rows = []
        with served(page_folder) as address:
            for visit in (page.goto, lambda _: page.reload()):
                visit(address)
                page.wait_for_selector("html[data-ready]", timeout=120_000)
                how = page.inner_text("#how").rpartition(", ")[2]
                rows.append(small_photos(page, photos, f"{ran}, {how}", sizes["wasm"]))
                rows.append(large_photo(page, photos[0], f"{ran}, {how}, 12 megapixels", sizes["wasm"]))
        chromium.close()
        return {"rows": rows, "first_visit_bytes": sizes, "machine": describe_machine("cpu")}


def small_photos(page: Page, photos: Sequence[Path], ran: str, size: int) -> Row:
    """Compare the soft cutouts of photos, and read the network's times."""
    pipeline = SaliencyPipeline("u2netp", engine="onnxruntime", device="cpu")
    page.check("[value=soft]")
    times, differences = [], []
    for photo in photos:
        cut(page, photo)
        times.append(float(page.inner_text("#facts").split()[-2]))
        with page.expect_download() as download:
            page.click("#save")
        found = Image.open(io.BytesIO(Path(download.value.path()).read_bytes())).getchannel("A")
        expected = pipeline(photo).alpha(edges="soft")
        difference = np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)) / 255
        differences.append(float(difference.mean()))
    return Row(
        loader="the page of space/web",
        ran=ran,
        photos=len(photos),
        mean_difference=statistics.fmean(differences),
        largest_difference=max(differences),
        milliseconds=statistics.median(times),
        bytes=size,
    )


def large_photo(page: Page, photo: Path, ran: str, size: int) -> Row:
    """Time a photo of 12 megapixels from its choice to its cutout with sharp edges."""
    page.check("[value=sharp]")
    times = []
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, "large.jpg")
        Image.open(photo).convert("RGB").resize(LARGE).save(large, quality=90)
        for _ in range(3):
            started = time.perf_counter()
            cut(page, large)
            times.append(1000 * (time.perf_counter() - started))
    return Row(
        loader="the page of space/web",
        ran=ran,
        photos=1,
        mean_difference=None,
        largest_difference=None,
        milliseconds=statistics.median(times),
        bytes=size,
    )


def cut(page: Page, photo: Path) -> None:
    """Choose a photo and wait for its cutout."""
    page.set_input_files("#files", photo)
    page.wait_for_selector("#save:enabled", timeout=120_000)
    page.wait_for_selector("#working:empty", state="attached")


def build_script() -> ModuleType:
    """Import space/web/build.py."""
    spec = importlib.util.spec_from_file_location("build_web", ROOT / "space" / "web" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


if __name__ == "__main__":
    main()
