"""Make models as timm's script does."""

from __future__ import annotations

import copy
import logging
from argparse import Namespace
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from timm.data import resolve_data_config
from timm.layers import convert_splitbn_model, convert_sync_batchnorm
from timm.models import create_model, safe_model_name
from torch import nn

from motivation.build.runtime import Runtime
from motivation.build.transfer import has_head_of, left_random, refuse_misfit, refuse_shapes, transfer_weights
from motivation.method.random_states import fork_rng
from motivation.method.records import Role
from motivation.options.derived import channels
from motivation.options.faults import Fault, StartupError, blaming
from motivation.training.checkpoint import SAFE_GLOBALS
from weight_maps.size_limit import ModelSizeError, limited_size

_logger = logging.getLogger("train")

MODEL_FLAG = {Role.BASE: "--model", Role.MOTIVATED: "--motivated-model"}
FILE_FLAG = {Role.BASE: "--initial-checkpoint", Role.MOTIVATED: "--motivated-initial-checkpoint"}


def model_name(args: Namespace, role: Role) -> str:
    """Return the timm name of the base or the motivated model."""
    return args.model if role is Role.BASE else args.motivated_model


def data_config(args: Namespace, base: Any, verbose: bool = False) -> dict[str, Any]:
    """Return timm's data configuration, with what the options leave open as the base model has it.

    Unlike timm's, size, mean and deviation have as many channels as the images: the fill colour of augmentations, the
    transforms without the prefetcher and ``--data-on-device`` all need one number per channel.
    """
    with blaming("data options"):
        config = resolve_data_config(vars(args), model=base, verbose=verbose)
    count = channels(args)
    config["input_size"] = (count, *config["input_size"][1:])
    for name in ("mean", "std"):
        if len(config[name]) != count:  # the mean over channels, which is what timm's prefetcher takes too
            config[name] = (np.mean(config[name]).item(),) * count
            if verbose:
                _logger.info(f"The images have {count} channels: their {name} is {config[name][0]:.4g} in each.")
    return config


def make_model(args: Namespace, role: Role, num_classes: int | None = None, verbose: bool = False) -> nn.Module:
    """Make a timm model, on the CPU (or the device of a ``torch.device`` context).

    Args:
        args: options.
        role: base or motivated.
        num_classes: outputs of its head; None for ``--num-classes``, or the model's own number.
        verbose: True to log where its weights come from.

    Raises:
        StartupError: it cannot be made with these arguments, or files of weights do not fit it.
    """

    def of_motivated(value: Any, default: Any) -> Any:
        return default if role is Role.BASE or value is None else value

    options = dict(args.model_kwargs)
    pretrained, checkpoint = args.pretrained, args.initial_checkpoint
    if role is Role.MOTIVATED:
        options.update(args.motivated_model_kwargs)
        pretrained, checkpoint = args.motivated_pretrained, args.motivated_initial_checkpoint
    elif args.pretrained_path:
        # timm: a file goes before url and hub; -1 classes make the head adapt
        options["pretrained_cfg_overlay"] = {"file": args.pretrained_path, "num_classes": -1}
    settings: dict[str, Any] = dict(
        pretrained=pretrained,
        in_chans=channels(args),
        num_classes=num_classes or args.num_classes,
        drop_rate=of_motivated(args.motivated_drop, args.drop),
        drop_path_rate=of_motivated(args.motivated_drop_path, args.drop_path),
        drop_block_rate=of_motivated(args.motivated_drop_block, args.drop_block),
        global_pool=args.gp,
        bn_momentum=args.bn_momentum,
        bn_eps=args.bn_eps,
        scriptable=args.torchscript,
        checkpoint_path=checkpoint,
    )
    name = model_name(args, role)
    if strange := sorted({"model_name", "features_only"} & options.keys()):
        raise StartupError(
            [Fault(MODEL_FLAG[role] + "-kwargs", f"{strange[0]} is no argument of a model that classifies")]
        )
    flag, value = (FILE_FLAG[role], checkpoint) if checkpoint else (MODEL_FLAG[role], name)
    try:
        with blaming(flag, value), torch.serialization.safe_globals(SAFE_GLOBALS), limited_size(name, options):
            model: Any = create_model(name, **(settings | options))
    except StartupError:
        _refuse_files(args, role, checkpoint, num_classes)
        raise
    if role is Role.BASE and pretrained and args.pretrained_path:
        _tell_left_random(model, args, verbose)
    if file := getattr(args, "transfer", {}).get(role.value):  # fine-tuning
        with blaming("--checkpoint", errors=ValueError):
            said = transfer_weights(model, file)
        if verbose:
            _logger.info(said)
    if args.head_init_scale is not None:
        with torch.no_grad():
            for parameter in _head_parameters(model, "--head-init-scale"):
                parameter.mul_(args.head_init_scale)
    if args.head_init_bias is not None:
        for parameter in _head_parameters(model, "--head-init-bias", only="bias"):
            nn.init.constant_(parameter, args.head_init_bias)
    if args.grad_checkpointing:
        with blaming("--grad-checkpointing"):
            model.set_grad_checkpointing(enable=True)
    return model


def _head_parameters(model: Any, flag: str, only: str = "") -> list[nn.Parameter]:
    """Return weights and biases of a model's head, of which distilled models have several; only those of one name.

    Raises:
        StartupError: there are none.
    """
    head = model.get_classifier()
    heads = head if isinstance(head, (tuple, list)) else [head]
    found = [parameter for one in heads for name, parameter in one.named_parameters() if name.endswith(only)]
    if not found:
        raise StartupError([Fault(flag, f"the model's head has no {only or 'weights'}")])
    return found


def _refuse_files(args: Namespace, role: Role, checkpoint: str, num_classes: int | None) -> None:
    """Refuse a file of weights, if a model could not be made because of it."""
    if checkpoint:
        with blaming(FILE_FLAG[role], checkpoint, errors=ValueError):
            refuse_misfit(meta_model(args, role, num_classes), checkpoint)
    if role is Role.BASE and args.pretrained and args.pretrained_path:
        with blaming("--pretrained-path", errors=ValueError):
            model = meta_model(args, role)
            left_random(model, args.pretrained_path)
            refuse_shapes(model, args.pretrained_path)


def _tell_left_random(model: nn.Module, args: Namespace, verbose: bool) -> None:
    """Warn of tensors that stay random unexpectedly: they are not in the file, or timm leaves them out."""
    with blaming("--pretrained-path", errors=ValueError):
        missing = left_random(model, args.pretrained_path)
        is_head_left_out = has_head_of(model, args.pretrained_path)
    if missing and verbose:
        _logger.warning(
            f"--pretrained-path: {len(missing)} tensors are not in {args.pretrained_path} ({missing[0]} ...) and stay "
            "random."
        )
    if is_head_left_out and verbose:
        _logger.warning(
            f"--pretrained-path: the head of {args.pretrained_path} has the model's number of classes, but as in timm "
            "a new one is made; --initial-checkpoint keeps it."
        )


def without_files(args: Namespace) -> Namespace:
    """Return the options of the same models with random weights, for which nothing is read or fetched."""
    blank = copy.copy(args)
    blank.pretrained = blank.motivated_pretrained = blank.torchscript = False
    blank.initial_checkpoint = blank.motivated_initial_checkpoint = blank.pretrained_path = ""
    blank.transfer = {}
    blank.model_kwargs = own_kwargs(args.model_kwargs)
    blank.motivated_model_kwargs = own_kwargs(args.motivated_model_kwargs)
    return blank


def own_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a model's constructor gets, without those that make timm read or fetch weights."""
    return {name: value for name, value in kwargs.items() if name not in ("pretrained", "checkpoint_path", "cache_dir")}


def lies_outside(name: str) -> bool:
    """Return True for a model that timm reads from a folder or the hub, ``local-dir:`` or ``hf-hub:``."""
    return ":" in name


def meta_model(args: Namespace, role: Role, num_classes: int | None = None) -> Any:
    """Make a model without weights, which costs neither memory nor random numbers."""
    blank = without_files(args)
    blank.head_init_scale = blank.head_init_bias = None
    with fork_rng():
        try:
            with torch.device("meta"):
                return make_model(blank, role, num_classes)
        except StartupError as error:
            if isinstance(error.__cause__, ModelSizeError):
                raise
            return make_model(blank, role, num_classes)  # some constructors read values, which meta tensors do not have


def untrained_models(args: Namespace) -> tuple[dict[Role, nn.Module], tuple[int, int, int]]:
    """Make the models that these options train, with random weights on the CPU.

    Returns:
        The models, and the size ``(C, H, W)`` of their training images.

    Raises:
        StartupError: one cannot be made.
    """
    blank = without_files(args)
    roles = [Role.BASE, Role.MOTIVATED] if args.motivated_model else [Role.BASE]
    for role in roles:
        meta_model(blank, role)  # refuses what does not fit into memory
    with fork_rng():
        models = {role: make_model(blank, role) for role in roles}
    return models, tuple(data_config(args, models[Role.BASE])["input_size"])


def announce(model: nn.Module, name: str, runtime: Runtime) -> None:
    """Log how large a model is."""
    if runtime.primary:
        count = sum(parameter.numel() for parameter in model.parameters())
        _logger.info(f"Model {safe_model_name(name)} has {count:,} parameters.")


def place_model(model: Any, args: Namespace, runtime: Runtime) -> Any:
    """Give a model its device, dtype and layout, and timm's variant of BatchNorm."""
    if args.split_bn:
        model = convert_splitbn_model(model, max(args.aug_splits, 2))
    model.to(device=runtime.device, dtype=runtime.dtype)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    if runtime.distributed and args.sync_bn:
        model = convert_sync_batchnorm(model)
    if args.torchscript:
        with blaming("--torchscript"):
            model = torch.jit.script(model)
    return model


def patch_size(model: nn.Module) -> Any:
    """Return the model's patch size, None if it has none."""
    with suppress(AttributeError):
        return model.get_patch_size()  # type: ignore[operator]
    return None
