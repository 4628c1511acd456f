"""The motivation condition and the user's own hooks, from the options."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from statistics import fmean
from types import ModuleType
from typing import Any

from motivation.conditions import Condition, Never, arguments_of, condition_class, make_condition
from motivation.hooks import Hook, hooks_of
from motivation.options import nearest
from motivation.runs import read_run


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
    return make_condition(name, args.motivation_k, args.seed, **options)


def mean_counts(runs: Iterable[str]) -> list[float]:
    """Motivated updates of each epoch, the mean over earlier runs, for as many epochs as all of them have.

    Raises:
        ValueError: there are no runs, or one has no ``updates.csv``.
    """
    counts = [read_run(run).motivated_updates for run in runs]
    if not counts:
        raise ValueError("say which earlier runs to follow, with --motivation-scheduled-runs RUN [RUN ...]")
    return [fmean(of_epoch) for of_epoch in zip(*counts, strict=False)]


def build_hooks(args: Namespace, plugins: Iterable[ModuleType]) -> list[Hook]:
    """The hooks that the plugins define.

    Raises:
        ValueError: one of them cannot be made.
    """
    hooks = []
    for cls in hooks_of(plugins):
        try:
            hooks.append(cls(**_kwargs_for(cls, args)))
        except TypeError as error:
            raise ValueError(f"the hook {cls.__name__} cannot be made: {error}") from error
    return hooks


def plugin_faults(args: Namespace, plugins: Iterable[ModuleType]) -> list[str]:
    """What is wrong with the condition, the hooks and the arguments for them."""
    faults = []
    for flag, build in (
        (f"--motivation-condition {args.motivation_condition}", lambda: build_condition(args)),
        ("--motivation-plugins", lambda: build_hooks(args, plugins)),
    ):
        try:
            build()
        except ValueError as error:
            faults.append(f"{flag}: {error}")
    taken = {name for cls in hooks_of(plugins) for name in arguments_of(cls)}
    if args.motivated_model:
        taken |= set(arguments_of(condition_class(args.motivation_condition)))
    for name in sorted(args.motivation_plugin_kwargs.keys() - taken):
        faults.append(
            f"--motivation-plugin-kwargs: no hook or condition of this run takes {name!r}" + _hint(name, taken)
        )
    return faults


def _hint(name: str, taken: set[str]) -> str:
    return nearest(name, sorted(taken)) or (f"; they take {', '.join(sorted(taken))}" if taken else "")


def _kwargs_for(cls: type, args: Namespace) -> dict[str, Any]:
    return {
        key: args.motivation_plugin_kwargs[key] for key in arguments_of(cls) if key in args.motivation_plugin_kwargs
    }
