"""Everything that can be known to be wrong before a run; nothing is trained or allocated for it."""

from __future__ import annotations

from argparse import Namespace
from types import ModuleType
from typing import Any

from timm import is_model

from motivation.builders.conditions import plugin_faults
from motivation.builders.learners import meta_model, model_name
from motivation.builders.maps import model_map
from motivation.checks import option_faults
from motivation.records import Role
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
            faults.append(f"{flag}: {name} cannot be made: {type(error).__name__}: {error}")
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
