"""The motivation condition and the user's own hooks, from the options."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Iterable
from statistics import fmean
from types import ModuleType
from typing import Any

from motivation.method.condition_registry import arguments_of, condition_class, make_condition
from motivation.method.condition_registry import is_registered as is_registered_condition
from motivation.method.conditions import Condition, Never
from motivation.options.config_files import nearest
from motivation.training.hooks import Hook, hooks_of
from motivation.training.hooks import is_registered as is_registered_hook
from motivation.training.plugin_errors import guarded
from motivation.training.run_folder import RunError, RunFolder, read_run

FLAG_OF = {
    "k": "--motivation-k",
    "seed": "--seed",
    ("ema", "decay"): "--motivation-ema-decay",
    ("ema", "drop"): "--motivation-ema-drop",
    ("scheduled", "counts"): "--motivation-scheduled-runs",
}
"""Arguments of conditions that have a flag of their own."""


def build_condition(args: Namespace) -> Condition:
    """The condition of a run; `Never` without a motivated model.

    Raises:
        ValueError: its options are wrong, or the earlier runs of ``scheduled`` cannot be read.
    """
    if not args.motivated_model:
        return Never()
    name = args.motivation_condition
    options = _kwargs_for(condition_class(name), args)
    if name == "ema":
        options |= {"decay": args.motivation_ema_decay, "drop": args.motivation_ema_drop}
    if name == "scheduled":
        options["counts"] = mean_counts(args.motivation_scheduled_runs)
    return guarded(make_condition(name, **({"k": args.motivation_k, "seed": args.seed} | options)))


def mean_counts(runs: Iterable[str]) -> list[float]:
    """Motivated updates of each epoch, the mean over earlier runs, for as many epochs as all of them have.

    Raises:
        ValueError: there are no runs, or one is none to follow: plain, unfinished, or without a line for each update.
    """
    counts = [_counts_of(read_run(run)) for run in runs]
    if not counts:
        raise ValueError("say which earlier runs to follow, with --motivation-scheduled-runs RUN [RUN ...]")
    return [fmean(of_epoch) for of_epoch in zip(*counts, strict=False)]


def _counts_of(run: RunFolder) -> list[int]:
    if not run.motivated:
        raise RunError(f"{run.path} is a run without a motivated model")
    if not run.completed:
        raise RunError(f"{run.path} has not finished; --resume it to its end")
    return run.motivated_updates


def build_hooks(args: Namespace, plugins: Iterable[ModuleType]) -> list[Hook]:
    """The hooks that the plugins define; to be called where they are to act, once.

    Raises:
        ValueError: one of them cannot be made.
    """
    hooks = []
    for cls in hooks_of(plugins):
        try:
            hooks.append(cls(**_kwargs_for(cls, args)))
        except Exception as error:  # a user's class may raise anything
            raise ValueError(f"the hook {cls.__name__} cannot be made: {type(error).__name__}: {error}") from error
    return hooks


def plugin_faults(args: Namespace, plugins: Iterable[ModuleType]) -> list[str]:
    """What is wrong with the condition, the hooks and the arguments for them; no hook is made for it."""
    faults = [f"--motivation-plugins: {fault}" for module in plugins for fault in _unregistered(module)]
    try:
        build_condition(args)
    except ValueError as error:
        faults.append(f"--motivation-condition {args.motivation_condition}: {error}")
    taken = set(arguments_of(condition_class(args.motivation_condition))) if args.motivated_model else set()
    for cls in hooks_of(plugins):
        taken |= set(arguments_of(cls))
        try:
            inspect.signature(cls).bind(**_kwargs_for(cls, args))
        except TypeError as error:
            faults.append(f"--motivation-plugins: the hook {cls.__name__} cannot be made: {error}")
    return faults + list(_unusable_kwargs(args, taken))


def _unusable_kwargs(args: Namespace, taken: set[str]) -> Iterable[str]:
    flags = {name: _flag_of(name, args.motivation_condition) for name in taken}
    ours = sorted(name for name, flag in flags.items() if flag is None)
    for name in sorted(args.motivation_plugin_kwargs):
        if flag := flags.get(name):
            yield f"--motivation-plugin-kwargs: {name!r} has a flag of its own, {flag}"
        elif name not in ours:
            hint = nearest(name, ours) or (f"; they take {', '.join(ours)}" if ours else "")
            yield f"--motivation-plugin-kwargs: no hook or condition of this run takes {name!r}{hint}"


def _flag_of(name: str, condition: str) -> str | None:
    return FLAG_OF.get(name) or FLAG_OF.get((condition, name))


def _unregistered(module: ModuleType) -> Iterable[str]:
    """Hooks and conditions that a plugin defines and does not register: they would never act."""
    for cls in vars(module).values():
        if not isinstance(cls, type) or cls.__module__ != module.__name__ or cls.__name__.startswith("_"):
            continue
        kind = "hook" if issubclass(cls, Hook) else "condition" if issubclass(cls, Condition) else None
        if kind and not is_registered_hook(cls) and not is_registered_condition(cls):
            place = f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
            yield f'{place}: {cls.__name__} is not registered: put @register_{kind}("name") above it'


def _kwargs_for(cls: type, args: Namespace) -> dict[str, Any]:
    return {
        key: args.motivation_plugin_kwargs[key] for key in arguments_of(cls) if key in args.motivation_plugin_kwargs
    }
