"""``python -m motivation report RUN ...``: runs in one table (paper, Tables 1, 2, 4 and 5)."""

from __future__ import annotations

import math
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from motivation.errors import print_text, writing
from motivation.method.records import Role
from motivation.options.parse import OptionParser
from motivation.tools.report.groups import group_runs, repeated
from motivation.tools.report.labels import DEFAULT_CONDITION, fitted_lines, fitted_table, is_wide, short_names
from motivation.tools.report.paired import PairedTable
from motivation.tools.report.paper import TABLES, PaperTable, paper_data_set, paper_label, paper_unit
from motivation.tools.report.rows import UNITS, ForwardFlops, Row, make_rows
from motivation.tools.tables import MISSING, csv_text, markdown_table, number, plus_minus
from motivation.training.flops import CONVENTIONS, readable
from motivation.training.run_files import RunError, refuse_run_file
from motivation.training.run_folder import RunFolder, find_runs


def make_parser() -> ArgumentParser:
    """Return the parser of this command."""
    parser = OptionParser(
        prog="python -m motivation report",
        description="Runs in one table: means over seeds and folds, share, average FLOPs, accuracy per FLOPs.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or of runs; timm's own too")
    parser.add_argument("--paper", choices=sorted(TABLES), help="put a table of the paper beside them")
    parser.add_argument("--best", action="store_true", help="show best epochs too: selected on the validation data")
    parser.add_argument(
        "--paired",
        action="store_true",
        help="paired differences between the rows too, with 95 %% intervals over seeds and folds; --csv has these only",
    )
    parser.add_argument("--unfinished", action="store_true", help="count runs that have not finished")
    parser.add_argument("--markdown", metavar="FILE", help="write the table in Markdown; - for standard output")
    parser.add_argument("--csv", metavar="FILE", help="write it as CSV, in full precision; - for standard output")
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write a page for a browser: tables with 95 %% intervals, losses and accuracy, maps, options; unfinished "
        "runs have their charts, too",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of the runs.

    Raises:
        InputError: there is none to print, or it cannot be written.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    files = [file for file in (args.markdown, args.csv, args.html) if file]
    if twice := [file for file in files if files.count(file) > 1]:
        parser.error(f"--markdown, --csv and --html: two are to be written to {twice[0]}; give two different names")
    found = find_runs(args.runs)
    runs = counted_runs(found, args.unfinished, required=not args.html or len(files) > 1)
    groups, flops = group_runs(runs), ForwardFlops(runs)
    rows = make_rows(groups, flops)
    repeats = [pair for group in groups for pair in repeated(group)]
    notes = [f"{one.path} and {other.path} have the same options, seed and fold" for one, other in repeats]
    for note in notes + flops.faults:
        print_text(f"note: {note}", sys.stderr)
    paper = TABLES.get(args.paper)
    tables: list[Printed | PairedTable] = [Printed(rows, args.best, paper)] if rows else []
    if args.paired:
        tables.append(PairedTable(rows))
    texts = {}
    if args.markdown:
        texts[args.markdown] = "\n".join(table.markdown() for table in tables)
    if args.csv:
        texts[args.csv] = tables[-1].csv()
    if args.html:
        from motivation.tools.report.page import page_text  # matplotlib takes long to import

        texts[args.html] = page_text(runs_on_page(found), Printed(rows, args.best, paper) if rows else None)
    for file, text in texts.items():
        if file == "-":
            print_text(text, end="")
        else:
            write_whole(Path(file), text)
            if file == args.html and "-" not in files:
                print_text(f"Written: {file}\n")
    if "-" not in files:
        print_text("\n".join(table.console() for table in tables), end="")
    return 0


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; into a device or a pipe as far as it goes.

    Raises:
        InputError: it cannot be written.
    """
    path, as_text = path.resolve(), {"encoding": "utf-8", "errors": "surrogateescape"}  # names need not be UTF-8
    refuse_run_file(path)
    with writing(path):
        if path.exists() and not path.is_file():
            path.write_text(text, **as_text)
            return
        scratch = path.with_name(f".{path.name}.tmp")
        try:
            scratch.write_text(text, **as_text)
            scratch.replace(path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise


def runs_on_page(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """Return the runs whose ``summary.csv`` and ``result.json`` can be read; say on standard error which cannot.

    Raises:
        RunError: none is left.
    """
    shown, damaged = [], []
    for run in runs:
        try:
            if run.epochs is not None and run.completed is not None:
                shown.append(run)
        except RunError as error:
            damaged.append(str(error))
    if not shown:
        raise RunError(*damaged)
    for fault in damaged:
        print_text(f"not on the page: {fault}", sys.stderr)
    return shown


def counted_runs(runs: Sequence[RunFolder], unfinished: bool, required: bool = True) -> list[RunFolder]:
    """Return the runs that go into means; say on standard error why each other one is left out.

    Raises:
        RunError: none is left, though one is required.
    """
    counted, damaged = [], []
    for run in runs:
        try:
            # timm's own runs never say that they have ended
            if "motivated_model" in run.options and not (run.completed or unfinished):
                print_text(f"left out: {run.path} has not finished (--unfinished counts it)", sys.stderr)
            elif not run.evaluated(Role.BASE):
                print_text(f"left out: {run.path} has no accuracy in summary.csv", sys.stderr)
            else:
                counted.append(run)
        except RunError as error:
            damaged.append(str(error))
    if not counted and required:
        none = "none of these runs can be counted: let them finish, or count them as they are (--unfinished)"
        raise RunError(*(damaged or [none]))
    for fault in damaged:
        print_text(f"left out: {fault}", sys.stderr)
    return counted


@dataclass(frozen=True)
class Column:
    """A column: its title, the text of a row's cell in it, and the unit."""

    title: str
    cell: Callable[[Row], str]
    unit: str = ""

    @property
    def header(self) -> str:
        """Title and unit on one line."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


class Printed:
    """A report as text.

    Args:
        rows: in the order of the table.
        best: show the best epochs' accuracy too.
        paper: a table of the paper whose figures stand beside ours.
    """

    def __init__(self, rows: Sequence[Row], best: bool = False, paper: PaperTable | None = None):
        self.rows, self.best = rows, best
        self.footnotes = list(dict.fromkeys(note for row in rows for note in row.notes))
        self.conventions = list(dict.fromkeys(name for row in rows for name in row.conventions))
        small = any(row.flops < 1e9 for row in rows)
        self.unit = "10^-2 % per MFLOP" if small else "% per GFLOP"
        self.paper_columns, self.paper_remarks = paper_beside(rows, paper) if paper else ([], [])

    def console(self) -> str:
        """Return an aligned table with the units below the titles, which fits a terminal."""
        columns, remarks = self._columns(), self.remarks()
        titles = [column.title for column in columns]
        units = [f"({column.unit})" if column.unit else "" for column in columns]
        table = [titles, units, *self._cells(columns)]
        if is_wide(table):
            names = short_names(row.group for row in self.rows)
            units = [unit.replace(" per ", "/").replace(" flops", "") for unit in units]
            table = [titles, units, *([names(label), *cells] for label, *cells in self._cells(columns))]
            remarks = [*map(names, remarks), *names.remarks]
        return f"{fitted_table(table)}\n\n{fitted_lines(remarks)}\n"

    def markdown(self) -> str:
        """Return a Markdown table."""
        remarks = [remark.replace("*", "\\*") for remark in self.remarks()]
        table = markdown_table(self.cells())
        return "\n".join([table, "", "\n\n".join(remarks)]) + "\n"

    def csv(self) -> str:
        """Return the rows for programs: numbers in full precision, an empty cell where one is missing."""
        best = "top1_best_epoch_selected_on_validation_data"
        rows: list[dict[str, Any]] = [
            {
                "model": row.label,
                "kind": row.kind,
                "base": row.group.base,
                "motivated": row.group.motivated,
                "condition": row.group.condition,
                "dataset": row.group.settings["dataset"],
                "n": row.runs,
                "top1_mean": row.accuracy,
                "top1_sd": row.accuracy_sd,
                **({best: row.best} if self.best else {}),
                "share": row.share,
                "average_forward_flops": row.flops,
                "convention": " and ".join(row.conventions),
                f"acc_per_flops ({self.unit})": row.acc_per_flops * UNITS[self.unit],
                "acc_f_ratio": row.acc_f_ratio,
                "against": row.against.label if row.against else None,
                **{column.header: column.cell(row).replace(MISSING, "") for column in self.paper_columns},
                "notes": "; ".join(row.notes),
            }
            for row in self.rows
        ]
        return csv_text(rows)

    def cells(self) -> list[list[str]]:
        """Return a header with units, and the cells of each row."""
        columns = self._columns()
        return [[column.header for column in columns], *self._cells(columns)]

    def _cells(self, columns: Sequence[Column]) -> list[list[str]]:
        return [[column.cell(row) for column in columns] for row in self.rows]

    def _columns(self) -> list[Column]:
        def label(row: Row) -> str:
            return row.label + "".join(f" ({self.footnotes.index(note) + 1})" for note in row.notes)

        flops_unit = self.conventions[0] if len(self.conventions) == 1 else "FLOPs"
        best = [Column("best epoch*", lambda row: number(row.best), "%")] if self.best else []
        return [
            Column("model", label),
            Column("n", lambda row: str(row.runs)),
            Column("top-1", lambda row: plus_minus(row.accuracy, row.accuracy_sd), "%"),
            *best,
            Column("share", lambda row: number(row.share, 4)),
            Column("F_avg", lambda row: MISSING if math.isnan(row.flops) else readable(row.flops), flops_unit),
            Column("ACC/FLOPs", lambda row: number(row.acc_per_flops * UNITS[self.unit]), self.unit),
            Column("ACC/F_Ratio", lambda row: number(row.acc_f_ratio)),
            *self.paper_columns,
        ]

    def remarks(self) -> list[str]:
        """Return what stands under the table: units, convention, footnotes."""
        best = ["* mean of each run's best epoch, selected on the validation data"] if self.best else []
        kinds = "model: C is trained alone; B and M are the base and the motivated model of a motivated run"
        return [
            *([kinds] if any(row.group.motivated for row in self.rows) else []),
            "top-1 of the last epoch, mean ± sample standard deviation over n runs",
            "F_avg: forward FLOPs of one image at the training size, averaged over the updates",
            *(f"{name}: {CONVENTIONS.get(name, 'unknown')}" for name in self.conventions),
            *best,
            *self.paper_remarks,
            *(f"({note}) {text}" for note, text in enumerate(self.footnotes, 1)),
        ]


def paper_beside(rows: Sequence[Row], paper: PaperTable) -> tuple[list[Column], list[str]]:
    """Return columns with the paper's figures for our rows, and the remarks on them."""
    printed = {row.label: paper.rows.get(paper_label(row.group.base, row.group.motivated, row.kind)) for row in rows}
    bases = list(dict.fromkeys(row.group.base for row in rows if printed[row.label]))
    if not bases:
        return [], [f"paper: {paper.title} has none of these models"]
    found = {paper_data_set(row.group.settings["dataset"]) for row in rows}
    ours = [name for name in paper.data_sets if name in found]

    def cell(row: Row, data_set: str, figure: str) -> str:
        cells = printed[row.label]
        of_paper = row.group.condition in (None, DEFAULT_CONDITION)
        of_data = not ours or paper_data_set(row.group.settings["dataset"]) == data_set
        return (cells and of_paper and of_data and getattr(cells[data_set], figure)) or MISSING

    figures = [("accuracy", "%"), ("flops", "FLOPs"), ("acc_per_flops", "ACC/FLOPs and ratio")]
    remarks = [f"paper: {paper.title}, as printed; its FLOPs count as it does, some at other resolutions"]
    if paper.prints_ratios:
        for unit in dict.fromkeys(map(paper_unit, bases)):
            names = ", ".join(base for base in bases if paper_unit(base) == unit)
            remarks.append(f"paper: ACC/FLOPs in {unit}: {names}")
    else:
        figures.pop()
    if not ours:
        remarks.append(f"paper, {paper.data_sets[0]}: another data set than that of the runs")
    columns = [
        Column(f"paper, {name}", partial(cell, data_set=name, figure=figure), unit)
        for name in ours or paper.data_sets[:1]
        for figure, unit in figures
    ]
    return columns, remarks
