"""Grow the checkpoint of a small model into one of a larger model, and cut the small one out again."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import load_state_dict
from torch import Tensor, nn

from weight_maps.find import find_map, make_model


def convert(
    names: tuple[str, str],
    source: Path,
    target: Path,
    *,
    extract: bool = False,
    onto: Path | None = None,
    kwargs: Mapping[str, Any],
    **options: Any,
) -> None:
    """Write a checkpoint of the motivated model with the base's weights in their places, or the other way round.

    Args:
        names: timm names of the base and of the motivated model.
        source: checkpoint of the base: timm's ``.pth.tar``, a state dict, or ``.safetensors``.
        target: file to write, ``.safetensors`` or ``.pth``/``.pth.tar``.
        extract: ``source`` is of the motivated model; write a checkpoint of the base.
        onto: checkpoint of the motivated model with the other weights; default timm's initialisation.
        kwargs: arguments of both models; without ``num_classes`` they have as many as the source.
        options: as in `find_map`.

    Raises:
        ValueError: a file is not a checkpoint of its model.
        OSError: a file cannot be read or written.
        WeightMapError: the motivated model does not contain the base.
    """
    _check_target(source, target)
    weights = read_weights(source)
    base, motivated = (make_model(name, **{**_classes_of(names[extract], weights), **kwargs}) for name in names)
    _load(motivated if extract else base, weights, source, names[extract])
    if onto:
        _load(motivated, read_weights(onto), onto, names[1])
    weights_map = find_map(*names, base, motivated, **options)
    if extract:
        weights_map.extract(motivated, base)
    else:
        weights_map.expand(base, motivated)
    write_weights(base if extract else motivated, target)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the model's state dict from a file; no code in the file is run.

    Raises:
        ValueError: it holds no state dict.
        OSError: there is no such file.
    """
    if not file.is_file():
        raise OSError(f"{file}: there is no such file")
    try:
        with torch.serialization.safe_globals([Namespace]):  # the options in timm's training checkpoints
            found = load_state_dict(str(file), use_ema=False, weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise ValueError(f"{file}: not a readable checkpoint ({type(error).__name__})") from error
    if not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{file}: holds no state dict")
    return found


def write_weights(model: nn.Module, file: Path) -> None:
    """Write a model's state dict, the whole file or none."""
    weights = {name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        if file.suffix == ".safetensors":
            save_file(weights, temporary, metadata={"format": "pt"})
        else:
            torch.save({"state_dict": weights}, temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _check_target(source: Path, file: Path) -> None:
    if not file.parent.is_dir():
        raise OSError(f"{file}: there is no folder {file.parent}")
    if file.resolve() == source.resolve():
        raise ValueError(f"{file}: would overwrite the file it is made from")
    if file.suffix not in (".safetensors", ".pth", ".pt", ".tar"):
        raise ValueError(f"{file}: a checkpoint ends in .safetensors, .pth, .pt or .pth.tar")


def _classes_of(name: str, weights: dict[str, Tensor]) -> dict[str, int]:
    config = timm.get_pretrained_cfg(name)
    classifier = config.classifier if config else None
    head = classifier if isinstance(classifier, str) else next(iter(classifier or ()), None)
    weight = weights.get(f"{head}.weight")
    return {} if weight is None else {"num_classes": len(weight)}


def _load(model: nn.Module, weights: dict[str, Tensor], file: Path, name: str) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:  # it lists all names
        raise ValueError(shorten(f"{file}: not the weights of {name}: {error}", 400)) from error
