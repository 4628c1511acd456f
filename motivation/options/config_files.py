"""Read YAML files of options: find them, follow their ``base:``, merge them. Errors are one line that names the file.

A file may begin with ``base: FILE`` or ``base: [FILE, FILE]``: the options of the bases hold unless the file gives its
own. Of several bases the later wins over the earlier. A path is relative to the folder of the file that names it.
"""

from __future__ import annotations

import difflib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode

from motivation.errors import InputError

BASE = "base"
CONFIG_FOLDERS = tuple(Path(__file__).resolve().parents[level] / "configs" for level in (1, 2))
"""The folders of our own configs: inside an installed package, or at the top of the repository."""

SHOWN_LENGTH = 80
SHOWN_FAULTS = 5

NEAREST = 0.7
"""How alike a name must be to be meant, by difflib's measure: ``--gpus`` is not ``--gp``."""

LARGEST_FILE, MOST_VALUES, LONGEST_VALUE = 2**20, 20_000, 10_000
"""Limits of a YAML file: its characters, its values (those that an alias repeats count again), and the characters of
one value. The options of a run are about 400 values in 5 kB."""


def config_path(name: str, folder: Path = Path()) -> Path:
    """Return the file that a name stands for; the file need not exist.

    Args:
        name: a path, or the name of one of our configs without its ending, such as ``imagenet/resnet50_a3``.
        folder: where relative paths begin.
    """
    path = folder / name
    if not os.path.isfile(path):
        for configs in CONFIG_FOLDERS:
            if os.path.isfile(shipped := configs / f"{name}.yaml"):
                return shipped
    return path


def config_names() -> list[str]:
    """List our own configs by the names that `config_path` takes."""
    found = {
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in CONFIG_FOLDERS
        for path in folder.rglob("*.yaml")
    }
    return sorted(name for name in found if not name.startswith("_"))


def read_config(
    name: str,
    check: Callable[[Path, dict[Any, Any]], dict[str, Any]],
    folder: Path = Path(),
    named_by: Sequence[Path] = (),
) -> dict[str, Any]:
    """Return the options of a file and its bases.

    Args:
        name: see `config_path`.
        check: gets a file and the options that stand in it, and returns them as the parser takes them; raises
            InputError for those that are wrong.
        folder: where relative paths begin.
        named_by: the files whose ``base:`` led here.

    Raises:
        InputError: a file cannot be read (`read_yaml`), is not a mapping, is a base of itself, or fails the check.
    """
    path = config_path(name, folder)
    try:
        own = read_yaml(path)
    except InputError as error:
        hint = "" if os.path.exists(path) else nearest(name, config_names())
        raise InputError(f"{f'{named_by[-1]}: base: ' if named_by else ''}{error}{hint}") from error
    if path.resolve() in [file.resolve() for file in named_by]:
        raise InputError(f"{named_by[-1]}: base: a circle of files: {' -> '.join(map(str, [*named_by, path]))}")
    if own is None:
        return {}
    if not isinstance(own, dict):
        raise InputError(f"{path} must hold 'option: value' lines, not a {type(own).__name__}")
    bases = own.pop(BASE, None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not (isinstance(bases, list) and all(isinstance(base, str) for base in bases)):
        raise InputError(f"{path}: base: is a file or a list of files, not {shown(bases)}")
    options: dict[str, Any] = {}
    for base in bases:
        options |= read_config(base, check, path.parent, [*named_by, path])
    return options | check(path, own)


def read_yaml(path: str | Path) -> Any:
    """Return the plain values that a YAML file holds.

    Raises:
        InputError: it cannot be read, is not UTF-8 or not YAML, is larger than options are, has a value that its tag
            does not allow, or a mapping has a key twice (of which YAML libraries silently keep the last).
    """
    try:
        loader = _Loader(read_text(path, LARGEST_FILE))
        value = loader.get_single_data()
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not YAML: byte {error.start} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {_reason(error)}") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply") from error
    except Exception as error:  # PyYAML lets through whatever a value such as "!!int x" or 2020-13-01 makes it raise
        raise InputError(f"{path} has a value that is not of its kind: {type(error).__name__}: {error}") from error
    if loader.repeated:
        raise InputError(f"{path} has keys twice: {some(loader.repeated)}")
    return value


def read_text(path: str | Path, most: int) -> str:
    """Return the text of a file of at most so many characters.

    Raises:
        InputError: it cannot be read, or is larger.
        UnicodeDecodeError: it is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(most + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if len(text) > most:
        raise InputError(f"{path} has more than {most:,} characters, as no file of its kind has")
    return text


class _Loader(yaml.SafeLoader):
    """Takes note of the keys that a mapping has twice, and refuses files that are or become too large."""

    def __init__(self, text: str):
        super().__init__(text)
        self.repeated: list[str] = []
        self._count = 0
        self._sizes: dict[Node, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        is_alias, count = self.check_event(AliasEvent), self._count
        node = super().compose_node(parent, index)
        if node is None:
            return None
        if is_alias and node not in self._sizes:
            raise ComposerError(None, None, "an alias inside of what it stands for", node.start_mark)
        self._count += self._sizes[node] if is_alias else 1
        if self._count > MOST_VALUES:
            raise ComposerError(None, None, f"more than {MOST_VALUES:,} values, with aliases", node.start_mark)
        if isinstance(node, ScalarNode) and len(node.value) > LONGEST_VALUE:
            raise ComposerError(None, None, f"a value of more than {LONGEST_VALUE:,} characters", node.start_mark)
        if not is_alias:
            self._sizes[node] = self._count - count
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines = defaultdict(list)
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            if isinstance(key, ScalarNode):
                lines[key.tag, key.value].append(str(key.start_mark.line + 1))
        for (_, name), found in lines.items():
            if len(found) > 1:
                self.repeated.append(f"{shown(name)} on lines {', '.join(found)}")
        return super().construct_mapping(node, deep)


def _reason(error: yaml.YAMLError) -> str:
    """Return the problem and its place, without the lines of the file that the library repeats."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    text = f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark and problem else str(error)
    return " ".join(text.split())


def shown(value: Any) -> str:
    """Return a value for a message: on one line, and not too long.

    >>> shown([1, "a"]), len(shown("x" * 1000))
    ("[1, 'a']", 80)
    """
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # thousands of digits, or as many brackets
        return f"a very large {type(value).__name__}"
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 4] + " ..."


def some(texts: Sequence[str]) -> str:
    """Return the first few of many texts for a message.

    >>> some(["a", "b"]), some(["a"] * 9)
    ('a; b', 'a; a; a; a; a; and 4 more')
    """
    more = [f"and {len(texts) - SHOWN_FAULTS} more"] if len(texts) > SHOWN_FAULTS else []
    return "; ".join([*texts[:SHOWN_FAULTS], *more])


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint at the known names closest to a wrong one.

    >>> nearest("resnt50", ["resnet50", "vit"]), nearest("--foo", ["--fold"])
    (' (did you mean resnet50?)', '')
    """
    names = {one.lstrip("-"): one for one in known}  # dashes would make all flags alike
    close = difflib.get_close_matches(name.lstrip("-")[:SHOWN_LENGTH], names, n=3, cutoff=NEAREST)
    return f" (did you mean {', '.join(names[one] for one in close)}?)" if close else ""
