"""Build the page that cuts out photos in the browser: python space/web/build.py --out DIST

The folder DIST is a static Space and can lie on any other host, in a subfolder too. ONNX Runtime comes from
the npm registry: one file, in a fixed version, which must have the hash below.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from u2net_hub import U2Net, export
from u2net_hub.atomic import content_hash, write_file
from u2net_hub.imaging import load, preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from u2net_hub import U2NetConfig

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = ("astronaut.jpg", "chelsea.jpg", "coffee.jpg")

RUNTIME = "onnxruntime-web"
RUNTIME_VERSION = "1.30.0"
# "dist.integrity" of this version in the registry
RUNTIME_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="

# For each runtime of network.js: its script, its glue code and its WebAssembly. A browser loads one of them.
RUNTIMES = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": (
        "ort.webgpu.min.mjs",
        "ort-wasm-simd-threaded.asyncify.mjs",
        "ort-wasm-simd-threaded.asyncify.wasm",
    ),
    "jspi": ("ort.jspi.min.mjs", "ort-wasm-simd-threaded.jspi.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
}

# Only the page's own files. 'wasm-unsafe-eval' allows WebAssembly, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'"
)

MOST_BYTES = 10_000_000
"""The largest first visit, from a host that compresses nothing itself."""

# The known picture's map has so many rows and columns between two values with which network.js compares.
_STEP = 16


def main() -> None:
    """Read the options, build, and print the bytes of a first visit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the page; it is replaced")
    parser.add_argument("--model", default="u2netp", help="source of the weights")
    options = parser.parse_args()
    try:
        sizes = build(options.out, options.model)
    except (OSError, ValueError, ImportError) as e:
        raise SystemExit(f"error: {e}") from e
    for name, size in sizes.items():
        print(f"first visit with {name}: {size / 1e6:.2f} MB")


def build(out: Path, model: str = "u2netp") -> dict[str, int]:
    """Build the page in a folder, which it replaces if an earlier build made it.

    Args:
        out: The folder.
        model: The source of the weights, as `U2Net.from_pretrained` takes it.

    Returns:
        The bytes of a first visit for each runtime.

    Raises:
        FileExistsError: The folder holds something else.
        ValueError: The page cannot run the network, the runtime has the wrong hash, or a first visit is too
            large.
        OSError: The registry cannot be reached.
    """
    if out.exists():
        check_replaceable(out)
    network = U2Net.from_pretrained(model)
    check_config(network.config)
    files = {path.name: path.read_bytes() for path in sorted((HERE / "page").iterdir())}
    files |= {name: (ROOT / "examples" / name).read_bytes() for name in EXAMPLES}
    files |= pack_network(network)
    runtime, later = pack_runtimes(read_runtime())
    files |= runtime
    parameters = sum(p.numel() for p in network.parameters())
    words = {"NETWORK": Path(model).name, "PARAMETERS": f"{parameters:,}"}
    files = fill(files, words, later) | legal()
    sizes = first_visits(files, later)
    for name, size in sizes.items():
        if size > MOST_BYTES:
            raise ValueError(
                f"a first visit with {name} takes {size:,} bytes, expected at most {MOST_BYTES:,}; "
                "choose a smaller model"
            )
    replace(out, files)
    return sizes


def check_replaceable(out: Path) -> None:
    """Raise FileExistsError unless `out` is a folder that is empty or holds the files of a build only."""
    if not out.is_dir():
        raise FileExistsError(f"{out} is there and is no folder; choose another name")
    script = out / "sw.js"
    text = script.read_text(encoding="utf-8", errors="replace") if script.is_file() else ""
    listing = re.search(r"^const FILES = (\{.*?\});", text, re.DOTALL | re.MULTILINE)
    built = {"sw.js", *re.findall(r'"([^"]+)":', listing[1]), *legal()} if listing else set()
    foreign = sorted(path.name for path in out.iterdir() if path.name not in built or not path.is_file())
    if foreign:
        raise FileExistsError(
            f"{out} is there and is no build of this page: it holds {foreign[:5]}; choose another folder"
        )


def check_config(config: U2NetConfig) -> None:
    """Raise ValueError if the page cannot run a network of this config."""
    wanted = {"in_channels": 3, "out_channels": 1, "interpolation": "bilinear", "invert": False}
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"the config has {name}={getattr(config, name)!r}, and the page can only run {value!r}"
            )


def pack_network(network: U2Net) -> dict[str, bytes]:
    """Make network.pack, the graph with float16 weights, and network.json, what a page must know of it."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        graph = export(network, Path(folder, "network.onnx"), weights="float16").read_bytes()
    x = preprocess(load(known_picture(network.config)), network.config)[None]
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    saliency = session.run(None, {"input": x})[0][0, 0]
    config = json.loads(network.config.to_json())
    about = {name: config[name] for name in ("input_size", "scale", "mean", "std", "minmax")}
    values = np.round(saliency[::_STEP, ::_STEP].astype(float), 3).ravel().tolist()
    about["check"] = {"step": _STEP, "values": values}
    return {"network.pack": compress(graph), "network.json": json.dumps(about).encode()}


def known_picture(config: U2NetConfig) -> NDArray[np.uint8]:
    """Draw a disc on a background that grows lighter, as `scene` in network.js does: (h, w, 3)."""
    height, width = config.input_size
    y, x = np.mgrid[:height, :width]
    picture = np.stack([30 + (x >> 3), np.full_like(x, 90), np.full_like(x, 120)], -1)
    picture[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (width * 0.3) ** 2] = 200, 80, 40
    return picture.astype(np.uint8)


def read_runtime() -> dict[str, bytes]:
    """Return the files that the page needs of ONNX Runtime; the archive is kept in the user's cache.

    Raises:
        OSError: The registry cannot be reached.
        ValueError: The archive has the wrong hash.
    """
    name = f"{RUNTIME}-{RUNTIME_VERSION}.tgz"
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "u2net-hub", name)
    archive = kept.read_bytes() if kept.is_file() else b""
    if not is_right(archive):
        registry = (os.environ.get("NPM_CONFIG_REGISTRY") or "https://registry.npmjs.org").rstrip("/")
        address = f"{registry}/{RUNTIME}/-/{name}"
        try:
            with urllib.request.urlopen(address, timeout=120) as response:
                archive = response.read()
        except (OSError, http.client.HTTPException) as e:
            raise OSError(
                f"{address} cannot be read: {e}; set NPM_CONFIG_REGISTRY to a registry that can be reached, "
                f"or put the file at {kept}"
            ) from e
        if not is_right(archive):
            raise ValueError(f"{address} has not the SHA-512 {RUNTIME_SHA512}; nothing was written")
        write_file(kept, archive)
    wanted = {f"package/dist/{name}" for names in RUNTIMES.values() for name in names}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {}
        for member in tar:
            if member.name in wanted and (file := tar.extractfile(member)):
                files[Path(member.name).name] = file.read()
    return files


def is_right(archive: bytes) -> bool:
    """Tell whether an archive has the hash of the registry."""
    return base64.b64encode(hashlib.sha512(archive).digest()).decode() == RUNTIME_SHA512


def pack_runtimes(runtime: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """Compress the WebAssembly; return all files, and for each runtime the names of those that it needs."""
    files, names = {}, {}
    for name, (script, glue, wasm) in RUNTIMES.items():
        made = {script: runtime[script], glue: runtime[glue], f"{name}.pack": compress(runtime[wasm])}
        files |= made
        names[name] = list(made)
    return files, names


def compress(content: bytes) -> bytes:
    """Compress with gzip. The same content gives the same bytes."""
    return gzip.compress(content, 9, mtime=0)


def fill(
    files: Mapping[str, bytes], words: Mapping[str, str], later: Mapping[str, list[str]]
) -> dict[str, bytes]:
    """Fill in the version, the policy and the hashes of the files, where {{NAME}} stands."""
    listing = {name: content_hash(content) for name, content in files.items() if name != "sw.js"}
    everything = json.dumps([listing, content_hash(files["sw.js"]), POLICY, *words.values()])
    words = {**words, "POLICY": POLICY, "VERSION": content_hash(everything.encode())[:12]}
    done = dict(files)
    done["index.html"] = substitute(files["index.html"], words)
    listing["index.html"] = content_hash(done["index.html"])
    lists = {
        "FILES": json.dumps(listing, indent=2),
        "LATER": json.dumps(sorted({name for names in later.values() for name in names})),
    }
    done["sw.js"] = substitute(files["sw.js"], words | lists)
    return done


def substitute(content: bytes, words: Mapping[str, str]) -> bytes:
    """Replace each {{NAME}}."""
    text = content.decode()
    for name, value in words.items():
        text = text.replace("{{%s}}" % name, value)  # noqa: UP031
    return text.encode()


def legal() -> dict[str, bytes]:
    """Return what lies beside the page: the front matter of the Space, the licence and the notices."""
    notice = "\n".join((folder / "NOTICE").read_text(encoding="utf-8") for folder in (ROOT, HERE))
    return {
        "README.md": (HERE / "README.md").read_bytes(),
        "LICENSE": (ROOT / "LICENSE").read_bytes(),
        "NOTICE": substitute(notice.encode(), {"VERSION": RUNTIME_VERSION}),
        ".nojekyll": b"",  # for GitHub Pages
    }


def first_visits(files: Mapping[str, bytes], later: Mapping[str, list[str]]) -> dict[str, int]:
    """Count the bytes of a first visit with each runtime, as the files lie on the host."""
    not_core = {name for names in later.values() for name in names} | set(legal())
    core = sum(len(content) for name, content in files.items() if name not in not_core)
    return {name: core + sum(len(files[each]) for each in names) for name, names in later.items()}


def replace(out: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder beside `out`, and put it in the place of `out` when it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    made.chmod(0o755)
    try:
        for name, content in files.items():
            (made / name).write_bytes(content)
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


if __name__ == "__main__":
    sys.exit(main())
