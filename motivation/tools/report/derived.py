"""What follows from the paper's own accuracies and FLOPs, by the report's functions (paper, equations 1 to 3)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum

from motivation.tools.report.metrics import acc_f_ratio, acc_per_flops
from motivation.tools.report.paper import (
    ACC,
    RATIO,
    TABLES,
    ModelKey,
    PaperCell,
    PaperTable,
    flops_number,
    half_unit,
    unit_of_paper,
)


class Origin(Enum):
    """From what a printed figure follows, the strictest first."""

    OWN_NUMBERS = "the accuracies and FLOPs as printed"
    ROUNDED_CELLS = "the quotient of two printed cells that both follow"
    ROUNDED_FLOPS = "FLOPs within their rounding"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Derived:
    """A figure that follows from the paper's accuracies and FLOPs.

    Attributes:
        table: name of the table.
        label: of the row, as printed.
        data_set: the column.
        what: `ACC` or `RATIO`.
        computed: in the paper's unit.
        printed: None where the table has no such column.
        origin: of the printed figure.
    """

    table: str
    label: str
    data_set: str
    what: str
    computed: float
    printed: str | None
    origin: Origin | None


def derive(table: PaperTable) -> list[Derived]:
    """Accuracy per FLOPs of every row that has one, and ratios, from the paper's accuracies and FLOPs."""
    found: list[Derived] = []
    for key, data_set in itertools.product(table.labels, table.data_sets):
        if key[0] == "B":
            found += _derive_pair(table, key, data_set)
    return found


def _derive_pair(table: PaperTable, key: ModelKey, data_set: str) -> list[Derived]:
    _, base, motivated = key
    assert motivated is not None
    x, b, y = (table.cells[row, data_set] for row in (("C", base, None), key, ("C", motivated, None)))
    unit = unit_of_paper(*key, table)
    assert unit is not None

    def gained(cell: PaperCell, shift: float = 0.0) -> float:
        added = flops_number(cell.flops) + shift
        value = acc_per_flops(cell.accuracy, added, x.accuracy, flops_number(x.flops))
        assert value is not None
        return value * unit.per_flop

    def origin(cell: PaperCell, slack: float) -> Origin | None:
        if cell.acc_per_flops is None:
            return None
        if _agrees(cell.acc_per_flops, gained(cell)):
            return Origin.OWN_NUMBERS
        ends = sorted((gained(cell, -slack), gained(cell, slack)))
        half = half_unit(cell.acc_per_flops)
        within = ends[0] - half <= float(cell.acc_per_flops) <= ends[1] + half
        return Origin.ROUNDED_FLOPS if within else Origin.NOTHING

    def named(row: ModelKey, what: str, computed: float, printed: str | None, where: Origin | None) -> Derived:
        return Derived(table.name, table.labels[row], data_set, what, computed, printed, where)

    row_y: ModelKey = ("C", motivated, None)
    slacks = [_slack(row, base, data_set, table) for row in (key, row_y)]
    origins = [origin(cell, slack) for cell, slack in zip((b, y), slacks, strict=True)]
    ratio = acc_f_ratio(gained(b), gained(y))
    assert ratio is not None
    return [
        named(key, ACC, gained(b), b.acc_per_flops, origins[0]),
        named(row_y, ACC, gained(y), y.acc_per_flops, origins[1]),
        named(key, RATIO, ratio, b.acc_f_ratio, _origin_of_ratio(b, y, ratio, origins)),
    ]


def _origin_of_ratio(b: PaperCell, y: PaperCell, ratio: float, origins: list[Origin | None]) -> Origin | None:
    if b.acc_f_ratio is None or b.acc_per_flops is None or y.acc_per_flops is None:
        return None
    if _agrees(b.acc_f_ratio, ratio):
        return Origin.OWN_NUMBERS
    quotient = acc_f_ratio(float(b.acc_per_flops), float(y.acc_per_flops))
    rounded = quotient is not None and Origin.NOTHING not in origins and _agrees(b.acc_f_ratio, quotient)
    return Origin.ROUNDED_CELLS if rounded else Origin.NOTHING


def _agrees(printed: str, computed: float) -> bool:
    """Whether a number, rounded to the digits of the printed one, is that; the slack is for binary fractions only."""
    return abs(float(printed) - computed) <= half_unit(printed) + 1e-9


def _slack(row: ModelKey, base: str, data_set: str, table: PaperTable) -> float:
    """By how much ``F - F_C`` may be off, because both are rounded; each as in the table that gives most digits."""

    def of(key: ModelKey) -> float:
        printed = [
            other.cells[key, data_set].flops for other in (table, TABLES["table5"]) if (key, data_set) in other.cells
        ]
        here = flops_number(printed[0])
        return min(half_unit(flops) for flops in printed if flops_number(flops) == here)

    return of(row) + of(("C", base, None))
