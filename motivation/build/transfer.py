"""Weights of one training for another (paper, section 4.1: transfer): a checkpoint into a model of its architecture.

The head is replaced where the number of classes differs; everything else must fit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from timm.models import clean_state_dict
from torch import Tensor, nn

from motivation.training.checkpoint import read_checkpoint


def transfer_weights(model: nn.Module, file: str | Path) -> str:
    """Load a checkpoint into a model in place; its EMA weights if it has them.

    Args:
        model: a timm model.
        file: in timm's format, or safetensors.

    Returns:
        What is to be said of it: whether the head is a new one.

    Raises:
        ValueError: the file is damaged or no checkpoint, or of another architecture.
    """
    weights = _weights_in(Path(file))
    own = model.state_dict()
    head = _head_of(model)
    new_head = sorted(n for n in head if n in weights and n in own and weights[n].shape != own[n].shape)
    if head and not any(name in weights for name in head):
        new_head = sorted(head & own.keys())
    fitted = weights | {name: own[name] for name in new_head}
    if not _fit(fitted, own) and (adapt := _filter_of(model)) is not None:
        try:  # other image sizes, older names
            fitted = {**adapt(weights, model), **{name: own[name] for name in new_head}}
        except Exception as error:  # it may stumble over the weights of another architecture in any way
            raise ValueError(f"{file} is of another architecture: {_differences(fitted, own)}") from error
    if not _fit(fitted, own):
        raise ValueError(f"{file} is of another architecture: {_differences(fitted, own)}")
    model.load_state_dict(fitted)
    if not new_head:
        return f"Weights of {file}, with its head."
    before = weights[new_head[-1]].shape[0] if new_head[-1] in weights else "no"
    return f"Weights of {file}; its head of {before} classes is replaced by a new one of {own[new_head[-1]].shape[0]}."


def misfit(model: nn.Module, file: str | Path) -> str | None:
    """Why the weights of a file are not those of a model as it is, head and all; None if they are."""
    try:
        weights = _weights_in(Path(file))
    except ValueError as error:
        return str(error)
    own = model.state_dict()
    return None if _fit(weights, own) else f"{file} is of another architecture: {_differences(weights, own)}"


def left_random(model: nn.Module, file: str | Path) -> list[str]:
    """Tensors outside the head that timm, which passes over what it does not find, would not take from a file.

    Raises:
        ValueError: the file is damaged or no checkpoint, or has none of them.
    """
    weights = _weights_in(Path(file))
    own = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")} - _head_of(model)
    missing = own - weights.keys()
    if missing and (adapt := _filter_of(model)) is not None:
        try:
            missing = own - adapt(weights, model).keys()
        except Exception as error:  # it may stumble over the weights of another architecture in any way
            raise ValueError(f"{file} is of another architecture") from error
    if missing == own:
        raise ValueError(f"{file} has no weights of this architecture")
    return sorted(missing)


def _weights_in(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            contents: dict[str, Any] = load_file(file)
        except Exception as error:  # its own error class is not exported
            raise ValueError(f"{file} is damaged or no safetensors file: {error}") from error
    else:
        contents = read_checkpoint(file)
    for key in ("state_dict_ema", "state_dict", "model"):
        if isinstance(contents.get(key), dict):
            contents = contents[key]
            break
    # timm's auxiliary BatchNorm layers are for training only
    named = {k: v for k, v in contents.items() if isinstance(k, str) and isinstance(v, Tensor)}
    tensors = {k: v for k, v in named.items() if ".aux_bn." not in k}
    weights = clean_state_dict(tensors)
    if not weights:
        raise ValueError(f"{file} holds no weights")
    return weights


def _head_of(model: nn.Module) -> set[str]:
    """Names of the tensors whose size is the number of classes."""
    classifier = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return {f"{name}.{end}" for name in names for end in ("weight", "bias")}


def _filter_of(model: nn.Module) -> Any:
    """timm's function that brings published weights of this kind of model into its present form, if there is one."""
    return getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)


def _fit(weights: dict[str, Tensor], own: dict[str, Tensor]) -> bool:
    return weights.keys() == own.keys() and all(weights[name].shape == own[name].shape for name in own)


def _differences(weights: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    other = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    parts = []
    if missing:
        parts.append(f"{len(missing)} tensors are missing ({missing[0]} ...)")
    if unknown:
        parts.append(f"{len(unknown)} are unknown ({unknown[0]} ...)")
    if other:
        shapes = f"{list(weights[other[0]].shape)}, here {list(own[other[0]].shape)}"
        parts.append(f"{len(other)} have other shapes ({other[0]}: {shapes})")
    return ", ".join(parts)
