"""The tables of the page: results with intervals, paired differences, runs, options and what differs in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from motivation.method.records import Role
from motivation.options.faults import one_line
from motivation.tools.report.groups import Group, all_options, as_key, differing
from motivation.tools.report.labels import short_names, telling_options
from motivation.tools.report.markup import Markup, Table, escaped, html_table, remarks_text
from motivation.tools.report.page_data import metric_of
from motivation.tools.report.paired import Difference, half_width
from motivation.tools.report.rows import Row
from motivation.tools.tables import MISSING, mean, number
from motivation.training.flops import readable
from motivation.training.run_folder import RunFolder

LONGEST_VALUE = 200
MOST_VALUES = 8
"""Characters of an option's value that are shown, and how many different values of one option."""

INTERVAL = (
    "95 % interval: of the mean over the runs, by Student's t with n - 1 degrees of freedom; the dot is the mean, an "
    "arrow says that the interval goes on"
)

# ---- tables of results


def with_intervals(cells: Table, place: int, values: Sequence[Sequence[float]], of_differences: bool = False) -> Table:
    """Insert a column with the 95 % interval of a mean over runs, drawn; nothing where no row has one.

    Args:
        cells: the header first.
        place: number of the new column.
        values: of each row.
        of_differences: mark 0 in the drawing, and leave out the numbers, which such a table has.
    """
    spans = [(mean(row), half_width(row)) for row in values]
    ends = [middle + sign * half for middle, half in spans for sign in (-1, 1) if math.isfinite(half)]
    if not ends:
        return cells
    quartiles = np.quantile(ends, [0.25, 0.75])
    reach = 2 * (quartiles[1] - quartiles[0])  # one wide interval would leave the others too small to be told apart
    low, high = max(min(ends), quartiles[0] - reach), min(max(ends), quartiles[1] + reach)
    low, high = (min(low, 0.0), max(high, 0.0)) if of_differences else (low, high)
    column: list[object] = [f"95 % interval (drawn from {low:.2f} to {high:.2f})"]
    for middle, half in spans:
        words = f"{number(middle - half)} to {number(middle + half)} " if not of_differences else ""
        drawn = _drawn_interval(middle, half, low, high, of_differences) if math.isfinite(half) else ""
        column.append(Markup(words + drawn if drawn else MISSING))
    return [[*row[:place], cell, *row[place:]] for row, cell in zip(cells, column, strict=True)]


def _drawn_interval(middle: float, half: float, low: float, high: float, zero: bool) -> str:
    def x(value: float) -> str:
        return f"{8 + 104 * (min(max(value, low), high) - low) / (high - low or 1.0):.1f}"

    shapes = f'<path class="zero" d="M{x(0)} 0V16"/>' if zero else ""
    shapes += f'<path d="M{x(middle - half)} 8H{x(middle + half)}"/>'
    if middle - half < low:
        shapes += '<path class="beyond" d="M8 4L1 8L8 12z"/>'
    if middle + half > high:
        shapes += '<path class="beyond" d="M112 4L119 8L112 12z"/>'
    if low <= middle <= high:
        shapes += f'<circle cx="{x(middle)}" cy="8" r="3.5"/>'
    return f'<svg class="interval" viewBox="0 0 120 16" aria-hidden="true">{shapes}</svg>'


def results_section(cells: Sequence[Sequence[str]], remarks: Iterable[str], rows: Sequence[Row]) -> Markup:
    """Return the table of the report, with an interval for each row."""
    names = short_names(row.group for row in rows)
    place = next(column for column, title in enumerate(cells[0]) if title.startswith("top-1")) + 1
    table = with_intervals([[*map(names, row)] for row in cells], place, [row.accuracies for row in rows])
    interval = [INTERVAL] if len(table[0]) > len(cells[0]) else []
    return Markup(html_table(table, "results") + remarks_text([*map(names, remarks), *interval, *names.remarks]))


def paired_section(cells: Sequence[Sequence[str]], remarks: Iterable[str], differences: Sequence[Difference]) -> Markup:
    """Return the table of the paired differences."""
    names = short_names(row.group for one in differences for row in (one.row, one.against))
    values = [one.values for one in differences]
    table = with_intervals([[*map(names, row)] for row in cells], 4, values, of_differences=True)
    under = remarks_text(map(names, remarks))
    return Markup(f"<h3>Paired differences</h3>\n{html_table(table, 'paired differences', left=2)}{under}")


# ---- runs and options


def runs_section(runs: Sequence[RunFolder], names: Sequence[str], labels: Sequence[str]) -> Markup:
    """Return a table of the single runs."""
    rows: list[list[object]] = []
    for position, (run, name, label) in enumerate(zip(runs, names, labels, strict=True)):
        metric = metric_of(run)
        last = [epochs[-1].get(metric) if (epochs := run.evaluated(role)) else None for role in Role]
        done = f"{run.epochs[-1]['epoch'] + 1:,} of {all_options(run)['epochs']}" if run.epochs else "0"
        timm = "motivated_model" not in run.options
        rows.append([
            Markup(f'<a href="#run={position}">{escaped(name)}</a>'),
            label,
            run.seed,
            MISSING if run.options.get("fold") is None else run.options["fold"],
            "of timm's script" if timm else "finished" if run.completed else "not finished",
            done,
            f"top-{metric[-1]}",
            *(MISSING if value is None else number(value) for value in last),
            MISSING if run.share is None else number(run.share, 4),
            MISSING if run.average_flops is None else f"{readable(run.average_flops)} {run.convention}",
        ])  # fmt: skip
    header = ["run", "configuration", "seed", "fold", "state", "epochs", "metric", "base (%)", "motivated (%)", "share"]
    return html_table([[*header, "F_avg"], *rows], "runs", left=2)


def options_section(runs: Sequence[RunFolder], groups: Sequence[Group], labels: Sequence[str]) -> Markup:
    """Return what differs between the configurations, what else differs between runs, and the options they share."""
    settings = [group.settings for group in groups]
    telling = list(telling_options(settings))
    options = [all_options(run) for run in runs]
    others = [name for name in differing(options) if name not in telling]
    parts = []
    if telling:
        rows = [[label, *(_shown(one, name) for name in telling)] for label, one in zip(labels, settings, strict=True)]
        table = html_table([["configuration", *telling], *rows], "what differs between the configurations")
        parts += ["<h3>What differs between the configurations</h3>", table]
    if others:
        rows = [[name, _shown_values(options, name)] for name in others]
        table = html_table([["option", "values"], *rows], "what else differs between the runs", left=2)
        parts += ["<h3>What else differs between the runs</h3>", table]
    defaults = all_options(replace(runs[0], options={}))
    common = sorted(set(options[0]).difference(telling, others))
    given = [name for name in common if as_key(options[0][name]) != as_key(defaults.get(name))]
    same = ", the same in all runs" if len(runs) > 1 else ""
    for title, names in (
        (f"The options that were given{same}", given),
        ("The other options, as by default", [name for name in common if name not in given]),
    ):
        table = html_table([["option", "value"], *([name, _shown(options[0], name)] for name in names)], title, 2)
        is_open = " open" if names is given else ""
        parts.append(f"<details{is_open}><summary>{title} ({len(names)})</summary>{table}</details>")
    return Markup("\n".join(parts))


def _shown(options: dict[str, Any], name: str) -> str:
    """Return an option's value as text; a dash where it is left open or does not matter."""
    value = options.get(name)
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = one_line(" ".join(map(str, value)) if isinstance(value, (list, tuple)) else value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + " ..."


def _shown_values(options: Sequence[dict[str, Any]], name: str) -> str:
    found = list(dict.fromkeys(_shown(one, name) for one in options))
    more = f", and {len(found) - MOST_VALUES} more" if len(found) > MOST_VALUES else ""
    return ", ".join(found[:MOST_VALUES]) + more
