"""How the training loss moves around a switch, beside how it moves after as many falls when nobody switches.

A switch follows k falls of a noisy loss, so the next loss is likely to be higher whichever model makes it (regression
to the mean). The base alone, after k falls, shows how much of the rise is that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from motivation.method.records import Role
from motivation.tools.frontier.plan import Cell, Plan, Way
from motivation.tools.plot.data import after_falls
from motivation.tools.sweep import State
from motivation.training.run_folder import Updates, read_run


@dataclass(frozen=True)
class Dynamics:
    """Figures of one run's losses; NaN where there is nothing to take a mean of.

    Attributes:
        share: of the updates that follow k falls in a row.
        rise: of the loss at these updates, mean.
        gap: mean loss of motivated updates minus that of base updates of the same epoch.
    """

    share: float
    rise: float
    gap: float


def dynamics(updates: Updates, k: int) -> Dynamics:
    """Return the figures of a run.

    Args:
        updates: of the run, ``[N]``.
        k: falls in a row, as in the condition ``loss``; forgotten at an epoch's start.
    """
    follows = after_falls(updates, k)
    rises = np.diff(updates.loss, prepend=np.nan)[follows]
    gaps: list[float] = []
    for number in np.unique(updates.epoch):
        epoch = updates[updates.epoch == number]
        if 0 < epoch.motivated.sum() < len(epoch):
            gaps += (epoch.loss[epoch.motivated] - epoch.loss[~epoch.motivated].mean()).tolist()
    return Dynamics(
        share=float(follows.mean()) if len(updates) else math.nan,
        rise=float(rises.mean()) if len(rises) else math.nan,
        gap=float(np.mean(gaps)) if gaps else math.nan,
    )


def read_dynamics(plan: Plan) -> dict[tuple[Way, int], list[Dynamics]]:
    """Return the figures of the base alone, for each k, and of the motivated ways, at the largest budget of both.

    A run that is not done is left out.
    """
    budgets = set(plan.budgets).intersection(plan.motivated_budgets)
    found: dict[tuple[Way, int], list[Dynamics]] = {}
    for way in plan.ways:
        if not budgets or way.role is Role.MOTIVATED:
            continue
        for k in (way.k,) if way.k else dict.fromkeys(other.k for other in plan.ways if other.k):
            runs = [plan.run(Cell(way, max(budgets), seed)) for seed in plan.seeds]
            done = [read_run(run.folder).updates for run in runs if run.state is State.DONE]
            if k and done:
                found[way, k] = [dynamics(updates, k) for updates in done]
    return found
