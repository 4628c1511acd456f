"""Faults that show only when models and data are looked at; nothing is trained or allocated for it."""

from __future__ import annotations

import copy
from argparse import Namespace
from typing import Any

import torch
from timm import is_model
from timm.data import resolve_data_config

from motivation.builders.learners import channels, make_model, model_name
from motivation.builders.loaders import make_datasets
from motivation.builders.maps import model_map
from motivation.data import class_count
from motivation.random_states import forked_random_states
from motivation.records import Role


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
            models[role] = _shape_of_model(args, role)
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


def _shape_of_model(args: Namespace, role: Role) -> Any:
    blank = copy.copy(args)
    blank.pretrained = blank.motivated_pretrained = blank.torchscript = False
    blank.initial_checkpoint = blank.motivated_initial_checkpoint = blank.pretrained_path = ""
    blank.head_init_scale = blank.head_init_bias = None
    with forked_random_states():
        try:
            with torch.device("meta"):
                return make_model(blank, role)
        except Exception:  # noqa: BLE001  (some constructors read values, which meta tensors do not have)
            return make_model(blank, role)


def open_datasets(args: Namespace, faults: list[str]) -> tuple[Any, Any]:
    """The training and validation sets; appends to ``faults`` what is wrong with them."""
    if any(fault.startswith(("--data-dir", "--train-split", "--val-split", "--model:")) for fault in faults):
        return None, None
    try:
        base = _shape_of_model(args, Role.BASE)
        size = resolve_data_config(vars(args), model=base)["input_size"]
        classes = base.num_classes
    except Exception:  # noqa: BLE001  (hub models, and what `model_faults` has said already)
        size, classes = (channels(args), 224, 224), args.num_classes
    try:
        train, validation = make_datasets(args, size)
    except Exception as error:  # noqa: BLE001  (each kind of data set has its own exceptions)
        faults.append(f"--dataset: {args.dataset or args.data_dir} cannot be opened: {error}")
        return None, None
    for split, dataset in ((args.train_split, train), (args.val_split, validation)):
        found = class_count(dataset)
        if found and classes and found > classes:
            faults.append(f"--num-classes: split {split!r} has {found} classes, the model {classes}")
    counts = [class_count(dataset) for dataset in (train, validation)]
    if all(counts) and counts[0] != counts[1]:
        faults.append(
            f"--val-split: {args.val_split!r} has {counts[1]} classes, {args.train_split!r} has {counts[0]}; each "
            "numbers its own by name, so labels would not agree (--class-map gives both the same numbers)"
        )
    if not isinstance(train, torch.utils.data.IterableDataset) and -(-len(train) // args.world_size) < args.batch_size:
        ranks = f" for {args.world_size} processes" if args.world_size > 1 else ""
        faults.append(
            f"--batch-size: {args.batch_size}, but split {args.train_split!r} has {len(train)} images{ranks}; "
            "there would be no whole batch"
        )
    return train, validation
