"""YAML files as the program reads them: every fault is one line that names the file, and no key may stand twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

SHOWN = 80
"""Characters of a wrong value that a message shows."""


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds: plain values only.

    Raises:
        ValueError: it cannot be read, is not UTF-8 or not YAML, has a value that its tag does not allow, or a mapping
            has a key twice (of which YAML libraries silently keep the last).
    """
    try:
        value, repeated = _parsed(_text_of(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {_said(error)}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    except _WrongValueError as error:
        raise ValueError(f"{path} has a value that is not of its kind: {error}") from error
    if repeated:
        raise ValueError(f"{path} has keys twice: {'; '.join(repeated)}")
    return value


class _WrongValueError(Exception):
    """A date or a number that is none."""


def _text_of(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not YAML: byte {error.start} is not UTF-8 text") from error
    except ValueError as error:  # a name that no file can have
        raise ValueError(f"cannot read {str(path)!r}: {error}") from error


def _parsed(text: str) -> tuple[Any, list[str]]:
    """The value, and the keys that stand twice."""
    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    if root is None:
        return None, []
    if repeated := list(_repeated_keys(root)):
        return None, repeated
    try:
        return loader.construct_document(root), []
    except (yaml.YAMLError, RecursionError):
        raise
    except Exception as error:  # constructors do not look at what they are given
        raise _WrongValueError(f"{type(error).__name__}: {error}") from error


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, and not too long.

    >>> shown([1, "a"]), len(shown("x" * 1000))
    ("[1, 'a']", 80)
    """
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # thousands of digits, or as many brackets
        return f"a very large {type(value).__name__}"
    return text if len(text) <= SHOWN else text[: SHOWN - 4] + " ..."


def _said(error: yaml.YAMLError) -> str:
    """The problem and its place, without the lines of the file that the library repeats."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return " ".join(str(error).split())
    return " ".join(f"line {mark.line + 1}, column {mark.column + 1}: {problem}".split())


def _repeated_keys(root: Node) -> Iterator[str]:
    """On nodes, because a mapping that is built has lost what it had twice."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            waiting += reversed(node.value)
        elif isinstance(node, MappingNode):
            waiting += [value for _, value in reversed(node.value)]
            lines: dict[tuple[str, str], list[int]] = {}
            for key, _ in node.value:
                if isinstance(key, ScalarNode):
                    lines.setdefault((key.tag, key.value), []).append(key.start_mark.line + 1)
            for (_, name), found in lines.items():
                if len(found) > 1:
                    yield f"{shown(name)} on lines {', '.join(map(str, found))}"
