"""What the models of runs cost, and what the runs have cost on average (paper, supplementary section 6)."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from motivation.method.records import Role
from motivation.tools.report.grouping import all_options, frozen, model_options
from motivation.training.run_folder import RunFolder

ARCHITECTURE = ("model", "model_kwargs", "input_size", "in_chans", "img_size", "num_classes", "gp")
"""The options that decide a model's forward FLOPs."""


class ForwardFlops:
    """Forward FLOPs of models, of one image at the training size.

    A plain run has none in its ``result.json``: they are taken from a motivated run with the same model, or counted.

    Args:
        runs: what is known from their results is not counted again.
    """

    def __init__(self, runs: Iterable[RunFolder]):
        self._known: dict[Any, float | None] = {}
        self.faults: list[str] = []
        for run in runs:
            flops = (run.result or {}).get("flops") or {}
            for role in Role:
                if role.value in flops and run.motivated:
                    self._known[_key(model_options(all_options(run), role))] = float(flops[role.value])

    def of(self, settings: dict[str, Any]) -> float | None:
        """Of the model ``settings["model"]``, None where it cannot be made; why is then in ``faults``."""
        key = _key(settings)
        if key not in self._known:
            self._known[key] = self._count(settings)
        return self._known[key]

    def _count(self, settings: dict[str, Any]) -> float | None:
        # imported here: a report of motivated runs needs no torch
        import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
        from motivation.build.costs import untrained_models
        from motivation.options.parse import make_parser
        from motivation.training.flops import forward_flops

        args = Namespace(**{**vars(make_parser().parse_args([])), **settings, "motivated_model": None})
        args.grad_checkpointing = False
        try:
            models, size = untrained_models(args)
            return forward_flops(models[Role.BASE], size)
        except Exception as error:  # noqa: BLE001  (a model's constructor raises what it likes)
            reason = " ".join(str(error).split())
            self.faults.append(f"the FLOPs of {settings['model']} cannot be counted: {reason}")
            return None


def _key(settings: dict[str, Any]) -> Any:
    return frozen([settings.get(name) for name in ARCHITECTURE])


def run_average_flops(run: RunFolder) -> float | None:
    """F_avg of a motivated run over all its updates, from its result, else from ``summary.csv``; None if not there."""
    result = run.result or {}
    if result.get("average_flops"):
        return float(result["average_flops"])
    total, updates = 0.0, 0
    for row in run.epochs:
        count = (row.get("base_updates") or 0) + (row.get("motivated_updates") or 0)
        if count and row.get("average_flops") is not None:
            total, updates = total + count * row["average_flops"], updates + count
    return total / updates if updates else None


def run_share(run: RunFolder) -> float | None:
    """Motivated updates over all updates of a run, from its result, else from ``summary.csv``; None if not there."""
    result = run.result or {}
    if result.get("share") is not None:
        return float(result["share"])
    motivated = sum(row.get("motivated_updates") or 0 for row in run.epochs)
    updates = motivated + sum(row.get("base_updates") or 0 for row in run.epochs)
    return motivated / updates if updates else None
