"""``python -m motivation export RUN OUT``: both models of a run, ready for use (paper: "train once, deploy twice").

``OUT/base`` and ``OUT/motivated`` are in timm's hub layout (safetensors, ``config.json``, a model card), so
``timm.create_model('local-dir:OUT/base', pretrained=True)`` loads them. The weights are those that the run evaluated:
its EMA if it evaluated that, with the BatchNorm statistics of the evaluation.
"""

from __future__ import annotations

import importlib.util
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import clean_state_dict, push_to_hf_hub, save_for_hf
from torch import Tensor, nn

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.build.models import channels, data_config, make_model, model_name, without_files
from motivation.errors import InputError, writing
from motivation.method.random_states import fork_rng
from motivation.method.records import Role
from motivation.options.parse import OptionParser
from motivation.options.parse import make_parser as training_parser
from motivation.training.checkpoint import read_checkpoint
from motivation.training.flops import readable
from motivation.training.run_folder import RunError, RunFolder, read_run
from weight_maps.plugins import load_plugins

ONNX_FILE = "model.onnx"
NOT_IN_TIMM = "_cifar"
"""End of the names of this project's own models."""


@dataclass(frozen=True)
class Exported:
    """One model of a run, with its weights.

    Attributes:
        role: base or motivated.
        name: timm name.
        model: in evaluation mode, on the CPU.
        data: timm's data configuration of its evaluation: ``input_size``, ``mean``, ``std``, ``crop_pct`` ...
        arguments: of the model's constructor, beside the number of classes.
        weights: which ones they are, for the model card.
    """

    role: Role
    name: str
    model: nn.Module
    data: dict[str, Any]
    arguments: dict[str, Any]
    weights: str


def make_parser() -> ArgumentParser:
    """Return the parser of this command."""
    parser = OptionParser(
        prog="python -m motivation export",
        description="Write both models of a run in timm's hub layout, with a model card each.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run of train_motivated.py or finetune.py")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for base/ and motivated/")
    parser.add_argument("--best", action="store_true", help="the best checkpoint instead of the last one")
    parser.add_argument("--onnx", action="store_true", help="also as ONNX, checked by comparing outputs")
    parser.add_argument(
        "--push-to-hub", metavar="REPO", help="also to the Hugging Face hub, as REPO-base and REPO-motivated"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Export the models of a run.

    Raises:
        InputError: the run cannot be exported, or its models cannot be written.
    """
    args = make_parser().parse_args(argv)
    missing = [name for name in ("onnx", "onnxruntime") if args.onnx and importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--onnx: needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    run = read_run(args.run)
    if args.out.resolve() == run.path.resolve():
        raise InputError(f"OUT: {args.out} is the run's own folder; choose another")
    for role in Role if run.motivated else [Role.BASE]:
        one, folder = load_exported(run, role, args.best), args.out / role.value
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_exported(one, run, folder)
        print(f"{folder}: {one.name}, timm reads it and computes the same")
        if args.onnx:
            print(f"{folder / ONNX_FILE}: outputs differ by {write_onnx(one, folder / ONNX_FILE):.1e} at most")
        if args.push_to_hub:
            repo = f"{args.push_to_hub}-{role.value}"
            try:
                push_to_hf_hub(one.model, repo, model_args=one.arguments, safe_serialization=True)
            except (OSError, ValueError) as error:  # no network, no such user, no name of a repository
                raise InputError(f"--push-to-hub: {' '.join(str(error).split())}") from error
            print(f"pushed to {repo}")
    return 0


def load_exported(run: RunFolder, role: Role, best: bool = False) -> Exported:
    """Make a model of a run with the weights that the run evaluated.

    Raises:
        InputError: it has no such checkpoint, or the checkpoint does not fit.
    """
    folder = run.path if role is Role.BASE else run.path / role.value
    file = folder / ("model_best.pth.tar" if best else "last.pth.tar")
    if not file.is_file():
        raise RunError(f"{run.path} has no {file.relative_to(run.path)}")
    try:
        contents = read_checkpoint(file)
    except ValueError as error:
        raise RunError(str(error)) from error
    args = training_parser().parse_args([])
    vars(args).update(run.options)
    load_plugins(args.motivation_plugins)
    is_ema = "state_dict_ema" in contents and not args.model_ema_force_cpu
    state = clean_state_dict(contents["state_dict_ema" if is_ema else "state_dict"])
    state = {name: value for name, value in state.items() if ".aux_bn." not in name}  # timm: for training only
    if args.num_classes is None:
        args.num_classes = contents["args"].num_classes
    with fork_rng():
        model: Any = make_model(without_files(args), role)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"{file} does not fit: {' '.join(str(error).split())[:300]}") from error
    data = data_config(args, model)
    if args.val_input_size:
        data["input_size"] = tuple(args.val_input_size)
    when, what = "best epoch" if best else "last update", "moving average" if is_ema else "statistics as evaluated"
    return Exported(role, model_name(args, role), model.eval(), data, _arguments(args, role), f"of the {when}, {what}")


def _arguments(args: Namespace, role: Role) -> dict[str, Any]:
    arguments: dict[str, Any] = {"in_chans": channels(args)}
    arguments |= {"global_pool": args.gp, "bn_eps": args.bn_eps, **args.model_kwargs}
    if role is Role.MOTIVATED:
        arguments |= args.motivated_model_kwargs
    return {name: value for name, value in arguments.items() if value is not None}


def write_exported(one: Exported, run: RunFolder, folder: Path) -> None:
    """Write weights, configuration and model card, and read them back.

    Raises:
        RuntimeError: the model that timm reads back does not compute the same.
    """
    config: Any = one.model.pretrained_cfg
    for name in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"):
        if name in one.data:
            config[name] = one.data[name]
    config["num_classes"] = one.model.num_classes
    for name in ("test_input_size", "test_crop_pct", "label_names", "license"):
        config.pop(name, None)  # of weights that were published under this name
    save_for_hf(one.model, str(folder), model_args=one.arguments, safe_serialization=True)
    (folder / "README.md").write_text(model_card(one, run))
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = _sample_images(one)
    with torch.no_grad():
        if not torch.equal(again(images), one.model(images)):
            raise RuntimeError(f"{folder} does not compute what the run's checkpoint computes")


def _sample_images(one: Exported, count: int = 2) -> Tensor:
    """Return noise ``[count, C, H, W]`` of the size that the model was evaluated at."""
    return torch.randn(count, *one.data["input_size"], generator=torch.Generator().manual_seed(0))


def write_onnx(one: Exported, file: Path) -> float:
    """Write a model as ONNX with a free batch size, and compare outputs.

    Returns:
        The largest difference of an output, relative to the largest output.

    Raises:
        InputError: torch cannot export this model.
    """
    import onnxruntime

    try:
        torch.onnx.export(
            one.model, (_sample_images(one),), str(file), input_names=["images"], output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}}, dynamo=False,
        )  # fmt: skip
    except RuntimeError as error:
        raise InputError(f"--onnx: {one.name} cannot be exported: {' '.join(str(error).split())[:300]}") from error
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    images = _sample_images(one, 3)
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.no_grad():
        expected = one.model(images)
    return float((found - expected).abs().max() / expected.abs().max())


def model_card(one: Exported, run: RunFolder) -> str:
    """Return a model card: the data, accuracy, cost and k, and how to load the model."""
    result, options = run.result or {}, run.options
    trained = ""
    if run.motivated:
        place = (
            f"the motivated model around {run.base}" if one.role is Role.MOTIVATED else f"the base in {run.motivated}"
        )
        trained = f"\nTrained as {place} by motivated training (arXiv 2602.21064), {run.condition_text}."
    rows = {
        "data": options.get("dataset") or "a folder of images",
        "classes": one.model.num_classes,
        "image size": " x ".join(map(str, one.data["input_size"])),
        "epochs": options.get("epochs"),
    }
    best = "best" if one.role is Role.BASE else "best_motivated"
    for which, label in (("last", "last epoch"), (best, "best epoch, selected on the validation data")):
        if metrics := (result.get(which) or {}).get(one.role.value):
            rows[f"top-1, {label}"] = f"{metrics['top1']:.2f} %"
    if "flops" in result:
        rows["forward pass, training size"] = f"{readable(result['flops'][one.role.value])} {run.convention}"
        rows["average forward pass in training"] = f"{readable(result['average_flops'])} {run.convention}"
        rows["share of motivated updates"] = f"{result['share']:.4f}"
    rows["weights"] = one.weights
    return MODEL_CARD.format(
        name=one.name,
        trained=trained,
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        registration="import motivation.models  # registers the name with timm\n" * one.name.endswith(NOT_IN_TIMM),
    )


MODEL_CARD = """\
---
tags:
- image-classification
- timm
library_name: timm
---

# {name}
{trained}

| | |
|---|---|
{rows}

```python
{registration}import timm

model = timm.create_model('local-dir:PATH', pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
```
"""
