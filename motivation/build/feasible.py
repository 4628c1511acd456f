"""Everything that can be known to be wrong before a run; nothing is trained or allocated for it."""

from __future__ import annotations

from argparse import Namespace
from types import ModuleType
from typing import Any

import torch
from timm import is_model
from timm.data import resolve_data_config

from motivation.build.conditions import plugin_faults
from motivation.build.learners import meta_model, model_name
from motivation.build.maps import model_map
from motivation.method.records import Role
from motivation.options.checks import one_line, option_faults
from weight_maps.plugins import load_plugins


def startup_faults(args: Namespace) -> tuple[list[ModuleType], list[str]]:
    """Load the plugins; they, and what is wrong with them, with the options, and with condition and hooks."""
    plugins, unloadable = load_plugins(args.motivation_plugins)
    faults = [f"--motivation-plugins: {fault}" for fault in unloadable] + option_faults(args)
    if not any(fault.startswith("--motivation-") for fault in faults):
        faults += plugin_faults(args, plugins)
    return plugins, faults


def model_faults(args: Namespace) -> list[str]:
    """What keeps the models from being made, or the base from lying inside the motivated model.

    The models are built on the meta device, so that this costs neither memory nor random numbers.
    """
    roles = [Role.BASE, Role.MOTIVATED] if args.motivated_model else [Role.BASE]
    models: dict[Role, Any] = {}
    faults = []
    for role in roles:
        name = model_name(args, role)
        if ":" in name or not is_model(name):
            continue
        try:
            models[role] = meta_model(args, role)
        except Exception as error:  # noqa: BLE001  (a model may raise anything for arguments that it does not take)
            flag = "--model" if role is Role.BASE else "--motivated-model"
            faults.append(f"{flag}: {name} cannot be made: {type(error).__name__}: {one_line(error)}")
    if Role.BASE in models and not args.naflex_loader:
        sizes = image_sizes(args, models[Role.BASE])
        for role, model in models.items():
            flag = "--model" if role is Role.BASE else "--motivated-model"
            faults += [f"{flag}: {model_name(args, role)} {fault}" for fault in _size_faults(model, sizes)]
    if Role.BASE in models and Role.MOTIVATED in models:
        base, motivated = models[Role.BASE], models[Role.MOTIVATED]
        if base.num_classes != motivated.num_classes:
            faults.append(
                f"--motivated-model: {args.motivated_model} has {motivated.num_classes} classes, {args.model} has "
                f"{base.num_classes}; give both with --num-classes"
            )
        try:
            model_map(args, base, motivated)
        except ValueError as error:
            faults.append(f"--motivated-model: {error}")
    return faults


def image_sizes(args: Namespace, base: Any) -> list[tuple[int, int, int]]:
    """Sizes ``(C, H, W)`` that the models will see, in training and in validation."""
    asked = {name: getattr(args, name) for name in ("input_size", "img_size", "in_chans")}
    size = tuple(resolve_data_config(asked, model=base, verbose=False)["input_size"])
    sizes = [size, *((size[0], side, side) for side in args.train_img_sizes or ())]
    if args.val_input_size:
        sizes.append(tuple(args.val_input_size))
    return list(dict.fromkeys(sizes))


def _size_faults(model: Any, sizes: list[tuple[int, int, int]]) -> list[str]:
    """Sizes that the model refuses although it takes its own; of what fails at that too, nothing is known here."""
    own = tuple(getattr(model, "pretrained_cfg", {}).get("input_size") or ())
    others = [size for size in sizes if size[1:] != own[1:] and min(size) > 0]
    refused = {size: fault for size in others if (fault := _refusal(model, size))}
    if not refused or not own:
        return []
    made_for = getattr(getattr(model, "patch_embed", None), "img_size", None)
    known = [(sizes[0][0], *side) for side in (made_for, own[1:]) if side]
    taken = next((size for size in known if _refusal(model, size) is None), None)
    if taken is None:
        return []
    kwargs = "--model-kwargs dynamic_img_size=True where the model knows it, or img_size=N"
    return [
        f"takes images of {_by(taken)}, not of {_by(size)} ({fault}); change --input-size, --val-input-size, or the "
        f"model: {kwargs}"
        for size, fault in refused.items()
    ]


def _refusal(model: Any, size: tuple[int, ...]) -> str | None:
    """What a model without weights says to two images of this size; None if it takes them, or has weights."""
    if not all(parameter.is_meta for parameter in model.parameters()):
        return None
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.empty(2, *size, device="meta"))
    except Exception as error:  # noqa: BLE001  (each model has its own way of refusing)
        return str(error).split("\n")[0].rstrip(".")
    finally:
        model.train(training)
    return None


def _by(size: tuple[int, ...]) -> str:
    return f"{size[-2]}x{size[-1]}"
