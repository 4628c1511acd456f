"""The paper's own figures, as printed: Tables 1, 2, 4 and 5, with the FLOPs of Tables 8 to 11.

Some do not follow from the paper's own accuracies and FLOPs; docs/tools.md names them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_TABLE_1 = """
resnet20_cifar-C                             | 92.62 ± 0.17 | 82.82M  |                | 68.86 ± 0.23 | 82.82M  |
resnet20_cifar-resnet32_cifar-B              | 92.83 ± 0.20 | 92.47M  | 2.18 (1.24)    | 69.00 ± 0.48 | 85.12M  | 6.90 (2.23)
resnet32_cifar-C                             | 93.63 ± 0.13 | 140.13M | 1.76           | 70.63 ± 0.38 | 140.13M | 3.09
resnet32_cifar-resnet44_cifar-B              | 93.66 ± 0.05 | 149.67M | 0.31 (0.60)    | 70.67 ± 0.41 | 142.44M | 1.73 (1.24)
resnet44_cifar-C                             | 93.93 ± 0.12 | 197.44M | 0.52           | 71.43 ± 0.23 | 197.44M | 1.39
resnet44_cifar-resnet56_cifar-B              | 94.10 ± 0.19 | 197.86M | 40.48 (122.67) | 71.76 ± 0.42 | 197.87M | 76.74 (41.04)
resnet56_cifar-C                             | 94.12 ± 0.23 | 254.76M | 0.33           | 72.50 ± 0.28 | 254.76M | 1.87
vit_tiny_patch16_224-C                       | 89.70 ± 0.12 | 1.3G    |                | 70.38 ± 0.68 | 1.3G    |
vit_tiny_patch16_224-vit_small_patch16_224-B | 89.74 ± 0.25 | 1.323G  | 173.91 (1.75)  | 70.53 ± 0.44 | 1.304G  | 3750 (84.19)
vit_small_patch16_224-C                      | 92.98 ± 0.14 | 4.6G    | 99.39          | 71.85 ± 0.55 | 4.6G    | 44.54
"""  # noqa: E501
_TABLE_2 = """
resnet50-C           | 78.06 | 3.8G  |
resnet50-resnet101-B | 78.40 | 3.84G | 8.5 (18.48)
resnet101-C          | 79.80 | 7.6G  | 0.46
"""
_TABLE_4 = """
efficientnet_b0-C                 | 79.09 ± 0.50 | 0.39G |
efficientnet_b0-efficientnet_b1-B | 79.23 ± 0.34 | 0.44G | 2.8 (1.26)
efficientnet_b1-C                 | 79.92 ± 0.60 | 0.7G  | 2.22
efficientnet_b1-efficientnet_b2-B | 80.37 ± 0.08 | 0.72G | 22.5 (6.76)
efficientnet_b2-C                 | 80.18 ± 0.57 | 1G    | 3.33
efficientnet_b2-efficientnet_b3-B | 80.32 ± 0.24 | 1.01G | 14 (14.89)
efficientnet_b3-C                 | 80.93 ± 0.46 | 1.8G  | 0.94
efficientnet_b3-efficientnet_b4-B | 80.81 ± 0.50 | 1.82G | -6 (-100)
efficientnet_b4-C                 | 81.08 ± 0.20 | 4.2G  | 0.06
efficientnet_b4-efficientnet_b5-B | 81.27 ± 0.27 | 4.43G | 0.83 (4.61)
efficientnet_b5-C                 | 82.10 ± 0.33 | 9.9G  | 0.18
"""
_TABLE_5 = """
efficientnet_b0-C                 | 79.09 ± 0.50 | 0.39G
efficientnet_b0-efficientnet_b1-B | 79.23 ± 0.34 | 0.44G
efficientnet_b0-efficientnet_b1-M | 80.09 ± 0.27 | 0.44G
efficientnet_b1-C                 | 79.92 ± 0.60 | 0.70G
efficientnet_b1-efficientnet_b2-B | 80.37 ± 0.08 | 0.75G
efficientnet_b1-efficientnet_b2-M | 81.02 ± 0.18 | 0.75G
efficientnet_b2-C                 | 80.18 ± 0.57 | 1.0G
efficientnet_b2-efficientnet_b3-B | 80.17 ± 0.23 | 1.13G
efficientnet_b2-efficientnet_b3-M | 81.32 ± 0.17 | 1.13G
efficientnet_b3-C                 | 80.93 ± 0.46 | 1.8G
efficientnet_b3-efficientnet_b4-B | 80.28 ± 0.46 | 2.18G
efficientnet_b3-efficientnet_b4-M | 81.60 ± 0.34 | 2.18G
efficientnet_b4-C                 | 81.08 ± 0.20 | 4.2G
efficientnet_b4-efficientnet_b5-B | 81.04 ± 0.40 | 5.14G
efficientnet_b4-efficientnet_b5-M | 81.94 ± 0.26 | 5.14G
efficientnet_b5-C                 | 82.10 ± 0.33 | 9.9G
"""


class PaperCell(NamedTuple):
    """The printed figures of a row on one data set.

    Attributes:
        accuracy: top-1 in percent, with the standard deviation over 3 runs where it is given.
        flops: average forward FLOPs.
        acc_per_flops: accuracy per FLOPs, with the ratio in brackets; empty where the table has none.
    """

    accuracy: str
    flops: str
    acc_per_flops: str = ""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: its title, its data sets, and its rows by the label that our report gives them."""

    title: str
    data_sets: tuple[str, ...]
    rows: dict[str, dict[str, PaperCell]]
    prints_ratios: bool = True


def _table(title: str, data_sets: tuple[str, ...], text: str) -> PaperTable:
    rows = {}
    for line in text.strip().splitlines():
        label, *cells = (cell.strip() for cell in line.split("|"))
        width = len(cells) // len(data_sets)
        rows[label] = {name: PaperCell(*cells[width * i : width * (i + 1)]) for i, name in enumerate(data_sets)}
    return PaperTable(title, data_sets, rows, prints_ratios=width == len(PaperCell._fields))


TABLES = {
    "table1": _table("Table 1", ("CIFAR-10", "CIFAR-100"), _TABLE_1),
    "table2": _table("Table 2", ("ImageNet",), _TABLE_2),
    "table4": _table("Table 4", ("CIFAR-100",), _TABLE_4),
    "table5": _table("Table 5", ("CIFAR-100",), _TABLE_5),
}
"""The tables that a report can stand beside. FLOPs of Table 1: Tables 8 and 10; of Table 2: 9; of Table 4: 11."""


def paper_label(base: str, motivated: str | None, kind: str) -> str:
    """Return the label of a row in `PaperTable.rows`; the tag of pretrained weights is no part of a model's name.

    >>> paper_label("resnet50.a3_in1k", "resnet101", "B")
    'resnet50-resnet101-B'
    """
    return "-".join([*(name.partition(".")[0] for name in (base, motivated) if name), kind])


def paper_unit(base: str) -> str:
    """Return the unit of accuracy per FLOPs in which the paper gives a model's rows."""
    if base.endswith("_cifar"):
        return "10^-2 % per MFLOP"
    return "10^-2 % per GFLOP" if base.startswith("vit_") else "% per GFLOP"


def paper_data_set(name: str) -> str | None:
    """Return the paper's name of a data set or of the folder it lies in; None for any other data set.

    >>> paper_data_set("torch/cifar10"), paper_data_set("hfds/uoft-cs/cifar100"), paper_data_set("sklearn/digits")
    ('CIFAR-10', 'CIFAR-100', None)
    """
    short = re.sub(r"[^a-z0-9]", "", name.lower().rpartition("/")[2])
    if short in ("imagenet", "imagenet1k", "imagenet1kwds", "imagenet2012", "ilsvrc2012", "ilsvrc"):
        return "ImageNet"
    return {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}.get(short)
