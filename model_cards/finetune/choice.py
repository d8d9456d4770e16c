"""How often so many held-out pairs choose the start although fine-tuning helped: from finetune.json.

    python model_cards/finetune/choice.py

A run keeps its start if the mean weighted F of its held-out pairs does not rise. Here, held-out pairs are
drawn 20,000 times, with replacement, from the unseen pairs of each run, whose mean weighted F rose.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

HELD_OUT = (1, 3, 6, 12, 30)


def main() -> None:
    """Print a row for each data set and number of training pairs."""
    rng = np.random.default_rng(0)
    found = defaultdict(list)
    for row in json.loads(Path(__file__).with_name("finetune.json").read_text())["rows"]:
        if row["pilot"]:
            continue
        start, end = (np.array(row[name]["each_weighted_f"]) for name in ("step_0", "half_way"))
        change = end - start
        chances = [float((rng.choice(change, (20_000, n)).mean(1) <= 0).mean()) for n in HELD_OUT]
        found[row["data"], row["pairs"]].append([change.mean() > 0, *chances])
    print(f"data, pairs: runs that rose; runs that keep the start, by held-out pairs {HELD_OUT}")
    for (data, pairs), runs in sorted(found.items()):
        shares = ", ".join(f"{share:.0%}" for share in np.mean(runs, 0)[1:])
        print(f"{data}, {pairs}: {sum(rose for rose, *_ in runs)} of {len(runs)}; {shares}")


if __name__ == "__main__":
    main()
