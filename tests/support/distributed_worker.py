"""One rank of some runs, one after the other, that writes down what it saw: ``distributed_worker.py PLAN.json``.

The plan is a list of ``[folder, flags]``.
"""

import json
import os
import sys
from pathlib import Path

import torch
from support.program import FewDigits
from support.waits import HostReads, is_on_host
from timm.utils import setup_default_logging

import motivation.data.datasets
import motivation.models
from motivation.build.ranks import Ranks
from motivation.build.run import build_run
from motivation.options.parse import parse
from motivation.tools.train import report
from motivation.tools.try_out import try_out
from motivation.training import learner
from motivation.training.hooks import Hook, HookList
from motivation.training.loop import train


class Witness(Hook):
    def __init__(self):
        self._seen = {"roles": [], "losses": [], "local_losses": [], "signals": [], "messages": []}

    def update_end(self, record):
        self._seen["messages"].append((record.update, MESSAGES.count))
        self._seen["roles"].append(record.role.value)
        self._seen["losses"].append(record.loss)
        self._seen["local_losses"].append(record.outcome.local_losses[0][0].value)
        self._seen["signals"].append({name: signal.value for name, signal in record.signals.items()})


class CountedAllReduce:
    """Counts the program's own messages; those of DDP are made elsewhere."""

    def __init__(self):
        self.count, self._all_reduce = 0, torch.distributed.all_reduce

    def __call__(self, *arguments, **options):
        self.count += 1
        return self._all_reduce(*arguments, **options)


MESSAGES = CountedAllReduce()


def rounded_otherwise(norm, rank):
    """The norm of the gradients as another GPU might round it."""
    return lambda model: norm(model) * (1 + rank * 1e-6)


def train_watched(run):
    """Train; return what was read of devices between the choice of a model and the decision for the next update."""
    reads, between = [], False

    def telling(call, starts):
        def told(*arguments):
            nonlocal between
            between = starts
            return call(*arguments)

        return told

    run.pair.select = telling(run.pair.select, True)
    run.pair.condition.observe = telling(run.pair.condition.observe, False)
    with HostReads(lambda name: between and reads.append(name), lambda tensor: is_on_host(tensor, run)):
        train(run)
    return reads


def train_one(folder, argv, ranks):
    args, text = parse(argv)
    witness = Witness()
    if args.limit_batches is not None:
        run = try_out(args, text, ranks)
    else:
        run = build_run(args, text, ranks)
        run.hooks = HookList([*run.hooks.hooks, witness])
        witness._seen["reads"] = train_watched(run) if args.workers else train(run)
    if run.folder is not None:
        report(run, args)
    models = {side.role.value: side.model.state_dict() for side in run.pair.sides}
    for side in run.pair.sides:
        if side.ema is not None:
            models[f"{side.role.value} ema"] = side.ema.module.state_dict()
    seen = {**witness._seen, "models": models, "stopped_by": run.stopped_by, "counts_flops": run.flops is not None}
    torch.save(seen, f"{folder}/rank{os.environ['RANK']}.pth")


def main():
    setup_default_logging()
    motivation.data.datasets.SklearnDigits = FewDigits
    init = torch.distributed.init_process_group
    # the ranks meet once, not for each run
    torch.distributed.init_process_group = lambda **options: torch.distributed.is_initialized() or init(**options)
    ranks = Ranks()
    torch.distributed.all_reduce = MESSAGES
    learner.gradient_norm = rounded_otherwise(learner.gradient_norm, ranks.rank)
    for folder, argv in json.loads(Path(sys.argv[1]).read_text()):
        train_one(folder, argv, ranks)
        torch.distributed.barrier()  # rank 0 has written its files
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
