"""Check options and models before a run; nothing is trained or allocated."""

from __future__ import annotations

import importlib
from argparse import Namespace
from types import ModuleType
from typing import Any

import torch
from timm import is_model
from timm.data import resolve_data_config

from motivation.build.conditions import plugin_faults
from motivation.build.maps import model_map
from motivation.build.models import MODEL_FLAG, meta_model, model_name
from motivation.method.records import Role
from motivation.options.checks import option_faults
from motivation.options.derived import channels
from motivation.options.faults import Fault, blaming, collecting
from weight_maps import WeightMapError
from weight_maps.plugins import load_plugins


def startup_faults(args: Namespace) -> tuple[list[ModuleType], list[Fault]]:
    """Load modules and plugins; return the plugins, and what is wrong with all, with options, condition and hooks."""
    unloaded: list[Fault] = []
    for module in args.device_modules or ():
        with collecting(unloaded), blaming("--device-modules", module):
            importlib.import_module(module)
    plugins, unloadable = load_plugins(args.motivation_plugins)
    faults = unloaded + [Fault("--motivation-plugins", fault) for fault in unloadable] + option_faults(args)
    if not any(fault.flag.startswith("--motivation-") for fault in faults):
        faults += plugin_faults(args, plugins)
    return plugins, faults


def model_faults(args: Namespace) -> list[Fault]:
    """Return why models cannot be made or do not take the images, or why the base is not part of the motivated model.

    The models are built on the meta device, so that this costs neither memory nor random numbers.
    """
    models: dict[Role, Any] = {}
    faults: list[Fault] = []
    for role in Role if args.motivated_model else [Role.BASE]:
        name = model_name(args, role)
        if ":" not in name and is_model(name):
            with collecting(faults):
                models[role] = meta_model(args, role)
    if Role.BASE in models and not args.naflex_loader:
        sizes = image_sizes(args, models[Role.BASE])
        for role, model in models.items():
            name = model_name(args, role)
            faults += [Fault(MODEL_FLAG[role], f"{name} {fault}") for fault in _size_faults(model, sizes)]
    if Role.BASE in models and Role.MOTIVATED in models:
        base, motivated = models[Role.BASE], models[Role.MOTIVATED]
        if base.num_classes != motivated.num_classes:
            text = (
                f"{args.motivated_model} has {motivated.num_classes} classes, {args.model} has {base.num_classes}; "
                "give both with --num-classes"
            )
            faults.append(Fault("--motivated-model", text))
        try:
            model_map(args, base, motivated)
        except WeightMapError as error:  # its lines stay lines
            faults.append(Fault("--motivated-model", str(error)))
    return faults


def image_sizes(args: Namespace, base: Any) -> list[tuple[int, int, int]]:
    """Return the sizes ``(C, H, W)`` of the images that the models will see, in training and in validation."""
    asked = {name: getattr(args, name) for name in ("input_size", "img_size", "in_chans")}
    size = (channels(args), *resolve_data_config(asked, model=base, verbose=False)["input_size"][1:])
    sizes = [size, *((size[0], side, side) for side in args.train_img_sizes or ())]
    if args.val_input_size:
        sizes.append(tuple(args.val_input_size))
    return list(dict.fromkeys(sizes))


def _size_faults(model: Any, sizes: list[tuple[int, int, int]]) -> list[str]:
    """Return a text for each size that the model refuses; none if it refuses its own size too, and nothing is known."""
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
    """Return why a model without weights refuses two images of this size; None if it takes them, or has weights."""
    if not all(parameter.is_meta for parameter in model.parameters()):
        return None
    training, images = model.training, torch.empty(2, *size, device="meta")
    model.eval()
    try:
        with torch.no_grad():
            model(images)
    except Exception as error:  # noqa: BLE001  (each model has its own way of refusing)
        return str(error).split("\n")[0].rstrip(".")
    finally:
        model.train(training)
    return None


def _by(size: tuple[int, ...]) -> str:
    return f"{size[-2]}x{size[-1]}"
