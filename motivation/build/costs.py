"""What the models of some options cost, without a run."""

from __future__ import annotations

from argparse import Namespace

from timm.data import resolve_data_config
from torch import nn

from motivation.build.learners import make_model, without_files
from motivation.method.random_states import fork_rng
from motivation.method.records import Role


def untrained_models(args: Namespace) -> tuple[dict[Role, nn.Module], tuple[int, int, int]]:
    """The models that these options train, with random weights on the CPU, and the size ``(C, H, W)`` they train at.

    Args:
        args: as `motivation.options.parse.parse` gives them; not changed.

    Raises:
        Exception: whatever a model's constructor raises.
    """
    blank = without_files(args)
    with fork_rng():
        models = {Role.BASE: make_model(blank, Role.BASE)}
        if args.motivated_model:
            models[Role.MOTIVATED] = make_model(blank, Role.MOTIVATED)
    config = resolve_data_config(vars(args), model=models[Role.BASE], verbose=False)
    return models, tuple(config["input_size"])
