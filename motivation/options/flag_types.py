"""Define what a flag is: one row that the parser, the reader of YAML files, the checks, a resume and reports read."""

from __future__ import annotations

from argparse import ArgumentError, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any

import yaml
from timm.utils import ParseKwargs

from motivation.options.config_files import shown

LARGEST = 2**63
"""Whole numbers are smaller: libraries take 64 bits."""
LARGEST_FLOAT = 3.4e38
"""Other numbers are not larger, unless they are infinite: tensors are of float32."""


class _Pairs(ParseKwargs):
    """Take ``KEY=VALUE`` words as timm does, which unpacks and evaluates them without looking."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            raise ArgumentError(self, "takes words of the form name=value") from error
        try:
            yaml.safe_dump(getattr(namespace, self.dest))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            text = "takes only numbers, texts, true, false, None, lists and mappings"
            raise ArgumentError(self, text) from error


@dataclass(frozen=True)
class Allowed:
    """The values that a flag takes, with words for them.

    >>> between(0, 1).refusal(2.0)
    'from 0 to 1, not 2.0'
    """

    words: str
    includes: Callable[[Any], bool]

    def refusal(self, value: Any) -> str | None:
        """Say why a value is not allowed; None if it is."""
        return None if self.includes(value) else f"{self.words}, not {value if _is_number(value) else repr(value)}"


def at_least(least: float) -> Allowed:
    """Allow finite numbers from ``least`` on."""
    return Allowed(f"at least {least}", lambda number: least <= number < float("inf"))


def above(bound: float) -> Allowed:
    """Allow finite numbers above ``bound``."""
    return Allowed(f"more than {bound}", lambda number: bound < number < float("inf"))


def between(least: float, most: float) -> Allowed:
    """Allow numbers from ``least`` to ``most``."""
    return Allowed(f"from {least} to {most}", lambda number: least <= number <= most)


NOT_NAN = Allowed("a number", lambda value: value == value)


@dataclass(frozen=True)
class Flag:
    """A flag of the command line, which is a key of YAML files too.

    Attributes:
        names: as on the command line, with spaces between them; the first long one names the option.
        type: str, int or float; bool for a flag without a value, dict for ``KEY=VALUE`` words.
        help: for ``--help``.
        default: as for argparse; False for bool, ``{}`` for dict.
        allowed: the values that it takes; of several values it holds for each.
        choices: the names that it takes; also ``""`` where that or None is the default.
        nargs, const, metavar, dest: as for argparse.
        null: True if a YAML file may switch it off with null although it has a default.
        may_change: True if a resumed run says that its value is not the checkpoint's.
        must_agree: in which runs a resume refuses a value that is not the checkpoint's: it decides where the base lies
            in the motivated model, or which images are trained on. None for in no run.
        motivated: True if it has no effect without ``--motivated-model``.
        not_motivated: why it cannot be used with ``--motivated-model``, if it cannot.
        conditions: the only motivation conditions that read it; empty where that does not depend on the condition.
        argument: the argument of a condition's constructor that it gives.
        of_weights: True if weights need the value of the run that made them; fine-tuning takes it from there.
        measured: True if it changes the results of a run; runs that differ only in others are of one configuration.
        per_rank: True if each process may have its own value: a path, or what only the first process reads.
        per_image: True if it works on single images or on how they are drawn, which ``--data-on-device`` cannot.
    """

    names: str
    type: Any
    help: str
    _: KW_ONLY
    default: Any = None
    allowed: Allowed = NOT_NAN
    choices: tuple[str, ...] | None = None
    nargs: int | str | None = None
    const: str | None = None
    metavar: str | tuple[str, ...] | None = None
    dest: str = ""
    null: bool = False
    may_change: bool = False
    must_agree: Callable[[Namespace], bool] | None = None
    motivated: bool = False
    not_motivated: str = ""
    conditions: tuple[str, ...] = ()
    argument: str = ""
    of_weights: bool = False
    measured: bool = True
    per_rank: bool = False
    per_image: bool = False

    def __post_init__(self) -> None:
        fill = partial(object.__setattr__, self)
        if not self.dest:
            fill("dest", self.option.removeprefix("--").replace("-", "_"))
        if self.default is None:
            fill("default", {bool: False, dict: {}}.get(self.type))
        if self.choices and not self.default and "" not in self.choices:
            fill("choices", (*self.choices, ""))

    @property
    def option(self) -> str:
        """Return its first long name, with which messages begin."""
        return next((name for name in self.names.split() if name.startswith("--")), self.names)

    def gives_argument_of(self, condition: str) -> bool:
        """Return True if it gives an argument of a motivation condition's constructor."""
        return bool(self.argument) and (not self.conditions or condition in self.conditions)

    def add_to(self, parser: Any) -> None:
        """Add it to a parser of argparse, or to a group of one."""
        is_off = self.null and self.default is None  # the parser shows other defaults, where they are not empty
        settings: dict[str, Any] = {"help": self.help + " (default none)" * is_off, "default": copy(self.default)}
        if self.type is bool:
            settings["action"] = "store_true"
        elif self.type is dict:
            settings |= {"action": _Pairs, "nargs": "*", "metavar": "KEY=VALUE"}
        else:
            metavar = self.metavar or {int: "N", float: "X", str: "NAME"}[self.type]
            if self.choices:
                metavar = "{" + ",".join(filter(None, self.choices)) + "}"
            settings |= {"type": self._word_type(), "nargs": self.nargs, "const": self.const, "metavar": metavar}
            settings["choices"] = self.choices
        names = self.names.split()
        if names[0].startswith("-"):
            settings["dest"] = self.dest
        parser.add_argument(*names, **settings)

    def _word_type(self) -> Callable[[str], Any]:
        def convert(word: str) -> Any:
            value = self.type(word)
            if reason := self._refusal(value):
                raise ArgumentTypeError(reason)
            return value

        convert.__name__ = self.type.__name__  # argparse names it
        return convert

    def _refusal(self, value: Any) -> str | None:
        if isinstance(value, int) and abs(value) >= LARGEST:
            return f"a whole number of a sensible size, not {shown(value)}"
        if isinstance(value, float) and LARGEST_FLOAT < abs(value) < float("inf"):
            return f"a number that float32 can hold, not {value}"
        return self.allowed.refusal(value)

    def from_file(self, value: Any) -> Any:
        """Return a value of a YAML file as the parser takes it for a default.

        Raises:
            ValueError: it is not of the flag's type, or not allowed; the message says why, but not which flag it is.
        """
        if value is None:
            if self.default in (None, ""):
                return self.default
            if self.null:
                return None
            raise ValueError(f"needs a value, {self.default!r} by default")
        if self.type is bool and not isinstance(value, bool):
            raise ValueError(f"is true or false, not {shown(value)}")
        if self.type is dict and not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
            raise ValueError(f"is a mapping of names to values, not {shown(value)}")
        if self.type in (bool, dict):
            return value
        if self.nargs not in ("+", "*") and not isinstance(self.nargs, int):
            return self._item_from_file(value)
        if not isinstance(value, list):
            raise ValueError(f"is a list, not {shown(value)}")
        if isinstance(self.nargs, int) and len(value) != self.nargs:
            raise ValueError(f"is a list of {self.nargs}, not of {len(value)}")
        return [self._item_from_file(item) for item in value]

    def _item_from_file(self, value: Any) -> Any:
        if self.choices and value not in self.choices:
            raise ValueError(f"is one of {', '.join(filter(None, self.choices))}, not {shown(value)}")
        kind = {str: "text", int: "whole number", float: "number"}[self.type]
        taken: Any = {str: str, int: (int, str), float: (int, float, str)}[self.type]  # YAML takes 1e-4 for a text
        if isinstance(value, bool) or not isinstance(value, taken):
            hint = ": put it in quotes" if self.type is str and isinstance(value, (int, float)) else ""
            raise ValueError(f"is a {kind}, not {shown(value)}{hint}")
        try:
            converted = self.type(value)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"is a {kind}, not {shown(value)}") from error
        if reason := self._refusal(converted):
            raise ValueError(f"is {reason}")
        return converted if isinstance(value, str) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


@dataclass(frozen=True)
class Group:
    """Flags under one title of ``--help``.

    Attributes:
        exclusive: options of which at most one may be given.
    """

    title: str
    flags: tuple[Flag, ...]
    description: str | None = field(default=None, kw_only=True)
    exclusive: tuple[str, ...] = field(default=(), kw_only=True)

    def with_defaults(self, defaults: Mapping[str, Any]) -> Group:
        """Return the same flags with other defaults, by the names of their options."""
        flags = (replace(flag, default=defaults.get(flag.dest, flag.default)) for flag in self.flags)
        return replace(self, flags=tuple(flags))
