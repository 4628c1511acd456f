"""What differs between the ranks of a run: random states, the place in the data, running statistics, the mean loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.utils import unwrap_model

from motivation.data.loaders import CheckedLoader
from motivation.method.batchnorm import running_statistics
from motivation.method.random_states import get_rng_state, rng_from_dict, rng_to_dict, set_rng_state
from motivation.training.run import Run


def collect_rank_states(run: Run, updates: int | None) -> None:
    """Put the states of all ranks into ``run.rank_states`` of the primary one; all ranks call it.

    Args:
        updates: done in the present epoch; None after its evaluation.
    """
    own = rank_state(run, updates)
    if run.world_size == 1:
        run.rank_states = [own]
        return
    gathered: list[Any] | None = [None] * run.world_size if dist.get_rank() == 0 else None
    dist.gather_object(own, gathered, dst=0)
    run.rank_states = gathered or []


def rank_state(run: Run, updates: int | None) -> dict[str, Any]:
    """Of this rank."""
    return {
        "random": rng_to_dict(get_rng_state()),
        "generators": {learner.role.value: _generators(learner.optimizer) for learner in run.pair.sides},
        "feed": run.feed.state_dict(updates),
        "validation_workers_run": [loader.workers_run for loader in _validation_loaders(run)],
        "losses": None if updates is None else run.losses.state_dict(),
        "statistics": {**(_statistics(run) if run.world_size > 1 else {}), **run.evaluator.training_statistics},
    }


def load_rank_state(run: Run, state: dict[str, Any], updates: int | None, random: bool = True) -> None:
    """The inverse of `rank_state`.

    Args:
        updates: as there.
        random: without it the random states of this process and of optimizers stay as they are.
    """
    load_statistics(run, state)
    run.feed.load_state_dict(state["feed"], updates)
    for loader, workers_run in zip(_validation_loaders(run), state["validation_workers_run"], strict=False):
        loader.workers_run = workers_run and loader.num_workers > 0
    if state["losses"] is not None:
        run.losses.load_state_dict(state["losses"])
    if not random:
        return
    for learner in run.pair.sides:
        for name, value in state["generators"].get(learner.role.value, {}).items():
            getattr(learner.optimizer, name).set_state(value)
    set_rng_state(rng_from_dict(state["random"]))


def load_statistics(run: Run, state: dict[str, Any]) -> None:
    """Only the running statistics of training; a checkpoint's models hold those that were evaluated."""
    models = dict(_modules(run))
    for key, statistics in state["statistics"].items():
        if key in models:
            _load_buffers(models[key], statistics)


def _generators(optimizer: Any) -> dict[str, torch.Tensor]:
    """Random streams of an optimizer's own (AdaHessian has one)."""
    return {name: value.get_state() for name, value in vars(optimizer).items() if isinstance(value, torch.Generator)}


def _validation_loaders(run: Run) -> list[CheckedLoader]:
    loader = run.evaluator.validator and run.evaluator.validator.loader
    return [one for one in (loader, getattr(loader, "loader", None)) if isinstance(one, CheckedLoader)]


def _modules(run: Run) -> list[tuple[str, Any]]:
    """Models and their EMAs, by ``role[:ema]``."""
    found: list[tuple[str, Any]] = []
    for learner in run.pair.sides:
        found.append((learner.role.value, unwrap_model(learner.eval_model())))
        if learner.ema is not None:
            found.append((f"{learner.role.value}:ema", unwrap_model(learner.eval_model(ema=True))))
    return found


def _statistics(run: Run) -> dict[str, dict[str, torch.Tensor]]:
    found = {}
    for key, module in _modules(run):
        buffers = dict(module.named_buffers())
        found[key] = {name: buffers[name].detach().cpu().clone() for name in running_statistics(module)}
    return found


@torch.no_grad()
def _load_buffers(module: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    buffers = dict(module.named_buffers())
    for name, value in values.items():
        buffers[name].copy_(value)
