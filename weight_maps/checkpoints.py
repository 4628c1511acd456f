"""Grow the checkpoint of a small model into one of a larger model, and cut the small one out again."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import load_state_dict
from torch import Tensor, nn

from weight_maps.find import find_map, make_model


def grow(
    base_name: str,
    motivated_name: str,
    source: Path,
    target: Path,
    onto: Path | None = None,
    *,
    kwargs: Sequence[dict[str, Any]] = ({}, {}),
    **options: Any,
) -> None:
    """Write a checkpoint of the motivated model that holds the base's weights in their places.

    Args:
        base_name, motivated_name: timm model names.
        source: checkpoint of the base: timm's ``.pth.tar``, a state dict, or ``.safetensors``.
        target: file to write, ``.safetensors`` or ``.pth``/``.pth.tar``.
        onto: checkpoint of the motivated model with the other weights; default timm's initialisation.
        kwargs: arguments of the two models; where they have no ``num_classes``, that of the source.
        options: as in `find_map`.

    Raises:
        ValueError: a file is not a checkpoint of its model.
        OSError: a file cannot be read or written.
        WeightMapError: the motivated model does not contain the base.
    """
    _check_target(source, target)
    weights = read_weights(source)
    base, motivated = _models(base_name, motivated_name, weights, kwargs, base_is_source=True)
    _load(base, weights, source, base_name)
    if onto:
        _load(motivated, read_weights(onto), onto, motivated_name)
    find_map(base_name, motivated_name, base, motivated, **options).expand(base, motivated)
    write_weights(motivated, target)


def cut(
    base_name: str,
    motivated_name: str,
    source: Path,
    target: Path,
    kwargs: Sequence[dict[str, Any]] = ({}, {}),
    **options: Any,
) -> None:
    """Write the base's part of a motivated model's checkpoint; arguments and errors are those of `grow`."""
    _check_target(source, target)
    weights = read_weights(source)
    base, motivated = _models(base_name, motivated_name, weights, kwargs, base_is_source=False)
    _load(motivated, weights, source, motivated_name)
    find_map(base_name, motivated_name, base, motivated, **options).extract(motivated, base)
    write_weights(base, target)


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


def _models(
    base_name: str,
    motivated_name: str,
    weights: dict[str, Tensor],
    kwargs: Sequence[dict[str, Any]],
    base_is_source: bool,
) -> list[nn.Module]:
    """Make both models, with as many classes as the weights have."""
    name, given = (base_name, kwargs[0]) if base_is_source else (motivated_name, kwargs[1])
    classes = {} if "num_classes" in given else _classes_of(name, weights)
    return [make_model(n, **{**classes, **k}) for n, k in zip((base_name, motivated_name), kwargs, strict=True)]


def _classes_of(name: str, weights: dict[str, Tensor]) -> dict[str, int]:
    config = timm.get_pretrained_cfg(name)
    classifier = config.classifier if config else None
    head = classifier if isinstance(classifier, str) else next(iter(classifier or ()), None)
    weight = weights.get(f"{head}.weight")
    return {} if weight is None else {"num_classes": len(weight)}


def _load(model: nn.Module, weights: dict[str, Tensor], file: Path, name: str) -> None:
    expected = model.state_dict()
    faults = {
        "missing": [n for n in expected if n not in weights],
        "unknown": [n for n in weights if n not in expected],
        "of another shape": [n for n in expected if n in weights and weights[n].shape != expected[n].shape],
    }
    if any(faults.values()):
        counts = [f"{len(names)} {kind} ({names[0]})" for kind, names in faults.items() if names]
        raise ValueError(f"{file}: not the weights of {name}: tensors {', '.join(counts)}")
    model.load_state_dict(weights)
