"""``python -m motivation report RUN ...``: runs in one table (paper, Tables 1, 2, 4 and 5)."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from motivation.options.parse import OptionParser
from motivation.tools.report import tables
from motivation.tools.report.costs import ForwardFlops
from motivation.tools.report.grouping import group_runs, repeated
from motivation.tools.report.paper import TABLES
from motivation.tools.report.rows import last_and_best, make_report
from motivation.training.run_folder import RunError, RunFolder, find_runs


def make_parser() -> ArgumentParser:
    """The parser of this command."""
    parser = OptionParser(
        prog="python -m motivation report",
        description="Runs in one table: means over seeds and folds, share, average FLOPs, accuracy per FLOPs.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or of runs; timm's own too")
    parser.add_argument("--paper", choices=sorted(TABLES), help="put a table of the paper beside them")
    parser.add_argument("--best", action="store_true", help="show best epochs too: selected on the validation data")
    parser.add_argument("--unfinished", action="store_true", help="count runs that have not finished")
    parser.add_argument("--markdown", metavar="FILE", help="write the table in Markdown; - for standard output")
    parser.add_argument("--csv", metavar="FILE", help="write it as CSV, in full precision; - for standard output")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 2 where there is none to print."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.markdown and args.markdown == args.csv:
        parser.error(f"--markdown and --csv: both are to be written to {args.csv}; give two different names")
    try:
        _report(args)
    except (RunError, OSError, UnicodeDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def finished(run: RunFolder) -> bool:
    """Whether a run counts: timm's own never say that they ended."""
    if "motivated_model" not in run.options:
        return True
    return run.completed


def counted(runs: Sequence[RunFolder], unfinished: bool) -> list[RunFolder]:
    """The runs that go into means; of each other one a line on standard error says why.

    Raises:
        RunError: none is left.
    """
    found = []
    for run in runs:
        if not (finished(run) or unfinished):
            print(f"left out: {run.path} has not finished (--unfinished counts it)", file=sys.stderr)
        elif last_and_best(run)[0] is None:
            print(f"left out: {run.path} has no accuracy in summary.csv", file=sys.stderr)
        else:
            found.append(run)
    if not found:
        raise RunError("none of these runs can be counted: let them finish, or count them as they are (--unfinished)")
    return found


def _report(args: Namespace) -> None:
    runs = counted(find_runs(args.runs), args.unfinished)
    groups = group_runs(runs)
    for group in groups:
        for one, other in repeated(group):
            print(f"note: {one.path} and {other.path} have the same options, seed and fold", file=sys.stderr)
    costs = ForwardFlops(runs)
    report = make_report(groups, costs)
    for fault in costs.faults:
        print(f"note: {fault}", file=sys.stderr)
    paper = TABLES[args.paper] if args.paper else None
    for file, form in ((args.markdown, tables.markdown), (args.csv, tables.comma_separated)):
        if file == "-":
            print(form(report, args.best, paper), end="")
        elif file:
            _write(Path(file), form(report, args.best, paper))
    if "-" not in (args.markdown, args.csv):
        print(tables.console(report, args.best, paper), end="")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
