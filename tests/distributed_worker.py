"""One rank of a run that writes down what it saw: ``distributed_worker.py FOLDER FLAGS...``."""

import os
import sys

import torch
from timm.utils import setup_default_logging

import motivation.models  # noqa: F401
from motivation.builders import build_run
from motivation.hooks import Hook, HookList
from motivation.loop import train
from motivation.options import parse


class Witness(Hook):
    def __init__(self):
        self._seen = {"roles": [], "losses": [], "own_losses": []}

    def update_end(self, record):
        self._seen["roles"].append(record.role.value)
        self._seen["losses"].append(record.loss)
        self._seen["own_losses"].append(record.outcome.own_losses[0][0].value)


def main():
    folder, argv = sys.argv[1], sys.argv[2:]
    setup_default_logging()
    run = build_run(*parse(argv))
    witness = Witness()
    run.hooks = HookList([*run.hooks.hooks, witness])
    train(run)
    models = {learner.role.value: learner.model.state_dict() for learner in run.switcher.learners}
    if run.switcher.base.ema is not None:
        models["ema"] = run.switcher.base.ema.module.state_dict()
    torch.distributed.destroy_process_group()
    torch.save({**witness._seen, "models": models}, f"{folder}/rank{os.environ['RANK']}.pth")


if __name__ == "__main__":
    main()
