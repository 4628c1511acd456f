"""Errors of a user's own conditions and hooks in the middle of a run, told in one line that names file and line."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

from motivation.method.conditions import Condition

_Condition = TypeVar("_Condition", bound=Condition)


class PluginError(RuntimeError):
    """A condition or hook of the user's own failed; the message is for the user."""


@contextmanager
def blaming_plugin(plugin: object, method: str) -> Iterator[None]:
    """Turn what a method of a user's object raises into a `PluginError`; objects of ours raise what they raise.

    Args:
        plugin: the object that is called inside.
        method: its method that is called.
    """
    try:
        yield
    except Exception as error:  # a user's code may raise anything
        if isinstance(error, PluginError) or not is_users(plugin):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(str(error).split()) or "without a word"
        raise PluginError(
            f"{type(plugin).__name__}.{method} failed: {type(error).__name__}: {words} "
            f"({last.filename}, line {last.lineno})"
        ) from error


def state_of(plugin: Any) -> dict[str, Any]:
    """Return the state dict of a condition or hook, if a checkpoint that holds it can be read again.

    Raises:
        PluginError: it fails, or holds more than plain values and tensors (a NumPy number is neither): a checkpoint
            with that in it would be refused at every resume.
    """
    return _loadable_state(plugin, plugin.state_dict)


def guarded(condition: _Condition) -> _Condition:
    """Make a user's condition raise `PluginError` wherever a run calls it.

    Its methods are replaced on the object, so that `MotivatedPair` need not know of plugins.
    """
    if is_users(condition):
        methods: Any = condition
        for name in ("start_epoch", "observe"):
            setattr(methods, name, blaming_plugin(condition, name)(getattr(condition, name)))
        methods.state_dict = partial(_loadable_state, condition, condition.state_dict)
    return condition


def _loadable_state(plugin: object, state_dict: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    with blaming_plugin(plugin, "state_dict"):
        state = state_dict()
    if not is_users(plugin):
        return state
    try:
        with io.BytesIO() as file:
            torch.save(state, file)
            file.seek(0)
            torch.load(file, weights_only=True)
    except Exception as error:  # a user's values may raise anything when they are saved
        raise PluginError(
            f"{type(plugin).__name__}.state_dict gives what no checkpoint can hold; plain values and tensors only: "
            f"{state!r:.200}"
        ) from error
    return state


def is_users(plugin: object) -> bool:
    """Return True if an object is of a class of the user's own."""
    return type(plugin).__module__.partition(".")[0] != "motivation"
