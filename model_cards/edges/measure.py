"""Measures the edges of cutouts, and writes model_cards/edges/edges.json.

Run it from the root of the checkout:

    python model_cards/edges/measure.py WEIGHTS --mattes MATTES --ecssd ECSSD --duts-tr DUTS-TR

Seconds are of the processor, in one thread where OMP_NUM_THREADS=1 is set, so that other work on the machine
does not count. The exception is the speed of whole commands, which needs a machine that does nothing else:

    python model_cards/edges/measure.py WEIGHTS --speed ECSSD/images --peer-python VENV_WITH_REMBG/bin/python
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from u2net_hub import SaliencyPipeline, SaliencyResult, export
from u2net_hub.benchmarks.commands import Command, measure_commands
from u2net_hub.benchmarks.results import FolderTiming
from u2net_hub.evaluation.metrics import relaxed_boundary_f
from u2net_hub.imaging.foreground import foreground_colours
from u2net_hub.imaging.matting import Edges, refine

EDGES: tuple[Edges, ...] = get_args(Edges)
OUT = Path(__file__).parent / "edges.json"
BACKGROUNDS = ("coffee.jpg", "rocket.jpg", "grass.jpg", "chelsea.jpg")

Row = dict[str, float]


def matte(result: SaliencyResult, edges: Edges) -> NDArray[np.uint8]:
    return refine(result.photo.rgb, result._normalised, edges)


def true_mattes(folder: Path) -> Iterator[tuple[str, Image.Image, NDArray[np.float64]]]:
    """Name, photo and alpha of each photo with a true matte."""
    for path in sorted(folder.glob("*_image.*")):
        name = path.stem.removesuffix("_image")
        alpha = np.asarray(Image.open(folder / f"{name}_alpha.png").convert("L"), np.float64) / 255
        yield name, Image.open(path).convert("RGB"), alpha


def sad(alpha: NDArray[np.uint8], truth: NDArray[np.float64]) -> float:
    """The sum of absolute differences, in thousands of pixels."""
    return float(np.abs(alpha / 255 - truth).sum() / 1000)


def measure_mattes(pipeline: SaliencyPipeline, weights: str, folder: Path) -> dict[str, Row]:
    """SAD of the cutout's alpha at the file's size, of ours and rembg's."""
    rows: dict[str, Row] = {}
    peer = rembg_alpha(weights)
    for name, photo, truth in true_mattes(folder):
        result = pipeline(photo)
        rows[name] = {edges: sad(matte(result, edges), truth) for edges in EDGES}
        for each, matting in (("rembg", False), ("rembg -a", True)):
            begin = time.process_time()
            alpha = peer(photo, matting) if peer else None
            if alpha is not None:
                rows[name][each] = sad(alpha, truth)
                rows[name][f"{each}, CPU-s"] = time.process_time() - begin
    return rows


def rembg_alpha(weights: str) -> Callable[[Image.Image, bool], NDArray[np.uint8]] | None:
    """The alpha that rembg makes with the same weights; None where rembg is not installed."""
    try:
        from rembg import new_session, remove
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        session = new_session("u2net_custom", model_path=str(export(weights, Path(folder) / "model.onnx")))

    def alpha(photo: Image.Image, matting: bool) -> NDArray[np.uint8]:
        cutout = remove(photo, session=session, alpha_matting=matting)
        return np.asarray(cutout.getchannel("A"))

    return alpha


def measure_masks(pipeline: SaliencyPipeline, pairs: Sequence[tuple[Path, Path]]) -> dict[str, Any]:
    """Boundary F at 1 px, weighted F, MAE, see-through objects and closed holes of each kind of edges."""
    from py_sod_metrics import WeightedFmeasure

    scores: dict[str, list[tuple[float, float, float, float]]] = {edges: [] for edges in EDGES}
    closed = dict.fromkeys(EDGES, 0.0)
    hole_pixels = 0
    for image, mask in pairs:
        gt = np.asarray(Image.open(mask).convert("L")) >= 128
        hole = holes(gt)
        hole_pixels += int(hole.sum())
        result = pipeline(image)
        for edges in EDGES:
            alpha = matte(result, edges)
            closed[edges] += float(alpha[hole].sum() / 255)
            low, high = int(alpha.min()), int(alpha.max())
            stretched = (alpha - float(low)) / (high - low) if high > low else alpha / 255.0
            weighted = WeightedFmeasure()
            weighted.step(stretched, gt, normalize=False)
            scores[edges].append(
                (
                    relaxed_boundary_f(stretched >= 0.5, gt, rho=1),
                    float(weighted.get_results()["wfm"]),
                    float(np.abs(stretched - gt).mean()),
                    see_through(alpha, gt),
                )
            )
    names = ("boundary_f_1px", "weighted_f", "mae")
    found: dict[str, Any] = {"n": len(pairs)}
    soft = np.array(scores["soft"])
    for edges in EDGES:
        values = np.array(scores[edges])
        found[edges] = dict(zip(names, map(float, values.mean(0)), strict=False))
        found[edges]["holes_closed"] = closed[edges] / max(hole_pixels, 1)
        found[edges]["see_through_photos"] = int((values[:, 3] > 0.05).sum())
        if edges != "soft":
            difference = (values - soft)[:, :3]
            errors = 2 * difference.std(0) / len(pairs) ** 0.5
            found[f"{edges} - soft"] = dict(zip(names, map(float, difference.mean(0)), strict=True))
            found[f"{edges} - soft, two standard errors"] = dict(zip(names, map(float, errors), strict=True))
    return found


def see_through(alpha: NDArray[np.uint8], gt: NDArray[np.bool_]) -> float:
    """The share of the object that is neither opaque nor gone, away from its outline."""
    inner = ndimage.binary_erosion(
        gt, np.ones((3, 3), bool), max(round(max(gt.shape) / 40), 1), border_value=1
    )
    return float(((alpha > 25) & (alpha < 230) & inner).sum() / max(gt.sum(), 1))


def holes(gt: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The background that the object encloses, such as between the spokes of a wheel, without its rim."""
    inner = ndimage.binary_fill_holes(gt) & ~gt
    return np.asarray(ndimage.binary_erosion(inner, np.ones((3, 3), bool)), np.bool_)


def measure_colours(folder: Path, backgrounds: Path) -> dict[str, Row]:
    """Alpha-weighted error of the foreground colours in grey levels, and the share that is off by over 20.

    The composites are made of true mattes, other photos as backgrounds, and foregrounds that are known
    everywhere because they are made: the colours of the opaque pixels, continued outwards.
    """
    methods: dict[str, Callable[[Image.Image, Image.Image], Image.Image]] = {
        "photo": lambda photo, _: photo,
        "foreground_colours": foreground_colours,
    }
    try:
        from pymatting import estimate_foreground_ml
    except ImportError:
        pass
    else:
        methods["pymatting"] = lambda photo, alpha: Image.fromarray(
            np.rint(
                255 * estimate_foreground_ml(np.asarray(photo) / 255.0, np.asarray(alpha) / 255.0)
            ).astype(np.uint8)
        )
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for _, photo, truth in true_mattes(folder):
        alpha = np.rint(truth * 255).astype(np.uint8)
        fore = continued(np.asarray(photo, np.float64), truth)
        for name in BACKGROUNDS:
            back = Image.open(backgrounds / name).convert("RGB").resize(photo.size, Image.Resampling.BICUBIC)
            mixed = truth[..., None] * fore + (1 - truth[..., None]) * np.asarray(back)
            composite = Image.fromarray(np.rint(mixed).astype(np.uint8))
            soft = (alpha > 0) & (alpha < 255)
            weight = truth[soft]
            for method, colours in methods.items():
                found = np.asarray(colours(composite, Image.fromarray(alpha)), np.float64)
                off = np.abs(found - fore)[soft]
                errors[method].append(
                    (
                        float((off.mean(1) * weight).sum() / weight.sum()),
                        float(((off.max(1) > 20) * weight).sum() / weight.sum()),
                    )
                )
    return {
        name: dict(zip(("error", "over_20"), map(float, np.mean(rows, 0)), strict=True))
        for name, rows in errors.items()
    }


def continued(photo: NDArray[np.float64], alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """The photo (H, W, 3), in soft pixels with the colours of the nearest opaque ones, slightly blurred."""
    opaque = alpha >= 0.98
    nearest = ndimage.distance_transform_edt(~opaque, return_distances=False, return_indices=True)
    spread = photo[tuple(nearest)]
    blurred = ndimage.gaussian_filter(spread, (3, 3, 0))
    return np.where(opaque[..., None], photo, blurred)


def measure_cost(
    saliency: NDArray[np.float32], photo: Image.Image, size: tuple[int, int]
) -> dict[str, dict[str, float | None]]:
    """CPU-s and peak memory of a matte with its colours, beyond the decoded photo and the network.

    Each kind of edges has a process of its own: memory that an earlier one has freed, but not given back to
    the system, would hide what the next one takes.
    """
    cost = {}
    for edges in EDGES:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            cost[edges] = process.submit(_cost, saliency, photo, size, edges).result()
    return cost


def _cost(
    saliency: NDArray[np.float32], photo: Image.Image, size: tuple[int, int], edges: Edges
) -> dict[str, float | None]:
    warm = photo.resize((400, 300))
    foreground_colours(warm, Image.fromarray(refine(warm, saliency, edges)))
    large = photo.resize(size, Image.Resampling.BICUBIC)
    before = reset_peak()
    begin = time.process_time()
    alpha = Image.fromarray(refine(large, saliency, edges))
    middle = time.process_time()
    clean = foreground_colours(large, alpha)
    clean.putalpha(alpha)
    end = time.process_time()
    peak = None if before is None else status("VmHWM") - before
    return {"matte": middle - begin, "colours": end - middle, "peak_mb": peak}


def reset_peak() -> float | None:
    """Have Linux forget the peak of this process: its resident set now in MB; None elsewhere."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return status("VmRSS")
    except OSError:
        return None


def status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name))


def measure_speed(weights: str, folder: Path, peer: Path, rounds: int) -> dict[str, Any]:
    """Seconds of `u2net cutout` in `fast` with each kind of edges, and of `rembg p`, from start to end.

    All commands take turns on the same photos, saved as JPEG, and write PNG. The ratios are of the medians;
    a number above 1 is in favour of `u2net cutout`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch) / "photos"
        photos.mkdir()
        for path in sorted(folder.iterdir()):
            Image.open(path).convert("RGB").save(photos / f"{path.stem}.jpg", quality=95)
        n = len(list(photos.iterdir()))
        model = export(weights, Path(scratch) / "u2netp.onnx")
        theirs = (str(peer.parent / "rembg"), "p", "-m", "u2netp", str(photos), "OUT")
        checked = {"U2NET_HOME": str(model.parent), "MODEL_CHECKSUM_DISABLED": "1"}
        commands = [Command(FolderTiming("rembg p", photos=n), theirs, checked)]
        for edges in EDGES:
            ours = (
                sys.executable,
                "-m",
                "u2net_hub",
                "cutout",
                str(photos),
                "--out",
                "OUT",
                "--model",
                weights,
            )
            ours += ("--device", "cpu", "--precision", "fast", "--edges", edges)
            commands.append(Command(FolderTiming(edges, photos=n), ours))
        timings = measure_commands(commands, Path(scratch), rounds, print)
    for timing, command in zip(timings, commands, strict=True):
        if timing.error is not None:
            raise RuntimeError(f"{shlex.join(command.words)} did not run: {timing.error}")
    seconds = {timing.name: list(timing.seconds) for timing in timings}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {edges: medians["rembg p"] / medians[edges] for edges in EDGES}
    return {"photos": n, "seconds": seconds, "times faster than rembg p": ratios}


def pairs_of(folder: Path, images: str, masks: str, n: int | None = None) -> list[tuple[Path, Path]]:
    """Photos with their masks, all or a sample."""
    pairs = [(image, folder / masks / f"{image.stem}.png") for image in sorted((folder / images).iterdir())]
    return pairs if n is None else random.Random(0).sample(pairs, n)


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights")
    parser.add_argument("--mattes", type=Path, help="NAME_image.* and NAME_alpha.png")
    parser.add_argument("--ecssd", type=Path, help="images/ and masks/")
    parser.add_argument("--duts-tr", type=Path, help="DUTS-TR-Image/ and DUTS-TR-Mask/")
    parser.add_argument("--n", type=int, default=80, help="photos of DUTS-TR")
    parser.add_argument("--examples", type=Path, default=Path("examples"), help="backgrounds")
    parser.add_argument("--unseen", help="weights that were not trained on the pairs of --pairs")
    parser.add_argument("--unseen-size", type=int, default=168, help="side of their input")
    parser.add_argument("--pairs", type=Path, help="a file with a photo and its mask on each line")
    parser.add_argument("--speed", type=Path, help="a folder of photos, for the speed of whole commands")
    parser.add_argument("--peer-python", type=Path, help="the Python that has rembg", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each command")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    pipeline = SaliencyPipeline.from_pretrained(given.weights, device="cpu", minmax="auto")
    always = SaliencyPipeline.from_pretrained(given.weights, device="cpu", minmax="always")
    names = ("numpy", "scipy", "pillow", "pymatting", "rembg", "pysodmetrics")

    def record(part: str, values: dict[str, Any], **others: str) -> None:
        """Keep one part of the figures, with what it was measured on, so that parts can be measured apart."""
        versions = {name: installed(name) for name in names} | {"python": platform.python_version(), **others}
        about = {"versions": versions, "processor": processor(), "date": date.today().isoformat()}
        found[part] = {**about, "values": values}
        given.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    if given.mattes:
        record("colours", measure_colours(given.mattes, given.examples))
        record("sad", measure_mattes(pipeline, given.weights, given.mattes))
        for name, size in (("12_megapixels", (4000, 3000)), ("400_px", (400, 300))):
            costs = {
                photo: measure_cost(pipeline(image)._normalised, image, size)
                for photo, image, _ in true_mattes(given.mattes)
            }
            record(name, costs)
    if given.duts_tr:
        pairs = pairs_of(given.duts_tr, "DUTS-TR-Image", "DUTS-TR-Mask", given.n)
        record("DUTS-TR", measure_masks(always, pairs))
    if given.ecssd:
        record("ECSSD", measure_masks(always, pairs_of(given.ecssd, "images", "masks")))
    if given.unseen and given.pairs:
        unseen = SaliencyPipeline.from_pretrained(given.unseen, device="cpu", minmax="always")
        unseen.config = unseen.config.replace(input_size=(given.unseen_size, given.unseen_size))
        lines = given.pairs.read_text(encoding="utf-8").splitlines()
        listed = [(Path(image), Path(mask)) for image, mask in (line.split() for line in lines)]
        record("DUTS-TR held out", measure_masks(unseen, listed))
    if given.speed:
        ask = [str(given.peer_python), "-c", "import importlib.metadata as m; print(m.version('rembg'))"]
        peer = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
        speed = measure_speed(given.weights, given.speed, given.peer_python, given.rounds)
        record("speed", speed, rembg=peer)


if __name__ == "__main__":
    main()
