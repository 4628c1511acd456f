"""Refuse a model that is too large for this machine while it is made, before it fills the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

MOST_MODULES = 50_000
"""Modules of a model. The largest of timm have a few thousand, and each costs memory whatever its weights are."""
LARGEST_ARGUMENT = 2**24
"""Whole numbers among a model's arguments: constructors make lists that long before the first module."""

GIB = 2**30


class ModelSizeError(ValueError):
    """A model is too large for this machine."""


def memory_of_machine() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextmanager
def limited_size(name: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Make a model inside; its parameters are counted as they come, on the meta device too.

    Args:
        name: of the model, for the message.
        arguments: of its constructor.

    Raises:
        ModelSizeError: an argument is larger than that of any model, or the model takes more than this machine's
            memory, or far more modules than any.
    """
    for argument, value in arguments.items():
        if _largest(value) > LARGEST_ARGUMENT:
            raise ModelSizeError(f"{name} takes no {argument} of more than {LARGEST_ARGUMENT:,}")
    memory = memory_of_machine()
    size = modules = 0

    def count_parameter(module: nn.Module, key: str, parameter: nn.Parameter | None) -> None:
        nonlocal size
        size += 0 if parameter is None else parameter.numel() * parameter.itemsize
        if size > memory:
            raise ModelSizeError(
                f"{name} has more than {size / GIB:,.0f} GiB of weights, this machine {memory / GIB:,.0f} GiB of memory"
            )

    def count_module(module: nn.Module, key: str, child: nn.Module | None) -> None:
        nonlocal modules
        modules += 1
        if modules > MOST_MODULES:
            raise ModelSizeError(f"{name} has more than {MOST_MODULES:,} modules with these arguments")

    hooks = (
        register_module_parameter_registration_hook(count_parameter),
        register_module_module_registration_hook(count_module),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _largest(value: Any) -> int:
    """Return the largest whole number among nested values, by its absolute value."""
    if isinstance(value, int):
        return abs(value)
    nested = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return max(map(_largest, nested), default=0)
