"""From the command line and a YAML file to one namespace of options."""

from __future__ import annotations

import difflib
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from motivation.flags import add_all_flags

CONFIG_HELP = "YAML file of options; the command line wins over it"


class OptionParser(ArgumentParser):
    """A parser whose errors are one line, with the nearest known flag, instead of two hundred lines of usage."""

    def error(self, message: str) -> NoReturn:
        """End the program with code 2."""
        if message.startswith("unrecognized arguments:"):
            known = [flag for action in self._actions for flag in action.option_strings]
            words = message.split(": ", 1)[1].split()
            message = "unknown: " + "; ".join(
                word + nearest(word.partition("=")[0], known)
                for word in words
                if word.startswith("-") or len(words) == 1
            )
        self.exit(2, f"error: {message} (--help lists all options)\n")


def make_parser() -> ArgumentParser:
    """The parser of `train_motivated.py`."""
    parser = OptionParser(
        prog="train_motivated.py",
        description="Train a timm model, and with --motivated-model a larger one around it.",
    )
    parser.add_argument("-c", "--config", default="", metavar="FILE", help=CONFIG_HELP)
    add_all_flags(parser)
    return parser


def parse(argv: Sequence[str] | None = None) -> tuple[Namespace, str]:
    """Options, and all of them as YAML text.

    The command line wins over the file, the file over the defaults. Wrong options end the program with code 2.
    """
    parser = make_parser()
    first = ArgumentParser(add_help=False)
    first.add_argument("-c", "--config", default="")
    config = first.parse_known_args(argv)[0].config
    if config:
        try:
            parser.set_defaults(**read_config(config, parser))
        except ValueError as error:
            parser.error(str(error))
    args = parser.parse_args(argv)
    del args.config
    return args, yaml.safe_dump(vars(args), default_flow_style=False)


def read_config(path: str | Path, parser: ArgumentParser) -> dict[str, Any]:
    """The options in a YAML file.

    Raises:
        ValueError: no such file, not a mapping, or a key that is no option; every unknown key is named, with the
            nearest known one.
    """
    try:
        options = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise ValueError(f"{path} must hold 'option: value' lines, not a {type(options).__name__}")
    known = [action.dest for action in parser._actions if action.dest not in ("help", "config")]
    unknown = [f"{key!r}{nearest(str(key).replace('-', '_'), known)}" for key in options if key not in known]
    if unknown:
        raise ValueError(f"{path} has unknown options: {'; '.join(unknown)}")
    return options


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the known names closest to a wrong one.

    >>> nearest("resnt50", ["resnet50", "vit"])
    ' (did you mean resnet50?)'
    """
    close = difflib.get_close_matches(name, known, n=3)
    return f" (did you mean {', '.join(close)}?)" if close else ""
