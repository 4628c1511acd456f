"""What a user's own class raises in the middle of a run, said in one line."""

from __future__ import annotations

import io
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class PluginError(RuntimeError):
    """A condition or hook of the user's own failed; the message is for the user."""


@contextmanager
def blaming_plugin(of: object, event: str) -> Iterator[None]:
    """Turn what the user's class raises inside into a `PluginError`; what this project's own raise stays as it is.

    Args:
        of: the object that is called.
        event: its method.
    """
    try:
        yield
    except Exception as error:  # a user's code may raise anything
        cls = type(of)
        if isinstance(error, PluginError) or not _is_users(of):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1]
        words = " ".join(str(error).split()) or "without a word"
        raise PluginError(
            f"{cls.__name__}.{event} failed: {type(error).__name__}: {words} ({last.filename}, line {last.lineno})"
        ) from error


def state_of(plugin: Any) -> dict[str, Any]:
    """What a condition or hook wants to remember, if a checkpoint that holds it can be read again.

    Raises:
        PluginError: it fails, or has more than plain values and tensors in it (a NumPy number is none); a checkpoint
            with that in it would be refused on every resume.
    """
    with blaming_plugin(plugin, "state_dict"):
        state = plugin.state_dict()
    if _is_users(plugin):
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


def _is_users(plugin: object) -> bool:
    return type(plugin).__module__.partition(".")[0] != "motivation"
