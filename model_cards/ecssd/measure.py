"""Measures the bundled networks on the 100 photos of ECSSD-100, and writes model_cards/ecssd/ecssd.json.

Run it from the root of the checkout, with a folder that holds images/, masks/ and maps_u2netp_author/, the
maps that the official code makes with the authors' weights:

    python model_cards/ecssd/measure.py ECSSD-100

For each photo the record holds the scores, whether an object was found, and for `u2netp` the mean absolute
difference from the official map, in [0, 1]. The tests measure a few of the photos again and compare.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from u2net_hub import SaliencyDataset, SaliencyPipeline, SaliencyResult, U2NetConfig, evaluate

OUT = Path(__file__).with_name("ecssd.json")
OFFICIAL_MAPS = {"u2netp": "maps_u2netp_author"}
"""The folder of the official maps of each network that the official code can run."""


class Observed:
    """A pipeline that notes what `evaluate` does not ask for."""

    def __init__(self, name: str, maps: Path | None) -> None:
        self._pipeline = SaliencyPipeline(name, device="cpu", minmax="always")
        self._maps = maps
        self.config: U2NetConfig = self._pipeline.config
        self.weights_sha256: str | None = self._pipeline.weights_sha256
        self.rows: dict[str, dict[str, Any]] = {}

    def __call__(self, images: Iterator[Path], /) -> Iterator[SaliencyResult]:
        paths = list(images)
        for path, result in zip(paths, self._pipeline(paths), strict=True):
            row = self.rows[path.stem] = {"found": result.found}
            if self._maps is not None:
                row["difference"] = difference(result, self._maps / f"{path.stem}.png")
            yield result


def difference(result: SaliencyResult, official: Path) -> float:
    """The mean absolute difference of a result's map from an official map in 8 bits, in [0, 1]."""
    with Image.open(official) as picture:
        wanted = np.asarray(picture.convert("L"), np.float32)
    return float(np.abs(np.asarray(result.mask(None), np.float32) - wanted).mean() / 255)


def main() -> None:
    """Measure both networks, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    data: Path = parser.parse_args().data
    dataset = SaliencyDataset(images=data / "images", masks=data / "masks", name="ECSSD-100")
    record: dict[str, Any] = {"command": "python model_cards/ecssd/measure.py ECSSD-100", "networks": {}}
    for name in ("u2netp", "u2netp-168"):
        maps = data / OFFICIAL_MAPS[name] if name in OFFICIAL_MAPS else None
        observed = Observed(name, maps)
        results = evaluate(observed, dataset)
        scores = results.datasets["ECSSD-100"]
        for photo, row in scores.pictures:
            observed.rows[photo] |= row
        record["networks"][name] = {
            "weights_sha256": results.weights_sha256,
            "scores": dict(scores.scores),
            "photos": {
                photo: {key: v if isinstance(v, bool) else round(v, 6) for key, v in row.items()}
                for photo, row in observed.rows.items()
            },
        }
        record |= {"date": results.date, "versions": dict(results.versions)}
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
