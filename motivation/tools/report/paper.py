"""The paper's own figures: Tables 1, 2, 4 and 5, and the FLOPs of Tables 8 to 11, as printed.

`DEVIATING` lists the printed figures that do not follow from the paper's own accuracies and FLOPs;
`motivation.tools.report.derived` computes all of them with the report's functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from motivation.tools.report.metrics import HUNDREDTHS_PER_GFLOP, PER_GFLOP, PER_MFLOP, Unit

if TYPE_CHECKING:
    from motivation.tools.report.rows import Row

_TABLE_1 = """
Resnet-20-C | 92.62 0.17 | / | 68.86 0.23 | /
Res-20-32B | 92.83 0.20 | 2.18 (1.24) | 69.00 0.48 | 6.90 (2.23)
Resnet-32-C | 93.63 0.13 | 1.76 | 70.63 0.38 | 3.09
Res-32-44B | 93.66 0.05 | 0.31 (0.60) | 70.67 0.41 | 1.73 (1.24)
Resnet-44-C | 93.93 0.12 | 0.52 | 71.43 0.23 | 1.39
Res-44-56B | 94.10 0.19 | 40.48 (122.67) | 71.76 0.42 | 76.74 (41.04)
Resnet-56-C | 94.12 0.23 | 0.33 | 72.50 0.28 | 1.87
ViT-tiny-C | 89.70 0.12 | / | 70.38 0.68 | /
ViT-tiny-small-B | 89.74 0.25 | 173.91 (1.75) | 70.53 0.44 | 3750 (84.19)
ViT-small-C | 92.98 0.14 | 99.39 | 71.85 0.55 | 44.54
"""
_TABLE_2 = """
Resnet-50-C | 78.06 | /
Res-50-101B | 78.40 | 8.5 (18.48)
Resnet-101-C | 79.80 | 0.46
"""
_TABLE_4 = """
EfficientNet-B0-C | 79.09 0.50 | /
Eff-0-1B | 79.23 0.34 | 2.8 (1.26)
EfficientNet-B1-C | 79.92 0.60 | 2.22
Eff-1-2B | 80.37 0.08 | 22.5 (6.76)
EfficientNet-B2-C | 80.18 0.57 | 3.33
Eff-2-3B | 80.32 0.24 | 14 (14.89)
EfficientNet-B3-C | 80.93 0.46 | 0.94
Eff-3-4B | 80.81 0.50 | -6 (-100)
EfficientNet-B4-C | 81.08 0.20 | 0.06
Eff-4-5B | 81.27 0.27 | 0.83 (4.61)
EfficientNet-B5-C | 82.10 0.33 | 0.18
"""
_TABLE_5 = """
EfficientNet-B0-C | 79.09 0.50 | 0.39G
Eff-0-1B | 79.23 0.34 | 0.44G
Eff-0-1M | 80.09 0.27 | 0.44G
EfficientNet-B1-C | 79.92 0.60 | 0.70G
Eff-1-2B | 80.37 0.08 | 0.75G
Eff-1-2M | 81.02 0.18 | 0.75G
EfficientNet-B2-C | 80.18 0.57 | 1.0G
Eff-2-3B | 80.17 0.23 | 1.13G
Eff-2-3M | 81.32 0.17 | 1.13G
EfficientNet-B3-C | 80.93 0.46 | 1.8G
Eff-3-4B | 80.28 0.46 | 2.18G
Eff-3-4M | 81.60 0.34 | 2.18G
EfficientNet-B4-C | 81.08 0.20 | 4.2G
Eff-4-5B | 81.04 0.40 | 5.14G
Eff-4-5M | 81.94 0.26 | 5.14G
EfficientNet-B5-C | 82.10 0.33 | 9.9G
"""
_TABLE_8 = """
Resnet-20-C | 82.82M | 82.82M
Res-20-32B | 92.47M | 85.12M
Resnet-32-C | 140.13M | 140.13M
Res-32-44B | 149.67M | 142.44M
Resnet-44-C | 197.44M | 197.44M
Res-44-56B | 197.86M | 197.87M
Resnet-56-C | 254.76M | 254.76M
"""
_TABLE_9 = """
Resnet-50-C | 3.8G
Res-50-101-B | 3.84G
Resnet-101-C | 7.6G
"""
_TABLE_10 = """
ViT-tiny-C | 1.3G | 1.3G
ViT-tiny-small-B | 1.323G | 1.304G
ViT-small-C | 4.6G | 4.6G
"""
_TABLE_11 = """
EfficientNet-B0-C | 0.39G
Eff-0-1B | 0.44G
EfficientNet-B1-C | 0.7G
Eff-1-2B | 0.72G
EfficientNet-B2-C | 1G
Eff-2-3B | 1.01G
EfficientNet-B3-C | 1.8G
Eff-3-4B | 1.82G
EfficientNet-B4-C | 4.2G
Eff-4-5B | 4.43G
EfficientNet-B5-C | 9.9G
"""

ACC, RATIO = "ACC/FLOPs", "ACC/F_Ratio"

DEVIATING = {
    ("table1", "Res-20-32B", "CIFAR-100", ACC): ("6.90", "6.09"),
    ("table1", "Res-20-32B", "CIFAR-100", RATIO): ("2.23", "1.97"),
    ("table1", "Resnet-44-C", "CIFAR-100", ACC): ("1.39", "1.40"),
    ("table4", "Eff-0-1B", "CIFAR-100", RATIO): ("1.26", "1.05"),
    ("table4", "EfficientNet-B1-C", "CIFAR-100", ACC): ("2.22", "2.68"),
    ("table4", "Eff-1-2B", "CIFAR-100", RATIO): ("6.76", "25.96"),
    ("table4", "EfficientNet-B2-C", "CIFAR-100", ACC): ("3.33", "0.87"),
}
"""Printed figures that do not follow from the paper's own accuracies and FLOPs: as printed, and as computed."""

QUOTIENTS_OF_CELLS = {
    ("table1", "Res-20-32B", "CIFAR-10"): "1.24",
    ("table1", "Res-44-56B", "CIFAR-10"): "122.67",
    ("table1", "Res-44-56B", "CIFAR-100"): "41.04",
    ("table1", "ViT-tiny-small-B", "CIFAR-100"): "84.19",
    ("table2", "Res-50-101B", "ImageNet"): "18.48",
    ("table4", "Eff-2-3B", "CIFAR-100"): "14.89",
    ("table4", "Eff-3-4B", "CIFAR-100"): "-100",
    ("table4", "Eff-4-5B", "CIFAR-100"): "4.61",
}
"""Printed ratios that follow only as quotients of the two printed, rounded cells."""

WITHIN_ROUNDED_FLOPS = {("table1", "ViT-small-C", "CIFAR-100", ACC): ("44.54", "44.55")}
"""Printed figures one unit of the last digit away from the computed, within what the rounding of the FLOPs allows."""

ModelKey = tuple[str, str, "str | None"]
"""Kind (``C``, ``B`` or ``M``), timm name of the base, of the motivated model."""


@dataclass(frozen=True)
class PaperCell:
    """What the paper says of one row on one data set.

    Attributes:
        accuracy: in percent.
        accuracy_sd: over 3 runs; None where none is given.
        flops: as printed, with its unit: ``82.82M``.
        acc_per_flops: as printed; None where there is none.
        acc_f_ratio: likewise.
    """

    accuracy: float
    accuracy_sd: float | None
    flops: str
    acc_per_flops: str | None = None
    acc_f_ratio: str | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        name: what ``--paper`` calls it.
        title: with its source.
        data_sets: its columns.
        labels: of its rows as printed, by kind and models.
        cells: by row and data set.
        prints_ratios: whether it has columns of accuracy per FLOPs.
    """

    name: str
    title: str
    data_sets: tuple[str, ...]
    labels: dict[ModelKey, str]
    cells: dict[tuple[ModelKey, str], PaperCell]
    prints_ratios: bool = True


_LABEL = re.compile(r"(Resnet|Res|ViT|EfficientNet|Eff)-B?(\w+?)(?:-(\w+?))?-?([CBM])")


def models_of(label: str) -> ModelKey:
    """Kind and timm names of a row's label.

    >>> models_of("Res-20-32B"), models_of("EfficientNet-B0-C")
    (('B', 'resnet20_cifar', 'resnet32_cifar'), ('C', 'efficientnet_b0', None))
    """
    found = _LABEL.fullmatch(label)
    assert found, label
    family, base, motivated, kind = found.groups()

    def name(size: str) -> str:
        if family == "ViT":
            return f"vit_{size}_patch16_224"
        if family.startswith("Eff"):
            return f"efficientnet_b{size}"
        return f"resnet{size}" if size in ("50", "101") else f"resnet{size}_cifar"

    return kind, name(base), name(motivated) if motivated else None


def _lines(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.strip().splitlines():
        label, *cells = (part.strip() for part in line.split("|"))
        yield label, cells


def _costs(*tables: str) -> dict[tuple[ModelKey, int], str]:
    """FLOPs as printed, by row and number of the column."""
    return {
        (models_of(label), number): cell
        for table in tables
        for label, cells in _lines(table)
        for number, cell in enumerate(cells)
    }


def _table(name: str, title: str, data_sets: tuple[str, ...], text: str, costs: str = "") -> PaperTable:
    """A table from its text; without ``costs`` its second column has the FLOPs."""
    labels, cells, flops = {}, {}, _costs(*costs.split("\n\n")) if costs else {}
    for label, row in _lines(text):
        key = models_of(label)
        labels[key] = label
        for number, data_set in enumerate(data_sets):
            value, _, sd = row[2 * number].partition(" ")
            printed = row[2 * number + 1]
            acc, _, ratio = (printed if costs else "/").partition(" ")
            cells[key, data_set] = PaperCell(
                float(value),
                float(sd) if sd else None,
                flops[key, number] if costs else printed,
                None if acc == "/" else acc,
                ratio.strip("()") or None,
            )
    return PaperTable(name, title, data_sets, labels, cells, prints_ratios=bool(costs))


TABLES = {
    table.name: table
    for table in (
        _table("table1", "Table 1", ("CIFAR-10", "CIFAR-100"), _TABLE_1, f"{_TABLE_8.strip()}\n\n{_TABLE_10.strip()}"),
        _table("table2", "Table 2", ("ImageNet",), _TABLE_2, _TABLE_9),
        _table("table4", "Table 4", ("CIFAR-100",), _TABLE_4, _TABLE_11),
        _table("table5", "Table 5", ("CIFAR-100",), _TABLE_5),
    )
}
"""The tables that a report can stand beside, by name. FLOPs: Tables 8 and 10, 9, 11, and Table 5's own."""


def flops_number(printed: str) -> float:
    """
    >>> flops_number("82.82M")
    82820000.0
    """
    return float(round(float(printed[:-1]) * {"M": 1e6, "G": 1e9}[printed[-1]]))


def half_unit(printed: str) -> float:
    """By how much a printed number may differ from what was rounded.

    >>> half_unit("0.46"), half_unit("-6"), half_unit("7.6G")
    (0.005, 0.5, 50000000.0)
    """
    scale = {"M": 1e6, "G": 1e9}.get(printed[-1], 1.0)
    digits = len(printed.strip("MG").partition(".")[2])
    return 0.5 * 10.0**-digits * scale


def unit_of_paper(kind: str, base: str, motivated: str | None, table: PaperTable) -> Unit | None:
    """The unit of the accuracies per FLOPs of a row; None where the table has no such row."""
    key = _key(kind, base, motivated)
    if key not in table.labels:
        return None
    if key[1].endswith("_cifar"):
        return PER_MFLOP
    return HUNDREDTHS_PER_GFLOP if key[1].startswith("vit_") else PER_GFLOP


def _key(kind: str, base: str, motivated: str | None) -> ModelKey:
    """timm's tag of pretrained weights is no part of a model."""
    return kind, base.partition(".")[0], motivated.partition(".")[0] if motivated else None


# ---- beside our rows


_DATA_SETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    **dict.fromkeys(("imagenet", "imagenet1k", "imagenet1kwds", "imagenet2012", "ilsvrc2012", "ilsvrc"), "ImageNet"),
}
"""By the last part of a data set's name or folder, letters and digits."""


def known_data_set(name: str) -> str | None:
    """The paper's name of a data set.

    >>> known_data_set("torch/cifar10"), known_data_set("hfds/uoft-cs/cifar100"), known_data_set("sklearn/digits")
    ('CIFAR-10', 'CIFAR-100', None)
    """
    return _DATA_SETS.get(re.sub(r"[^a-z0-9]", "", name.lower().rpartition("/")[2]))


def columns_for(table: PaperTable, data_sets: list[str]) -> list[tuple[str, bool]]:
    """The table's columns to show, and whether they are of the runs' data set: the first one where none is."""
    ours = {known_data_set(name) for name in data_sets}
    found = [(name, True) for name in table.data_sets if name in ours]
    return found or [(table.data_sets[0], False)]


def paper_cell(table: PaperTable, row: Row, data_set: str, ours: bool, what: str) -> str | None:
    """The paper's figure beside one of our rows, as printed.

    Args:
        table: of the paper.
        row: ours.
        data_set: the table's column.
        ours: the column is only for rows of that data set.
        what: ``accuracy``, ``flops`` or ``acc_per_flops`` (with the ratio in brackets).
    """
    group = row.group
    if group.condition not in (None, "loss") or (ours and known_data_set(group.settings["dataset"]) != data_set):
        return None
    cell = table.cells.get((_key(row.kind, group.base, group.motivated), data_set))
    if cell is None:
        return None
    if what == "accuracy":
        return f"{cell.accuracy:.2f}" + (f" ± {cell.accuracy_sd:.2f}" if cell.accuracy_sd is not None else "")
    if what == "flops":
        return cell.flops
    return f"{cell.acc_per_flops} ({cell.acc_f_ratio})" if cell.acc_f_ratio else cell.acc_per_flops
