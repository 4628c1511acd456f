"""Algorithm 1 of the paper (section 3.5) in `train_epoch`, and the epochs around it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack

from motivation.data.workers import end_workers
from motivation.method.records import Role, UpdateRecord
from motivation.training.finite import are_finite
from motivation.training.hooks import RunView
from motivation.training.losses import LossMeter
from motivation.training.records import EpochRecord, Outcome, UpdateReport
from motivation.training.run import Run
from motivation.training.state import write_epoch_files, write_recovery_files

_logger = logging.getLogger("train")


def train(run: Run, do_epochs: Callable[[Run], bool] | None = None) -> None:
    """Train all epochs; evaluate and save those that are due.

    Call it within ``run.interrupt``. A signal (see `motivation.training.signals.SIGNALS`) during an update: finish the
    update, write a recovery checkpoint, stop. During evaluation or saving: finish these, then stop.

    Args:
        run: see `Run`.
        do_epochs: trains the epochs and returns False if a signal has ended the run; default `train_epochs`.

    Raises:
        NotFiniteError: too many losses in a row were not finite, or the last ones.
    """
    done = run.pair.update if run.resumed_mid_epoch else 0
    motivated = run.pair.motivated is not None
    view = RunView(run.epochs, run.start_epoch, run.feed.updates_per_epoch, motivated, done, run.trained)
    try:
        run.hooks.run_start(view)
        if (do_epochs or train_epochs)(run):
            run.guard.finish()
            run.state_guard.finish()
            run.completed, run.interrupted_by = True, 0
    finally:
        with ExitStack() as ending:
            for loader in (run.feed.loader, run.evaluator.validator and run.evaluator.validator.loader):
                ending.callback(end_workers, loader)
            ending.callback(run.hooks.run_end)


def train_epochs(run: Run) -> bool:
    """Train, evaluate and save one epoch after the other; return False if a signal has ended the run before its end."""
    for epoch in range(run.start_epoch, run.epochs if run.stopped_by is None else run.start_epoch):
        began = time.time()
        train_loss = train_epoch(run, epoch)
        if run.interrupted_by:
            return False
        stop = run.agreed_stop()
        is_last = epoch + 1 == run.epochs or stop is not None
        metric = evaluate_and_save(run, epoch, train_loss, began, is_last)
        run.clock.end_epoch(epoch, metric)
        # an epoch that is not evaluated has no checkpoint: the next one's first update sees the signal
        if metric is not None and run.interrupted_after_epoch() and epoch + 1 < run.epochs:
            return False
        stop = stop or run.agreed_stop()
        if stop and epoch + 1 < run.epochs:
            run.stopped_by = stop
            _logger.info(f"Stopped after epoch {epoch}: {stop}")
            break
    return True


def train_epoch(run: Run, epoch: int) -> float:
    """Algorithm 1: train one epoch, or the rest of one that was resumed inside. Return the mean training loss."""
    pair = run.pair
    stopped_before = start_epoch(run, epoch)  # on the base; the streak is forgotten
    updates = () if stopped_before else run.feed.updates(epoch)
    for micro_batches in updates:  # one item = one optimizer update
        learner = pair.select()  # lines 25-38: expand or extract, if the condition has changed
        outcome = learner.train(micro_batches, stop_vote=bool(run.interrupt.requested))
        if outcome is None:  # the data ended inside the update
            break
        record = pair.observe(outcome.loss, outcome.gradient_norm, run.held_out_loss(learner))  # the streak
        after_update(run, record, outcome)
        if run.interrupted_by or run.asked_to_stop:
            break
    pair.active.end_epoch()  # Lookahead's slow weights, before they are copied
    pair.end_epoch()  # line 39: the base has the shared weights
    return run.losses.mean(run.world_size, run.device)


def start_epoch(run: Run, epoch: int) -> bool:
    """Prepare for an epoch; return True if it was resumed inside, and a hook had stopped it there."""
    stopped_before = run.resumed_mid_epoch and run.asked_to_stop
    if run.resumed_mid_epoch:
        run.resumed_mid_epoch = False
    else:
        run.losses = LossMeter()
        run.pair.start_epoch(epoch, run.feed.updates_per_epoch)
    for learner in run.pair.sides:
        learner.start_epoch()
    run.hooks.epoch_start(epoch)
    return stopped_before


def after_update(run: Run, record: UpdateRecord, outcome: Outcome) -> None:
    """Do what follows an update: meters and logs, the guard, signals, a recovery checkpoint, the schedules."""
    for loss, images in outcome.local_losses:
        run.losses.add(loss, images)
    if run.flops is not None:  # of this image size: a run may be resumed at another
        run.pair.counts.flops[record.role] += run.flops[record.role]
    lr, streak, counts = run.pair.active.lr, run.pair.condition.streak, run.pair.counts.copy()
    run.hooks.update_end(UpdateReport(**vars(record), lr=lr, outcome=outcome, run_counts=counts, streak=streak))
    run.guard.watch(record)
    is_due = run.recovery_interval and run.pair.update % run.recovery_interval == 0
    if run.interrupted_after_update(outcome.stop_votes) or is_due:
        save_recovery(run)
    run.clock.tick(record.step)


def save_recovery(run: Run) -> None:
    """Write recovery checkpoints after the current update; training is not disturbed."""
    run.guard.flush()
    run.pair.sync_idle_model()
    if is_finite(run):
        write_recovery_files(run)


def is_finite(run: Run) -> bool:
    """Return True if the state of the run may be saved, the same on all ranks; warn if not."""
    place = f"update {run.pair.update - 1} of epoch {run.pair.epoch}"
    if run.guard.in_a_row:
        _logger.warning(f"No checkpoint is written: the loss of {place} was not finite.")
        return False
    state = {learner.role.value: learner.state_dict() for learner in run.pair.sides}
    return run.state_guard.allows(state, run.on_all_ranks(are_finite(state)), place)


def evaluate_and_save(run: Run, epoch: int, train_loss: float, began: float, is_last: bool) -> float | None:
    """Evaluate both models after an epoch and write checkpoints.

    Returns:
        The ranking metric of this epoch's checkpoint, or None if no evaluation is due (then nothing is saved).
    """
    run.guard.flush()
    run.evaluator.sync_statistics()
    if (epoch + 1) % run.val_interval and not is_last:
        _logger.info("No evaluation is due after this epoch.")
        return None
    with run.evaluator.evaluate_both() as (base, motivated):
        counts, elapsed_s = run.pair.counts.copy(), time.time() - began
        since_last = counts - run.records[-1].run_counts if run.records else counts
        record = EpochRecord(epoch, train_loss, base, motivated, run.pair.base.lr, since_last, counts, elapsed_s)
        run.records.append(record)
        run.hooks.epoch_end(record)
        if is_finite(run):
            write_epoch_files(run, record)
    return record.metric(Role.BASE, run.ranking)
