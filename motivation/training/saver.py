"""The checkpoint files of one model: which are written, which stay, and which is the best."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motivation.training.checkpoint import EXTENSION, LAST, blaming_file, sync_folder, trained_epoch, write_whole
from motivation.training.records import rank_key

_logger = logging.getLogger("train")

BEST = f"model_best{EXTENSION}"
_NUMBERED = re.compile(rf"checkpoint-\d+{re.escape(EXTENSION)}")
Entry = tuple[str, float | None]
"""Name and metric of a file."""


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a whole copy if the file system has no links."""
    if target.exists() and target.samefile(source):
        return  # a rename over itself would leave both names
    scratch = target.with_name(f".{target.name}.tmp")
    scratch.unlink(missing_ok=True)
    try:
        os.link(source, scratch)
    except (OSError, NotImplementedError):
        shutil.copy2(source, scratch)
    os.replace(scratch, target)


def _place_in_name(path: Path) -> list[int]:
    """Return epoch and update of a recovery file.

    >>> _place_in_name(Path("recovery-3-10.pth.tar"))
    [3, 10]
    """
    return [int(number) for number in re.findall(r"-(\d+)", path.name)]


class Saver:
    """Write the checkpoint files of one model in a folder, named as timm names them.

    There are ``last``; ``checkpoint-<epoch>`` for each of the best epochs; ``model_best`` for the best of all; and up
    to two recovery files ``recovery-<epoch>-<update>``, written inside an epoch.

    Args:
        folder: exists already.
        header: entries that all files have.
        decreasing: True if a lower metric is better.
        history: number of ``checkpoint`` files to keep, at least 1.

    Attributes:
        best_metric, best_epoch: of ``model_best``; None before the first metric.
        kept: ``(file name, metric)`` of the ``checkpoint`` files, the best first.
    """

    def __init__(self, folder: Path, header: dict[str, Any], decreasing: bool = False, history: int = 10):
        self.folder, self.header = Path(folder), header
        self.decreasing, self.history = decreasing, history
        self.best_metric: float | None = None
        self.best_epoch: int | None = None
        self.kept: list[Entry] = []
        self._dropped: list[str] = []
        self._recoveries: list[Path] = []

    def rank_epoch(self, epoch: int, metric: float | None) -> None:
        """Decide which files stay, once ``epoch`` is saved; no file is touched yet."""
        name = f"checkpoint-{epoch}{EXTENSION}"
        ranked = self._ranked((name, metric), [entry for entry in self.kept if entry[0] != name])
        self.kept, self._dropped = ranked[: self.history], [old for old, _ in ranked[self.history :]]
        is_better = metric is not None and (
            self.best_metric is None or rank_key(metric, self.decreasing) < rank_key(self.best_metric, self.decreasing)
        )
        if is_better:
            self.best_metric, self.best_epoch = metric, epoch

    def write_last(self, contents: dict[str, Any], epoch: int, metric: float | None) -> None:
        """Write ``last``."""
        entries = {**self.header, "epoch": epoch, **({} if metric is None else {"metric": metric})}
        write_whole({**entries, **contents}, self.folder / LAST)

    def update_links(self, epoch: int) -> None:
        """Give ``last``, which is of this epoch, its other names, and remove the files that do not stay."""
        last, name = self.folder / LAST, f"checkpoint-{epoch}{EXTENSION}"
        with blaming_file(self.folder):
            if name in [kept for kept, _ in self.kept]:
                link_or_copy(last, self.folder / name)
            if self.best_epoch == epoch:
                link_or_copy(last, self.folder / BEST)
            for old in self._dropped:
                (self.folder / old).unlink(missing_ok=True)
            self._dropped = []
            self._drop_old_recoveries()  # a crash may have left one too many
            sync_folder(self.folder)
        listing = ", ".join(
            file.removesuffix(EXTENSION) + ("" if value is None else f" ({value:.6g})") for file, value in self.kept
        )
        _logger.info(f"Checkpoints in {self.folder}, best first: {listing}")

    def write_recovery(self, contents: dict[str, Any], epoch: int, update: int) -> None:
        """Write a recovery file after an update; the two newest are kept."""
        path = self.folder / f"recovery-{epoch}-{update}{EXTENSION}"
        write_whole({**self.header, "epoch": epoch, **contents}, path)
        self._recoveries = [*(other for other in self._recoveries if other != path), path]
        self._drop_old_recoveries()

    def _drop_old_recoveries(self) -> None:
        while len(self._recoveries) > 2:
            self._recoveries.pop(0).unlink(missing_ok=True)

    def _ranked(self, new: Entry, kept: list[Entry]) -> list[Entry]:
        """Sort files: the best first, equal ones by age; behind them those without a metric, the newest first."""
        with_metric = [(metric, name) for name, metric in [*kept, new] if metric is not None]
        with_metric.sort(key=lambda entry: rank_key(entry[0], self.decreasing))
        without = [entry for entry in [new, *kept] if entry[1] is None]
        return [*((name, metric) for metric, name in with_metric), *without]

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric and the history."""
        return {
            "best_metric": self.best_metric,
            "best_epoch": self.best_epoch,
            "kept": list(self.kept),
            "dropped": list(self._dropped),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `reconcile` compares it with the folder."""
        names = [*(name for name, _ in state["kept"]), *state["dropped"]]
        if others := [name for name in names if not _NUMBERED.fullmatch(name)]:  # such a file would be removed
            raise ValueError(f"{others[0]!r} is no name of a checkpoint")
        self.best_metric, self.best_epoch = state["best_metric"], state["best_epoch"]
        self.kept, self._dropped = [(name, metric) for name, metric in state["kept"]], list(state["dropped"])

    def reconcile(self, epoch: int | None) -> None:
        """Bring a loaded state and the folder together: forget files that are not there, finish what a crash cut short.

        Args:
            epoch: of ``last``, if the state was loaded from the file of that epoch: then its other names and the
                removal of old files may still be missing. None if the state is of another file.
        """
        there = self.folder.glob(f"recovery-*{EXTENSION}")
        self._recoveries = sorted(there, key=_place_in_name)
        if epoch is not None:
            self.update_links(epoch)
        self._dropped = []
        self.kept = [entry for entry in self.kept if (self.folder / entry[0]).exists()]

    def rank_again(self, metrics: Mapping[int, float | None], best: int | None, resumed_from: Path) -> None:
        """Rank anew the epochs that a resumed run has behind it: it may have gone back, or be ranked by another metric.

        ``model_best`` becomes the file of the best of them. If there is no such file, the next epoch is the best.

        Args:
            metrics: of these epochs.
            best: the best of them; None if they have no metric.
            resumed_from: folder with the files of the same model in the run that is resumed.
        """
        kept, self.kept = dict(self.kept), []
        for epoch, metric in metrics.items():
            if (name := f"checkpoint-{epoch}{EXTENSION}") in kept:
                self.kept = self._ranked((name, metric), self.kept)
        self.best_metric = self.best_epoch = None
        if best is None:
            return
        name = f"checkpoint-{best}{EXTENSION}"
        numbered = [folder / name for folder in (self.folder, resumed_from)]
        others = [folder / BEST for folder in (self.folder, resumed_from)]
        found = [path for path in numbered if path.exists()] or [path for path in others if trained_epoch(path) == best]
        if found:
            with blaming_file(self.folder):
                link_or_copy(found[0], self.folder / BEST)
            self.best_metric, self.best_epoch = metrics[best], best
