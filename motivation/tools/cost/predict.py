"""The expected cost of a run before it is paid (paper, supplementary section 6).

F_avg = F_base + share (F_motivated - F_base), where the share of motivated updates is 1/(k+1)! if successive losses are
independent: update t is motivated if the k + 1 losses before it lie in falling order, one order of (k+1)!.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from motivation.method.condition_registry import has_streak_law, make_condition
from motivation.method.conditions import expected_share
from motivation.training.flops import forward_flops, torch_flops

FIXED_SHARES = {"never": 0.0, "random": 0.5, "always": 1.0}
"""Conditions whose share does not depend on k."""

HARDLY = 0.01
"""Share below which the differential part hardly trains."""


@dataclass(frozen=True)
class ModelCost:
    """One model.

    Attributes:
        parameters: their number.
        flops: of one image's forward pass, convention ``flops`` (`forward_flops`).
        torch_flops: the same by torch's own counter.
    """

    name: str
    parameters: int
    flops: float
    torch_flops: int

    @property
    def macs(self) -> float:
        """Multiply-adds, by torch's own counter."""
        return self.torch_flops / 2


@dataclass(frozen=True)
class Length:
    """How long a run is, in epochs and updates of each."""

    epochs: int
    updates_per_epoch: int

    @property
    def updates(self) -> int:
        """Of the whole run."""
        return self.epochs * self.updates_per_epoch


@dataclass(frozen=True)
class Row:
    """One way to train.

    Attributes:
        label: of the table, k or words.
        k: length of the streak; None where none is waited for.
        share: of motivated updates; None for two runs.
        flops: average forward FLOPs of an update's image, F_avg.
        over_base, over_motivated: the same as multiples of either model alone.
        motivated_updates: to expect of the run; None if its length is unknown.
        this_run: whether the options ask for it.
    """

    label: str
    k: int | None
    share: float | None
    flops: float
    over_base: float
    over_motivated: float
    motivated_updates: float | None
    this_run: bool = False


def model_cost(name: str, model: nn.Module, input_size: tuple[int, ...]) -> ModelCost:
    """Run copies of a model on one image ``(C, H, W)`` on the CPU, once per counter."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelCost(name, parameters, forward_flops(model, input_size), torch_flops(model, input_size))


def expected_average(share: float, base: float, motivated: float) -> float:
    """F_avg of a run with that share of motivated updates, in the unit of the two costs.

    >>> expected_average(0.25, 100.0, 200.0)
    125.0
    """
    return base + share * (motivated - base)


def expected_motivated_updates(k: int, length: Length) -> float:
    """Motivated updates to expect of a run, if successive losses are independent.

    An epoch forgets the streak, so its first k + 1 updates train the base; each of the others is motivated with
    probability 1/(k+1)!.

    >>> expected_motivated_updates(2, Length(epochs=30, updates_per_epoch=22))
    95.0
    """
    return make_condition("loss", k).expected_updates(length.epochs, length.updates_per_epoch) or 0.0


def updates_per_epoch(images: int, batch_size: int, accumulate: int, processes: int) -> int:
    """Updates of an epoch over ``images`` training images, as the loader cuts them.

    Every process has an equal part, rounded up, and drops its last batch if that is not whole; the last update may be
    of fewer micro-batches.

    >>> updates_per_epoch(1437, batch_size=64, accumulate=1, processes=1)
    22
    """
    batches = -(-images // processes) // batch_size
    return -(-batches // accumulate)


def prediction(
    ks: Sequence[int], base: float, motivated: float, condition: str, own_k: int, length: Length | None = None
) -> list[Row]:
    """A row for each k, for a condition with another law, and for the ways to train without the method.

    Args:
        ks: lengths of the streak, in the order of the rows.
        base, motivated: forward FLOPs of the two models.
        condition, own_k: what the options ask for; k is added to ``ks`` if it is missing and the condition waits for a
            streak.
        length: None if unknown.
    """

    def row(label: str, flops: float, share: float | None, k: int | None = None, this_run: bool = False) -> Row:
        updates = None
        if length is not None and share is not None:
            updates = share * length.updates if k is None else expected_motivated_updates(k, length)
        return Row(label, k, share, flops, flops / base, flops / motivated, updates, this_run)

    waits = has_streak_law(condition)
    rows = []
    for k in sorted({*ks, own_k}) if waits else list(dict.fromkeys(ks)):
        share = expected_share(k)
        rows.append(row(f"k = {k}", expected_average(share, base, motivated), share, k, waits and k == own_k))
    if condition == "random":
        rows.append(row("random", expected_average(0.5, base, motivated), FIXED_SHARES["random"], this_run=True))
    rows.append(row("base alone", base, 0.0, this_run=condition == "never"))
    rows.append(row("motivated alone", motivated, 1.0, this_run=condition == "always"))
    rows.append(row("both, two runs", base + motivated, None))
    return rows


def as_json(
    models: dict[str, ModelCost], input_size: Sequence[int], rows: Sequence[Row], length: Length | None
) -> dict[str, Any]:
    """The prediction for other programs.

    Returns:
        ``input_size`` (C, H, W), ``models`` by role (``name``, ``parameters``, ``flops``, ``torch_flops``, ``macs``),
        ``epochs``, ``updates_per_epoch`` and ``updates`` (None if unknown), and ``rows`` with the fields of `Row`.
    """
    return {
        "input_size": list(input_size),
        "models": {role: {**vars(cost), "macs": cost.macs} for role, cost in models.items()},
        "epochs": length.epochs if length else None,
        "updates_per_epoch": length.updates_per_epoch if length else None,
        "updates": length.updates if length else None,
        "rows": [vars(row) for row in rows],
    }
