"""Losses of plain runs, kept as numbers. ``python tests/support/golden.py`` writes them anew.

They were recorded when the comparison with timm's own script (test_same_as_timm.py) was all equal, and guard the plain
run where that script is not at hand.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path

FILE = Path(__file__).parents[1] / "files" / "golden_losses.json"

CASES = {
    "sgd": (),
    "adamw_warmup_on_updates": ("--opt", "adamw", "--lr", "0.01", "--sched-on-updates", "--warmup-epochs", "1"),
    "lamb_bce": ("--opt", "lamb", "--bce-loss", "--bce-target-thresh", "0.2", "--smoothing", "0.1"),
    "rmsproptf_step": ("--opt", "rmsproptf", "--lr", "0.01", "--sched", "step", "--decay-epochs", "1", "--model-ema"),
    "accumulation_clip_dropout": ("--grad-accum-steps", "3", "--clip-grad", "0.5", "--drop", "0.3", "--lr", "0.2"),
    "randaugment_erasing": ("--aa", "rand-m6-mstd0.5-inc1", "--reprob", "0.5", "--train-pad", "0", "--hflip", "0.5"),
    "no_prefetcher_smoothing": ("--no-prefetcher", "--smoothing", "0.1", "--reprob", "0.3"),
    "layer_decay_warmup_prefix": ("--layer-decay", "0.8", "--warmup-epochs", "1", "--warmup-prefix"),
}  # fmt: skip
BATCHES = ("-b", "240", "-vb", "180")
"""Of all digits."""


def losses(folder):
    with open(folder / "summary.csv") as file:
        return [[float(row["train_loss"]), float(row["eval_loss"])] for row in csv.DictReader(file)]


def write():
    from support.program import DIGITS

    from motivation.tools.train import main

    found = {}
    for name, flags in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            assert main([*DIGITS, *BATCHES, "--output", folder, "--experiment", "run", *flags]) == 0
            found[name] = losses(Path(folder) / "run")
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    write()
