"""Check options and models before a run; nothing is trained or allocated."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from timm import is_model
from timm.data import resolve_data_config
from torch import nn

from motivation.build.conditions import plugin_faults
from motivation.build.forward_trial import (
    Size,
    batches_to_come,
    blur_faults,
    memory_faults,
    patch_faults,
    scripting_faults,
    trial_faults,
)
from motivation.build.maps import model_map
from motivation.build.models import meta_model, model_name
from motivation.method.records import Role
from motivation.options.checks import option_faults
from motivation.options.derived import channels, device_of
from motivation.options.faults import Fault, blaming, collecting
from weight_maps import WeightMapError
from weight_maps.plugins import load_plugins
from weight_maps.size_limit import GIB, memory_of_machine

CPU = torch.device("cpu")


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


def model_faults(args: Namespace, device: torch.device = CPU) -> list[Fault]:
    """Return why models cannot be made or do not take the images, or why the base is not part of the motivated model.

    The models are built on the meta device, so that this costs neither memory nor random numbers.

    Args:
        args: options.
        device: of this rank; a model that cannot be run on the meta device is tried there.
    """
    models: dict[Role, Any] = {}
    faults: list[Fault] = []
    for role in Role if args.motivated_model else [Role.BASE]:
        name = model_name(args, role)
        if ":" not in name and is_model(name):
            with collecting(faults):
                models[role] = meta_model(args, role)
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
    if too_large := training_memory_faults(args, models):
        return faults + too_large
    if Role.BASE in models and not args.naflex_loader:
        batches = batches_to_come(args, training_size(args, models[Role.BASE]))
        if too_large := memory_faults(args, batches):
            return faults + too_large
        faults += blur_faults(args, batches)
        for role, model in models.items():
            faults += trial_faults(args, role, model, batches, device)
        if args.torchscript and not faults:
            faults += scripting_faults(args, batches, device)
    elif Role.BASE in models:
        faults += patch_faults(args, models[Role.BASE])
    return faults


def training_memory_faults(args: Namespace, models: Mapping[Role, nn.Module]) -> list[Fault]:
    """Return why models that each fit into the memory do not all fit with their gradients, where the CPU trains."""
    if device_of(args) != "cpu":
        return []
    sizes = (parameter.numel() for model in models.values() for parameter in model.parameters())
    needed = 2 * sum(sizes) * (getattr(torch, args.model_dtype).itemsize if args.model_dtype else 4)
    memory = memory_of_machine()
    if needed <= memory:
        return []
    text = (
        f"weights and gradients of {' and '.join(model_name(args, role) for role in models)} take {needed / GIB:.0f} "
        f"GiB, this machine has {memory / GIB:.0f}"
    )
    return [Fault("--motivated-model" if args.motivated_model else "--model", text)]


def training_size(args: Namespace, base: Any) -> Size:
    """Return the size ``(C, H, W)`` of the training images."""
    asked = {name: getattr(args, name) for name in ("input_size", "img_size", "in_chans")}
    height, width = resolve_data_config(asked, model=base, verbose=False)["input_size"][1:]
    return channels(args), height, width
