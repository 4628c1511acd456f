"""The folder of a run with its checkpoints and logs; they are made on the primary rank only."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from argparse import Namespace
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path

from timm.models import safe_model_name

from motivation.build.models import model_name
from motivation.build.resume import Resumed
from motivation.build.runtime import Runtime
from motivation.method.records import Role
from motivation.options.derived import output_folder
from motivation.options.faults import blaming
from motivation.training.batchnorm import batchnorms
from motivation.training.checkpoint import (
    LAST,
    TIMM_VERSION,
    checkpoints_in,
    is_whole,
    make_latest,
    mark_begun,
    next_generation,
    remove_scratch,
    trained_epoch,
)
from motivation.training.epoch_log import EpochLog
from motivation.training.folder_lock import FolderLock
from motivation.training.hooks import Hook, HookList
from motivation.training.loggers import (
    ConsoleLog,
    ProgressBar,
    SummaryCsv,
    TensorboardLog,
    UpdatesCsv,
    WandbLog,
    on_terminal,
)
from motivation.training.records import best_epoch
from motivation.training.run import Run
from motivation.training.run_folder import LABELS_FILE, RESULT_FILE
from motivation.training.saver import Saver, link_or_copy

_logger = logging.getLogger("train")


def claim_folder(
    folder: Path, runtime: Runtime, undo: ExitStack, is_scratch: bool = False
) -> tuple[Path, FolderLock | None]:
    """Return the folder that the run writes to; the primary rank makes and locks it.

    Args:
        folder: of that name.
        runtime: of this rank.
        undo: is called if the start is refused after all; it removes the folders that are new and empty.
        is_scratch: True to write to a folder beside it that ``undo`` removes with all that is in it.

    Raises:
        StartupError: it cannot be made, or another run writes there.
    """
    if not runtime.primary:
        return folder, None
    places = (folder / Role.MOTIVATED.value, folder, *folder.parents)
    for place in reversed([place for place in places if not place.exists()]):
        undo.callback(_remove_if_empty, place)  # the innermost is removed first
    with blaming("--output"):
        if is_scratch:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{folder.name}.limit-batches-", dir=folder.parent))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    with blaming("--experiment"):
        return folder, FolderLock(folder)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def run_folder(args: Namespace, image_size: int) -> Path:
    """Return the folder of the run; a run without a name gets one."""
    name = args.experiment or "-".join(
        [datetime.now().strftime("%Y%m%d-%H%M%S"), safe_model_name(args.model), str(image_size)]
    )
    return output_folder(args) / name


def add_outputs(run: Run, args: Namespace, own_hooks: list[Hook]) -> None:
    """Add to a run what writes to its folder, checkpoints and logs; nothing is written yet."""
    assert run.folder is not None
    folder = run.folder
    decreasing = run.ranking == "loss"
    for learner in run.pair.sides:
        place = folder if learner.role is Role.BASE else folder / learner.role.value
        place.mkdir(exist_ok=True)
        header = {"arch": model_name(args, learner.role), "args": args, "version": TIMM_VERSION}
        run.savers[learner.role] = Saver(place, header, decreasing, args.checkpoint_hist)

    hooks: list[Hook] = [
        ConsoleLog(args.log_interval, folder if args.save_images else None),
        EpochLog(run.device, run.expected_share, run.flops, _has_young_statistics(run, args)),
        UpdatesCsv(folder / "updates.csv"),
        SummaryCsv(folder / "summary.csv", run.flops),
    ]
    if on_terminal():
        hooks.append(ProgressBar())
    if args.log_tensorboard:
        hooks.append(TensorboardLog(folder / "tensorboard", run.flops, args.log_interval))
    if args.log_wandb and args.limit_batches is not None:
        _logger.info("--limit-batches: Weights & Biases is left out.")
    elif args.log_wandb:
        hooks += _wandb_hooks(args, folder.name, run)
    run.hooks = HookList([*hooks, *own_hooks])


def _has_young_statistics(run: Run, args: Namespace) -> bool:
    motivated = run.pair.motivated
    separate = args.motivation_bn == "separate" and not args.motivation_bn_recalibrate
    return motivated is not None and separate and bool(batchnorms(motivated.model))


def take_folder(run: Run, args_text: str, label_names: list[str] | None, resumed: Resumed | None) -> None:
    """Take over the folder, which may have files of an earlier run. Call it when nothing can be refused any more.

    If the resumed file is in this folder, it becomes the latest: the logs will be cut to it, so ``--resume auto`` must
    not go on from a file that was written later.
    """
    assert run.folder is not None
    folder = run.folder
    goes_on = resumed is not None and resumed.state and resumed.path.resolve().parent == folder.resolve()
    run.generation = make_latest(resumed.path) if resumed and goes_on else next_generation(folder)
    mark_begun(folder, run.generation if run.generation and not goes_on else None)
    if resumed is None and checkpoints_in(folder):
        _logger.warning(
            f"{folder} has checkpoints of an earlier run. Those of the same names will be replaced; its "
            "summary.csv and updates.csv are kept as *.previous. Give another --experiment to keep all."
        )
    remove_scratch(folder)
    (folder / "args.yaml").write_text(args_text)
    (folder / LABELS_FILE).unlink(missing_ok=True)
    if label_names:
        (folder / LABELS_FILE).write_text(json.dumps(label_names, indent=1))
    (folder / RESULT_FILE).unlink(missing_ok=True)  # of an earlier run, or of an earlier part of this one
    if resumed is not None and resumed.state:
        _reconcile(run, resumed)


def _reconcile(run: Run, resumed: Resumed) -> None:
    """Finish what follows the writing of the resumed file, if a crash has prevented it; replace a damaged ``last``."""
    assert run.folder is not None
    last, epoch = run.folder / LAST, resumed.contents["epoch"]
    is_ours = resumed.path.name != LAST and resumed.path.resolve().parent == run.folder.resolve()
    if is_ours and not resumed.is_mid_epoch and not is_whole(last):
        link_or_copy(resumed.path, last)
    is_last = not resumed.is_mid_epoch and last.exists() and resumed.path.samefile(last)
    for role, saver in run.savers.items():
        # the motivated model's file may be of the next epoch already
        is_its = is_last and (role is Role.BASE or trained_epoch(saver.folder / LAST) == epoch)
        saver.reconcile(epoch if is_its else None)
        metrics = {record.epoch: record.metric(role, run.ranking) for record in run.records}
        best = best_epoch(run.records, role, run.ranking)
        folder = resumed.path.parent if role is Role.BASE else resumed.path.parent / role.value
        saver.rank_again(metrics, None if best is None else best.epoch, folder)


def _wandb_hooks(args: Namespace, name: str, run: Run) -> list[Hook]:
    try:
        import wandb
    except ImportError:
        _logger.warning("--log-wandb: the package wandb is not installed, so nothing is logged to it.")
        return []
    with blaming("--log-wandb"):
        opened = wandb.init(
            project=args.wandb_project,
            name=name,
            config=vars(args),
            tags=args.wandb_tags,
            resume="must" if args.wandb_resume_id else None,
            id=args.wandb_resume_id or None,
        )
    return [WandbLog(opened, run.flops)]
