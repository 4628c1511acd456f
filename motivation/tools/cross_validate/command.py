"""``python -m motivation cross-validate``: k by cross-validation on the training set (paper, section 4).

Each combination of k, fold and seed is a run of `train_motivated.py`. What is done is skipped and what was interrupted
goes on, so the same command may be given as often as it takes.
"""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import yaml

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.errors import InputError, print_text, writing
from motivation.method.condition_registry import takes
from motivation.options.parse import OptionParser, parse
from motivation.tools.cross_validate.plan import PER_RUN, Plan
from motivation.tools.cross_validate.report import FILE, METRICS, Metric, choose, draw, markdown, read_rows, table
from motivation.tools.planned_checks import refuse_impossible_runs, refuse_other_runs, refuse_own_flags
from motivation.tools.sweep import Sweep, add_flags, split_words
from weight_maps.plugins import load_plugins


def make_parser() -> ArgumentParser:
    """Return the parser of the words before ``--``."""
    parser = OptionParser(
        prog="python -m motivation cross-validate",
        usage="%(prog)s --k K ... [options] -- ARGUMENTS OF train_motivated.py",
        description="Choose k by cross-validation on the training set. The same command again goes on.",
    )
    parser.add_argument("--k", nargs="+", type=int, required=True, metavar="K", help="the ks to compare")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="parts of the training split")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="default: the one seed of the arguments")
    parser.add_argument("--baseline", action="store_true", help="train the base alone on each fold too")
    parser.add_argument("--output", type=Path, default=Path("output/cross_validation"), metavar="FOLDER",
                        help="folder of all runs and of the report")  # fmt: skip
    parser.add_argument("--metric", choices=METRICS, default="top1", help="of the base, to choose k by")
    add_flags(parser)
    return parser


def make_plan(args: Namespace, arguments: Sequence[str]) -> Plan:
    """Return the plan that a command asks for.

    Args:
        args: the parsed words before ``--``.
        arguments: the words after it.

    Raises:
        InputError: there cannot be such a plan.
    """
    refuse_own_flags(arguments, PER_RUN, "--k, --seeds, --output ...")
    parsed, text = parse(arguments)
    if parsed.resume:
        raise InputError("take resume out of the configuration file: each run goes on from its own checkpoint")
    if not parsed.motivated_model:
        raise InputError("there is no k without a larger model: give --motivated-model after --")
    load_plugins(parsed.motivation_plugins)  # what is wrong with them is said with all other faults
    if not takes(parsed.motivation_condition, "k"):
        raise InputError(f"--motivation-condition {parsed.motivation_condition} has no k to choose")
    ks, seeds = tuple(sorted(set(args.k))), tuple(dict.fromkeys(args.seeds or [parsed.seed]))
    for flag, least, number in (("--k", 1, ks[0]), ("--folds", 2, args.folds), ("--seeds", 0, min(seeds))):
        if number < least:
            raise InputError(f"{flag}: at least {least}, not {number}")
    return Plan(args.output, tuple(arguments), yaml.safe_load(text), ks, args.folds, seeds, args.baseline)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 if runs failed, 130 after Ctrl-C.

    Raises:
        InputError: the runs cannot be planned, or the report cannot be written.
    """
    own, arguments = split_words(argv)
    args = make_parser().parse_args(own)
    if not arguments:
        raise InputError("give the arguments of train_motivated.py after --, as in: --k 1 2 3 -- -c FILE.yaml")
    plan = make_plan(args, arguments)
    runs = [plan.run(cell) for cell in plan.cells()]
    refuse_other_runs(runs)
    sweep = Sweep(runs, args.jobs, args.devices)
    refuse_impossible_runs(runs[-1:], sweep.devices)
    if args.dry_run:
        sweep.show_commands()
        return 0
    print_text(f"{plan.headline}\n{plan.folder}: {sweep.summary()}")
    if code := sweep.run(shlex.join(["python", "-m", "motivation", "cross-validate", *own, "--", *arguments])):
        return code
    write_report(plan, METRICS[args.metric])
    return 0


def write_report(plan: Plan, metric: Metric) -> None:
    """Print the table and the choice, and write them to the plan's folder as Markdown and a picture.

    Raises:
        InputError: a file cannot be written.
    """
    rows = read_rows(plan)
    k, remarks = choose(rows, metric)
    file = plan.folder / FILE
    with writing(plan.folder):
        file.with_suffix(".md").write_text(markdown(plan, rows, remarks, metric))
        draw(rows, k, metric, plan.headline, file.with_suffix(".png"))
    print_text(f"\n{table(rows, metric)}\n\n" + "\n".join(remarks) + f"\n\nWritten: {file}.md and .png")
