"""From the command line and YAML files to one namespace of options."""

from __future__ import annotations

import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser, HelpFormatter, Namespace
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import yaml

from motivation.errors import InputError
from motivation.options.config_files import SHOWN_FAULTS, nearest, read_config, shown, some
from motivation.options.flag_types import Flag, Group
from motivation.options.flags import GROUPS
from motivation.versions import version_text

CONFIG_HELP = (
    "YAML file of options, or the name of one of ours, such as quickstart; of several the later wins, and the command "
    "line wins over all"
)


class _DefaultsFormatter(HelpFormatter):
    """Show each default that is not empty behind the help text."""

    def _get_help_string(self, action: Action) -> str | None:
        default: Any = action.default
        if action.help is None or default is None or default is False or default in (SUPPRESS, "", [], {}):
            return action.help
        values = default if isinstance(default, (list, tuple)) else [default]
        words = " ".join(map(str, values)).replace("%", "%%")
        return f"{action.help} (default {words})"


class _ShowVersions(Action):
    """Print all versions and end; they are looked up only then."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        print(version_text())
        parser.exit()


class OptionParser(ArgumentParser):
    """A parser with defaults in its help, ``--version``, and errors of one line with the nearest known flag.

    Attributes:
        flags: those of `add_groups`, by the names of their options.
    """

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=_DefaultsFormatter, **settings)
        self.flags: dict[str, Flag] = {}
        if self.add_help:
            text = "print the versions of this program and its libraries, and the device"
            self.add_argument("--version", action=_ShowVersions, nargs=0, default=SUPPRESS, help=text)

    def add_groups(self, groups: Iterable[Group]) -> None:
        """Add flags, which are then keys of YAML files too."""
        for group in groups:
            place: Any = self.add_argument_group(group.title, group.description)
            exclusive = place.add_mutually_exclusive_group() if group.exclusive else None
            for flag in group.flags:
                flag.add_to(exclusive if flag.dest in group.exclusive else place)
                self.flags[flag.dest] = flag

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; ``--local-rank=0``, as torch's launcher sends it since 2.0, is ``--local_rank=0``."""
        words = sys.argv[1:] if args is None else args
        words = [re.sub("^--local-rank(?==|$)", "--local_rank", word) for word in words]
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Refuse the words of the command line.

        Raises:
            InputError: always.
        """
        message = message.removeprefix("argument ")
        if message.startswith("unrecognized arguments:"):
            known = [flag for action in self._actions for flag in action.option_strings]
            words = message.split(": ", 1)[1].split()
            words = [word + nearest(word.partition("=")[0], known) for word in words if word.startswith("-")] or words
            message = "unknown: " + "; ".join(words)
        raise InputError(f"{' '.join(message.split())} (--help lists all options)")


def make_parser(
    groups: Iterable[Group] = GROUPS,
    prog: str = "train_motivated.py",
    description: str = "Train a timm model, and with --motivated-model a larger one around it.",
) -> OptionParser:
    """Make a parser with these flags, and ``--config``; by default that of `train_motivated.py`."""
    parser = OptionParser(prog=prog, description=description)
    parser.add_argument("-c", "--config", action="append", default=[], metavar="FILE", help=CONFIG_HELP)
    parser.add_groups(groups)
    return parser


def parse(argv: Sequence[str] | None = None, parser: OptionParser | None = None) -> tuple[Namespace, str]:
    """Return the options, and all of them as YAML text.

    The command line wins over the files, a later file over an earlier one, and files over the defaults.

    Args:
        argv: the words; default those of the command line.
        parser: default that of `train_motivated.py`.

    Raises:
        InputError: an option is wrong.
    """
    parser = parser or make_parser()
    first = OptionParser(add_help=False)
    first.add_argument("-c", "--config", action="append", default=[])
    try:
        parser.set_defaults(**read_configs(first.parse_known_args(argv)[0].config, parser))
    except InputError as error:
        parser.error(str(error))
    args = parser.parse_args(argv)
    del args.config
    return args, yaml.safe_dump(vars(args), default_flow_style=False)


def given_options(argv: Sequence[str], make: Callable[[], OptionParser] = make_parser) -> dict[str, Any]:
    """Return only what the command line itself gives, by the options' names; abbreviated flags too."""
    parser = make()
    for action in parser._actions:
        action.default = SUPPRESS
    return vars(parser.parse_args(argv))


def read_configs(names: Sequence[str], parser: OptionParser) -> dict[str, Any]:
    """Return the options in YAML files, the later files' over the earlier ones'; empty names are left out.

    Raises:
        InputError: see `motivation.options.config_files.read_config`; a key that is no option, or a value that its
            flag does not take.
    """
    options: dict[str, Any] = {}
    for name in filter(None, names):
        options |= read_config(name, partial(check_options, parser))
    return options


def check_options(parser: OptionParser, path: Path, options: dict[Any, Any]) -> dict[str, Any]:
    """Return the options that stand in one file as the parser takes them for defaults.

    Raises:
        InputError: some are unknown, or their flags do not take their values; all of these are named.
    """
    unknown = [key for key in options if key not in parser.flags]
    if unknown:
        known, texts = list(parser.flags), [shown(key) for key in unknown]
        texts[:SHOWN_FAULTS] = [_unknown(key, options[key], known) for key in unknown[:SHOWN_FAULTS]]
        raise InputError(f"{path} has unknown options: {some(texts)}")
    taken, wrong = {}, []
    for key, value in options.items():
        try:
            taken[key] = parser.flags[key].from_file(value)
        except ValueError as error:
            wrong.append(f"{key}: {error}")
    if wrong:
        raise InputError(f"{path} has wrong values: {some(wrong)}")
    return taken


def _unknown(key: Any, value: Any, known: list[str]) -> str:
    if isinstance(value, dict):
        return f"{shown(key)} (options stand side by side, not in groups)"
    return shown(key) + (nearest(key.replace("-", "_"), known) if isinstance(key, str) else "")
