"""What a user's own class raises in the middle of a run, said in one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager


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
        if isinstance(error, PluginError) or cls.__module__.partition(".")[0] == "motivation":
            raise
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1]
        words = " ".join(str(error).split()) or "without a word"
        raise PluginError(
            f"{cls.__name__}.{event} failed: {type(error).__name__}: {words} ({last.filename}, line {last.lineno})"
        ) from error
