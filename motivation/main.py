"""Parse, check, build, train, report: the program behind `train_motivated.py`."""

from __future__ import annotations

import json
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

import torch.distributed as dist
from timm.utils import setup_default_logging

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.builders import build_run
from motivation.checks import StartupError
from motivation.logging.closing import best_record, closing_table, result_json, run_result
from motivation.logging.console import tidy_terminal
from motivation.loop import Run, train
from motivation.options import parse
from motivation.records import Role
from motivation.runs import RESULT_FILE

_logger = logging.getLogger("train")

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None, parse: Callable[..., tuple[Namespace, str]] = parse) -> int:
    """Run the program; returns its exit code: 0, 2 for bad input, 130 after Ctrl-C.

    Args:
        argv: the words; default those of the command line.
        parse: makes options of them; `motivation.finetune.parse` for fine-tuning.
    """
    setup_default_logging()
    args, args_text = parse(argv)
    try:
        run = build_run(args, args_text)
        with tidy_terminal():
            train(run)
    except StartupError as error:
        if os.environ.get("RANK", "0") == "0":
            print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return EXIT_BAD_INPUT
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    if args.rank == 0:
        report(run, args)
    return 0 if run.completed else EXIT_INTERRUPTED


def report(run: Run, args: Namespace) -> None:
    """Say how the run went, and leave it in ``result.json``."""
    decreasing = run.ranking == "loss"
    names = {Role.BASE: args.model, Role.MOTIVATED: args.motivated_model}
    share = run.condition.expected_share
    if run.records:
        best = best_record(run.records, run.ranking, decreasing)
        _logger.info(f"*** Best metric: {best.metric(run.ranking)} (epoch {best.epoch})")
        print(f"--result\n{result_json(run.records, run.ranking, decreasing)}")
    if run.records and run.flops is not None:
        print("\n" + closing_table(run.records, names, run.flops, share))
    if run.folder is not None:
        result = run_result(run.records, names, run.ranking, run.flops, share, run.completed, run.stopped_by)
        scratch = run.folder / f".{RESULT_FILE}.tmp"
        scratch.write_text(json.dumps(result, indent=2) + "\n")
        scratch.replace(run.folder / RESULT_FILE)
        print(f"\nFiles of this run: {run.folder}")
