"""Load a user's own Python files and modules, so that they can register maps, models, conditions and hooks."""

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
    """Raised for a plugin that cannot be loaded; the message says where it failed, with file and line."""


def load_plugin(name: str) -> ModuleType:
    """Import a plugin: a path that ends in ``.py``, or the dotted name of a module. Each is run only once.

    Raises:
        PluginError: there is no such file or module, or it fails.
    """
    path = Path(name) if name.endswith(".py") else None
    if not name.strip() or (name.startswith(".") and path is None):
        raise PluginError(f"{name!r}: neither a file that ends in .py nor the name of a module")
    if path and not path.is_file():
        raise PluginError(f"{path}: there is no such file")
    try:
        return _load_file(path) if path else importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(missing + ".")):
            raise PluginError(f"{name}: there is no such module; the name of a file ends in .py") from error
        raise PluginError(f"{_place(name, error)}: {type(error).__name__}: {error}") from error


def load_plugins(names: Iterable[str]) -> tuple[list[ModuleType], list[str]]:
    """Load all plugins; return the modules, and a message for each plugin that cannot be loaded."""
    modules, faults = [], []
    for name in names:
        try:
            modules.append(load_plugin(name))
        except PluginError as error:
            faults.append(str(error))
    return modules, faults


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    name = f"plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _place(name: str, error: BaseException) -> str:
    """Return file and line of the failure: the last frame in the plugin's own file, if there is one."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    file = Path(name).name if name.endswith(".py") else name.rpartition(".")[2] + ".py"
    own = [frame for frame in frames if Path(frame.filename).name == file]
    last = (own or frames)[-1]
    return f"{last.filename}:{last.lineno}"
