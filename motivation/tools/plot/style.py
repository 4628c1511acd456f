"""Colours and legends that all pictures share.

The colours are Okabe and Ito's, which colour-blind readers tell apart; lines also differ in mark or dash.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from motivation.tools.plot.series import Floats

BASE = "#0072b2"
MOTIVATED = "#e69f00"
COST = "#009e73"
SHADE = "#f7cf80"
FAINT = "#707070"
GRID = "#dddddd"
BOUNDARY = "#999999"

_TITLE_WIDTH = 76
_LEGEND_WIDTH = 112
"""Characters that fit over the axes; each entry takes `_HANDLE_WIDTH` besides its label."""
_HANDLE_WIDTH = 9


def legend_above(axes: Axes, handles: Sequence[Line2D | Patch], title: str | None = None) -> None:
    """Title and legend over the axes, because no corner inside is free of data in every run."""
    axes.legend(
        handles=list(handles),
        title=title and textwrap.fill(title, _TITLE_WIDTH),
        title_fontproperties={"size": 10.5, "weight": "bold"},
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=legend_columns([str(handle.get_label()) for handle in handles]),
        frameon=False,
        fontsize=8.5,
        borderaxespad=0.1,
        columnspacing=1.4,
    )


def legend_columns(labels: Sequence[str]) -> int:
    """The most columns in which these labels fit side by side.

    >>> legend_columns(["a", "b"]), legend_columns(["a" * 60, "b" * 60])
    (2, 1)
    """
    widths = [_HANDLE_WIDTH + max(map(len, label.split("\n"))) for label in labels]
    for count in range(len(labels), 1, -1):
        parts = np.array_split(np.array(widths), count)  # matplotlib fills column by column
        if sum(int(part.max()) for part in parts) <= _LEGEND_WIDTH:
            return count
    return 1


def mark_outside(axes: Axes, x: Floats, values: Floats, limits: tuple[float, float], unit: str) -> list[Line2D]:
    """Marks at the edge for values that the axis does not reach or that are not finite, and handles that count them.

    Args:
        axes: with those limits.
        x: ``[N]``, where the values are.
        values: ``[N]``.
        limits: of the y axis.
        unit: what one value is of, such as ``update``.
    """
    across = axes.get_xaxis_transform()  # x in the data's units, y from 0 to 1
    finite = np.isfinite(values)
    above, below = finite & (values > limits[1]), finite & (values < limits[0])
    handles: list[Line2D] = []
    for chosen, height, marker, text in (
        (above, 0.975, "^", f"above the axis (up to {np.max(values, where=above, initial=-np.inf):.3g})"),
        (below, 0.025, "v", f"below the axis (down to {np.min(values, where=below, initial=np.inf):.3g})"),
        (~finite, 0.975, "x", "not finite"),
    ):
        if count := int(chosen.sum()):
            heights = np.full(count, height)
            label = f"{count:,} {unit}{'s' * (count != 1)} {text}"
            handles += axes.plot(x[chosen], heights, marker, color="black", ms=5, transform=across, label=label)
    return handles
