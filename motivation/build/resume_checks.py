"""Say what does not fit at a resume: refuse a file that is damaged or of other options, warn of what has changed."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from motivation.build.runtime import Runtime
from motivation.method.optimizer_probe import inner_optimizer
from motivation.method.records import Role
from motivation.options.flag_types import Flag
from motivation.options.flags import FLAGS
from motivation.training.state import OUR_KEY

_logger = logging.getLogger("train")


def refuse_damaged(contents: dict[str, Any]) -> None:
    """Refuse entries of other types than those of a training checkpoint."""
    weights = contents.get("state_dict", contents.get("model", contents))
    is_named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not is_named or not any(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError("it holds no weights")
    if isinstance(contents.get("epoch"), int) and contents["epoch"] < 0:
        raise ValueError(f"it is damaged: its 'epoch' is {contents['epoch']}")
    kinds = {"epoch": int, "version": int, "optimizer": dict, "args": Namespace, OUR_KEY: dict}
    for name, kind in kinds.items():
        if name in contents and not isinstance(contents[name], kind):
            raise ValueError(f"it is damaged: its {name!r} is a {type(contents[name]).__name__}")


def refuse_motivated_file(state: dict[str, Any], path: Path) -> None:
    """Refuse a motivated model that was saved for use: training goes on from the base's file."""
    if state.get("role") == Role.MOTIVATED.value:
        raise ValueError(
            "it holds the motivated model for use, not the state of the training; resume "
            f"{path.absolute().parent.parent / path.name}, or begin with these weights by --initial-checkpoint"
        )


def refuse_other_options(contents: dict[str, Any], args: Namespace) -> None:
    """Refuse a file whose training had other options where they must agree."""
    trained = contents.get("args", args)
    opt = getattr(trained, "opt", args.opt)
    if opt != args.opt and not args.no_resume_opt:
        raise ValueError(
            f"it was trained with --opt {opt}, this run has --opt {args.opt}; give that, or --no-resume-opt"
        )
    both_motivated = args.motivated_model and getattr(trained, "motivated_model", None)
    for flag in FLAGS.values():
        if flag.must_agree is None or not flag.must_agree(args) or (flag.motivated and not both_motivated):
            continue
        now = getattr(args, flag.dest)
        before = getattr(trained, flag.dest, flag.default)
        if before != now:
            with_it = f"no {flag.option}" if before is None else f"{flag.option} {before}"
            raise ValueError(
                f"it was trained with {with_it}, this run has {'none' if now is None else now}; they must agree"
            )
    if both_motivated and trained.motivated_model != args.motivated_model:
        raise ValueError(
            f"its motivated model is {trained.motivated_model}, --motivated-model is {args.motivated_model}"
        )


def tell_changes(contents: dict[str, Any], path: str, args: Namespace, runtime: Runtime) -> None:
    """Warn of options of the method that have changed since the file was written."""
    trained = contents.get("args")
    if not args.motivated_model or not getattr(trained, "motivated_model", None):
        return
    for flag in FLAGS.values():
        now = getattr(args, flag.dest)
        if flag.may_change and (before := getattr(trained, flag.dest, now)) != now:
            warn(runtime, f"{flag.option} was {before} in {path}; from here it is {now}.")


GROUPING = ("weight_decay", "layer_decay", "layer_decay_min_scale", "layer_decay_no_opt_scale", "opt_kwargs")
"""Options that decide how parameters are grouped."""


def refuse_other_groups(contents: dict[str, Any], optimizer: Any, args: Namespace) -> None:
    """Refuse the state of an optimizer whose groups of parameters are not those of this run.

    Raises:
        ValueError: it has no groups, or others; the message names the options that have made them.
    """
    saved = contents["optimizer"].get("param_groups")
    if not saved:
        raise ValueError("its part 'optimizer' has no parameters; --no-resume-opt begins with a new optimizer")
    if not (isinstance(saved, list) and all(isinstance(group, dict) and "params" in group for group in saved)):
        return  # `load_optimizer` says how it is damaged
    before, now = ([len(group["params"]) for group in groups] for groups in (saved, optimizer.param_groups))
    if before == now:
        return
    trained = contents.get("args", args)
    other = [name for name in GROUPING if getattr(trained, name, None) != getattr(args, name)]
    then, here = (
        ", ".join(_words(FLAGS[name], getattr(options, name, None)) for name in other) for options in (trained, args)
    )
    why = (
        f"it was trained with {then}, this run has {here}; give that"
        if other
        else "give the options it was trained with"
    )
    raise ValueError(
        f"its optimizer has groups of {' + '.join(map(str, before))} parameters, this run's of "
        f"{' + '.join(map(str, now))}: {why}, or --no-resume-opt"
    )


def _words(flag: Flag, value: Any) -> str:
    return f"no {flag.option}" if value in (None, {}) else f"{flag.option} {value}"


SETTINGS = {"lr": "--lr", "weight_decay": "--weight-decay", "momentum": "--momentum", "betas": "--opt-betas",
            "eps": "--opt-eps"}  # fmt: skip
"""Settings of parameter groups that a resumed optimizer brings along, and their options."""


def settings_of(optimizer: Any) -> dict[str, list[Any]]:
    """Return the settings of all groups; the learning rate is the one that the schedule begins with."""
    groups = optimizer.param_groups
    found = {name: [group[name] for group in groups] for name in SETTINGS if all(name in group for group in groups)}
    return found | {"lr": [group.get("initial_lr", group["lr"]) for group in groups]}


def tell_kept_settings(given: dict[str, list[Any]], kept: dict[str, list[Any]], runtime: Runtime) -> None:
    """Warn of settings of this run that the resumed optimizer replaces by its own, as in timm."""
    for name, flag in SETTINGS.items():
        for now, before in zip(given.get(name, ()), kept.get(name, ()), strict=False):
            if now != before and not (isinstance(before, (list, tuple)) and list(now) == list(before)):
                warn(runtime, f"{flag} {now} has no effect: the resumed optimizer goes on with its own, {before}.")
                break


def tell_lost_trace(optimizer: Any, runtime: Runtime) -> None:
    """Warn if AdaHessian would have used an earlier update's trace, which timm keeps beside the optimizer's state."""
    inner = inner_optimizer(optimizer)
    every = getattr(inner, "update_each", 1)
    if any(state.get("hessian step", 0) % every for state in inner.state.values()):
        warn(
            runtime,
            f"--opt-kwargs update_each={every}: checkpoints do not hold AdaHessian's trace, which is computed anew; "
            "the run goes on, but not bit for bit as without the interruption.",
        )


def warn(runtime: Runtime, message: str) -> None:
    """Warn on the primary rank."""
    if runtime.primary:
        _logger.warning(message)
