"""Try a run in a minute (``--limit-batches``): what could fail on its third day fails now.

Two short epochs are trained with a few batches each, in a folder that is deleted afterwards. In each of them the
motivated model takes over once, whatever the condition says, which is asked all the same. Between the two both models
are evaluated, a checkpoint is written, everything that it holds is set to zero, and the run goes on from the file.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from motivation.build.ranks import Ranks
from motivation.build.resume import load_base, load_ema, open_resumed, restore
from motivation.build.run import assemble, prepare
from motivation.build.runtime import Runtime
from motivation.errors import print_text, surviving_output
from motivation.method.conditions import Always, Never
from motivation.method.records import Role
from motivation.options.faults import Fault, StartupError
from motivation.training.checkpoint import LAST, CheckpointError
from motivation.training.epoch_log import EpochLog
from motivation.training.finite import REMEDY, NotFiniteError, named_tensors
from motivation.training.hooks import Hook
from motivation.training.loop import train, train_epochs
from motivation.training.records import UpdateReport
from motivation.training.result import result_of
from motivation.training.run import Run

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def try_out(args: Namespace, args_text: str, ranks: Ranks) -> Run:
    """Do all that a run does, with ``--limit-batches`` batches of each split; print what was tried and leave no files.

    Args:
        args: options.
        args_text: for ``args.yaml``.
        ranks: the processes of the run.

    Returns:
        The run, which has ended and has no folder any more.

    Raises:
        StartupError: the options cannot be run, or leave nothing to train.
        NotFiniteError: the losses or weights are not finite.
        CheckpointError: the checkpoint does not hold what it was written from.
    """
    prepared = prepare(args, ranks)
    with ExitStack() as scratch:
        run = assemble(args, args_text, ranks, prepared, scratch)
        if run.lock is not None:
            scratch.callback(run.lock.release)
        if run.start_epoch >= run.epochs or run.stopped_by is not None:
            why = run.stopped_by or f"epoch {run.start_epoch} would be the next of {run.epochs}"
            raise StartupError([Fault("--limit-batches", f"nothing is left to train: {why}")])
        limit_batches(run, args.limit_batches)
        costs = UpdateCosts(run.device)
        run.hooks.hooks = [hook for hook in run.hooks.hooks if not isinstance(hook, EpochLog)] + [costs]
        with run.interrupt:
            train(run, partial(_two_epochs, args=args, ranks=ranks, runtime=prepared.runtime))
            if run.folder is not None and run.completed:
                result_of(run, args).write(run.folder)
                with surviving_output():
                    print_text(_summary(run, costs, args.limit_batches))
        run.folder = None
    return run


def limit_batches(run: Run, batches: int) -> None:
    """Let a run that was just built read that many batches of each split in each epoch."""
    run.feed.limit = batches
    if run.evaluator.validator is not None:
        run.evaluator.validator.limit = batches
    if run.evaluator.recalibration is not None:
        run.evaluator.recalibration.batches = min(batches, run.evaluator.recalibration.batches)


def stretch(updates: int, is_second: bool = False) -> range:
    """Return which updates of so many the motivated model is to train: about a third, in the middle.

    Args:
        updates: of an epoch.
        is_second: True in the second epoch, which trains the base if there is one update only.

    >>> [list(stretch(updates)) for updates in (1, 2, 3, 7)]
    [[0], [1], [1], [2, 3, 4]]
    """
    if updates == 1 and is_second:
        return range(0)
    first = min(updates - 1, max(1, updates // 3))
    return range(first, max(first + 1, updates - first))


def _two_epochs(run: Run, args: Namespace, ranks: Ranks, runtime: Runtime) -> bool:
    """Train an epoch, load its checkpoint and train the next; return False if a signal has ended the run."""
    last = run.epochs - 1
    if not _one_epoch(run):
        return False
    load_back(run, min(run.start_epoch + 1, last), args, ranks, runtime)
    return _one_epoch(run, is_second=True)


def _one_epoch(run: Run, is_second: bool = False) -> bool:
    """Train and evaluate the next epoch, and save it; return False if a signal has ended the run.

    The motivated stretch is forced, but with the conditions ``always`` and ``never``, which know no other.
    """
    run.epochs = run.start_epoch + 1
    done = run.pair.update if run.resumed_mid_epoch else 0
    motivated = stretch(run.feed.updates_after(done), is_second)
    decided = run.pair.confirm

    def force(motivated_next: bool) -> bool:
        decided(motivated_next)
        return run.pair.update - done in motivated

    if run.pair.motivated is not None and not isinstance(run.pair.condition, (Always, Never)):
        run.pair.confirm = force
    try:
        return train_epochs(run)
    finally:
        run.pair.confirm = decided


def load_back(run: Run, epoch: int, args: Namespace, ranks: Ranks, runtime: Runtime) -> None:
    """Go on from the last checkpoint of a run as a new process would, with that epoch.

    Weights, EMA and optimizers are set to zero first, so that all of it must come from the file.

    Raises:
        NotFiniteError: no checkpoint was written.
        CheckpointError: it does not hold what the run had.
    """
    path = [str(run.folder / LAST) if run.folder is not None and (run.folder / LAST).exists() else ""]
    if run.world_size > 1:
        dist.broadcast_object_list(path, src=0, device=run.device)
    if not path[0]:
        raise NotFiniteError(f"no checkpoint was written, because weights or losses are not finite; {REMEDY}")
    before = {name: tensor.to("cpu", copy=True) for name, tensor in named_tensors(_sides(run))}
    for _, tensor in named_tensors(_sides(run)):
        tensor.zero_()
    args = Namespace(**{**vars(args), "resume": path[0], "no_resume_opt": False, "start_epoch": epoch})
    resumed = open_resumed(args, Path(path[0]).parent, runtime, ranks)
    assert resumed is not None
    base = run.pair.base
    load_base(resumed, base.task, base.optimizer, args, runtime)
    if base.ema is not None:
        load_ema(resumed, base.task)
    run.start_epoch = epoch
    restore(run, resumed, args, runtime)
    loaded = dict(named_tensors(_sides(run)))
    for name, tensor in before.items():
        if name not in loaded or not torch.equal(loaded[name].cpu(), tensor):
            raise CheckpointError(f"{path[0]} has been loaded, but {name} is not what was saved")


def _sides(run: Run) -> dict[str, object]:
    return {side.role.value: side.state_dict() for side in run.pair.sides}


class UpdateCosts(Hook):
    """Measure the updates of each model: time, and the peak of the memory.

    Where torch does not know the memory of the device, it is the resident memory of the process. That hardly shrinks
    again, so the peak of the model that was trained first is the one before the other was.

    Args:
        device: that trains.

    Attributes:
        seconds: of each update.
        peak_bytes: of the models that were trained.
        stretches: how often the motivated model took over.
    """

    def __init__(self, device: torch.device):
        self._device, self._module = device, torch.get_device_module(device)
        self.is_of_device = hasattr(self._module, "max_memory_allocated")
        self.seconds: dict[Role, list[float]] = {role: [] for role in Role}
        self.peak_bytes: dict[Role, int] = {}
        self.stretches = 0

    def epoch_start(self, epoch: int) -> None:
        self._role = Role.BASE
        self._begin_update()

    def update_end(self, record: UpdateReport) -> None:
        self._module.synchronize()
        self.seconds[record.role].append(time.monotonic() - self._since)
        self.stretches += record.role is Role.MOTIVATED and self._role is Role.BASE
        self._role = record.role
        if self.is_of_device or record.role not in self.peak_bytes or record.role is list(self.peak_bytes)[-1]:
            self.peak_bytes[record.role] = max(self.peak_bytes.get(record.role, 0), self._peak_bytes())
        self._begin_update()

    def _begin_update(self) -> None:
        if self.is_of_device:
            self._module.reset_peak_memory_stats(self._device)
        self._since = time.monotonic()

    def _peak_bytes(self) -> int:
        if self.is_of_device:
            return int(self._module.max_memory_allocated(self._device))
        if resource is None:
            return 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _counted(count: int, word: str, ending: str = "s") -> str:
    return f"{count} {word}{ending if count != 1 else ''}"


def _summary(run: Run, costs: UpdateCosts, limit: int) -> str:
    """Return what was tried, a line each."""
    assert run.folder is not None
    trained = [f"{role.value} {_counted(len(times), 'update')}" for role, times in costs.seconds.items() if times]
    if costs.stretches:
        trained.append(f"{_counted(costs.stretches, 'switch', 'es')} to the motivated model and as many back")
    seconds = [f"{role.value} {median(times[1:] or times):.3g} s" for role, times in costs.seconds.items() if times]
    memory = [f"{role.value} {peak / 1e9:.2f} GB" for role, peak in costs.peak_bytes.items() if peak]
    place = f"on {run.device}" if costs.is_of_device else "resident in this process"
    record, validator = run.records[-1], run.evaluator.validator
    metrics = {Role.BASE: record.base, Role.MOTIVATED: record.motivated}
    evaluated = "nothing: there are no validation data"
    if validator is not None:
        names = " and ".join(role.value for role, measured in metrics.items() if measured)
        evaluated = f"{names}, on {_counted(validator.batches, 'batch', 'es')}"
    size = sum(path.stat().st_size for path in run.folder.rglob(LAST))
    return "\n".join((
        f"Tried with --limit-batches {limit}, and nothing has failed:",
        f"trained     {', '.join(trained)}",
        f"time        of an update: {', '.join(seconds)} (median; the first counts only where it is alone)",
        f"memory      at most: {', '.join(memory) or 'unknown'} ({place})",
        f"evaluated   {evaluated}",
        f"checkpoint  {size / 1e6:.1f} MB an epoch; loaded again with equal weights and optimizer, and trained on",
        "All files of it are deleted.",
    ))  # fmt: skip
