"""``python -m motivation frontier CONFIG``: accuracy over the cost of training, alone and motivated.

Each way of training, budget and seed is a run of `train_motivated.py`. What is done is skipped and what was interrupted
goes on, so the same command may be given as often as it takes.
"""

from __future__ import annotations

import math
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import yaml

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.errors import InputError, print_text, writing
from motivation.method.condition_registry import takes
from motivation.options.parse import OptionParser, parse
from motivation.tools.frontier.estimate import read_ladders
from motivation.tools.frontier.plan import PER_RUN, Cell, Plan, make_ways
from motivation.tools.frontier.report import FILE, PICTURES, Report
from motivation.tools.planned_checks import refuse_impossible_runs, refuse_other_runs, refuse_own_flags
from motivation.tools.sweep import Sweep, add_flags, split_words
from motivation.tools.tables import markdown_table
from weight_maps.plugins import load_plugins

BUDGETS = (0.25, 0.5, 0.75, 1.0, 1.5)


def make_parser() -> ArgumentParser:
    """Return the parser of the words before ``--``."""
    parser = OptionParser(
        prog="python -m motivation frontier",
        usage="%(prog)s CONFIG [options] [-- FURTHER ARGUMENTS OF EVERY RUN]",
        description="Train the base alone, the larger model alone and both in motivated runs, each for several "
        "budgets, and draw accuracy over cost. The same command again goes on.",
    )
    parser.add_argument("config", metavar="CONFIG", help="of a motivated run: a file, or a name as for --config")
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, metavar="B",
                        help="fractions of the configuration's epochs (default 0.25 0.5 0.75 1 1.5)")  # fmt: skip
    parser.add_argument("--motivated-budgets", nargs="+", type=float, metavar="B",
                        help="of the motivated runs (default: --budgets)")  # fmt: skip
    parser.add_argument("--k", nargs="+", type=int, default=[2], metavar="K", help="of the motivated runs (default 2)")
    parser.add_argument("--variant", nargs=2, action="append", default=[], metavar=("NAME", "FLAGS"),
                        help="each k with these flags too, such as: zero '--motivated-model-kwargs "
                        "zero_init_last=True'")  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)), metavar="N", help="default 0 to 4")
    parser.add_argument("--output", type=Path, default=Path("output/frontier"), metavar="FOLDER",
                        help="folder of all runs and of the report (default output/frontier)")  # fmt: skip
    parser.add_argument("--report-only", action="store_true", help="report on the runs that are done, and make none")
    add_flags(parser)
    return parser


def make_plan(args: Namespace, further: Sequence[str]) -> Plan:
    """Return the plan that a command asks for.

    Args:
        args: the parsed words before ``--``.
        further: the words after it.

    Raises:
        InputError: there cannot be such a plan.
    """
    refuse_own_flags(further, PER_RUN, "--k, --budgets, --seeds, --output ...")
    arguments = ("--config", args.config, *further)
    parsed, text = parse(arguments)
    if not parsed.motivated_model:
        raise InputError(f"{args.config} has no motivated_model: give one after --, with --motivated-model")
    load_plugins(parsed.motivation_plugins)
    if not takes(parsed.motivation_condition, "k"):
        raise InputError(f"--motivation-condition {parsed.motivation_condition} has no k")
    budgets = tuple(sorted(set(args.budgets)))
    motivated_budgets = tuple(sorted(set(args.motivated_budgets or budgets)))
    for flag, least, number in (
        ("--k", 1, min(args.k)),
        ("--seeds", 0, min(args.seeds)),
        ("--budgets", 0.001, budgets[0]),
        ("--motivated-budgets", 0.001, motivated_budgets[0]),
    ):
        if not number >= least:
            raise InputError(f"{flag}: at least {least}, not {number}")
    options = yaml.safe_load(text)
    variants = {name: tuple(shlex.split(flags)) for name, flags in args.variant}
    if wrong := [name for name in variants if not name.replace("-", "").replace("_", "").isalnum()]:
        raise InputError(f"--variant {wrong[0]}: a name is made of letters, digits, - and _")
    ways = make_ways(options, tuple(dict.fromkeys(args.k)), variants)
    seeds = tuple(dict.fromkeys(args.seeds))
    return Plan(args.output, arguments, options, tuple(ways), budgets, motivated_budgets, seeds)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 if runs failed, 130 after Ctrl-C.

    Raises:
        InputError: the runs cannot be planned, or the report cannot be written.
    """
    own, further = split_words(argv)
    args = make_parser().parse_args(own)
    plan = make_plan(args, further)
    runs = [plan.run(cell) for cell in plan.cells()]
    refuse_other_runs(runs)
    sweep = Sweep(runs, args.jobs, args.devices)
    if not args.report_only:
        one_of_each = [plan.run(Cell(way, plan.budgets_of(way)[0], plan.seeds[0])) for way in plan.ways]
        refuse_impossible_runs(one_of_each, sweep.devices)
        if args.dry_run:
            sweep.show_commands()
            return 0
        print_text(f"{plan.headline}\n{plan.folder}: {sweep.summary()}")
        if code := sweep.run(shlex.join(["python", "-m", "motivation", "frontier", *own, "--", *further])):
            return code
    write_report(plan)
    return 0


def write_report(plan: Plan) -> None:
    """Print the tables, and write them to the plan's folder with the pictures.

    Raises:
        InputError: no run is done, or a file cannot be written.
    """
    ladders = read_ladders(plan)
    if all(math.isnan(ladder.ends[0]) for ladder in ladders):
        raise InputError(f"no run in {plan.folder} is done: give the command without --report-only")
    report = Report(plan, ladders)
    file = plan.folder / f"{FILE}.md"
    with writing(plan.folder):
        plan.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(report.markdown(), encoding="utf-8")
        report.draw(plan.folder)
    for table in (report.rows(), report.differences(), report.tested(), report.around_switches()):
        print_text(f"\n{markdown_table(table)}")
    print_text(f"\n{report.verdict()}\n\nWritten: {file} and {len(PICTURES)} pictures beside it")
