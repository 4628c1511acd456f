"""Files: the checkpoint of a small model grown into a larger one's, and cut out again."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import clean_state_dict
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
    """Write a checkpoint of the motivated model that has the base's weights in their place.

    Args:
        base_name, motivated_name: timm model names.
        source: checkpoint of the base: timm's ``.pth.tar``, a state dict, or ``.safetensors``.
        target: file to write, ``.safetensors`` or ``.pth``/``.pth.tar``.
        onto: checkpoint of the motivated model that gives the other weights; default timm's initialisation.
        kwargs: arguments of the two models; the number of classes is taken from the source if they do not say.
        options: as in `find_map`.

    Raises:
        ValueError: a file is no checkpoint of its model; the file is named.
        OSError: a file cannot be read or written.
        WeightMapError: there is no map.
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
    """Write a checkpoint of the base out of one of the motivated model; arguments and errors as in `grow`."""
    _check_target(source, target)
    weights = read_weights(source)
    base, motivated = _models(base_name, motivated_name, weights, kwargs, base_is_source=False)
    _load(motivated, weights, source, motivated_name)
    find_map(base_name, motivated_name, base, motivated, **options).extract(motivated, base)
    write_weights(base, target)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The state dict in a file; of a training checkpoint the model's. No code in a file is run.

    Raises:
        ValueError: it holds no state dict.
        OSError: it cannot be read.
    """
    if not file.is_file():
        raise OSError(f"{file}: there is no such file")
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            with torch.serialization.safe_globals([Namespace]):
                found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise ValueError(f"{file}: not a readable checkpoint ({type(error).__name__})") from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    named = isinstance(found, dict) and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in found.items())
    if not named or not found:
        raise ValueError(f"{file}: holds no state dict")
    return clean_state_dict(found)


def write_weights(model: nn.Module, file: Path) -> None:
    """Write a state dict whole or not at all."""
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
        raise ValueError(f"{file}: would overwrite what it is made from; give another file")
    if file.suffix not in (".safetensors", ".pth", ".pt", ".tar"):
        raise ValueError(f"{file}: the ending says how to write: .safetensors, .pth, .pt or .pth.tar")


def _models(
    base_name: str,
    motivated_name: str,
    weights: dict[str, Tensor],
    kwargs: Sequence[dict[str, Any]],
    base_is_source: bool,
) -> list[nn.Module]:
    """Both models, with as many classes as the weights have."""
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
    missing, unknown = [n for n in expected if n not in weights], [n for n in weights if n not in expected]
    misfits = [n for n in expected if n in weights and weights[n].shape != expected[n].shape]
    faults = [
        *(f"{len(missing)} tensors are missing, {missing[0]} among them" for _ in missing[:1]),
        *(f"{len(unknown)} are unknown, {unknown[0]} among them" for _ in unknown[:1]),
        *(
            f"{n} is {list(weights[n].shape)} instead of {list(expected[n].shape)}"
            + (f" (and {len(misfits) - 1} more like it)" if len(misfits) > 1 else "")
            for n in misfits[:1]
        ),
    ]
    if faults:
        raise ValueError(f"{file}: not the weights of {name}: {'; '.join(faults)}")
    model.load_state_dict(weights)
