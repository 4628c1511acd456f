"""``python -m motivation COMMAND``: everything around the method, one command for each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "train": ("motivation.tools.train", "train a base model, and a motivated one around it"),
    "finetune": ("motivation.tools.finetune", "train a model of a run, or timm's, on another data set"),
    "cost": ("motivation.tools.cost.command", "predict what a run will cost, without running it"),
    "report": ("motivation.tools.report.command", "compare finished runs in the paper's terms"),
    "plot": ("motivation.tools.plot.command", "draw losses and epochs of runs"),
    "cross-validate": ("motivation.tools.cross_validate.command", "choose k on folds of the training set"),
    "experiments": ("motivation.tools.experiments", "start the runs behind the paper's tables"),
    "export": ("motivation.tools.export", "write a run's models for use elsewhere"),
    "benchmark": ("motivation.tools.benchmark.command", "measure speed beside timm's script"),
    "map-coverage": ("motivation.tools.map_coverage", "list which pairs of timm's models have a weights map"),
}
"""The module of each command, imported only when it is called, and its line in ``--help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return import_module(COMMANDS[words[0]][0]).main(words[1:]) or 0
    print("usage: python -m motivation COMMAND [--help]\n")
    for name, (_, line) in COMMANDS.items():
        print(f"  {name:<16}{line}")
    return 0 if words in (["-h"], ["--help"]) else 2


if __name__ == "__main__":
    sys.exit(main())
