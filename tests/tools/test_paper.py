"""Which of the paper's figures follow from its own accuracies and FLOPs (docs/tools.md, "Compare runs")."""

import itertools
from types import SimpleNamespace

import pytest

from motivation.tools.report.paper import TABLES, paper_unit
from motivation.tools.report.rows import UNITS, acc_f_ratio, acc_per_flops

DEVIATING = {
    ("table1", "resnet20_cifar-resnet32_cifar-B", "CIFAR-100", "ACC/FLOPs"): ("6.90", "6.09"),
    ("table1", "resnet20_cifar-resnet32_cifar-B", "CIFAR-100", "ratio"): ("2.23", "1.97"),
    ("table1", "resnet44_cifar-C", "CIFAR-100", "ACC/FLOPs"): ("1.39", "1.40"),
    ("table4", "efficientnet_b0-efficientnet_b1-B", "CIFAR-100", "ratio"): ("1.26", "1.05"),
    ("table4", "efficientnet_b1-C", "CIFAR-100", "ACC/FLOPs"): ("2.22", "2.68"),
    ("table4", "efficientnet_b1-efficientnet_b2-B", "CIFAR-100", "ratio"): ("6.76", "25.96"),
    ("table4", "efficientnet_b2-C", "CIFAR-100", "ACC/FLOPs"): ("3.33", "0.87"),
}
"""As printed, and as computed from the paper's accuracies and FLOPs."""

QUOTIENTS_OF_ROUNDED_CELLS = {"1.24", "122.67", "41.04", "84.19", "18.48", "14.89", "-100", "4.61"}
"""Printed ratios that follow only as quotients of two printed, rounded cells."""

WITHIN_ROUNDED_FLOPS = {"44.54"}
"""One unit of the last digit away from the computed figure, within what the rounding of the FLOPs allows."""


def number(printed):
    """``82.82M`` as 82.82e6, ``0.46`` as 0.46."""
    return float(printed.strip("MG")) * {"M": 1e6, "G": 1e9}.get(printed[-1], 1.0)


def half_unit(printed):
    """By how much a printed number may differ from the one that was rounded."""
    digits = len(printed.strip("MG").partition(".")[2])
    return 0.5 * 10.0**-digits * {"M": 1e6, "G": 1e9}.get(printed[-1], 1.0)


def agrees(printed, low, high=None):
    """The printed number is the computed one, or one between two, to its digits."""
    low, high = sorted((low, low if high is None else high))
    slack = half_unit(printed) + 1e-9  # that of binary fractions
    return low - slack <= float(printed) <= high + slack


def figures():
    """Yield each printed figure as ``(table, row, data set, name), printed, computed, how it follows``."""
    for name in ("table1", "table2", "table4"):
        for label, data_set in itertools.product(TABLES[name].rows, TABLES[name].data_sets):
            if label.endswith("-B"):
                for row, figure, *rest in figures_of_pair(TABLES[name].rows, label, data_set):
                    yield (name, row, data_set, figure), *rest


def figures_of_pair(rows, label, data_set):
    base, larger, _ = label.split("-")
    x, b, y = (rows[row][data_set] for row in (f"{base}-C", label, f"{larger}-C"))
    printed_b, printed_ratio = b.acc_per_flops.split()
    gained, follows = [], []
    for cell, printed in ((b, printed_b), (y, y.acc_per_flops)):
        slack = half_unit(cell.flops) + half_unit(x.flops)
        value, *ends = (acc_per_flops(figures_in(cell, by), figures_in(x)) for by in (0.0, -slack, slack))
        value, *ends = (one * UNITS[paper_unit(base)] for one in (value, *ends))
        how = "own numbers" if agrees(printed, value) else "rounded FLOPs" if agrees(printed, *ends) else "nothing"
        gained, follows = [*gained, value], [*follows, how]
    yield label, "ACC/FLOPs", printed_b, gained[0], follows[0]
    yield f"{larger}-C", "ACC/FLOPs", y.acc_per_flops, gained[1], follows[1]
    ratio, printed_ratio = acc_f_ratio(*gained), printed_ratio.strip("()")
    quotient = acc_f_ratio(float(printed_b), float(y.acc_per_flops))
    how = "own numbers" if agrees(printed_ratio, ratio) else "nothing"
    if how == "nothing" and "nothing" not in follows and agrees(printed_ratio, quotient):
        how = "rounded cells"
    yield label, "ratio", printed_ratio, ratio, how


def figures_in(cell, shift=0.0):
    return SimpleNamespace(accuracy=float(cell.accuracy.split()[0]), flops=number(cell.flops) + shift)


def test_42_figures_are_printed_and_all_but_the_listed_follow_to_the_last_digit():
    found = list(figures())
    printed = [
        text.strip("()")
        for name in ("table1", "table2", "table4")
        for cells in TABLES[name].rows.values()
        for cell in cells.values()
        for text in cell.acc_per_flops.split()
    ]
    assert sorted(printed) == sorted(text for _, text, _, _ in found)
    assert len(printed) == 42
    how = {kind: [one for one in found if one[3] == kind] for kind in {one[3] for one in found}}
    assert {key: (text, f"{value:.2f}") for key, text, value, _ in how["nothing"]} == DEVIATING
    assert {text for _, text, _, _ in how["rounded cells"]} == QUOTIENTS_OF_ROUNDED_CELLS
    assert {text for _, text, _, _ in how["rounded FLOPs"]} == WITHIN_ROUNDED_FLOPS
    for key, text, value, _ in how["own numbers"]:
        assert f"{value:.{len(text.partition('.')[2])}f}" == text, key
    assert len(how["own numbers"]) == 26


def test_accuracies_that_two_tables_give_are_equal_but_where_table_5_has_other_runs():
    first, second = (TABLES[name].rows for name in ("table4", "table5"))
    other = {label for label in first if first[label]["CIFAR-100"].accuracy != second[label]["CIFAR-100"].accuracy}
    assert other == {f"efficientnet_b{size}-efficientnet_b{size + 1}-B" for size in (2, 3, 4)}


@pytest.mark.parametrize(("base", "larger", "share"), [(20, 32, 0.168), (32, 44, 0.167), (44, 56, 0.0073)])
def test_average_flops_of_table_8_have_the_share_of_a_streak(base, larger, share):
    labels = (f"resnet{base}_cifar-resnet{larger}_cifar-B", f"resnet{base}_cifar-C", f"resnet{larger}_cifar-C")
    average, small, large = (number(TABLES["table1"].rows[label]["CIFAR-10"].flops) for label in labels)
    assert (average - small) / (large - small) == pytest.approx(share, rel=0.01)
