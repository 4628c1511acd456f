"""Draw a map: the base's blocks above, the motivated model's below, filled where the weights are the base's."""

from __future__ import annotations

import itertools
import math
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from weight_maps.summary import Block, Stage, Summary, human

_COLOURS = (
    "#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c", "#ccb974", "#64b5cd",
)  # fmt: skip
_BLOCK_GAP = 0.14
_STAGE_GAP = 0.55
_UNITS_PER_LETTER = 0.19
"""Room that a letter of a row's heading takes, in widths of a box."""


def draw(summary: Summary, file: Path) -> None:
    """Draw a summary into a file; its ending chooses the format.

    Raises:
        ValueError: matplotlib does not know the format.
        OSError: the file cannot be written.
    """
    try:
        map_figure(summary).savefig(file, dpi=140)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def map_figure(summary: Summary) -> Figure:
    """Draw a summary."""
    stages = _merged(summary.stages)
    columns = sum(len(stage.blocks) for stage in stages)
    rows = {3.05: f"base model\n{summary.base}", 0.5: f"motivated model\n{summary.motivated}"}
    margin = _UNITS_PER_LETTER * max(len(line) for text in rows.values() for line in text.split("\n"))
    width = min(max(8.0, 0.42 * (columns + margin) + 2.2), 26)
    caption = (
        "One box is one block, the input is on the left. The filled part of a box below is the share of its parameters "
        "that are the base's: all of it where the block is the same, a corner where the base has the leading channels "
        "only, nothing where the block is new. "
        f"{human(summary.shared)} of {human(summary.motivated_parameters)} parameters ({100 * summary.share:.1f} %) "
        f"are shared. Map {summary.map_name!r}, placement {summary.placement!r}."
    )
    lines = textwrap.wrap(caption, int(width * 14))
    foot = 0.3 + 0.17 * len(lines)  # inches
    figure = Figure(figsize=(width, 3.9 + foot))
    height = figure.get_figheight()
    axes = figure.add_axes((0.01, (foot + 0.35) / height, 0.98, 3.0 / height))
    _draw_stages(axes, stages)
    axes.set_xlim(left=-0.6 - margin)
    axes.set_ylim(-1.5, 3.7)
    axes.axis("off")
    for middle, text in rows.items():
        axes.text(-0.5, middle, text, fontsize=9, fontweight="bold", ha="right", va="center")
    _legend(figure, foot / height)
    figure.text(0.02, 1 - 0.35 / height, f"Where {summary.base} lies inside {summary.motivated}", fontsize=14)
    figure.text(0.02, 0.12 / height, "\n".join(lines), fontsize=9, color="#444444", va="bottom")
    return figure


def _merged(stages: tuple[Stage, ...]) -> list[Stage]:
    """Merge neighbours without blocks (a stem convolution and its norm), to draw them as one box."""
    merged: list[Stage] = []
    for stage in stages:
        if merged and _has_no_blocks(stage) and _has_no_blocks(merged[-1]):
            before = merged.pop()
            both = Block(None, None, before.parameters + stage.parameters, before.shared + stage.shared)
            stage = Stage(f"{before.name}\n{stage.name}", 0, (both,), ())
        merged.append(stage)
    return merged


def _has_no_blocks(stage: Stage) -> bool:
    return len(stage.blocks) == 1 and stage.blocks[0].index is None


def _draw_stages(axes: Axes, stages: list[Stage]) -> None:
    left, step = 0.0, 1 + _BLOCK_GAP
    for stage, colour in zip(stages, itertools.cycle(_COLOURS)):
        width = len(stage.blocks) * step - _BLOCK_GAP
        mapped = []
        for position, block in enumerate(stage.blocks):
            x = left + position * step
            _motivated_box(axes, x, block, colour)
            if block.index is None and block.shared:
                _base_box(axes, x, colour, x)
            if block.base_index is not None:
                mapped.append((block.base_index, x))
        start = left + (width - (len(mapped) * step - _BLOCK_GAP)) / 2
        for rank, (_, x) in enumerate(sorted(mapped)):
            _base_box(axes, start + rank * step, colour, x)
        _label(axes, left + width / 2, stage)
        left += width + _STAGE_GAP
    axes.set_xlim(right=left - _STAGE_GAP + 0.3)


def _motivated_box(axes: Axes, x: float, block: Block, colour: str) -> None:
    share = block.shared / block.parameters if block.parameters else 0.0
    side = math.sqrt(min(share, 1.0))
    axes.add_patch(Rectangle((x, 0), 1, 1, facecolor="#f1f1f1", edgecolor="#999999", linewidth=0.8))
    if share:
        axes.add_patch(Rectangle((x, 1 - side), side, side, facecolor=colour, edgecolor="none"))
    if 0 < share < 0.995:
        axes.text(x + 0.5, -0.1, f"{100 * share:.0f}%", ha="center", va="top", fontsize=6.5, color="#555555")


def _base_box(axes: Axes, x: float, colour: str, below: float) -> None:
    axes.add_patch(Rectangle((x, 2.55), 1, 1, facecolor=colour, edgecolor=colour, linewidth=0.8))
    axes.plot([x + 0.5, below + 0.5], [2.5, 1.05], color=colour, linewidth=1, alpha=0.6)


def _legend(figure: Figure, bottom: float) -> None:
    handles = [
        Patch(facecolor="#6f6f6f", label="the base's weights"),
        Patch(facecolor="#f1f1f1", edgecolor="#999999", label="differential part: in the motivated model only"),
    ]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.012, bottom), ncols=2, frameon=False, fontsize=9)


def _label(axes: Axes, centre: float, stage: Stage) -> None:
    blocks = [block for block in stage.blocks if block.index is not None]
    lines = [stage.name.rstrip(".")]
    if blocks:
        extra = len(blocks) - stage.base_blocks
        lines.append(f"{stage.base_blocks} + {extra} new" if extra else f"{stage.base_blocks}")
    tilted = {"ha": "right", "rotation": 30, "rotation_mode": "anchor"}
    style: dict[str, Any] = tilted if len(stage.blocks) < 3 else {"ha": "center"}
    axes.text(centre, -0.42, "\n".join(lines), va="top", fontsize=8, **style)
