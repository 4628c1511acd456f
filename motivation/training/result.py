"""The result of a run: its best epochs, its cost, the closing table and ``result.json``."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motivation.method.records import Counts, Role
from motivation.training.checkpoint import blaming_file
from motivation.training.flops import CONVENTION, readable
from motivation.training.records import EpochRecord, Metrics, best_epoch, rank_epochs
from motivation.training.run import Run
from motivation.training.run_folder import RESULT_FILE


@dataclass
class RunResult:
    """The figures of a run that has ended.

    Attributes:
        records: the evaluated epochs.
        models: timm names.
        ranking: name of the metric that ranks epochs and checkpoints; ``loss`` is the better the lower.
        flops: forward FLOPs of one image, of both models; None in a plain run.
        counts: all updates that led to the weights, also those after the last evaluated epoch.
        expected_share: share of motivated updates to expect, if the condition has a law for it.
        completed: no epoch is left to train.
        stopped_by: the reason a hook gave for stopping the run.
        nonfinite_losses: updates whose loss was not finite.
    """

    records: list[EpochRecord]
    models: dict[Role, str]
    ranking: str
    flops: dict[Role, float] | None
    counts: Counts
    expected_share: float | None
    completed: bool = True
    stopped_by: str | None = None
    nonfinite_losses: int = 0

    def timm_json(self) -> str:
        """Return the ten best epochs, best last, in the form that timm prints for other programs to read."""
        ranked = rank_epochs(self.records, Role.BASE, self.ranking)
        results: list[dict[str, Any]] = []
        for record in ranked[9::-1]:
            result: dict[str, Any] = {"epoch": record.epoch, "train": {"loss": record.train_loss}}
            if record.base:
                result["validation"] = record.base
            if record.motivated:
                result["motivated_validation"] = record.motivated
            results.append(result)
        return json.dumps(results, indent=4)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for other programs, as ``result.json`` holds them.

        ``last``, ``best`` and ``best_motivated`` are an epoch each: its number and the metrics of both models; the best
        ones are selected on the validation data, by the base's and by the motivated model's metric. Figures on updates
        and cost are those of a motivated run only.
        """
        result: dict[str, Any] = {
            "format": 1,
            "completed": self.completed,
            "stopped_by": self.stopped_by,
            "nonfinite_losses": self.nonfinite_losses,
            "models": {role.value: name for role, name in self.models.items() if name},
        }
        last = self.records[-1] if self.records else None
        best = {role: best_epoch(self.records, role, self.ranking) for role in Role}
        epochs = {"last": last, "best": best[Role.BASE], "best_motivated": best[Role.MOTIVATED]}
        result |= {name: _epoch_as_dict(record) for name, record in epochs.items() if record}
        counts = self.counts
        if self.flops and counts.total:
            result |= {
                "flops": {role.value: flops for role, flops in self.flops.items()},
                "convention": CONVENTION,
                "updates": {role.value: counts.updates[role] for role in Role},
                "switches": counts.switches,
                "share": counts.share,
                "expected_share": self.expected_share,
                "average_flops": counts.average_flops,
            }
        return result

    def write(self, folder: Path) -> None:
        """Write ``result.json``, whole or not at all."""
        path = folder / RESULT_FILE
        scratch = folder / f".{RESULT_FILE}.tmp"
        with blaming_file(path):
            scratch.write_text(json.dumps(self.as_dict(), indent=2) + "\n")
            scratch.replace(path)

    def table(self) -> str:
        """Return accuracy of both models, share and cost of a motivated run as text.

        The accuracy is the last epoch's, and beside it that of the epoch that was kept, the best by ``--eval-metric``.
        Of an interrupted run it may be older than share and cost, which are those of all updates so far.
        """
        assert self.flops is not None
        last, flops, models, counts = self.records[-1] if self.records else None, self.flops, self.models, self.counts
        lines = [f"{'':10} {'model':24} {'top-1':>7} {'top-5':>7} {'best*':>7} {'forward ' + CONVENTION:>20}"]
        for role in Role:
            best = best_epoch(self.records, role, self.ranking) or last
            columns = ((last, "top1"), (last, "top5"), (best, "top1"))
            cells = "".join(f" {_percent(record, role, name):>7}" for record, name in columns)
            lines.append(f"{role.value:10} {models[role]:24}{cells} {readable(flops[role]):>20}")
        average = counts.average_flops
        law = "" if self.expected_share is None else f" (expected {self.expected_share:.4f})"
        lines += [
            "* best epoch, selected on the validation data",
            f"updates   {counts.total}: {counts.updates[Role.BASE]} base, {counts.updates[Role.MOTIVATED]} motivated; "
            f"{counts.switches} switch{'es' * (counts.switches != 1)}",
            f"share     {counts.share:.4f}{law}",
            f"cost      {readable(average)} {CONVENTION} per forward pass on average: "
            f"{average / flops[Role.BASE]:.3f} x {models[Role.BASE]} alone, "
            f"{average / flops[Role.MOTIVATED]:.3f} x {models[Role.MOTIVATED]} alone",
        ]
        if not self.completed:
            when = f"after epoch {last.epoch}" if last else "not measured yet"
            lines.append(f"The run has not ended: accuracy {when}; updates, share and cost up to now.")
        return "\n".join(lines)


def result_of(run: Run, args: Namespace) -> RunResult:
    """Return the figures of a run that has ended; ``args`` are its options."""
    return RunResult(
        records=run.records,
        models={Role.BASE: args.model, Role.MOTIVATED: args.motivated_model},
        ranking=run.ranking,
        flops=run.flops,
        counts=run.pair.counts,
        expected_share=run.expected_share,
        completed=run.completed,
        stopped_by=run.stopped_by,
        nonfinite_losses=run.guard.count,
    )


def _percent(record: EpochRecord | None, role: Role, name: str) -> str:
    value = None if record is None else record.metric(role, name)
    return "-" if value is None else f"{value:.2f}"


def _epoch_as_dict(record: EpochRecord) -> dict[str, Any]:
    """JSON has no numbers that are not finite: they become null."""

    def plain(metrics: Metrics | None) -> dict[str, float | None] | None:
        if metrics is None:
            return None
        return {name: value if math.isfinite(value) else None for name, value in metrics.items()}

    return {"epoch": record.epoch, "base": plain(record.base), "motivated": plain(record.motivated)}
