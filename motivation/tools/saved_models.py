"""Find and load models that were saved: those of a run, of one checkpoint file, or of an exported folder.

Each of these may be damaged or a stranger's. Nothing that they name is imported, read or fetched unless the user trusts
them.
"""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.models import clean_state_dict
from torch import Tensor, nn

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.build.models import (
    data_config,
    lies_outside,
    make_model,
    meta_model,
    model_name,
    own_kwargs,
    without_files,
)
from motivation.build.transfer import read_safetensors
from motivation.errors import print_text
from motivation.method.random_states import fork_rng
from motivation.method.records import Role
from motivation.options.faults import StartupError
from motivation.options.flags import FLAGS
from motivation.options.parse import make_parser as training_parser
from motivation.training.checkpoint import is_of_earlier_run, read_checkpoint
from motivation.training.run_files import RunError, checked_options, read_json
from motivation.training.run_folder import RunFolder, read_run
from weight_maps.plugins import load_plugins

LARGEST_IMAGE = 2**26
"""Values of an image; one of 3 x 4096 x 4096 has 50 million."""
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
"""Files of an exported model, as timm and the Hugging Face hub name them."""
_OF_PRETRAINED_CFG = ("input_size", "mean", "std", "interpolation", "crop_pct")
"""Options that an exported model has in its ``pretrained_cfg``."""

_EVALUATION_OPTIONS = (
    "device", "device_modules", "workers", "validation_batch_size", "log_interval", "tta", "amp", "amp_dtype",
    "model_dtype", "channels_last", "fast_norm", "fuser", "torchcompile", "torchcompile_mode", "deterministic",
    "model_ema_force_cpu", "aug_splits", "split_bn", "train_split", "train_num_samples", "val_num_samples",
    "epoch_repeats", "class_map", "input_key", "target_key", "dataset_download", "dataset_trust_remote_code",
    "no_prefetcher", "pin_mem", "no_pin_mem", "data_on_device", "naflex_loader", "naflex_max_seq_len",
    "naflex_patchify_channels_first",
)  # fmt: skip
"""Options of a run that an evaluation reads, beside those that all tools read and that are checked for them."""


@dataclass(frozen=True)
class SavedModel:
    """The weights of one model.

    Attributes:
        role: base or motivated.
        name: timm name.
        args: the options that it was trained with, or is described by.
        made_as: the role whose options make it; an exported motivated model has options of its own.
        file: that was read.
        contents: of a checkpoint; of an exported model its weights, under ``state_dict``.
        weights: which ones they are, in words.
        recorded: ``loss``, ``top1`` and ``top5`` that the run recorded of them; empty where they are not known.
    """

    role: Role
    name: str
    args: Namespace
    made_as: Role
    file: Path
    contents: dict[str, Any]
    weights: str
    recorded: dict[str, float]

    def load(self) -> nn.Module:
        """Make the model, in evaluation mode on the CPU.

        Raises:
            RunError: timm does not know it, or the weights do not fit.
        """
        return load_model(self.args, self.made_as, self.contents, self.file)


@dataclass(frozen=True)
class Source:
    """Saved models that belong together.

    Attributes:
        path: of the run, the file or the exported folder.
        args: the options that they were trained with; defaults where those are not known.
        models: one or both.
        label_names: names of the classes; None where they are not known.
    """

    path: Path
    args: Namespace
    models: list[SavedModel]
    label_names: list[str] | None


def find_source(path: Path, best: bool = False, trusted: bool = False) -> Source:
    """Read the weights and options in a run's folder, a checkpoint file, or an exported folder.

    Args:
        path: of the folder or file.
        best: take the best checkpoint of a run instead of the last one.
        trusted: import the plugins that it names, and let timm read models that lie elsewhere.

    Raises:
        RunError: it is none of these, lacks what is asked for, or is damaged.
    """
    exported = exported_folders(path)
    if best and (exported or not path.is_dir()):
        raise RunError(f"--best: chooses in the folder of a run, which {path} is not")
    if exported:
        return _source_of_export(path, exported)
    if path.is_dir():
        run = read_run(path)
        args, roles = training_options(run.options), list(Role) if run.motivated else [Role.BASE]
        _check_options(args, path)
        load_trusted(args, run.path, trusted)
        return Source(path, args, [saved_in_run(run, args, role, best) for role in roles], run.label_names)
    if path.is_file():
        return _source_of_file(path, trusted)
    raise RunError(f"there is no folder or file {path}")


def training_options(known: dict[str, Any]) -> Namespace:
    """Return all options of a training, with the defaults for those that are not known."""
    args = training_parser().parse_args([])
    vars(args).update(known)
    return args


def _check_options(args: Namespace, place: Path) -> None:
    """Refuse options of an evaluation that are not what they should be."""
    for name in _EVALUATION_OPTIONS:
        try:
            setattr(args, name, FLAGS[name].from_file(getattr(args, name)))
        except ValueError as error:
            raise RunError(f"{place} is damaged: {name} {error}") from error


def load_trusted(args: Namespace, path: Path, trusted: bool) -> None:
    """Import the plugins that a source names, if it is trusted; else refuse a model that lies outside of it.

    Raises:
        RunError: timm would read a model from elsewhere.
    """
    if trusted:
        _, faults = load_plugins(args.motivation_plugins)
        for fault in faults:
            print_text(f"note: {fault}", sys.stderr)
        return
    for name in (args.model, args.motivated_model or ""):
        if lies_outside(name):
            raise RunError(f"{path}: timm would read {name} from outside of the run; if you trust it give --trust")


def saved_in_run(run: RunFolder, args: Namespace, role: Role, best: bool = False) -> SavedModel:
    """Read the checkpoint of one model of a run.

    Raises:
        RunError: the run has none, or it is damaged.
    """
    folder = run.path if role is Role.BASE else run.path / role.value
    file = folder / ("model_best.pth.tar" if best else "last.pth.tar")
    if not file.is_file():
        raise RunError(f"{run.path} has no {file.relative_to(run.path)}")
    contents = _read(file)
    if role is Role.BASE and is_of_earlier_run(contents, run.path):
        raise RunError(f"{file} is of an earlier run; the one that has begun in its folder since has saved nothing")
    last = "the last update" if run.completed else _epoch_in_words(contents)
    return _saved(args, role, file, contents, "the best epoch" if best else last, run)


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_checkpoint(file)
    except ValueError as error:
        raise RunError(str(error)) from error


def _epoch_in_words(contents: dict[str, Any]) -> str:
    return f"epoch {contents.get('epoch')}, counted from 0"


def _saved(
    args: Namespace, role: Role, file: Path, contents: dict[str, Any], when: str, run: RunFolder | None
) -> SavedModel:
    of_epoch = [found for found in run.evaluated(role) if found["epoch"] == contents.get("epoch")] if run else []
    metrics = of_epoch[-1] if of_epoch else {}
    recorded = {name: metrics[name] for name in ("loss", "top1", "top5") if metrics.get(name) is not None}
    weights = f"of {when}{', moving average' if _is_ema(args, contents) else ''}"
    names = ("state_dict", "state_dict_ema", "args")  # without the state of the training, which is larger
    kept: dict[str, Any] = {name: contents[name] for name in names if name in contents}
    return SavedModel(role, model_name(args, role), args, role, file, kept, weights, recorded)


def _is_ema(args: Namespace, contents: dict[str, Any]) -> bool:
    """Return True if the run evaluated its EMA, which is what timm does unless it is kept on the CPU."""
    return "state_dict_ema" in contents and not args.model_ema_force_cpu


def _source_of_file(file: Path, trusted: bool) -> Source:
    """Read one checkpoint: its own options count, or else those of the run's folder that it lies in."""
    contents = _read(file)
    folders = [folder for folder in (file.parent, file.absolute().parent.parent) if (folder / "args.yaml").is_file()]
    in_subfolder = file.absolute().parent.name == Role.MOTIVATED.value
    run = read_run(folders[0]) if folders and (folders[0] == file.parent or in_subfolder) else None
    arch, trained = contents.get("arch"), contents.get("args")
    options: dict[str, Any] = {"model": arch} if isinstance(arch, str) else {}
    if isinstance(trained, Namespace):
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(trained).items()}
        options |= checked_options(plain, file)
    elif run is not None:
        options |= run.options
    if not options.get("model"):
        raise RunError(f"{file} does not say which model it is of, and no args.yaml lies beside it")
    args = training_options(options)
    _check_options(args, file)
    load_trusted(args, file, trusted)
    if run is not None or args.model == args.motivated_model:
        is_motivated = in_subfolder or (
            run is None and "optimizer" not in contents
        )  # a motivated model's file has none
    else:
        is_motivated = arch == args.motivated_model
    role = Role.MOTIVATED if args.motivated_model and is_motivated else Role.BASE
    saved = _saved(args, role, file, contents, _epoch_in_words(contents), run)
    return Source(file, args, [saved], run.label_names if run is not None else None)


def exported_folders(path: Path) -> dict[Role, Path]:
    """Return the folders of exported models: ``path`` itself, that of the weights ``path``, or those in it."""
    if path.name == WEIGHTS_FILE:
        path = path.parent
    if (path / CONFIG_FILE).is_file():
        return {Role.MOTIVATED if path.absolute().name == Role.MOTIVATED.value else Role.BASE: path}
    if (path / "args.yaml").is_file():
        return {}
    return {role: path / role.value for role in Role if (path / role.value / CONFIG_FILE).is_file()}


def _source_of_export(path: Path, folders: dict[Role, Path]) -> Source:
    models, names = [], []
    for role, folder in folders.items():
        options, label_names = described(folder / CONFIG_FILE)
        try:
            state = read_safetensors(folder / WEIGHTS_FILE)
        except ValueError as error:
            raise RunError(str(error)) from error
        file, contents = folder / WEIGHTS_FILE, {"state_dict": state}
        args = training_options(options)
        models.append(SavedModel(role, args.model, args, Role.BASE, file, contents, "as exported", {}))
        names.append(label_names)
    return Source(path, models[0].args, models, names[0])


def described(file: Path) -> tuple[dict[str, Any], list[str] | None]:
    """Return the options that ``config.json`` of an exported model stands for, and the names of its classes.

    Raises:
        RunError: it is damaged, or of a model that lies elsewhere.
    """
    found = read_json(file)
    if not isinstance(found, dict) or not isinstance(found.get("architecture"), str):
        raise RunError(f"{file} is damaged: it names no architecture")
    data, arguments = found.get("pretrained_cfg") or {}, found.get("model_args") or {}
    if not isinstance(data, dict) or not isinstance(arguments, dict):
        raise RunError(f"{file} is damaged: pretrained_cfg and model_args are not mappings")
    options = {
        "model": found["architecture"],
        "num_classes": found.get("num_classes"),
        "model_kwargs": own_kwargs(arguments),
        **{name: data[name] for name in _OF_PRETRAINED_CFG if data.get(name) is not None},
    }
    options = checked_options(options, file)
    if lies_outside(options["model"]):
        raise RunError(f"{file}: timm would read {options['model']} from elsewhere; give that folder itself")
    names = found.get("label_names")
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return options, names if is_list else None


def load_model(args: Namespace, role: Role, contents: dict[str, Any], file: Path) -> Any:
    """Make a model with the weights that its run evaluated, in evaluation mode on the CPU.

    Args:
        args: options of the run.
        role: base or motivated.
        contents: of the checkpoint.
        file: its name, for messages.

    Raises:
        RunError: timm does not know the model, or the weights do not fit.
    """
    state = clean_state_dict(weights_of(contents, "state_dict_ema" if _is_ema(args, contents) else "state_dict", file))
    state = {name: value for name, value in state.items() if ".aux_bn." not in name}  # timm: for training only
    if args.num_classes is None:
        args.num_classes = getattr(contents.get("args"), "num_classes", None)
    model = _make_fitting(args, role, state, file)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"{file} does not fit: {' '.join(str(error).split())[:300]}") from error
    return model.eval()


def weights_of(contents: dict[str, Any], name: str, file: Path) -> dict[str, Tensor]:
    """Return the weights that a checkpoint has under a name.

    Raises:
        RunError: it has none.
    """
    weights = contents.get(name)
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise RunError(f"{file} has no weights ({name})")
    return weights


def _make_fitting(args: Namespace, role: Role, state: dict[str, Tensor], file: Path) -> Any:
    """Make a model with random weights; first without memory, as its size may be anything.

    Raises:
        RunError: timm does not know it, or its shapes are not those of the weights.
    """
    try:
        blank = meta_model(args, role).state_dict()
        other = [name for name in blank.keys() & state.keys() if blank[name].shape != state[name].shape]
        if other:
            sizes = (list(weights[min(other)].shape) for weights in (state, blank))
            raise RunError("{} does not fit: {} is {}, of the model {}".format(file, min(other), *sizes))
        with fork_rng():
            return make_model(without_files(args), role)
    except StartupError as error:
        plugins = ", ".join(args.motivation_plugins)
        hint = f"; if a plugin of the run registers it ({plugins}), give --trust" if plugins else ""
        raise RunError(f"{file} cannot be loaded: {error}{hint}") from error


def evaluation_config(args: Namespace, place: Path) -> dict[str, Any]:
    """Return timm's data configuration of a run's loaders, which is that of the base for both models.

    Args:
        args: options of the run.
        place: for messages.

    Raises:
        RunError: its images would not fit into any memory.
    """
    config = data_config(args, meta_model(args, Role.BASE))
    for size in filter(None, (config["input_size"], args.val_input_size)):
        if not 0 < math.prod(size) <= LARGEST_IMAGE:
            raise RunError(f"{place} says that its images are of {' x '.join(map(str, size))}")
    return config
