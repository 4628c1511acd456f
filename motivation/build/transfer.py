"""Begin a training with the weights of another one (paper, section 4.1: transfer).

The head is replaced where the number of classes differs; everything else must fit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from timm.models import adapt_input_conv, clean_state_dict
from torch import Tensor, nn

from motivation.training.checkpoint import read_checkpoint


def transfer_weights(model: nn.Module, file: str | Path) -> str:
    """Load the weights of a checkpoint into a model in place; the EMA's if it has an EMA.

    The head is replaced where the number of classes differs, and the first convolutions of models of RGB images are
    adapted to other channels as timm adapts those of its pretrained weights.

    Args:
        model: a timm model.
        file: in timm's format, or safetensors.

    Returns:
        A line for the log, which says if the head is a new one and the first convolution adapted.

    Raises:
        ValueError: the file is damaged or no checkpoint, or of another architecture.
    """
    weights = _weights_in(Path(file))
    own, head = model.state_dict(), _head_of(model)
    adapted = _adapt_channels(weights, model)
    new_head = sorted(n for n in head if n in weights and n in own and weights[n].shape != own[n].shape)
    if head and not any(name in weights for name in head):
        new_head = sorted(head & own.keys())
    own_head = {name: own[name] for name in new_head}
    fitted = weights | own_head
    if not _fit(fitted, own):
        fitted = _converted(weights, model, file) | own_head
    _refuse_with_hint(fitted, model, file)
    model.load_state_dict(fitted)
    channels = f", its first convolution adapted from 3 channels to {own[adapted[0]].shape[1]}" if adapted else ""
    if not new_head:
        return f"Weights of {file}, with its head{channels}."
    before = weights[new_head[-1]].shape[0] if new_head[-1] in weights else "no"
    replaced = f"its head of {before} classes is replaced by a new one of {own[new_head[-1]].shape[0]}"
    return f"Weights of {file}{channels}; {replaced}."


def refuse_misfit(model: nn.Module, file: str | Path) -> None:
    """Refuse a file whose weights are not those of a model as it is, with its head.

    Raises:
        ValueError: the file is damaged or no checkpoint, or of another architecture, channels or classes.
    """
    _refuse_with_hint(_weights_in(Path(file)), model, file)


def refuse_shapes(model: nn.Module, file: str | Path) -> None:
    """Refuse a file with tensors of other shapes than a model's outside of the head.

    Raises:
        ValueError: the file is damaged or no checkpoint, or of another architecture or channels.
    """
    weights, own = _weights_in(Path(file)), model.state_dict()
    shared = own.keys() & weights.keys() - _head_of(model)
    _refuse_with_hint(own | {name: weights[name] for name in shared}, model, file)


def _refuse_with_hint(weights: dict[str, Tensor], model: nn.Module, file: str | Path) -> None:
    try:
        _refuse_other_architecture(file, weights, model.state_dict())
    except ValueError as error:
        hint = _hint(weights, model)
        raise ValueError(f"{error}{hint}") from error


def _hint(weights: dict[str, Tensor], model: nn.Module) -> str:
    """Return what to do about weights that differ from a model's in the head or the channels of the images only."""
    own, head, first = model.state_dict(), _head_of(model), _first_convolutions(model)
    other = {name for name in own if name not in weights or weights[name].shape != own[name].shape}
    if not other or not other <= head | first or not weights.keys() <= own.keys() | head:
        return ""
    hints = []
    if other & head:
        classes = [len(weights[name]) for name in other & head if name in weights]
        same = f"--num-classes {classes[0]} keeps it, " if classes else ""
        hints.append(f"the head differs: {same}finetune.py --checkpoint makes a new one")
    for name in sorted(other & first & weights.keys())[:1]:
        found = weights[name].shape[1]
        adapts = ", finetune.py --checkpoint adapts it" if found == 3 and not hints else ""
        hints.append(f"its images have {found} channel{'s' * (found > 1)}: --in-chans {found}{adapts}")
    return f"; {'; '.join(hints)}"


def left_random(model: nn.Module, file: str | Path) -> list[str]:
    """Return the tensors outside the head that a file lacks, so that timm would leave them at random.

    Raises:
        ValueError: the file is damaged or no checkpoint, or has none of the model's tensors.
    """
    weights = _weights_in(Path(file))
    own = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")} - _head_of(model)
    missing = own - weights.keys()
    if missing:
        missing = own - _converted(weights, model, file).keys()
    if missing == own:
        raise ValueError(f"{file} has no weights of this architecture")
    return sorted(missing)


def has_head_of(model: nn.Module, file: str | Path) -> bool:
    """Return True if a file has a head of the model's number of classes.

    Raises:
        ValueError: the file is damaged or no checkpoint.
    """
    weights, own = _weights_in(Path(file)), model.state_dict()
    head = _head_of(model) & own.keys()
    return bool(head) and all(name in weights and weights[name].shape == own[name].shape for name in head)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file in the format safetensors.

    Raises:
        ValueError: it cannot be read.
    """
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except Exception as error:  # its own error class is not exported
        raise ValueError(f"{file} is damaged or no safetensors file: {error}") from error


def _weights_in(file: Path) -> dict[str, Tensor]:
    contents: dict[str, Any] = read_safetensors(file) if file.suffix == ".safetensors" else read_checkpoint(file)
    for key in ("state_dict_ema", "state_dict", "model"):
        if isinstance(contents.get(key), dict):
            contents = contents[key]
            break
    named = {name: value for name, value in contents.items() if isinstance(name, str) and isinstance(value, Tensor)}
    # timm's auxiliary BatchNorm layers are for training only
    weights = clean_state_dict({name: value for name, value in named.items() if ".aux_bn." not in name})
    if not weights:
        raise ValueError(f"{file} holds no weights")
    return weights


def _head_of(model: nn.Module) -> set[str]:
    """Return the names of the tensors whose size is the number of classes."""
    classifier = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return {f"{name}.{end}" for name in names for end in ("weight", "bias")}


def _first_convolutions(model: nn.Module) -> set[str]:
    """Return the names of the weights that see the images."""
    first = (getattr(model, "pretrained_cfg", None) or {}).get("first_conv") or ()
    return {f"{name}.weight" for name in ((first,) if isinstance(first, str) else first)}


def _adapt_channels(weights: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Adapt first convolutions over 3 channels to the model's number of channels in place; returns their names."""
    own, adapted = model.state_dict(), []
    for name in sorted(_first_convolutions(model) & weights.keys() & own.keys()):
        before, wanted = weights[name].shape, own[name].shape
        if len(before) == 4 and before[1] == 3 and wanted[1] != 3 and before[2:] == wanted[2:]:
            weights[name] = adapt_input_conv(wanted[1], weights[name])
            adapted.append(name)
    return adapted


def _converted(weights: dict[str, Tensor], model: nn.Module, file: str | Path) -> dict[str, Tensor]:
    """Convert weights of other image sizes and older names as timm does for this kind of model."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return weights
    try:
        return dict(convert(weights, model))
    except Exception as error:  # it may stumble over the weights of another architecture in any way
        differences = _differences(weights, model.state_dict())
        raise ValueError(f"{file} is of another architecture: {differences}") from error


def _fit(weights: dict[str, Tensor], own: dict[str, Tensor]) -> bool:
    return weights.keys() == own.keys() and all(weights[name].shape == own[name].shape for name in own)


def _refuse_other_architecture(file: str | Path, weights: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    if not _fit(weights, own):
        raise ValueError(f"{file} is of another architecture: {_differences(weights, own)}")


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
