"""``python -m motivation report RUN ...``: runs in one table (paper, Tables 1, 2, 4 and 5)."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motivation.errors import writing
from motivation.options.parse import OptionParser
from motivation.tools.report.groups import group_runs, repeated
from motivation.tools.report.paper import TABLES, PaperTable, paper_data_set, paper_label, paper_unit
from motivation.tools.report.rows import (
    DEFAULT_CONDITION,
    UNITS,
    ForwardFlops,
    Report,
    Row,
    make_report,
    top1_of_epochs,
)
from motivation.tools.tables import csv_text, markdown_table, text_table
from motivation.training.flops import CONVENTION, readable
from motivation.training.run_folder import RunError, RunFolder, find_runs

MISSING = "-"


def make_parser() -> ArgumentParser:
    """Return the parser of this command."""
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
    """Print the table of the runs.

    Raises:
        InputError: there is none to print, or it cannot be written.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.markdown and args.markdown == args.csv:
        parser.error(f"--markdown and --csv: both are to be written to {args.csv}; give two different names")
    runs = counted_runs(find_runs(args.runs), args.unfinished)
    groups, flops = group_runs(runs), ForwardFlops(runs)
    report = make_report(groups, flops)
    for one, other in (pair for group in groups for pair in repeated(group)):
        print(f"note: {one.path} and {other.path} have the same options, seed and fold", file=sys.stderr)
    for fault in flops.faults:
        print(f"note: {fault}", file=sys.stderr)
    printed = Printed(report, args.best, TABLES.get(args.paper))
    for file, form in ((args.markdown, printed.markdown), (args.csv, printed.csv)):
        if file == "-":
            print(form(), end="")
        elif file:
            with writing(Path(file)):
                Path(file).write_text(form(), encoding="utf-8")
    if "-" not in (args.markdown, args.csv):
        print(printed.console(), end="")
    return 0


def counted_runs(runs: Sequence[RunFolder], unfinished: bool) -> list[RunFolder]:
    """Return the runs that go into means; say on standard error why each other one is left out.

    Raises:
        RunError: none is left.
    """
    counted = []
    for run in runs:
        # timm's own runs never say that they have ended
        if "motivated_model" in run.options and not (run.completed or unfinished):
            print(f"left out: {run.path} has not finished (--unfinished counts it)", file=sys.stderr)
        elif not top1_of_epochs(run):
            print(f"left out: {run.path} has no accuracy in summary.csv", file=sys.stderr)
        else:
            counted.append(run)
    if not counted:
        raise RunError("none of these runs can be counted: let them finish, or count them as they are (--unfinished)")
    return counted


@dataclass(frozen=True)
class Column:
    """A column: its title, the text of a row's cell in it, and the unit."""

    title: str
    cell: Callable[[Row], str]
    unit: str = ""


class Printed:
    """A report as text.

    Args:
        report: the rows.
        best: show the best epochs' accuracy too.
        paper: a table of the paper whose figures stand beside ours.
    """

    def __init__(self, report: Report, best: bool = False, paper: PaperTable | None = None):
        self.report, self.best = report, best
        smallest = min((row.flops for row in report.rows if row.flops is not None), default=None)
        self.unit = "10^-2 % per MFLOP" if smallest is not None and smallest < 1e9 else "% per GFLOP"
        self.paper_columns, self.paper_remarks = paper_beside(report.rows, paper) if paper else ([], [])

    def console(self) -> str:
        """Return an aligned table with the units below the titles."""
        columns = self._columns()
        titles = [column.title for column in columns]
        units = [f"({column.unit})" if column.unit else "" for column in columns]
        return "\n".join([text_table([titles, units, *self._cells(columns)]), "", *self._remarks()]) + "\n"

    def markdown(self) -> str:
        """Return a Markdown table."""
        columns = self._columns()
        remarks = [remark.replace("*", "\\*") for remark in self._remarks()]
        table = markdown_table([[_header(column) for column in columns], *self._cells(columns)])
        return "\n".join([table, "", "\n\n".join(remarks)]) + "\n"

    def csv(self) -> str:
        """Return the rows for programs: numbers in full precision, an empty cell where one is missing."""
        rows: list[dict[str, Any]] = []
        for row in self.report.rows:
            line: dict[str, Any] = {
                "model": row.label,
                "kind": row.kind,
                "base": row.group.base,
                "motivated": row.group.motivated,
                "condition": row.group.condition,
                "dataset": row.group.settings["dataset"],
                "n": row.runs,
                "top1_mean": row.accuracy,
                "top1_sd": row.accuracy_sd,
            }
            if self.best:
                line["top1_best_epoch_selected_on_validation_data"] = row.best
            line |= {
                "share": row.share,
                f"average_forward_{CONVENTION}": row.flops,
                f"acc_per_flops ({self.unit})": self._acc_per_flops(row),
                "acc_f_ratio": row.acc_f_ratio,
                "against": row.against.label if row.against else None,
            }
            for column in self.paper_columns:
                text = column.cell(row)
                line[_header(column)] = None if text == MISSING else text
            line["notes"] = "; ".join(self.report.footnotes[number - 1] for number in row.notes)
            rows.append(line)
        return csv_text(rows)

    def _cells(self, columns: Sequence[Column]) -> list[list[str]]:
        return [[column.cell(row) for column in columns] for row in self.report.rows]

    def _acc_per_flops(self, row: Row) -> float | None:
        return None if row.acc_per_flops is None else row.acc_per_flops * UNITS[self.unit]

    def _columns(self) -> list[Column]:
        columns = [
            Column("model", lambda row: row.label + "".join(f" ({number})" for number in row.notes)),
            Column("n", lambda row: str(row.runs)),
            Column("top-1", lambda row: _mean_and_sd(row.accuracy, row.accuracy_sd), "%"),
            Column("best epoch*", lambda row: _number(row.best), "%"),
            Column("share", lambda row: _number(row.share, 4)),
            Column("F_avg", lambda row: MISSING if row.flops is None else readable(row.flops), CONVENTION),
            Column("ACC/FLOPs", lambda row: _number(self._acc_per_flops(row)), self.unit),
            Column("ACC/F_Ratio", lambda row: _number(row.acc_f_ratio)),
        ]
        return [column for column in columns if self.best or column.title != "best epoch*"] + self.paper_columns

    def _remarks(self) -> list[str]:
        """Return what stands under the table: units, convention, footnotes."""
        lines = [
            "top-1 of the last epoch, mean ± sample standard deviation over n runs",
            "F_avg: forward FLOPs of one image at the training size, averaged over the updates (convention "
            f"{CONVENTION}: 2 per multiply-add)",
        ]
        if self.best:
            lines.append("* mean of each run's best epoch, selected on the validation data")
        lines += self.paper_remarks
        return lines + [f"({number}) {text}" for number, text in enumerate(self.report.footnotes, 1)]


def paper_beside(rows: Sequence[Row], paper: PaperTable) -> tuple[list[Column], list[str]]:
    """Return columns with the paper's figures for our rows, and the remarks on them."""
    printed = {id(row): paper.rows.get(paper_label(row.group.base, row.group.motivated, row.kind)) for row in rows}
    models: dict[str, dict[str, None]] = {}
    for row in rows:
        if printed[id(row)]:
            models.setdefault(paper_unit(row.group.base), {})[row.group.base] = None
    if not models:
        return [], [f"paper: {paper.title} has none of these models"]
    ours = [name for name in paper.data_sets if name in {paper_data_set(row.group.settings["dataset"]) for row in rows}]

    def column(data_set: str, figure: str, unit: str) -> Column:
        def cell(row: Row) -> str:
            cells = printed[id(row)]
            of_paper = row.group.condition in (None, DEFAULT_CONDITION)
            of_data = not ours or paper_data_set(row.group.settings["dataset"]) == data_set
            return (cells and of_paper and of_data and getattr(cells[data_set], figure)) or MISSING

        return Column(f"paper, {data_set}", cell, unit)

    figures = [("accuracy", "%"), ("flops", "FLOPs"), ("acc_per_flops", "ACC/FLOPs and ratio")]
    remarks = [f"paper: {paper.title}, as printed; its FLOPs count as it does, some at other resolutions"]
    if paper.prints_ratios:
        remarks += [f"paper: ACC/FLOPs in {unit}: {', '.join(bases)}" for unit, bases in models.items()]
    else:
        figures.pop()
    if not ours:
        remarks.append(f"paper, {paper.data_sets[0]}: another data set than that of the runs")
    return [column(name, *figure) for name in ours or paper.data_sets[:1] for figure in figures], remarks


def _header(column: Column) -> str:
    return f"{column.title} ({column.unit})" if column.unit else column.title


def _number(value: float | None, digits: int = 2) -> str:
    """
    >>> _number(1.005), _number(-0.0), _number(None)
    ('1.00', '0.00', '-')
    """
    return MISSING if value is None else f"{value + 0.0:.{digits}f}"


def _mean_and_sd(mean: float | None, sd: float | None) -> str:
    """
    >>> _mean_and_sd(92.831, 0.2), _mean_and_sd(92.831, None), _mean_and_sd(None, None)
    ('92.83 ± 0.20', '92.83 ± -', '-')
    """
    return MISSING if mean is None else f"{mean:.2f} ± {_number(sd)}"
