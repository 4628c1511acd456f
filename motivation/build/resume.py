"""Resume from a checkpoint: read it once, refuse it if it does not fit, load the base, then all other parts."""

from __future__ import annotations

import logging
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motivation.build.ranks import Ranks
from motivation.build.resume_checks import (
    refuse_damaged,
    refuse_motivated_file,
    refuse_other_groups,
    refuse_other_options,
    settings_of,
    tell_changes,
    tell_kept_settings,
    tell_lost_trace,
    warn,
)
from motivation.build.runtime import Runtime
from motivation.errors import InputError
from motivation.method.optimizer_state import load_optimizer
from motivation.method.pair import Position
from motivation.method.records import Role
from motivation.options.faults import Fault, StartupError, blaming
from motivation.options.file_checks import RESUME_NEWEST
from motivation.training.checkpoint import (
    checkpoints_in,
    is_of_earlier_run,
    newest_whole,
    read_checkpoint,
    refuse_nonfinite,
    refuse_try,
    weights_in,
)
from motivation.training.run import Run
from motivation.training.state import OUR_KEY, blaming_part, load_state, read_state

_logger = logging.getLogger("train")


@dataclass
class Resumed:
    """A checkpoint to resume from.

    Attributes:
        path: of the file.
        contents: all entries of the file, timm's among them.
        state: this program's entry (`motivation.training.state`); empty if another program has written the file.
    """

    path: Path
    contents: dict[str, Any]
    state: dict[str, Any]

    @property
    def is_mid_epoch(self) -> bool:
        """True if the file was written inside an epoch."""
        return bool(self.state) and not Position(*self.state["pair"]["position"]).is_between_epochs

    @property
    def place(self) -> str:
        """Words for the epoch and update after which the file was written."""
        position = Position(*self.state["pair"]["position"]) if self.state else None
        update = "" if position is None or position.is_between_epochs else f", update {position.update}"
        return f"epoch {self.contents.get('epoch')}{update}"

    @property
    def start_epoch(self) -> int:
        """The epoch to continue with."""
        epoch: int = self.contents.get("epoch", 0)
        names_next = self.contents.get("version", 1) < 2  # older files of timm
        return epoch if self.is_mid_epoch or names_next else epoch + 1


def open_resumed(args: Namespace, folder: Path, runtime: Runtime, ranks: Ranks) -> Resumed | None:
    """Read the file of ``--resume``, the same on all ranks; None if the run begins anew.

    Args:
        args: options.
        folder: of the run; ``--resume auto`` takes the newest whole checkpoint in it.
        runtime: of this rank.
        ranks: the processes of the run.

    Raises:
        StartupError: the file is damaged, or it does not fit the options; or there are checkpoints in the folder, but
            none that can be read.
    """
    if not args.resume:
        return None
    path, contents = args.resume, None
    if path == RESUME_NEWEST:
        path, contents = _find_newest(folder, runtime, ranks)
        if not path:
            return None
    with blaming("--resume", path, errors=ValueError):
        contents = contents or read_checkpoint(path)
        refuse_damaged(contents)
        if args.limit_batches is None:
            refuse_try(contents)
        refuse_nonfinite(contents, "it")
        refuse_motivated_file(contents.get(OUR_KEY, {}), Path(path))
        refuse_other_options(contents, args)
        state = read_state(contents.get(OUR_KEY, {}))
    tell_changes(contents, path, args, runtime)
    return Resumed(Path(path), contents, state)


def _find_newest(folder: Path, runtime: Runtime, ranks: Ranks) -> tuple[str, dict[str, Any] | None]:
    """Return the newest whole checkpoint of a folder, empty if there is none, and on the primary rank its contents."""
    newest = newest_whole(folder) if runtime.primary else None
    is_earlier = newest is not None and is_of_earlier_run(newest[1], folder)
    count = len(checkpoints_in(folder)) if runtime.primary else 0
    path, count, is_earlier = ranks.compare({}, message=("" if newest is None else str(newest[0]), count, is_earlier))
    if is_earlier:
        text = (
            f"{path} is of an earlier run; the one that has begun in its folder since has saved nothing. --resume "
            f"{path} goes on with the earlier run; without --resume the new one begins again"
        )
        raise StartupError([Fault("--resume", text, RESUME_NEWEST)])
    if count and not path:
        text = (
            f"none of the {count} checkpoints in {folder} can be read (see above), and a new run would write over "
            "them; mend or remove them, or give another --experiment"
        )
        raise StartupError([Fault("--resume", text, RESUME_NEWEST)])
    if not path and runtime.primary:
        _logger.info(f"No checkpoint in {folder}: the run begins.")
    return path, None if newest is None else newest[1]


def load_base(resumed: Resumed, task: Any, optimizer: Any, args: Namespace, runtime: Runtime) -> None:
    """Load weights, optimizer and gradient scaler of the base.

    Raises:
        ValueError: the file is of another model.
    """
    contents = resumed.contents
    with blaming("--resume", resumed.path, errors=ValueError):
        weights, task_state = weights_in(contents)
        try:
            with blaming_part("state_dict"):
                task.load_checkpoint_state(weights, task_state)
        except InputError as error:
            arch = contents.get("arch", args.model)
            why = error if arch == args.model else f"it is of {arch}, --model is {args.model}"
            raise ValueError(f"the checkpoint does not fit: {why}") from error
        if "optimizer" in contents and not args.no_resume_opt:
            refuse_other_groups(contents, optimizer, args)
            before = settings_of(optimizer)
            with blaming_part("optimizer"):
                load_optimizer(optimizer, contents["optimizer"])
            tell_kept_settings(before, settings_of(optimizer), runtime)
            tell_lost_trace(optimizer, runtime)
        if runtime.scaler is not None and "amp_scaler" in contents and not args.no_resume_opt:
            with blaming_part("amp_scaler"):
                runtime.scaler.load_state_dict(contents["amp_scaler"])
    if runtime.primary:
        _logger.info(f"Resumed from {resumed.path}.")


def load_ema(resumed: Resumed, task: Any) -> None:
    """Load the EMA of the base; it begins with the weights if the file has no EMA."""
    with blaming("--resume", resumed.path, errors=ValueError), blaming_part("state_dict_ema"):
        task.load_checkpoint_state(*weights_in(resumed.contents, ema=True), ema=True)


def restore(run: Run, resumed: Resumed | None, args: Namespace, runtime: Runtime) -> None:
    """Bring a run that was just built to the position at which training continues, and load its checkpoint's state."""
    if resumed is not None and args.start_epoch is None:
        run.start_epoch = resumed.start_epoch
    state: dict[str, Any] = {}
    if resumed is not None and resumed.state:
        with blaming("--resume", resumed.path, errors=ValueError), blaming_part(OUR_KEY):
            state = _fitting_state(run, resumed, args, runtime)
    position = Position(*state["pair"]["position"]) if state else Position(0, 0, 0, is_between_epochs=True)
    run.trained = _trained(resumed)
    run.resumed_mid_epoch = not position.is_between_epochs
    run.clock.move_to(run.start_epoch, 0 if position.is_between_epochs else position.update)
    if resumed is not None and state:
        with blaming("--resume", resumed.path, errors=ValueError):
            load_state(run, state, runtime.rank)
        if state.get("clock") and not resumed.is_mid_epoch:
            run.clock.end_epoch(run.start_epoch - 1, resumed.contents.get("metric"))  # comes after the checkpoint
    _copy_learning_rates(run)
    if run.stopped_by is not None:
        last = run.start_epoch - 1
        warn(runtime, f"Nothing to train: a hook has stopped this run after epoch {last}: {run.stopped_by}")


def _trained(resumed: Resumed | None) -> tuple[int, int] | None:
    """Return the epochs, and updates of the next one, that led to the weights; None for a file that does not say."""
    if resumed is None:
        return 0, 0
    if not resumed.state:
        return None
    place = Position(*resumed.state["pair"]["position"])
    return (place.epoch + 1, 0) if place.is_between_epochs else (place.epoch, place.update)


def _fitting_state(run: Run, resumed: Resumed, args: Namespace, runtime: Runtime) -> dict[str, Any]:
    """Return the state of a file without the parts that this run cannot take; warn of what is lost."""
    state = {**resumed.state, "pair": _fitting_pair(run, resumed, args, runtime)}
    if run.flops is not None:
        for counts in _counts_in(state):
            if not any(counts.get("flops", {}).values()):
                counts["flops"] = {role.value: counts[role.value] * flops for role, flops in run.flops.items()}
    if not run.can_be_stopped or args.start_epoch is not None:
        state.pop("stopped_by", None)
    if resumed.is_mid_epoch and not _goes_on_in_epoch(run, resumed, args, runtime):
        position = Position(*state["pair"]["position"])._replace(is_between_epochs=True)
        state["pair"] |= {"position": position, "active": Role.BASE.value}
        state.pop("stopped_by", None)
    if run.feed.resumable is None:
        is_mid_epoch = not Position(*state["pair"]["position"]).is_between_epochs
        again = "; those of the epoch that were used are read again and discarded" if is_mid_epoch else ""
        warn(runtime, f"The training data have no position that can be restored: they start from the beginning{again}.")
    if len(state["ranks"]) != runtime.world_size:
        state["ranks"] = [{"statistics": state["ranks"][0]["statistics"]}] * runtime.world_size
        warn(runtime, "The random states are not restored: the checkpoint is of another number of processes.")
    if args.no_resume_opt:
        state.pop("clock", None)
        state["ranks"] = [_without(rank, "rng", "generators") for rank in state["ranks"]]
    return state


def _counts_in(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all counts of updates in a state; those of a plain run and of earlier versions have no FLOPs."""
    of_epochs = [record[name] for record in state["records"] for name in ("counts", "run_counts")]
    return [state["pair"]["counts"], *of_epochs]


def _fitting_pair(run: Run, resumed: Resumed, args: Namespace, runtime: Runtime) -> dict[str, Any]:
    pair: dict[str, Any] = dict(resumed.state["pair"])
    is_motivated, name = run.pair.motivated is not None, pair["condition"]["name"]
    if is_motivated and "motivated" not in pair:
        warn(runtime, f"{resumed.path} is of a plain run: the motivated model starts afresh.")
        return _without(pair, "condition")
    if name != run.pair.condition.name:
        del pair["condition"]
        if is_motivated:
            warn(
                runtime, f"The checkpoint's motivation condition was {name}; from here it is {run.pair.condition.name}."
            )
    if is_motivated and args.no_resume_opt:
        pair["motivated"] = _without(pair["motivated"], "optimizer")
    return pair


def _goes_on_in_epoch(run: Run, resumed: Resumed, args: Namespace, runtime: Runtime) -> bool:
    """Return True if training can continue where the file was written; else warn that the epoch starts again."""
    if run.start_epoch != resumed.start_epoch:
        return False
    state, trained = resumed.state, resumed.contents.get("args", args)
    before = state["updates_per_epoch"], trained.grad_accum_steps, trained.batch_size, len(state["ranks"])
    now = run.clock.updates_per_epoch, args.grad_accum_steps, args.batch_size, runtime.world_size
    if before != now:
        warn(
            runtime,
            f"{resumed.path} was written inside epoch {run.start_epoch}, with {before[0]} updates in an epoch, "
            f"{before[1]} batch(es) of {before[2]} in each, and {before[3]} process(es), now {now[0]}, {now[1]} of "
            f"{now[2]} and {now[3]}: that epoch is trained again from its start.",
        )
    return before == now


def _without(entries: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if name not in names}


def _copy_learning_rates(run: Run) -> None:
    """Give the motivated model the learning rates of the base, which may be those of the file."""
    if run.pair.motivated is None:
        return
    groups = run.pair.base.optimizer.param_groups
    for index, group in enumerate(run.pair.motivated.optimizer.param_groups):
        group["lr"] = groups[min(index, len(groups) - 1)]["lr"]
