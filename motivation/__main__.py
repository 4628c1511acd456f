"""``python -m motivation COMMAND``: everything around the method, one command for each."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from motivation.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, InputError, print_errors
from motivation.versions import require_packages, version_text

COMMANDS = {
    "train": ("motivation.tools.train", "train a base model, and a motivated one around it"),
    "finetune": ("motivation.tools.finetune", "train a model of a run, or timm's, on another data set"),
    "cost": ("motivation.tools.cost", "predict what a run will cost, without running it"),
    "report": ("motivation.tools.report.command", "compare finished runs in the paper's terms"),
    "plot": ("motivation.tools.plot.command", "draw losses and epochs of runs"),
    "cross-validate": ("motivation.tools.cross_validate.command", "choose k on folds of the training set"),
    "frontier": ("motivation.tools.frontier.command", "find what trains best for the FLOPs that there are"),
    "experiments": ("motivation.tools.experiments", "start the runs behind the paper's tables"),
    "validate": ("motivation.tools.validate", "measure the models of a run again, or on other data"),
    "predict": ("motivation.tools.predict", "classify a folder of images by both models, and compare them"),
    "export": ("motivation.tools.export", "write a run's models for use elsewhere"),
    "benchmark": ("motivation.tools.benchmark.command", "measure speed beside timm's script"),
    "map-coverage": ("motivation.tools.map_coverage", "list which pairs of timm's models have a weights map"),
}
"""The module of each command, imported only when it is called, and its line in ``--help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return run_command(import_module(COMMANDS[words[0]][0]).main, words[1:])
    return run_command(_tell_commands, words)


def _tell_commands(words: Sequence[str]) -> int:
    if words == ["--version"]:
        print(version_text())
        return 0
    print("usage: motivation COMMAND [--help], or motivation --version\n")
    for name, (_, line) in COMMANDS.items():
        print(f"  {name:<16}{line}")
    return 0 if words in (["-h"], ["--help"]) else EXIT_BAD_INPUT


def run_command(command: Callable[[Sequence[str]], int | None], words: Sequence[str]) -> int:
    """Run a command's ``main`` and return its exit code.

    Input that cannot be used ends in one line per fault and exit code 2. All other errors fly with their traceback.
    """
    try:
        try:
            code = command(words) or 0
        finally:  # --help and --version end in a SystemExit
            sys.stdout.flush()
        return code
    except InputError as error:
        print_errors(*error.faults)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has enough; Python would flush again at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print_errors(f"the output cannot be written: {error.strerror}")
        return EXIT_FAILED


if __name__ == "__main__":
    requirements = Path(__file__).resolve().parents[1] / "requirements.txt"
    if requirements.is_file():  # in a clone; what is installed has its packages
        require_packages(requirements)
    sys.exit(main())
