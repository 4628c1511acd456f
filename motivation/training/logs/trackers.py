"""Experiment trackers: Weights & Biases, TensorBoard. Both get both models, share, cost and switches of each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from motivation.method.records import Role
from motivation.training.flops import average_flops
from motivation.training.hooks import Hook, RunView
from motivation.training.logs.csv_files import summary_row
from motivation.training.records import EpochRecord, UpdateReport


class WandbLog(Hook):
    """The columns of ``summary.csv``, as timm logs them, with the shares of the epoch and of the run so far.

    Args:
        run: an open run of wandb's.
        flops: forward FLOPs of both models; None in a plain run.
    """

    def __init__(self, run: Any, flops: dict[Role, float] | None = None):
        self._run, self._flops = run, flops

    def epoch_end(self, record: EpochRecord) -> None:
        row = {name: value for name, value in summary_row(record, self._flops).items() if value != ""}
        if self._flops is not None:
            row |= {"share": record.counts.share, "run_share": record.run_counts.share}
            row["run_average_flops"] = _run_average(record, self._flops)
        self._run.log(row)

    def run_end(self) -> None:
        self._run.finish()


class TensorboardLog(Hook):
    """Scalars over updates: every ``interval`` updates the loss and which model trained, every epoch the rest.

    Args:
        folder: for the event files.
        flops: forward FLOPs of both models; None in a plain run.
        interval: updates between two values of the training loss.
    """

    def __init__(self, folder: Path, flops: dict[Role, float] | None = None, interval: int = 50):
        self._folder, self._flops, self._interval = folder, flops, max(1, interval)
        self._writer: Any = None

    def run_start(self, run: RunView) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._updates = run.updates_per_epoch
        # what an earlier process wrote of epochs that are now trained again is hidden
        purge = run.start_epoch * run.updates_per_epoch + run.start_update + 1
        self._writer = SummaryWriter(str(self._folder), purge_step=purge)

    def update_end(self, record: UpdateReport) -> None:
        if record.update % self._interval == 0:
            self._writer.add_scalar("update/loss", record.loss, record.step)
            self._writer.add_scalar("update/lr", record.lr, record.step)
            if self._flops is not None:
                self._writer.add_scalar("update/motivated", float(record.role is Role.MOTIVATED), record.step)

    def epoch_end(self, record: EpochRecord) -> None:
        step = (record.epoch + 1) * self._updates
        for name, value in epoch_scalars(record, self._flops).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def run_end(self) -> None:
        if self._writer is not None:
            self._writer.close()


def epoch_scalars(record: EpochRecord, flops: dict[Role, float] | None) -> dict[str, float]:
    """An epoch's numbers by the names they have in TensorBoard."""
    scalars = {"train/loss": record.train_loss, "train/lr": record.lr, "train/seconds": record.elapsed_s}
    for role, metrics in ((Role.BASE, record.base), (Role.MOTIVATED, record.motivated)):
        scalars |= {f"{role.value}/{name}": value for name, value in (metrics or {}).items()}
    if flops is not None:
        counts = record.counts
        scalars["motivation/share"] = counts.share
        scalars["motivation/run_share"] = record.run_counts.share
        scalars["motivation/switches"] = counts.switches
        scalars["motivation/average_flops"] = average_flops(counts, flops[Role.BASE], flops[Role.MOTIVATED])
        scalars["motivation/run_average_flops"] = _run_average(record, flops)
    return scalars


def _run_average(record: EpochRecord, flops: dict[Role, float]) -> float:
    return average_flops(record.run_counts, flops[Role.BASE], flops[Role.MOTIVATED])
