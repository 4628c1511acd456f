"""Loads a user's own Python file or module, so that what it registers is known.

It is the lowest room, because maps, conditions and hooks all come this way.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


class PluginError(ValueError):
    """A plugin that cannot be loaded; the message names it, and file and line of the fault."""


def load_plugin(name: str) -> ModuleType:
    """Import a plugin: a path that ends in ``.py``, or the dotted name of a module. A second time does nothing.

    Raises:
        PluginError: there is no such file or module, or it fails.
    """
    is_file = name.endswith(".py")
    if not name.strip() or (name.startswith(".") and not is_file):
        raise PluginError(f"{name!r}: neither a file that ends in .py nor the name of a module")
    try:
        return _load_file(Path(name)) if is_file else importlib.import_module(name)
    except PluginError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise PluginError(f"{name}: there is no such module; a file is given with its .py") from error
        raise PluginError(f"{_place(name, error)}: {type(error).__name__}: {error}") from error
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise PluginError(f"{_place(name, error)}: {type(error).__name__}: {error}") from error


def load_plugins(names: Iterable[str]) -> tuple[list[ModuleType], list[str]]:
    """Load all: the modules, and what is wrong with each plugin that cannot be loaded."""
    modules, faults = [], []
    for name in names:
        try:
            modules.append(load_plugin(name))
        except PluginError as error:
            faults.append(str(error))
    return modules, faults


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"{path}: there is no such file")
    whole = path.resolve()
    called = f"plugin_{whole.stem}_{hashlib.sha256(str(whole).encode()).hexdigest()[:8]}"
    if called in sys.modules:
        return sys.modules[called]
    spec = importlib.util.spec_from_file_location(called, whole)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[called]
        raise
    return module


def _place(name: str, error: BaseException) -> str:
    """File and line where a plugin failed: the last frame in its own file, if it came so far."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    file = Path(name).name if name.endswith(".py") else name.rpartition(".")[2] + ".py"
    own = [frame for frame in frames if Path(frame.filename).name == file]
    last = (own or frames)[-1]
    return f"{last.filename}:{last.lineno}"
