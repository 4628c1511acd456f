"""The prediction of `motivation.tools.cost.predict` as text."""

from __future__ import annotations

from collections.abc import Sequence

from motivation.method.condition_registry import condition_names, has_streak_law
from motivation.tools.cost.predict import FIXED_SHARES, HARDLY, Length, ModelCost, Row
from motivation.training.flops import readable

CONVENTIONS = """\
flops        thop with this project's rules: 2 per multiply-add of convolutions and linear layers, 5 per BatchNorm
             element, 1 per ReLU element, 1 per input element of the final pool; no matrix products of attention
torch flops  torch.utils.flop_counter: 2 per multiply-add of convolutions, matrix products and attention; nothing else
macs         multiply-adds: half of torch flops"""

LAW = """\
The shares are those of independent losses, 1/(k+1)!; measured in a small run: 0.165, 0.039, 0.0067 at k = 2, 3, 4.
A loss that falls steeply, as in a short run, gives more.
F_avg is the forward pass of one image in flops, averaged over the updates; the paper lets it stand for training."""


def model_table(models: dict[str, ModelCost], input_size: Sequence[int]) -> str:
    """Parameters and forward cost of the models, and what the figures mean."""
    names = max(len("model"), *(len(cost.name) for cost in models.values()))
    lines = [f"{'':10} {'model':{names}} {'parameters':>13} {'flops':>9} {'torch flops':>12} {'macs':>9}"]
    for role, cost in models.items():
        lines.append(
            f"{role:10} {cost.name:{names}} {cost.parameters:>13,} {readable(cost.flops):>9} "
            f"{readable(cost.torch_flops):>12} {readable(cost.macs):>9}"
        )
    size = " x ".join(map(str, input_size))
    return "\n".join([*lines, f"Forward pass of one image of {size}, the training size.", CONVENTIONS])


def prediction_table(rows: Sequence[Row], condition: str, length: Length | None) -> str:
    """Share, F_avg and its ratios, then what to think of them."""
    head = f"{'':16} {'share':>9} {'F_avg':>9} {'x base alone':>13} {'x motivated alone':>18}"
    lines = [head + (f" {'motivated updates':>18}" if length else "")]
    for row in rows:
        share = "-" if row.share is None else f"{row.share:.4g}"
        line = f"{row.label:16} {share:>9} {readable(row.flops):>9} {row.over_base:>13.3f} {row.over_motivated:>18.3f}"
        if length:
            line += f" {_count(row.motivated_updates):>18}"
        lines.append(line + ("  <- this run" if row.this_run else ""))
    return "\n".join([*lines, *_remarks(rows, condition, length)])


def _count(updates: float | None) -> str:
    """
    >>> _count(None), _count(0.25), _count(3216.7)
    ('-', '0.2', '3,217')
    """
    if updates is None:
        return "-"
    return f"{updates:,.0f}" if updates >= 10 or updates == 0 else f"{updates:.1f}"


def _remarks(rows: Sequence[Row], condition: str, length: Length | None) -> list[str]:
    remarks = [LAW]
    if length:
        size = f"{length.epochs} epochs x {length.updates_per_epoch} = {length.updates:,}"
        remarks.append(f"Of {size} updates; the first k + 1 of an epoch are always the base's.")
    if not has_streak_law(condition) and condition not in FIXED_SHARES:
        lawful = ", ".join(filter(has_streak_law, condition_names()))
        remarks.append(f"This run: no law is known for --motivation-condition {condition}; the rows are for {lawful}.")
    low = [row for row in rows if row.k is not None and row.share is not None and row.share < HARDLY]
    if low:
        labels = ", ".join(str(row.k) for row in low)
        mine = ", this run's among them" if any(row.this_run for row in low) else ""
        remarks.append(f"warning: share under 1 % at k = {labels}{mine}: the differential part hardly trains.")
    return remarks
