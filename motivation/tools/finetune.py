"""Fine-tuning (paper, section 4.1, Table 3): another data set, begun with the weights of a run, a file or timm.

The engine is that of `train_motivated.py`; here are the new flags, the paper's transfer recipe as defaults, and what
``--checkpoint`` means.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import yaml

from motivation.build.datasets import make_datasets
from motivation.data.datasets import class_count
from motivation.data.subsets import labels_of, refuse_iterable
from motivation.method.records import Role
from motivation.options.parse import given_options, read_configs, wrong_value
from motivation.options.parse import make_parser as base_parser
from motivation.options.parse import parse as parse_options
from motivation.tools import train
from motivation.training.checkpoint import read_checkpoint
from motivation.training.run_folder import RunError, read_run

RECIPE = {
    "opt": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 384, "lr": 0.01, "sched": "cosine",
    "epochs": 300, "warmup_epochs": 0, "warmup_lr": 0.0, "min_lr": 0.0, "cooldown_epochs": 0, "smoothing": 0.0,
    "mixup": 0.8, "cutmix": 1.0, "aa": "rand-m9-mstd0.5-inc1", "aug_repeats": 3.0, "color_jitter": None,
}  # fmt: skip
"""The paper's transfer recipe; the strengths of Mixup, CutMix and RandAugment, the number of repeats and no warm-up are
ours, as DeiT has them."""

INHERITED = ("mean", "std", "gp", "bn_eps", "crop_pct", "interpolation")
"""Options that belong to the weights: those of the run that made them hold, unless others are given."""


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


def make_parser() -> ArgumentParser:
    """The parser of `finetune.py`: all flags of `train_motivated.py`, and two more."""
    parser = base_parser()
    parser.prog = "finetune.py"
    parser.description = "Fine-tune a trained model; the defaults are the paper's transfer recipe."
    group = parser.add_argument_group("Fine-tuning")
    group.add_argument(
        "--checkpoint",
        default="",
        metavar="RUN_OR_FILE_OR_NAME",
        help="weights to begin with: the folder of a run, a checkpoint file, or a timm model with pretrained weights",
    )
    group.add_argument(
        "--from",
        dest="from_model",
        default="base",
        choices=("base", "motivated"),
        help="of a run's folder: which of its two models",
    )
    parser.set_defaults(**RECIPE, model=None)
    return parser


def parse(argv: Sequence[str] | None = None) -> tuple[Namespace, str]:
    """Options of a fine-tuning run, and all of them as YAML text. Wrong options end the program with code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    args, _ = parse_options(words, parser)
    given = given_options(words, make_parser)
    given = read_configs(given.get("config", []), make_parser()) | given
    try:
        apply_source(args, find_source(args.checkpoint, args.from_model), set(given))
        if args.num_classes is None:
            args.num_classes = classes_of_data(args)
    except ValueError as error:
        parser.error(str(error))
    said = {name: value for name, value in vars(args).items() if name != "transfer"}
    return args, yaml.safe_dump(said, default_flow_style=False)


def find_source(checkpoint: str, from_model: str = "base") -> Source:
    """What ``--checkpoint`` means.

    Raises:
        ValueError: it is no run, no checkpoint and no pretrained model of timm; or the run has not what is asked for.
    """
    if not checkpoint:
        raise ValueError("--checkpoint: say which weights to begin with: a run's folder, a file, or a timm model")
    if "\0" in checkpoint:
        raise ValueError("--checkpoint: a file's name has no null characters")
    path = Path(checkpoint)
    if path.is_dir():
        try:
            return _source_of_run(path, from_model)
        except RunError as error:
            raise ValueError(f"--checkpoint: {error}") from error
    if from_model != "base":
        raise ValueError(f"--from {from_model}: chooses in the folder of a run; {checkpoint} is none")
    if path.is_file():
        try:
            contents = {} if path.suffix == ".safetensors" else read_checkpoint(path)
        except ValueError as error:
            raise ValueError(f"--checkpoint: {error}") from error
        trained, arch = contents.get("args"), contents.get("arch")
        known = _sound(dict(vars(trained)), path) if isinstance(trained, Namespace) else {}
        if path.resolve().parent.name == Role.MOTIVATED.value:
            known = _of_motivated(known)
        return Source(arch if isinstance(arch, str) else None, path, known)
    if timm.is_model(checkpoint):
        if not timm.models.is_model_pretrained(checkpoint):
            raise ValueError(f"--checkpoint: timm has no pretrained weights of {checkpoint}")
        return Source(checkpoint)
    raise ValueError(f"--checkpoint: {checkpoint} is no folder, no file, and no model of timm")


def _source_of_run(path: Path, from_model: str) -> Source:
    run = read_run(path)
    if from_model == "motivated" and not run.motivated:
        raise ValueError(f"--from motivated: {path} is a run without a motivated model")
    files = {"base": path / "last.pth.tar", "motivated": path / "motivated" / "last.pth.tar"}
    if not files[from_model].is_file():
        raise RunError(f"{path} has no checkpoint of its {from_model} model ({files[from_model].name})")
    trained = _sound(dict(run.options), path)
    if from_model == "motivated":
        return Source(run.motivated, files["motivated"], _of_motivated(trained))
    larger = files["motivated"] if files["motivated"].is_file() else None
    return Source(run.base, files["base"], trained, larger, run.motivated)


def _sound(trained: dict[str, Any], place: Path) -> dict[str, Any]:
    """Options that a file holds, if those that count here are what they should be.

    Raises:
        ValueError: one of them is not.
    """
    actions = {action.dest: action for action in make_parser()._actions}
    models = ("motivated_model", "model_kwargs", "motivated_model_kwargs")
    for name in (*INHERITED, *models, "input_size", "val_input_size", "in_chans"):
        value = trained.get(name)
        value = list(value) if isinstance(value, tuple) else value
        if value is not None and (reason := wrong_value(actions[name], value)):
            raise ValueError(f"--checkpoint: the options in {place} are damaged: {name} {reason}")
    return trained


def _of_motivated(trained: dict[str, Any]) -> dict[str, Any]:
    """The options of a run as they are for its motivated model."""
    kwargs = (trained.get("model_kwargs") or {}) | (trained.get("motivated_model_kwargs") or {})
    return {**trained, "model_kwargs": kwargs}


def apply_source(args: Namespace, source: Source, given: set[str]) -> None:
    """Give the options what they leave open; ``args.transfer`` has the files by role.

    Args:
        args: changed.
        source: the weights.
        given: names of the options that the user has set.

    Raises:
        ValueError: another model was asked for than the weights are of, or none and the file does not say; or other
            weights too.
    """
    for name in ("pretrained", "pretrained_path", "initial_checkpoint"):
        if getattr(args, name):
            raise ValueError(
                f"--{name.replace('_', '-')}: --checkpoint says which weights to begin with; give one of them"
            )
    if source.model and args.model not in (None, source.model):
        raise ValueError(f"--model: {args.model}, but {args.checkpoint} is of {source.model}")
    if not source.model and args.model is None:
        raise ValueError(f"--model: {args.checkpoint} does not say which model it is of; give its timm name")
    args.model = source.model or args.model
    trained = source.options
    for name in (*INHERITED, "model_kwargs"):
        if name not in given and trained.get(name) is not None:
            setattr(args, name, trained[name])
    size = trained.get("val_input_size") or trained.get("input_size")  # the size that it was evaluated at
    channels = trained.get("in_chans") or (size[0] if size else None)
    if not given & {"in_chans", "input_size"} and channels:
        args.in_chans = channels
    if not given & {"input_size", "img_size"}:
        args.input_size = list(size) if size else None
    elif (
        "model_kwargs" not in given and "img_size" in args.model_kwargs
    ):  # models of a fixed size are made for the new one
        new = list(args.input_size[-2:]) if args.input_size else [args.img_size, args.img_size]
        args.model_kwargs = {**args.model_kwargs, "img_size": new}
    args.pretrained = source.file is None
    args.transfer = {} if source.file is None else {"base": str(source.file)}
    if args.motivated_model and args.motivated_model == source.motivated_model and source.motivated_file:
        args.transfer["motivated"] = str(source.motivated_file)
        if "motivated_model_kwargs" not in given:
            args.motivated_model_kwargs = trained.get("motivated_model_kwargs") or {}


def classes_of_data(args: Namespace) -> int | None:
    """How many classes the training split has; None where it cannot be opened, which the start-up checks say.

    Raises:
        ValueError: it does not tell.
    """
    try:
        train = make_datasets(args, tuple(args.input_size or (args.in_chans or 3, 224, 224))).train
    except Exception:  # noqa: BLE001  (each kind of data set has its own exceptions)
        return None
    if (count := class_count(train)) is not None:
        return count
    refuse_iterable(train, "without --num-classes, finding the number of classes")
    return max(labels_of(train)) + 1


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune; return the exit code."""
    return train.main(argv, parse)
