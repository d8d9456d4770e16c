"""Measures what a factor on the logits does to the scores, and writes weights with the chosen factor.

This is temperature scaling (Guo et al. 2017, arXiv 1706.04599): the logit of the fused map is multiplied by
one number, which moves no pixel above another. It is chosen on held-out pairs:

    python model_cards/temperature/measure.py WEIGHTS PAIRS.txt --write 1.25 --out FILE.safetensors

The record is model_cards/temperature/temperature.json. For networks with one class.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file

from u2net_hub import SaliencyDataset, SaliencyPipeline
from u2net_hub.atomic import content_hash
from u2net_hub.datasets import read_mask
from u2net_hub.evaluation import score_image, summarise
from u2net_hub.hub import resolve
from u2net_hub.imaging import postprocess

OUT = Path(__file__).with_name("temperature.json")
FACTORS = (0.8, 1.0, 1.25, 1.6)


def scores(weights: str, pairs: str) -> list[dict[str, float]]:
    """The scores of the held-out pairs for each factor, of maps that are stretched as `u2net eval` does."""
    dataset = SaliencyDataset(pairs)
    pipeline = SaliencyPipeline.from_pretrained(weights, minmax="never", device="cpu")
    found = {factor: [] for factor in FACTORS}
    for i, pair in enumerate(dataset.pairs):
        gt = read_mask(dataset.mask_path(i))
        odds = np.clip(pipeline(pair.image).probability.astype(np.float64), 1e-6, 1 - 1e-6)
        logit = np.log(odds / (1 - odds))
        for factor in FACTORS:
            scaled = (1 / (1 + np.exp(-factor * logit))).astype(np.float32)
            stretched = postprocess(scaled, gt.shape, minmax="always")
            found[factor].append(score_image(np.rint(stretched * 255).astype(np.uint8), gt))
    return [
        {"factor": factor, **{key: round(value, 5) for key, value in summarise(each)[0].items()}}
        for factor, each in found.items()
    ]


def write_scaled(source: Path, factor: float, out: Path) -> None:
    """Write the weights with the fusing convolution times `factor`; types and metadata stay."""
    with safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        metadata = file.metadata()
    for name in ("outconv.weight", "outconv.bias"):
        tensors[name] = (tensors[name].double() * factor).to(tensors[name].dtype)
    save_file(tensors, out, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("weights", help="the weights, as the command takes them")
    parser.add_argument("pairs", help="held-out pairs, a folder or a list file")
    parser.add_argument("--write", type=float, help="the factor of the weights to write")
    parser.add_argument("--out", type=Path, help="the file of these weights")
    asked = parser.parse_args()
    source = resolve(asked.weights).weights_path
    table = scores(asked.weights, asked.pairs)
    record = {"weights": asked.weights, "weights_sha256": content_hash(source), "factors": table}
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n".join(map(str, table)))
    if asked.write is not None:
        write_scaled(source, asked.write, asked.out)


if __name__ == "__main__":
    main()
