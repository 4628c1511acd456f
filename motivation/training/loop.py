"""Algorithm 1 of the paper (section 3.5), and the epochs around it."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack

from motivation.data.loaders import end_workers
from motivation.method.records import Role
from motivation.training.hooks import RunView
from motivation.training.losses import LossMeter
from motivation.training.rank_states import collect_rank_states
from motivation.training.records import EpochRecord, UpdateReport
from motivation.training.run import Run
from motivation.training.signals import Interrupt

_logger = logging.getLogger("train")


def train(run: Run) -> None:
    """Train all epochs; evaluate and save those that are due.

    A signal (see `motivation.training.signals`) ends the run after the present update, with a checkpoint, or with all
    of the evaluation and checkpoint that it comes in.

    Raises:
        NotFiniteError: too many losses in a row were not finite, or the last ones.
    """
    updates = run.feed.updates_per_epoch
    done = run.pair.update if run.goes_on_inside else 0
    try:
        view = RunView(run.epochs, run.start_epoch, updates, run.switcher.motivated is not None, done)
        run.hooks.run_start(view)
        with Interrupt() as run.interrupt:
            for epoch in range(run.start_epoch, run.epochs if run.stopped_by is None else run.start_epoch):
                began = time.time()
                train_loss = train_epoch(run, epoch)
                if run.interrupted_by:
                    return
                stop = run.agreed_stop()
                is_last = epoch + 1 == run.epochs or stop is not None
                metric = evaluate_and_save(run, epoch, train_loss, began, is_last)
                run.clock.end_epoch(epoch, metric)
                # an epoch that is not evaluated has no checkpoint: the next one's first update sees the signal
                if metric is not None and run.interrupted_after_epoch() and epoch + 1 < run.epochs:
                    return
                stop = stop or run.agreed_stop()
                if stop and epoch + 1 < run.epochs:
                    run.stopped_by = stop
                    _logger.info(f"Stopped after epoch {epoch}: {stop}")
                    break
            run.guard.conclude()
            run.completed, run.interrupted_by = True, 0
    finally:
        with ExitStack() as ending:
            for loader in (run.feed.loader, run.judge.evaluator and run.judge.evaluator.loader):
                ending.callback(end_workers, loader)
            ending.callback(run.hooks.run_end)


def evaluate_and_save(run: Run, epoch: int, train_loss: float, began: float, is_last: bool) -> float | None:
    """What follows an epoch; returns the metric that ranks it, None where no evaluation is due."""
    run.guard.settle()
    run.judge.share_statistics()
    if (epoch + 1) % run.val_interval and not is_last:
        _logger.info("No evaluation is due after this epoch.")
        return None
    with run.judge.verdict() as (base, motivated):
        switcher, counts = run.switcher, run.switcher.counts.copy()
        elapsed_s = time.time() - began
        in_epoch = counts - run.epoch_counts
        record = EpochRecord(epoch, train_loss, base, motivated, switcher.base.lr, in_epoch, counts, elapsed_s)
        run.records.append(record)
        run.hooks.epoch_end(record)
        metric = record.metric(run.ranking)
        of_motivated = record.motivated[run.ranking] if record.motivated else None
        if run.guard.in_a_row:
            _logger.warning("No checkpoint is written of this epoch: its last loss was not finite.")
            return metric
        collect_rank_states(run, None)
        savers = [run.savers[role] for role in (Role.MOTIVATED, Role.BASE) if role in run.savers]
        # the base's file comes last: it is the one to resume, and knows what the other has kept; nothing is removed
        # before it is there
        for saver in savers:
            saver.write(epoch, metric if saver is savers[-1] else of_motivated)
        for saver in savers:
            saver.follow_last(epoch)
    return metric


def train_epoch(run: Run, epoch: int) -> float:
    """Algorithm 1: one epoch, or the rest of one. Returns the mean training loss."""
    pair, stopped_before = run.pair, False
    if run.goes_on_inside:
        run.goes_on_inside, stopped_before = False, run.asked_to_stop
    else:
        run.losses, run.epoch_counts = LossMeter(), pair.counts.copy()
        pair.start_epoch(epoch, run.feed.updates_per_epoch)
    for learner in pair.switcher.sides:
        learner.start_epoch()
    run.hooks.epoch_start(epoch)

    for micro_batches in () if stopped_before else run.feed.updates(epoch):
        learner = pair.active  # the weights have changed hands, if the condition wants it
        lr = learner.lr
        outcome = learner.train(micro_batches, wants_to_stop=bool(run.interrupt.requested))
        if outcome is None:
            break
        validation_loss = run.held_out.loss(learner) if run.held_out is not None else None
        record = pair.observe(outcome.loss, outcome.gradient_norm, validation_loss)
        run.losses.add(outcome)
        run.hooks.update_end(UpdateReport.of(record, lr, outcome, pair.condition.streak))
        run.guard.watch(record)
        interrupted = run.interrupted_in(outcome.votes)
        if interrupted or (run.recovery_interval and pair.update % run.recovery_interval == 0):
            save_inside(run, epoch)
        run.clock.tick(pair.step)
        if interrupted or run.asked_to_stop:
            break

    pair.switcher.active.end_epoch()
    pair.end_epoch()
    return run.losses.mean(run.world_size, run.device)


def save_inside(run: Run, epoch: int) -> None:
    """Write recovery checkpoints after the present update; training is not disturbed."""
    run.guard.settle()
    if run.guard.in_a_row:
        _logger.warning("No recovery checkpoint is written: the last loss was not finite.")
        return
    collect_rank_states(run, run.pair.update)
    run.pair.bring_up_to_date()
    for role in (Role.MOTIVATED, Role.BASE):
        if role in run.savers:
            run.savers[role].save_recovery(epoch, run.pair.update - 1)
