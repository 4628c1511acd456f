"""The report as an aligned table for the console, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from motivation.tools.report.metrics import Unit, unit_for
from motivation.tools.report.paper import PaperTable, columns_for, paper_cell, unit_of_paper
from motivation.tools.report.rows import Report, Row
from motivation.training.flops import CONVENTION, readable

MISSING = "-"


@dataclass(frozen=True)
class Column:
    """A column: its header, the text of a row's cell in it, and the unit."""

    title: str
    cell: Callable[[Row], str]
    unit: str = ""

    @property
    def header(self) -> str:
        """Title and unit in one line."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def shown(value: float | None, digits: int = 2) -> str:
    """
    >>> shown(1.005), shown(None)
    ('1.00', '-')
    """
    return MISSING if value is None else f"{value + 0.0:.{digits}f}"  # -0.0 is shown as 0


def accuracy(value: float | None, sd: float | None) -> str:
    """
    >>> accuracy(92.831, 0.2), accuracy(92.831, None), accuracy(None, None)
    ('92.83 ± 0.20', '92.83 ± -', '-')
    """
    return MISSING if value is None else f"{value:.2f} ± {shown(sd)}"


def unit_of(report: Report) -> Unit:
    """The unit of the table's accuracies per FLOPs, by the smallest base."""
    return unit_for(min((row.flops for row in report.rows if row.flops is not None), default=None))


def columns(report: Report, best: bool, paper: PaperTable | None) -> list[Column]:
    """The columns of the table.

    Args:
        report: its rows.
        best: whether with the best epochs' accuracy.
        paper: a table of the paper whose rows are to stand beside ours.
    """
    unit = unit_of(report)

    def scaled(row: Row) -> str:
        return shown(None if row.acc_per_flops is None else row.acc_per_flops * unit.per_flop)

    def label(row: Row) -> str:
        return row.label + "".join(f" ({number})" for number in row.notes)

    def flops(row: Row) -> str:
        return MISSING if row.flops is None else readable(row.flops)

    found = [
        Column("model", label),
        Column("n", lambda row: str(row.runs)),
        Column("top-1", lambda row: accuracy(row.accuracy, row.accuracy_sd), "%"),
    ]
    if best:
        found.append(Column("best epoch*", lambda row: shown(row.best), "%"))
    found += [
        Column("share", lambda row: shown(row.share, 4)),
        Column("F_avg", flops, CONVENTION),
        Column("ACC/FLOPs", scaled, unit.name),
        Column("ACC/F_Ratio", lambda row: shown(row.acc_f_ratio)),
    ]
    return found + (_paper_columns(report, paper) if paper else [])


def _paper_columns(report: Report, paper: PaperTable) -> list[Column]:
    if not _units(report, paper):
        return []
    kinds = [("accuracy", "%"), ("flops", "FLOPs"), ("acc_per_flops", "ACC/FLOPs and ratio")]
    return [
        Column(f"paper, {data_set}", partial(_paper_text, paper, data_set, ours, what), unit)
        for data_set, ours in columns_for(paper, [row.group.settings["dataset"] for row in report.rows])
        for what, unit in kinds[: 3 if paper.prints_ratios else 2]
    ]


def _paper_text(paper: PaperTable, data_set: str, ours: bool, what: str, row: Row) -> str:
    return paper_cell(paper, row, data_set, ours, what) or MISSING


def _units(report: Report, paper: PaperTable) -> dict[str, list[str]]:
    """The paper's units of accuracy per FLOPs, and the models of ours that it gives in them."""
    found: dict[str, list[str]] = {}
    for row in report.rows:
        unit = unit_of_paper(row.kind, row.group.base, row.group.motivated, paper)
        if unit and row.group.base not in found.setdefault(unit.name, []):
            found[unit.name].append(row.group.base)
    return found


def remarks(report: Report, best: bool, paper: PaperTable | None) -> list[str]:
    """What stands under the table: units, convention, footnotes."""
    lines = [
        "top-1 of the last epoch, mean ± sample standard deviation over n runs",
        f"F_avg: forward FLOPs of one image at the training size, averaged over the updates (convention {CONVENTION}: "
        "2 per multiply-add)",
    ]
    if best:
        lines.append("* mean of each run's best epoch, selected on the validation data")
    if paper:
        names = [row.group.settings["dataset"] for row in report.rows]
        lines += paper_remarks(report, paper, [name for name, ours in columns_for(paper, names) if not ours])
    return lines + [f"({number}) {text}" for number, text in enumerate(report.footnotes, 1)]


def paper_remarks(report: Report, paper: PaperTable, foreign: Sequence[str]) -> list[str]:
    """What has to be said of the paper's columns.

    Args:
        report: our rows.
        paper: the table beside them.
        foreign: columns of a data set that is not that of the runs.
    """
    units = _units(report, paper)
    if not units:
        return [f"paper: {paper.title} has none of these models"]
    lines = [f"paper: {paper.title}, as printed; its FLOPs count as it does, some at other resolutions"]
    if paper.prints_ratios:
        lines += [f"paper: ACC/FLOPs in {unit}: {', '.join(models)}" for unit, models in units.items()]
    return lines + [f"paper, {name}: another data set than that of the runs" for name in foreign]


def console(report: Report, best: bool = False, paper: PaperTable | None = None) -> str:
    """The table with aligned columns, numbers to the right; units stand under the titles."""
    found = columns(report, best, paper)
    cells = [
        [column.title for column in found],
        [f"({column.unit})" if column.unit else "" for column in found],
        *([column.cell(row) for column in found] for row in report.rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in cells
    ]
    return "\n".join([*lines, "", *remarks(report, best, paper)]) + "\n"


def markdown(report: Report, best: bool = False, paper: PaperTable | None = None) -> str:
    """The table in Markdown."""
    found = columns(report, best, paper)
    lines = [
        [column.header for column in found],
        ["---", *("--:" for _ in found[1:])],
        *([column.cell(row) for column in found] for row in report.rows),
    ]
    table = ["| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in line) + " |" for line in lines]
    notes = [remark.replace("*", "\\*") for remark in remarks(report, best, paper)]
    return "\n".join([*table, "", "\n\n".join(notes)]) + "\n"


def comma_separated(report: Report, best: bool = False, paper: PaperTable | None = None) -> str:
    """The table for programs: numbers in full precision, an empty cell where one is missing."""
    unit = unit_of(report)
    rows: list[dict[str, Any]] = []
    for row in report.rows:
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
        if best:
            line["top1_best_epoch_selected_on_validation_data"] = row.best
        line |= {
            "share": row.share,
            f"average_forward_{CONVENTION}": row.flops,
            f"acc_per_flops ({unit.name})": None if row.acc_per_flops is None else row.acc_per_flops * unit.per_flop,
            "acc_f_ratio": row.acc_f_ratio,
            "against": row.against.label if row.against else None,
        }
        for column in _paper_columns(report, paper) if paper else []:
            text = column.cell(row)
            line[column.header] = None if text == MISSING else text
        line["notes"] = "; ".join(report.footnotes[number - 1] for number in row.notes)
        rows.append(line)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
