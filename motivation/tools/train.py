"""Parse, check, build, train, report: the program behind `train_motivated.py`."""

from __future__ import annotations

import logging
import signal
from argparse import Namespace
from collections.abc import Callable, Sequence
from traceback import format_exc

import torch.distributed as dist
from timm.utils import setup_default_logging
from timm.utils.log import FormatterNoInfo

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.build.ranks import Ranks, is_lost_connection
from motivation.build.run import build_run
from motivation.build.runtime import NONE_SUCH
from motivation.data.loaders import DataError
from motivation.data.workers import dead_worker_text
from motivation.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    InputError,
    print_errors,
    print_text,
    printable,
    surviving_output,
)
from motivation.method.records import Role
from motivation.options.faults import one_line
from motivation.options.parse import parse
from motivation.tools.try_out import try_out
from motivation.training.checkpoint import CheckpointError, is_of_earlier_run, newest_whole
from motivation.training.finite import NotFiniteError
from motivation.training.loop import train
from motivation.training.plugin_errors import PluginError
from motivation.training.records import best_epoch
from motivation.training.result import result_of
from motivation.training.run import Run
from motivation.training.signals import exit_code

_logger = logging.getLogger("train")

EXIT_NOT_FINITE = 3
"""The losses are not finite."""


class _PrintableFormatter(FormatterNoInfo):
    """Escape control characters in what the program logs, such as names out of files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def main(argv: Sequence[str] | None = None, parse: Callable[..., tuple[Namespace, str]] = parse) -> int:
    """Run the program and return its exit code: 0, `EXIT_NOT_FINITE`, a signal's, or one of `motivation.errors`.

    Args:
        argv: the words; default those of the command line.
        parse: makes options of them; `motivation.tools.finetune.parse` for fine-tuning.
    """
    setup_default_logging()
    for handler in logging.getLogger().handlers:
        if type(handler.formatter) is FormatterNoInfo:
            handler.setFormatter(_PrintableFormatter())
    ranks = Ranks()
    run: Run | None = None
    try:
        args, args_text = parse(argv)
        if args.limit_batches is not None:
            run = try_out(args, args_text, ranks)
        else:
            run = build_run(args, args_text, ranks)
            with run.interrupt:  # a signal when the training is over must not cost the result
                train(run)
                if run.folder is not None:
                    report(run, args)
        if dist.is_initialized():
            dist.barrier()  # a launcher may end the others with the first that exits: not while files are written
            dist.destroy_process_group()
        if run.completed:
            return 0
        if run.folder is not None:
            name, kept = signal.Signals(run.interrupted_by).name, _kept(run)
            _logger.warning(f"Stopped by {name}{kept and '; '}{kept} (--resume auto).")
        return exit_code(run.interrupted_by)
    except InputError as error:
        ranks.tell(error)
        return EXIT_BAD_INPUT
    except NotFiniteError as error:
        ranks.tell(error, _kept(run))
        return EXIT_NOT_FINITE
    except (DataError, CheckpointError, PluginError) as error:
        ranks.tell(dead_worker_text(error) or error, _kept(run))
        return EXIT_FAILED
    except KeyboardInterrupt:
        if ranks.speaks:
            print_errors("interrupted before the training began")
        return EXIT_INTERRUPTED
    except Exception as error:
        if text := dead_worker_text(error):
            ranks.tell(text, _kept(run))
            return EXIT_FAILED
        if NONE_SUCH in str(error):
            ranks.tell(f"--deterministic: {one_line(error).partition(', but you set')[0]}", _kept(run))
            return EXIT_BAD_INPUT
        if ranks.world_size == 1:
            raise
        ranks.tell("another rank is gone" if is_lost_connection(error) else format_exc(), _kept(run))
        return EXIT_FAILED
    finally:
        if run is not None and run.lock is not None:
            run.lock.release()


def _kept(run: Run | None) -> str:
    """Say where a run that failed can be taken up."""
    if run is None or run.folder is None or (newest := newest_whole(run.folder)) is None:
        return ""
    path, contents = newest
    return "" if is_of_earlier_run(contents, run.folder) else f"the last good checkpoint is {path}"


def report(run: Run, args: Namespace) -> None:
    """Write how the run went to ``result.json``, then print it."""
    result = result_of(run, args)
    if run.folder is not None:
        result.write(run.folder)
    with surviving_output():
        if best := best_epoch(run.records, Role.BASE, run.ranking):
            _logger.info(f"*** Best metric: {best.metric(Role.BASE, run.ranking)} (epoch {best.epoch})")
            print_text(f"--result\n{result.timm_json()}")
        if run.flops is not None and run.pair.counts.total:
            print_text(f"\n{result.table()}")
        if run.folder is not None:
            print_text(f"\nFiles of this run: {run.folder}")
