"""The report as one page of HTML that needs no network.

Tables, options and maps stand in it without JavaScript; the charts are drawn from JSON by ``page.js``. Whatever comes
out of a run's folder is escaped, and the page's policy lets no other script run and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl

from motivation import __version__
from motivation.build.models import lies_outside, meta_model
from motivation.errors import printable
from motivation.method.records import Role
from motivation.options.faults import one_line
from motivation.tools.plot.data import AFTER_FALLS
from motivation.tools.report.groups import all_options, as_key, group_runs
from motivation.tools.report.labels import short_names, words_of
from motivation.tools.report.markup import Markup, escaped, json_text, remarks_text
from motivation.tools.report.page_data import (
    MOST_POINTS,
    MOST_POINTS_ON_PAGE,
    curve_limits,
    default_beside,
    mean_curves,
    run_data,
)
from motivation.tools.report.page_tables import options_section, paired_section, results_section, runs_section
from motivation.tools.report.paired import PairedTable, differences
from motivation.tools.report.rows import Row
from motivation.training.run_folder import RunFolder
from weight_maps import find_map
from weight_maps.layout import layout_of
from weight_maps.picture import map_figure
from weight_maps.registry import map_for
from weight_maps.summary import summarise

FILES = Path(__file__).parent


class PrintedTable(Protocol):
    """A table of the report."""

    rows: Sequence[Row]

    def cells(self) -> list[list[str]]: ...
    def remarks(self) -> list[str]: ...


def page_text(runs: Sequence[RunFolder], printed: PrintedTable | None) -> str:
    """Return the page.

    Args:
        runs: those that are shown, at least one; files of theirs but ``updates.csv`` are not damaged.
        printed: the table of the report; None where no run can be counted.
    """
    groups = group_runs(runs)
    words, short = words_of(groups), short_names(groups)
    titles = [f"{group.base} in {group.motivated}" if group.motivated else f"{group.base} alone" for group in groups]
    labels = [
        short(title) + (f" [{', '.join(words[group].values())}]" if words[group] else "")
        for group, title in zip(groups, titles, strict=True)
    ]
    label_of = {run.path: label for group, label in zip(groups, labels, strict=True) for run in group.runs}
    names = run_names(runs)
    curves = mean_curves(groups, labels)
    results, paired = Markup("<p>No run has finished; --unfinished counts those that have an accuracy.</p>"), Markup()
    if printed:
        results = results_section(printed.cells(), printed.remarks(), printed.rows)
        if differences(printed.rows):
            table = PairedTable(printed.rows)
            paired = paired_section(table.cells(), table.remarks(), table.differences)
    template, style, script = ((FILES / f"page.{end}").read_text(encoding="utf-8") for end in ("html", "css", "js"))
    parts = {
        "policy": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "style": style,
        "script": script,
        "title": escaped(f"Report of {len(runs)} runs" if len(runs) > 1 else f"Report of the run {names[0]}"),
        "models": escaped(", ".join(dict.fromkeys(titles))),
        "data_sets": escaped(", ".join(dict.fromkeys(str(group.settings["dataset"]) for group in groups))),
        "version": __version__,
        "results": results,
        "paired": paired,
        "runs": Markup(runs_section(runs, names, [label_of[run.path] for run in runs]) + remarks_text(short.remarks)),
        "after_falls": escaped(AFTER_FALLS),
        "maps": maps_section(runs),
        "options": options_section(runs, groups, labels),
        "data": json_text({"runs": _charts(runs, names), "curves": curves, "limits": curve_limits(curves)}),
    }
    return re.sub(r"<!--(\w+)-->", lambda found: parts[found[1]], template)


def run_names(runs: Sequence[RunFolder]) -> list[str]:
    """Return names of runs that tell them apart: their paths without what all have in common."""
    paths = [run.path.resolve() for run in runs]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return [printable(path.relative_to(common)) for path in paths]


def _charts(runs: Sequence[RunFolder], names: Sequence[str]) -> list[dict[str, Any]]:
    ks: dict[str, set[int]] = {}
    for run in runs:
        if run.motivated and run.condition == "loss" and run.k:
            ks.setdefault(run.base, set()).add(run.k)
    points = min(MOST_POINTS, MOST_POINTS_ON_PAGE // len(runs))
    return [
        run_data(run, points, sorted(ks.get(run.base, ()))) | {"name": name, "beside": default_beside(run, runs)}
        for run, name in zip(runs, names, strict=True)
    ]


# ---- maps

MAP_OPTIONS = (
    "model", "motivated_model", "model_kwargs", "motivated_model_kwargs", "num_classes", "in_chans", "img_size",
    "input_size", "gp", "motivation_map", "motivation_placement",
)  # fmt: skip
"""The options that decide what the picture of a map shows."""


def maps_section(runs: Sequence[RunFolder]) -> Markup:
    """Return the pictures of the maps of the motivated runs, each once; or why one cannot be drawn."""
    found: dict[str, Markup] = {}
    for run in runs:
        key = as_key([run.options.get(name) for name in MAP_OPTIONS])
        if run.motivated and key not in found:
            found[key] = _map_figure(run)
    return Markup("\n".join(found.values()) or "<p>These runs have no motivated model, so there is no map.</p>")


def _map_figure(run: RunFolder) -> Markup:
    title = f"Where {run.base} lies inside {run.motivated}"
    try:
        picture = base64.b64encode(_map_picture(all_options(run))).decode()
    except Exception as error:  # noqa: BLE001  (a model's constructor raises what it likes)
        return Markup(f"<p>{escaped(f'{title}: the map cannot be drawn: {one_line(error)}')}</p>")
    image = f'<img src="data:image/svg+xml;base64,{picture}" alt="{escaped(title)}">'
    return Markup(f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(title)}">{image}</div>')


def _map_picture(options: dict[str, Any]) -> bytes:
    """Return the picture of a run's map as SVG.

    Raises:
        ValueError: a model lies outside of timm, or does not contain the other.
    """
    names = options["model"], options["motivated_model"]
    if outside := [name for name in names if lies_outside(name)]:
        raise ValueError(f"{outside[0]} lies outside of the run, and is not read")
    args = Namespace(**{**options, "grad_checkpointing": False})
    base, motivated = (layout_of(meta_model(args, role)) for role in Role)
    chosen = {"map_name": args.motivation_map, "placement": args.motivation_placement}
    summary = summarise(
        find_map(*names, base, motivated, **chosen),
        base,
        motivated,
        names,
        map_name=args.motivation_map or map_for(*names).name,
        placement=args.motivation_placement,
    )
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "map"}):
        map_figure(summary).savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
