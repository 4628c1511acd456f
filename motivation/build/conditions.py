"""Make the motivation condition and the user's own hooks."""

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
from motivation.options.faults import Fault, blaming, collecting
from motivation.options.flags import FLAGS
from motivation.training.hooks import EVENTS, Hook, hooks_of
from motivation.training.hooks import is_registered as is_registered_hook
from motivation.training.plugin_errors import guarded
from motivation.training.run_files import RunError
from motivation.training.run_folder import RunFolder, read_run


def build_condition(args: Namespace) -> Condition:
    """Make the condition of a run; `Never` without a motivated model.

    Raises:
        StartupError: its options are wrong, or the earlier runs of ``scheduled`` cannot be read.
    """
    if not args.motivated_model:
        return Never()
    name = args.motivation_condition
    options = {flag.argument: getattr(args, flag.dest) for flag in FLAGS.values() if flag.gives_argument_of(name)}
    if "counts" in options:
        with blaming("--motivation-scheduled-runs", errors=ValueError):
            options["counts"] = mean_counts(options["counts"])
    options |= _kwargs_for(condition_class(name), args)
    with blaming("--motivation-condition", name):
        return guarded(make_condition(name, **options), ("start_epoch", "observe", "load_state_dict"))


def mean_counts(runs: Iterable[str]) -> list[float]:
    """Return the mean number of motivated updates of each epoch, over earlier runs, up to the shortest one's length.

    Raises:
        ValueError: there are no runs, or one cannot be followed: plain, unfinished, or without a line for each update.
    """
    counts = [_counts_of(read_run(run)) for run in runs]
    if not counts:
        raise ValueError("say which earlier runs to follow: RUN [RUN ...]")
    return [fmean(of_epoch) for of_epoch in zip(*counts, strict=False)]


def _counts_of(run: RunFolder) -> list[int]:
    if not run.motivated:
        raise RunError(f"{run.path} is a run without a motivated model")
    if not run.completed:
        raise RunError(f"{run.path} has not finished; --resume it to its end")
    return run.motivated_updates


def build_hooks(args: Namespace, plugins: Iterable[ModuleType]) -> list[Hook]:
    """Make the hooks that the plugins define; to be called once, where they are to act.

    Raises:
        StartupError: one of them cannot be made.
    """
    hooks = []
    for cls in hooks_of(plugins):
        options = _kwargs_for(cls, args)
        with blaming("--motivation-plugins", f"(hook {cls.__name__})"):
            hooks.append(guarded(cls(**options), (*EVENTS, "load_state_dict")))
    return hooks


def plugin_faults(args: Namespace, plugins: Iterable[ModuleType]) -> list[Fault]:
    """Return what is wrong with the condition, the hooks and their arguments; no hook is made."""
    faults = [Fault("--motivation-plugins", fault) for module in plugins for fault in _unregistered(module)]
    with collecting(faults):
        build_condition(args)
    taken = set(arguments_of(condition_class(args.motivation_condition))) if args.motivated_model else set()
    for cls in hooks_of(plugins):
        taken |= set(arguments_of(cls))
        options = _kwargs_for(cls, args)
        with collecting(faults), blaming("--motivation-plugins", f"(hook {cls.__name__})"):
            inspect.signature(cls).bind(**options)
    return faults + list(_unusable_kwargs(args, taken))


def _unusable_kwargs(args: Namespace, taken: set[str]) -> Iterable[Fault]:
    condition = args.motivation_condition
    flags = {flag.argument: flag.option for flag in FLAGS.values() if flag.gives_argument_of(condition)}
    ours = sorted(taken - flags.keys())
    for name in sorted(args.motivation_plugin_kwargs):
        if name in flags.keys() & taken:
            yield Fault("--motivation-plugin-kwargs", f"{name!r} has a flag of its own, {flags[name]}")
        elif name not in ours:
            hint = nearest(name, ours) or (f"; they take {', '.join(ours)}" if ours else "")
            yield Fault("--motivation-plugin-kwargs", f"no hook or condition of this run takes {name!r}{hint}")


def _unregistered(module: ModuleType) -> Iterable[str]:
    """Yield a text for each hook or condition that a plugin defines and does not register: it would never act."""
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
