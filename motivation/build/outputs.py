"""The run's folder, its checkpoints and its logs; made on the primary rank only."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from timm.models import safe_model_name

from motivation.build.learners import model_name
from motivation.build.runtime import Runtime
from motivation.method.records import Role
from motivation.options.checks import blaming
from motivation.training.checkpoint import FORMAT, OUR_KEY, Saver, remove_scratch, timm_contents
from motivation.training.folder_lock import FolderLock
from motivation.training.hooks import Hook, HookList
from motivation.training.learner import Learner
from motivation.training.loggers import (
    ConsoleLog,
    ProgressBar,
    SummaryCsv,
    TensorboardLog,
    UpdatesCsv,
    WandbLog,
    on_terminal,
)
from motivation.training.run import Run
from motivation.training.run_folder import RESULT_FILE

_logger = logging.getLogger("train")


def claim_folder(args: Namespace, config: dict[str, Any], runtime: Runtime) -> tuple[Path, FolderLock | None]:
    """The run's folder; the primary rank makes it and keeps others from writing there.

    Raises:
        StartupError: it cannot be made, or another run writes there.
    """
    folder = run_folder(args, config["input_size"][-1])
    if not runtime.primary:
        return folder, None
    with blaming("--output"):
        folder.mkdir(parents=True, exist_ok=True)
    with blaming("--experiment"):
        return folder, FolderLock(folder)


def run_folder(args: Namespace, image_size: int) -> Path:
    """Where the run's files go; a run without a name gets one."""
    name = args.experiment or "-".join(
        [datetime.now().strftime("%Y%m%d-%H%M%S"), safe_model_name(args.model), str(image_size)]
    )
    return Path(args.output or "./output/train") / name


def add_outputs(run: Run, args: Namespace, own_hooks: list[Hook]) -> None:
    """What writes to the run's folder: checkpoints and logs; on the primary rank only. Nothing is written yet."""
    assert run.folder is not None
    folder = run.folder
    decreasing = run.ranking == "loss"
    for learner in run.pair.sides:
        place = folder if learner.role is Role.BASE else folder / learner.role.value
        place.mkdir(exist_ok=True)
        run.savers[learner.role] = Saver(place, _contents(run, learner, args), decreasing, args.checkpoint_hist)

    hooks: list[Hook] = [
        ConsoleLog(args.log_interval, folder if args.save_images else None),
        UpdatesCsv(folder / "updates.csv"),
        SummaryCsv(folder / "summary.csv", run.flops),
    ]
    if on_terminal():
        hooks.append(ProgressBar())
    if args.log_tensorboard:
        hooks.append(TensorboardLog(folder / "tensorboard", run.flops, args.log_interval))
    if args.log_wandb:
        hooks += _wandb_hooks(args, folder.name, run)
    run.hooks = HookList([*hooks, *own_hooks])


def take_folder(folder: Path, args_text: str, resumed: str) -> None:
    """Make the folder this run's; only when nothing can be refused any more, because it may be an earlier run's.

    Args:
        resumed: the checkpoint that the run goes on with. If it is one of this folder, it becomes the newest: the logs
            are about to be cut to it, so ``--resume auto`` must not go on from one that was written later.
    """
    if resumed and Path(resumed).resolve().parent == folder.resolve():
        with suppress(OSError):
            os.utime(resumed)
    remove_scratch(folder)
    (folder / "args.yaml").write_text(args_text)
    (folder / RESULT_FILE).unlink(missing_ok=True)  # of an earlier run, or of this one's first part


def _contents(run: Run, learner: Learner, args: Namespace) -> Callable[..., dict[str, Any]]:
    arch = model_name(args, learner.role)

    def contents(epoch: int, metric: float | None, update: int | None = None) -> dict[str, Any]:
        state = timm_contents(learner, args, arch, epoch, metric)
        if learner.role is Role.BASE:
            state[OUR_KEY] = {
                "format": FORMAT,
                "models": {one.role.value: model_name(args, one.role) for one in run.pair.sides},
                "update": update,
                "updates_per_epoch": run.clock.updates_per_epoch,
                "batches": [args.batch_size, args.grad_accum_steps],
                **run.pair.state_dict(with_base=False),
                "epoch_counts": run.epoch_counts.state_dict(),
                "epochs": [record.state_dict() for record in run.records],
                "hooks": run.hooks.state_dict(),
                "stopped_by": run.hooks.stop_reason,
                "plateau": run.clock.plateau_state(),
                "savers": {role.value: saver.state_dict() for role, saver in run.savers.items()},
                "nonfinite": run.guard.count,
                "ranks": run.rank_states,
            }
        return state

    return contents


def _wandb_hooks(args: Namespace, name: str, run: Run) -> list[Hook]:
    try:
        import wandb
    except ImportError:
        _logger.warning("--log-wandb: the package wandb is not installed, so nothing is logged to it.")
        return []
    opened = wandb.init(
        project=args.wandb_project,
        name=name,
        config=vars(args),
        tags=args.wandb_tags,
        resume="must" if args.wandb_resume_id else None,
        id=args.wandb_resume_id or None,
    )
    return [WandbLog(opened, run.flops)]
