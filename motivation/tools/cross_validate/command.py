"""``python -m motivation cross-validate``: k by cross-validation on the training set (paper, section 4).

Each combination of k, fold and seed is a run of `train_motivated.py`. What is done is skipped and what was interrupted
goes on, so the same command may be given as often as it takes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import yaml

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.method.condition_registry import takes
from motivation.options.parse import OptionParser, given_options, parse
from motivation.tools.cross_validate.plan import (
    PER_RUN,
    Plan,
    PlanError,
    RunSpec,
    State,
    recall,
    remember,
    run_arguments,
    survey,
    training_options,
)
from motivation.tools.cross_validate.report import aligned, choose, csv_text, markdown, read_figures, rows_of, table
from motivation.tools.cross_validate.report import headline as headline_of
from motivation.tools.cross_validate.runner import Resources, Runner, command_line, runs_now, threads_per_run
from weight_maps.plugins import load_plugins

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
REPORT = "cross_validation"


def make_parser() -> argparse.ArgumentParser:
    """The parser of what stands before ``--``."""
    parser = OptionParser(
        prog="python -m motivation cross-validate",
        usage="%(prog)s --k K ... [options] -- ARGUMENTS OF train_motivated.py",
        description="Choose k by cross-validation on the training set. The same command again goes on.",
    )
    parser.add_argument("--k", nargs="+", type=int, required=True, metavar="K", help="the ks to compare")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="parts of the training split (default 5)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="default: the one seed of the arguments")
    parser.add_argument("--baseline", action="store_true", help="train the base alone on each fold too")
    parser.add_argument("--output", type=Path, default=Path("output/cross_validation"), metavar="FOLDER",
                        help="folder of all runs and of the report (default output/cross_validation)")  # fmt: skip
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: one per device)")
    parser.add_argument("--devices", nargs="+", metavar="D", help="share the runs out among them: cuda:0 cuda:1")
    parser.add_argument("--metric", choices=("top1", "loss"), default="top1", help="of the base, to choose k by")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left, and do nothing")
    return parser


def make_plan(args: Namespace, arguments: Sequence[str]) -> Plan:
    """The plan that a command asks for.

    Args:
        args: what stands before ``--``.
        arguments: what stands after it; wrong ones end the program with code 2.

    Raises:
        PlanError: there cannot be such a plan.
    """
    given = given_options(arguments)
    if wrong := [f"--{name.replace('_', '-')}" for name in PER_RUN if name in given]:
        raise PlanError(f"not after --, each run is given its own: {', '.join(wrong)}; use --k, --seeds, --output ...")
    parsed, text = parse(arguments)
    if parsed.resume:
        raise PlanError("take resume out of the configuration file: each run goes on from its own checkpoint")
    if not parsed.motivated_model:
        raise PlanError("there is no k without a larger model: give --motivated-model after --")
    condition = parsed.motivation_condition
    load_plugins(parsed.motivation_plugins)  # what is wrong with them is said with all other faults
    if not takes(condition, "k"):
        raise PlanError(f"--motivation-condition {condition} has no k to choose")
    ks, seeds = sorted(set(args.k)), list(dict.fromkeys(args.seeds or [parsed.seed]))
    for flag, least, number in (
        ("--k", 1, ks[0]),
        ("--folds", 2, args.folds),
        ("--seeds", 0, min(seeds)),
        ("--jobs", 1, 1 if args.jobs is None else args.jobs),
    ):
        if number < least:
            raise PlanError(f"{flag}: at least {least}, not {number}")
    options = training_options(yaml.safe_load(text))
    return Plan(args.output, tuple(arguments), options, tuple(ks), args.folds, tuple(seeds), args.baseline)


def start_up_faults(plan: Plan, devices: Sequence[str | None]) -> list[str]:
    """What would keep the runs from starting, found without making one: options, models, and data of the first fold."""
    from motivation.build.datasets import open_datasets
    from motivation.build.feasible import model_faults, startup_faults

    run = plan.runs()[-1]
    faults: list[str] = []
    for device in devices:
        args, _ = parse(run_arguments(plan, run, State.NEW, device))
        args.world_size = 1
        faults += startup_faults(args)[1]
    faults = list(dict.fromkeys(faults))
    if not faults:
        faults += model_faults(args)
        open_datasets(args, faults)
    return faults


def show_commands(plan: Plan, states: dict[RunSpec, State], resources: Resources) -> None:
    """Print what would be run, and how much of it."""
    counts = {"new": 0, "to resume": 0, "done": 0, "made by another process now": 0}
    left = 0
    for run, state in states.items():
        if state is State.DONE:
            counts["done"] += 1
        elif runs_now(plan.place(run)):
            counts["made by another process now"] += 1
            print(f"# {run.name} is being made by another process")
        else:
            counts["new" if state is State.NEW else "to resume"] += 1
            device = resources.devices[left % len(resources.devices)]
            left += 1
            print(command_line(plan, run, state, device, resources.environment))
    print(f"# {len(states)} runs: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count))


def report(plan: Plan, metric: str) -> None:
    """Print the table and the choice, and write them to the folder as Markdown, CSV and a picture.

    Raises:
        PlanError: a file cannot be written.
    """
    from motivation.tools.cross_validate.plot import draw

    figures = [read_figures(plan, run) for run in plan.runs()]
    rows = rows_of(figures)
    choice = choose(rows, metric)
    file = plan.folder / REPORT
    try:
        file.with_suffix(".md").write_text(markdown(plan, figures, choice, metric))
        file.with_suffix(".csv").write_text(csv_text(figures))
        draw(figures, choice.k, metric, headline_of(plan), file.with_suffix(".png"))
    except OSError as error:
        raise PlanError(f"{file}.*: cannot be written: {error.strerror}") from error
    print("\n" + aligned(table(rows, metric)) + "\n")
    print("\n".join(choice.remarks))
    print(f"\nWritten: {file}.md, .csv and .png")


def cross_validate(plan: Plan, resources: Resources, metric: str, again: str) -> int:
    """Make the runs that are left, then report.

    Args:
        plan: what to run; its folder is made.
        resources: what the runs may use.
        metric: to choose k by.
        again: the command to go on with.

    Raises:
        PlanError: the folder cannot be used.
    """
    remember(plan)
    states = survey(plan, plan.runs())
    counts = {state: list(states.values()).count(state) for state in State}
    print(
        f"{headline_of(plan)}: {len(states)} runs in {plan.folder}, of which {counts[State.DONE]} are done and "
        f"{counts[State.RESUME]} begun",
        flush=True,
    )
    runner = Runner(plan, resources, say=lambda line: print(line, flush=True))
    runner.run()
    if runner.interrupted:
        print(f"Interrupted. To go on: {again}", file=sys.stderr)
        return EXIT_INTERRUPTED
    if runner.failed:
        names = ", ".join(run.name for run in runner.failed)
        print(
            f"{len(runner.failed)} of {len(states)} runs failed, so no k is chosen: {names}. The same command tries "
            "them again.",
            file=sys.stderr,
        )
        return EXIT_FAILED
    report(plan, metric)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 if runs failed, 2 for bad input, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    args = make_parser().parse_args(words[:cut])
    try:
        if cut == len(words):
            raise PlanError("give the arguments of train_motivated.py after --, as in: --k 1 2 3 -- -c FILE.yaml")
        plan = make_plan(args, words[cut + 1 :])
        recall(plan)
        devices: list[str | None] = list(args.devices or [None])
        if faults := start_up_faults(plan, devices):
            print("\n".join(f"error: {fault}" for fault in faults), file=sys.stderr)
            return EXIT_BAD_INPUT
        jobs = args.jobs or len(devices)
        resources = Resources(jobs, devices, _environment(plan, jobs, devices))
        if args.dry_run:
            show_commands(plan, survey(plan, plan.runs()), resources)
            return 0
        again = shlex.join(["python", "-m", "motivation", "cross-validate", *words])
        return cross_validate(plan, resources, args.metric, again)
    except (PlanError, OSError) as error:  # the latter: a full disk, no more processes
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED


def _environment(plan: Plan, jobs: int, devices: Sequence[str | None]) -> dict[str, str]:
    own = parse(plan.arguments)[0].device
    return threads_per_run(jobs, all((device or own) == "cpu" for device in devices), os.environ)
