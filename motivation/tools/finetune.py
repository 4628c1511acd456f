"""Fine-tuning (paper, section 4.1, Table 3): another data set, begun with the weights of a run, a file or timm.

The engine is that of `train_motivated.py`; here are the new flags, the paper's transfer recipe as defaults, and what
``--checkpoint`` means.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import timm
import yaml

from motivation.build.datasets import make_datasets
from motivation.build.models import lies_outside, own_kwargs
from motivation.data.datasets import class_count
from motivation.data.subsets import labels_of, refuse_iterable
from motivation.method.records import Role
from motivation.options.faults import Fault, StartupError, blaming
from motivation.options.flag_types import Flag, Group
from motivation.options.flags import FLAGS, GROUPS
from motivation.options.parse import OptionParser, given_options, read_configs
from motivation.options.parse import make_parser as base_parser
from motivation.options.parse import parse as parse_options
from motivation.tools import train
from motivation.tools.saved_models import CONFIG_FILE, WEIGHTS_FILE, described, exported_folders
from motivation.training.checkpoint import read_checkpoint, refuse_try
from motivation.training.run_folder import read_run

_logger = logging.getLogger("train")

RECIPE = {
    "opt": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 384, "lr": 0.01, "sched": "cosine",
    "epochs": 300, "warmup_epochs": 0, "warmup_lr": 0.0, "min_lr": 0.0, "cooldown_epochs": 0, "smoothing": 0.0,
    "mixup": 0.8, "cutmix": 1.0, "aa": "rand-m9-mstd0.5-inc1", "aug_repeats": 3.0, "color_jitter": None,
    "model": None,
}  # fmt: skip
"""The paper's transfer recipe; the strengths of Mixup, CutMix and RandAugment, the number of repeats and no warm-up are
ours, as DeiT has them."""

FINETUNE = Group("Fine-tuning", (
    Flag("--checkpoint", str,
         "weights to begin with, and their model: the folder of a run or an exported one, a checkpoint file, or a timm "
         "model with pretrained weights",
         default="", metavar="RUN_OR_FILE_OR_NAME"),
    Flag("--from", str, "of a run's folder: which of its two models", dest="from_model", default="base",
         choices=("base", "motivated")),
))  # fmt: skip


OF_WEIGHTS = tuple(flag.dest for flag in FLAGS.values() if flag.of_weights)
"""Options that hold as in the run that made the weights, unless others are given."""


OPTION_OF = {"in_chans": "in_chans", "num_classes": "num_classes", "global_pool": "gp", "bn_eps": "bn_eps"}
"""Arguments of an exported model that are options here."""


@dataclass(frozen=True)
class Source:
    """Where weights come from.

    Attributes:
        model: timm name of their model; None where the file does not say.
        file: the checkpoint; None for timm's own weights of ``model``.
        options: those of the run that made it, as far as they are known.
        motivated_file: the checkpoint of the run's motivated model.
        motivated_model: timm name of that.
    """

    model: str | None
    file: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    motivated_file: Path | None = None
    motivated_model: str | None = None


def make_parser() -> OptionParser:
    """Make the parser of `finetune.py`: all flags of `train_motivated.py` with other defaults, and two more."""
    groups = (*GROUPS, FINETUNE)
    description = "Fine-tune a trained model; the defaults are the paper's transfer recipe."
    return base_parser([group.with_defaults(RECIPE) for group in groups], "finetune.py", description)


def parse(argv: Sequence[str] | None = None) -> tuple[Namespace, str]:
    """Return the options of a fine-tuning run, and all of them as YAML text.

    Raises:
        StartupError: ``--checkpoint`` names no weights, or they do not go with the other options.
        InputError: another option is wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    args, _ = parse_options(words, make_parser())
    given = given_options(words, make_parser)
    given |= read_configs(given.get("config", []), make_parser())
    source = find_source(args.checkpoint, args.from_model)
    options = vars(args) | options_of_source(args, source, set(given))
    if args.num_classes is None:
        options["num_classes"] = classes_of_data(Namespace(**options))
    said = {name: value for name, value in options.items() if name != "transfer"}
    return Namespace(**options), yaml.safe_dump(said, default_flow_style=False)


def find_source(checkpoint: str, from_model: str = "base") -> Source:
    """Find the weights that ``--checkpoint`` stands for.

    Raises:
        StartupError: it is no run, no checkpoint and no pretrained model of timm; or the run lacks the model.
    """
    if "\0" in checkpoint:
        _refuse("--checkpoint", "a file's name has no null characters")
    if not checkpoint:
        _refuse("--checkpoint", "say which weights to begin with: a run's folder, a file, or a timm model")
    path = Path(checkpoint)
    if exported := exported_folders(path):
        with blaming("--checkpoint", errors=ValueError):
            return _source_of_export(exported, checkpoint, from_model)
    if path.is_dir():
        with blaming("--checkpoint", errors=ValueError):
            return _source_of_run(path, from_model)
    if from_model != "base":
        _refuse("--from", f"chooses in the folder of a run, which {checkpoint} is not", from_model)
    if path.is_file():
        with blaming("--checkpoint", errors=ValueError):
            return _source_of_file(path)
    if not timm.is_model(checkpoint):
        _refuse("--checkpoint", f"{checkpoint} is no folder, no file, and no model of timm")
    if not timm.models.is_model_pretrained(checkpoint):
        _refuse("--checkpoint", f"timm has no pretrained weights of {checkpoint}")
    return Source(checkpoint)


def _refuse(flag: str, text: str, value: str = "") -> NoReturn:
    raise StartupError([Fault(flag, text, value)])


def _source_of_run(path: Path, from_model: str) -> Source:
    run = read_run(path)
    if from_model == "motivated" and not run.motivated:
        _refuse("--from", f"{path} is a run without a motivated model", from_model)
    files = {"base": path / "last.pth.tar", "motivated": path / "motivated" / "last.pth.tar"}
    if not files[from_model].is_file():
        raise ValueError(f"{path} has no checkpoint of its {from_model} model ({files[from_model].name})")
    trained = _sound(dict(run.options), path)
    if from_model == "motivated":
        return Source(run.motivated, files["motivated"], _of_motivated(trained))
    larger = files["motivated"] if files["motivated"].is_file() else None
    return Source(run.base, files["base"], trained, larger, run.motivated)


def _source_of_export(folders: dict[Role, Path], checkpoint: str, from_model: str) -> Source:
    taken = Role.MOTIVATED if list(folders) == [Role.MOTIVATED] else Role(from_model)
    if taken not in folders:
        _refuse("--from", f"{checkpoint} has no {from_model} model", from_model)
    options = _options_of_export(folders[taken])
    source = Source(options["model"], folders[taken] / WEIGHTS_FILE, options)
    if taken is Role.MOTIVATED or Role.MOTIVATED not in folders:
        return source
    larger = _options_of_export(folders[Role.MOTIVATED])
    both = options | {"motivated_model_kwargs": larger["model_kwargs"]}
    return Source(source.model, source.file, both, folders[Role.MOTIVATED] / WEIGHTS_FILE, larger["model"])


def _options_of_export(folder: Path) -> dict[str, Any]:
    """Return the options that an exported model is described by; its head and channels may become others."""
    options, _ = described(folder / CONFIG_FILE)
    kwargs = options["model_kwargs"]
    moved = {name: kwargs.pop(argument) for argument, name in OPTION_OF.items() if argument in kwargs}
    return options | {name: value for name, value in moved.items() if name != "num_classes"}


def _source_of_file(path: Path) -> Source:
    contents = {} if path.suffix == ".safetensors" else read_checkpoint(path)
    trained, arch = contents.get("args"), contents.get("arch")
    known = _sound(dict(vars(trained)), path) if isinstance(trained, Namespace) else {}
    refuse_try(contents)
    if path.resolve().parent.name == Role.MOTIVATED.value:
        known = _of_motivated(known)
    return Source(arch if isinstance(arch, str) else None, path, known)


def _sound(trained: dict[str, Any], place: Path) -> dict[str, Any]:
    """Return the options that a file holds, if those that are read here are what they should be.

    Raises:
        ValueError: one of them is not.
    """
    models = ("motivated_model", "model_kwargs", "motivated_model_kwargs")
    for name in (*OF_WEIGHTS, *models, "input_size", "img_size", "val_input_size", "in_chans"):
        value = trained.get(name)
        if value is None:
            continue
        try:
            FLAGS[name].from_file(list(value) if isinstance(value, tuple) else value)
        except ValueError as error:
            raise ValueError(f"the options in {place} are damaged: {name} {error}") from error
    return trained


def _of_motivated(trained: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run as they are for its motivated model."""
    kwargs = (trained.get("model_kwargs") or {}) | (trained.get("motivated_model_kwargs") or {})
    return {**trained, "model_kwargs": kwargs}


def options_of_source(args: Namespace, source: Source, given: set[str]) -> dict[str, Any]:
    """Return what the source of the weights decides; ``transfer`` has the files by role.

    Args:
        args: options.
        source: the weights.
        given: names of the options that the user has set.

    Raises:
        StartupError: the user asks for another model than the weights are of, or for other weights too; or neither the
            user nor the file says which model it is.
    """
    for name in ("pretrained", "pretrained_path", "initial_checkpoint"):
        if getattr(args, name):
            _refuse(FLAGS[name].option, "--checkpoint says which weights to begin with; give one of them")
    if source.model and args.model not in (None, source.model):
        _refuse("--model", f"{args.model}, but {args.checkpoint} is of {source.model}")
    if source.file and source.model and args.model is None and lies_outside(source.model):
        _refuse("--model", f"{args.checkpoint} says it is of {source.model}, which lies outside of it; give that name")
    if not source.model and args.model is None:
        _refuse("--model", f"{args.checkpoint} does not say which model it is of; give its timm name")
    trained, transfer = source.options, {}
    found: dict[str, Any] = {"model": source.model or args.model, "pretrained": source.file is None}
    evaluated_with = _evaluated_with(args, trained, given)
    _announce(args.checkpoint, evaluated_with)
    found |= evaluated_with
    if "model_kwargs" not in given and trained.get("model_kwargs") is not None:
        found["model_kwargs"] = own_kwargs(trained["model_kwargs"])
    if given & {"input_size", "img_size"} and "img_size" in found.get("model_kwargs", {}):
        new = list(args.input_size[-2:]) if args.input_size else [args.img_size, args.img_size]
        found["model_kwargs"] = {**found["model_kwargs"], "img_size": new}  # a model of a fixed size is made for it
    if source.file is not None:
        transfer["base"] = str(source.file)
    if args.motivated_model and args.motivated_model == source.motivated_model and source.motivated_file:
        transfer["motivated"] = str(source.motivated_file)
        if "motivated_model_kwargs" not in given:
            found["motivated_model_kwargs"] = own_kwargs(trained.get("motivated_model_kwargs") or {})
    return {**found, "transfer": transfer}


def _evaluated_with(args: Namespace, trained: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Return the options that a run was evaluated with and that hold here too, because the user gives no others.

    Args:
        args: options.
        trained: those of the run.
        given: names of the options that the user has set.
    """
    found = {name: trained[name] for name in OF_WEIGHTS if name not in given and trained.get(name) is not None}
    size, side = trained.get("val_input_size") or trained.get("input_size"), trained.get("img_size")
    before = size[0] if size else trained.get("in_chans") or 3
    channels = args.input_size[0] if "input_size" in given else args.in_chans if "in_chans" in given else before
    if channels != before:
        found.pop("input_img_mode", None)
        found = {name: value for name, value in found.items() if name not in ("mean", "std") or len(value) == 1}
    if "input_size" not in given and channels != (args.in_chans or 3):
        found["in_chans"] = channels
    if not given & {"input_size", "img_size"}:
        if size:
            found["input_size"] = [channels, *size[1:]]
        elif side:
            found["img_size"] = side
    return found


def _announce(checkpoint: str, options: dict[str, Any]) -> None:
    """Log which options are taken from the run, once."""
    words = []
    for name, value in options.items():
        if value != FLAGS[name].default:
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [FLAGS[name].option, *map(str, values)]
    if words and os.environ.get("RANK", "0") == "0":
        _logger.info(f"As {checkpoint} was evaluated: {' '.join(words)}")


def classes_of_data(args: Namespace) -> int | None:
    """Return the number of classes of the training split; None where it cannot be opened, which is said at start-up.

    Raises:
        StartupError: it can only be streamed, and does not tell.
    """
    try:
        train = make_datasets(args, tuple(args.input_size or (args.in_chans or 3, 224, 224))).train
    except StartupError:
        return None
    if (count := class_count(train)) is not None:
        return count
    with blaming("--num-classes", "from the data", errors=ValueError):
        refuse_iterable(train)
    return max(labels_of(train)) + 1


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune; return the exit code."""
    return train.main(argv, parse)
