"""Errors of a user's own conditions and hooks in the middle of a run, told in one line that names file and line."""

from __future__ import annotations

import io
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

_Plugin = TypeVar("_Plugin")


class PluginError(RuntimeError):
    """A condition or hook of the user's own failed; the message is for the user."""


def guarded(plugin: _Plugin, methods: Iterable[str]) -> _Plugin:
    """Make a user's condition or hook raise `PluginError` where a run calls it; ours raise what they raise.

    The methods are replaced on the object, so that neither `MotivatedPair` nor the loop need know of plugins. Its
    ``state_dict`` is refused if a checkpoint with it could not be read again: it may hold plain values and tensors (a
    NumPy number is neither).

    Args:
        plugin: has ``state_dict``.
        methods: names of those that a run calls, besides ``state_dict``.
    """
    if not is_users(plugin):
        return plugin
    changed: Any = plugin
    for name in methods:
        setattr(changed, name, _blaming(plugin, name)(getattr(plugin, name)))
    changed.state_dict = partial(_loadable_state, plugin, _blaming(plugin, "state_dict")(changed.state_dict))
    return plugin


def is_users(plugin: object) -> bool:
    """Return True if an object is of a class of the user's own."""
    return type(plugin).__module__.partition(".")[0] != "motivation"


@contextmanager
def _blaming(plugin: object, method: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a user's code may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(str(error).split()) or "without a word"
        raise PluginError(
            f"{type(plugin).__name__}.{method} failed: {type(error).__name__}: {words} "
            f"({last.filename}, line {last.lineno})"
        ) from error


def _loadable_state(plugin: object, state_dict: Any) -> dict[str, Any]:
    state = state_dict()
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
