"""Packs an int8 graph that `u2net export` calibrated into the folder of a bundled model.

    u2net export --model u2netp --precision int8 --data PHOTOS --out int8/u2netp.xml
    python model_cards/pack_int8.py int8/u2netp.xml u2net_hub/weights/u2netp

Run it again whenever the weights change. The graphs here were calibrated on 200 photos of DUTS-TR.
"""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

from u2net_hub.engines.graph_files import INT8_NAME


def main(graph: Path, folder: Path) -> None:
    text = re.sub(rb">\s+<", b"><", graph.read_bytes())
    (folder / INT8_NAME).write_bytes(gzip.compress(text, mtime=0))
    (folder / "int8.bin").write_bytes(graph.with_suffix(".bin").read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
