"""From the command line and a YAML file to one namespace of options."""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import yaml
from timm.utils import ParseKwargs

from motivation.errors import InputError
from motivation.options.config_files import nearest, read_config, shown
from motivation.options.flags import add_all_flags

CONFIG_HELP = (
    "YAML file of options, or the name of one of ours, such as quickstart; of several the later wins, and the command "
    "line wins over all"
)


class OptionParser(ArgumentParser):
    """A parser whose errors are one line, with the nearest known flag, instead of two hundred lines of usage."""

    def error(self, message: str) -> NoReturn:
        """End the program with code 2."""
        if message.startswith("unrecognized arguments:"):
            known = [flag for action in self._actions for flag in action.option_strings]
            words = message.split(": ", 1)[1].split()
            words = [word + nearest(word.partition("=")[0], known) for word in words if word.startswith("-")] or words
            message = "unknown: " + "; ".join(words)
        self.exit(2, f"error: {' '.join(message.split())} (--help lists all options)\n")


def make_parser() -> ArgumentParser:
    """The parser of `train_motivated.py`."""
    parser = OptionParser(
        prog="train_motivated.py",
        description="Train a timm model, and with --motivated-model a larger one around it.",
    )
    parser.add_argument("-c", "--config", action="append", default=[], metavar="FILE", help=CONFIG_HELP)
    add_all_flags(parser)
    return parser


def parse(argv: Sequence[str] | None = None, parser: ArgumentParser | None = None) -> tuple[Namespace, str]:
    """Options, and all of them as YAML text.

    The command line wins over the files, a later file over an earlier one, and files over the defaults. Wrong options
    end the program with code 2.

    Args:
        argv: the words; default those of the command line.
        parser: default that of `train_motivated.py`.
    """
    parser = parser or make_parser()
    first = OptionParser(add_help=False)
    first.add_argument("-c", "--config", action="append", default=[])
    try:
        parser.set_defaults(**read_configs(first.parse_known_args(argv)[0].config, parser))
    except InputError as error:
        parser.error(str(error))
    try:
        args = parser.parse_args(argv)
    except NOT_PAIRS:
        parser.error(f"words of the form name=value are taken by {', '.join(_pair_flags(parser))}")
    del args.config
    try:
        return args, yaml.safe_dump(vars(args), default_flow_style=False)
    except (yaml.YAMLError, ValueError, RecursionError):
        parser.error(f"{', '.join(_pair_flags(parser))}: only numbers, texts, true, false, None, lists and mappings")


NOT_PAIRS = (ValueError, TypeError, RecursionError, MemoryError)
"""What timm's action raises for words that are not name=value: it unpacks and evaluates them without looking."""


def _pair_flags(parser: ArgumentParser) -> list[str]:
    return [action.option_strings[0] for action in parser._actions if isinstance(action, ParseKwargs)]


def given_options(argv: Sequence[str], make: Callable[[], ArgumentParser] = make_parser) -> dict[str, Any]:
    """Only what the command line itself gives, by the options' names; abbreviated flags too."""
    parser = make()
    for action in parser._actions:
        action.default, action.required = SUPPRESS, False
    try:
        return vars(parser.parse_args(argv))
    except NOT_PAIRS:  # `parse` says it
        return {}


def read_configs(names: Sequence[str], parser: ArgumentParser) -> dict[str, Any]:
    """Return the options in YAML files, the later files' over the earlier ones'; empty names are left out.

    Raises:
        InputError: see `motivation.options.config_files.read_config`; a key that is no option, or a value that is not
            of its kind.
    """
    options: dict[str, Any] = {}
    for name in filter(None, names):
        options |= read_config(name, partial(check_options, parser))
    return options


def check_options(parser: ArgumentParser, path: Path, options: dict[Any, Any]) -> dict[str, Any]:
    """Return the options that stand in one file as the parser takes them for defaults.

    Raises:
        InputError: some are unknown, or their values are not of their kind; all of these are named.
    """
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    unknown = [_unknown(key, value, list(actions)) for key, value in options.items() if key not in actions]
    if unknown:
        raise InputError(f"{path} has unknown options: {'; '.join(unknown)}")
    wrong = [f"{key}: {reason}" for key, value in options.items() if (reason := wrong_value(actions[key], value))]
    if wrong:
        raise InputError(f"{path} has wrong values: {'; '.join(wrong)}")
    return {key: _taken(actions[key], value) for key, value in options.items()}


def _unknown(key: Any, value: Any, known: list[str]) -> str:
    if isinstance(value, dict):
        return f"{shown(key)} (options stand side by side, not in groups)"
    return shown(key) + nearest(str(key).replace("-", "_"), known)


def _taken(action: Action, value: Any) -> Any:
    """A fitting value as the parser takes it for a default; of a text the parser itself makes a number."""
    if value is None:
        return "" if action.default == "" else None
    if isinstance(value, list) and callable(action.type):
        return [action.type(item) if isinstance(item, str) else item for item in value]
    return value


NO_VALUE_MEANS_OFF = ("color_jitter", "scale", "ratio", "train_interpolation")
"""Options with a default that timm lets a file switch off with null."""


def wrong_value(action: Action, value: Any) -> str | None:
    """Why a value from a file cannot be this option's; None if it can.

    A number written as a string is fine, as it is on the command line.
    """
    if value is None:
        fine = action.default in (None, "") or action.dest == "val_split" or action.dest in NO_VALUE_MEANS_OFF
        return None if fine else f"needs a value, {action.default!r} by default"
    if action.nargs == 0:
        return None if isinstance(value, bool) else f"is true or false, not {shown(value)}"
    if isinstance(action, ParseKwargs):
        named = isinstance(value, dict) and all(isinstance(key, str) for key in value)
        return None if named else f"is a mapping of names to values, not {shown(value)}"
    if action.nargs in ("+", "*") or isinstance(action.nargs, int):
        if not isinstance(value, list):
            return f"is a list, not {shown(value)}"
        if isinstance(action.nargs, int) and len(value) != action.nargs:
            return f"is a list of {action.nargs}, not of {len(value)}"
        return next((reason for item in value if (reason := _wrong_scalar(action, item))), None)
    return _wrong_scalar(action, value)


def _wrong_scalar(action: Action, value: Any) -> str | None:
    if action.choices and value not in action.choices:
        return f"is one of {', '.join(map(str, action.choices))}, not {shown(value)}"
    kind: Any = action.type or str
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return f"is a {_KINDS[kind]}, not {shown(value)}"
    if kind is str:
        return None if isinstance(value, str) else f"is a text, not {shown(value)}: put it in quotes"
    if kind is int and isinstance(value, float):
        return f"is a whole number, not {shown(value)}"
    try:
        number = kind(value)
    except (ValueError, OverflowError):
        return f"is a {_KINDS[kind]}, not {shown(value)}"
    if kind is int and abs(number) >= LARGEST:
        return f"is a whole number of a sensible size, not {shown(value)}"
    return None


LARGEST = 2**63


_KINDS = {str: "text", int: "whole number", float: "number"}
