"""``python -m motivation export RUN OUT``: both models of a run, ready for use (paper: "train once, deploy twice").

``OUT/base`` and ``OUT/motivated`` are in timm's hub layout (safetensors, ``config.json``, a model card), so
``timm.create_model('local-dir:OUT/base', pretrained=True)`` loads them. The weights are those that the run evaluated:
its EMA if it evaluated that, with the BatchNorm statistics of the evaluation.
"""

from __future__ import annotations

import importlib.util
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub import errors as hub_errors
from safetensors import SafetensorError
from timm.models import model_entrypoint, save_for_hf
from torch import Tensor, nn

import motivation.models
from motivation.build.models import own_kwargs
from motivation.errors import InputError, print_text, writing
from motivation.method.records import Role
from motivation.options.derived import channels
from motivation.options.parse import OptionParser
from motivation.tools.saved_models import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    described,
    evaluation_config,
    load_trusted,
    saved_in_run,
    training_options,
)
from motivation.training.flops import readable
from motivation.training.run_folder import RunFolder, read_run

ONNX_FILE = "model.onnx"
FILES = (CONFIG_FILE, WEIGHTS_FILE, "README.md")
"""Files of an exported model, without ONNX."""


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
        metrics: ``top1`` and ``top5`` of these weights on the validation data; empty where they are not known.
        label_names: names of the classes; None where they are not known.
    """

    role: Role
    name: str
    model: nn.Module
    data: dict[str, Any]
    arguments: dict[str, Any]
    weights: str
    metrics: dict[str, float]
    label_names: list[str] | None


def make_parser() -> ArgumentParser:
    """Return the parser of this command."""
    parser = OptionParser(
        prog="python -m motivation export",
        description="Write both models of a run in timm's hub layout, with a model card each.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run of train_motivated.py or finetune.py")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for base/ and motivated/")
    parser.add_argument("--best", action="store_true", help="the best checkpoint instead of the last one")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import the run's plugins, which runs their code, and let timm read a hf-hub: or local-dir: model",
    )
    parser.add_argument("--onnx", action="store_true", help="also as ONNX, checked by comparing outputs")
    parser.add_argument(
        "--push-to-hub", metavar="REPO", help="also to the Hugging Face hub, as REPO-base and REPO-motivated"
    )
    parser.add_argument(
        "--license", help="licence of the weights, such as apache-2.0, for the model card; default none"
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
    load_trusted(training_options(run.options), run.path, args.trust)
    if (args.out / "args.yaml").is_file():
        raise InputError(f"OUT: {args.out} is the folder of a run; choose another")
    for role in Role:
        refuse_other_files(args.out / role.value)
    models = [load_exported(run, role, args.best) for role in (Role if run.motivated else [Role.BASE])]
    repos = make_repos(args.push_to_hub, models) if args.push_to_hub else {}
    for one in models:
        folder, repo = args.out / one.role.value, repos.get(one.role)
        source = f"hf-hub:{repo}" if repo else f"local-dir:{args.out.resolve().name}/{one.role.value}"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_exported(one, run, folder, args.license, source)
        print_text(f"{folder}: {one.name}, timm reads it and computes the same")
        if args.onnx:
            with writing(folder):
                difference = write_onnx(one, folder / ONNX_FILE)
            print_text(f"{folder / ONNX_FILE}: outputs differ by {difference:.1e} at most")
    for role, repo in repos.items():
        push(args.out / role.value, repo, [*FILES, ONNX_FILE] if args.onnx else FILES)
        print_text(f"pushed to {repo}")
    return 0


def refuse_other_files(folder: Path) -> None:
    """Refuse to write over files that this command has not written.

    Raises:
        InputError: there are some.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if not there:
        return
    try:
        described(folder / CONFIG_FILE)
    except InputError as error:
        raise InputError(f"OUT: {folder / there[0]} is there and not of an export; choose another folder") from error


@contextmanager
def _blaming_hub() -> Iterator[None]:
    """Turn the errors of the hub (no network, no token, no such user, no name of a repository) into an `InputError`."""
    try:
        yield
    except (OSError, ValueError, hub_errors.HTTPError) as error:
        raise InputError(f"--push-to-hub: {' '.join(str(error).split())}") from error


def make_repos(name: str, models: Sequence[Exported]) -> dict[Role, str]:
    """Make the repositories on the hub, before anything is written, so that nothing is half done without a network.

    Raises:
        InputError: the hub cannot be reached, or refuses.
    """
    with _blaming_hub():
        return {
            one.role: HfApi().create_repo(f"{name}-{one.role.value}", exist_ok=True).repo_id for one in models
        }  # fmt: skip


def push(folder: Path, repo: str, files: Sequence[str]) -> None:
    """Push files of a folder to a repository on the hub in one commit.

    Raises:
        InputError: the hub cannot be reached, or refuses.
    """
    with _blaming_hub():
        HfApi().upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=list(files), commit_message=f"Export {folder.name}"
        )


def load_exported(run: RunFolder, role: Role, best: bool = False) -> Exported:
    """Make a model of a run with the weights that the run evaluated.

    Raises:
        InputError: it has no such checkpoint, or the checkpoint does not fit.
    """
    args = training_options(run.options)
    saved = saved_in_run(run, args, role, best)
    model = saved.load()
    data = evaluation_config(args, run.path)
    if args.val_input_size:
        data["input_size"] = tuple(args.val_input_size)
    metrics = {name: value for name, value in saved.recorded.items() if name != "loss"}
    names = run.label_names if len(run.label_names or ()) == model.num_classes else None
    arguments = _arguments(args, role)
    return Exported(role, saved.name, model, data, arguments, saved.weights, metrics, names)


def _arguments(args: Namespace, role: Role) -> dict[str, Any]:
    arguments: dict[str, Any] = {"in_chans": channels(args)}
    arguments |= {"global_pool": args.gp, "bn_eps": args.bn_eps, **args.model_kwargs}
    if role is Role.MOTIVATED:
        arguments |= args.motivated_model_kwargs
    described = ("pretrained_cfg", "pretrained_cfg_overlay")  # by config.json itself
    return {name: value for name, value in own_kwargs(arguments).items() if value is not None and name not in described}


def write_exported(one: Exported, run: RunFolder, folder: Path, license: str | None, source: str) -> None:
    """Write weights, configuration and model card, and read them back.

    Args:
        one: the model.
        run: where it was trained.
        folder: exists already.
        license: of the weights; None for none.
        source: name by which timm will find the folder.

    Raises:
        InputError: the weights cannot be written.
        RuntimeError: the model that timm reads back does not compute the same.
    """
    config: Any = one.model.pretrained_cfg
    for name in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"):
        if name in one.data:
            config[name] = one.data[name]
    config["num_classes"] = one.model.num_classes
    for name in ("test_input_size", "test_crop_pct", "label_names", "license"):
        config.pop(name, None)  # of weights that were published under this name
    if license:
        config["license"] = license
    labels = {"label_names": one.label_names} if one.label_names else None
    try:
        save_for_hf(one.model, str(folder), labels, model_args=one.arguments, safe_serialization=True)
        (folder / "README.md").write_text(model_card(one, run, license, source), encoding="utf-8")
        again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except SafetensorError as error:  # a full disk, a path that is not UTF-8
        raise InputError(f"cannot write {folder}: {error}") from error
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


def model_card(one: Exported, run: RunFolder, license: str | None, source: str) -> str:
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
        "epochs": _epochs(run),
    }
    best = "best" if one.role is Role.BASE else "best_motivated"
    for which, label in (("last", "last epoch"), (best, "best epoch, selected on the validation data")):
        metrics = (result.get(which) or {}).get(one.role.value) or {}
        if metrics.get("top1") is not None:
            rows[f"top-1, {label}"] = f"{metrics['top1']:.2f} %"
    until = "" if run.completed else ", up to the interruption"
    if run.flops.get(one.role):
        rows["forward pass, training size"] = f"{readable(run.flops[one.role])} {run.convention}"
    if run.flops and run.average_flops and run.share is not None:
        rows[f"average forward pass in training{until}"] = f"{readable(run.average_flops)} {run.convention}"
        rows[f"share of motivated updates{until}"] = f"{run.share:.4f}"
    rows["weights"] = one.weights
    needs, registration = _registration(one.name, options.get("motivation_plugins") or [])
    return MODEL_CARD.format(
        header=_card_header(one, run, license),
        name=one.name,
        trained=trained,
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        needs=needs,
        registration=registration,
        source=source,
    )


def _epochs(run: RunFolder) -> str:
    """Return the epochs of a run in words: fewer than were asked for, if it was interrupted or stopped."""
    asked, trained = run.options.get("epochs"), run.epochs[-1]["epoch"] + 1 if run.epochs else None
    return f"{trained} of {asked}" if trained is not None and asked and trained < asked else str(asked)


def _card_header(one: Exported, run: RunFolder, license: str | None) -> str:
    """Return what the hub reads at the top of a card: tags, licence, data set, and the metrics of these weights."""
    options = run.options
    dataset = options.get("dataset") or Path(options.get("data_dir") or options.get("data") or "images").name
    split = "training, one fold" if options.get("folds") else options.get("val_split")
    results = [
        EvalResult(
            task_type="image-classification", task_name="Image classification", dataset_type=dataset,
            dataset_name=dataset, dataset_split=split, metric_type="accuracy", metric_name=f"top-{k} accuracy (%)",
            metric_value=round(one.metrics[f"top{k}"], 4),
        )
        for k in (1, 5)
        if f"top{k}" in one.metrics
    ]  # fmt: skip
    kind, _, name = dataset.partition("/")
    data = ModelCardData(
        library_name="timm",
        tags=["image-classification", "timm"],
        pipeline_tag="image-classification",
        license=license,
        datasets=[name] if kind in ("hfds", "hfids") else None,
        model_name=one.name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _registration(name: str, plugins: Sequence[str]) -> tuple[str, str]:
    """Return what must be installed for a model's name, in words, and the lines that register it with timm."""
    module = model_entrypoint(name).__module__ if timm.is_model(name) else "timm"
    if module.partition(".")[0] == "timm":
        return "", ""
    if module == motivation.models.__name__:
        return OTHER_MODEL.format(name=name, by="the module `motivation.models`"), OWN_REGISTRATION
    listing = ", ".join(f"`{plugin}`" for plugin in plugins)
    lines = f"from weight_maps.plugins import load_plugins\n\nload_plugins({list(plugins)!r})\n"
    return OTHER_MODEL.format(name=name, by=f"the training's own plugin ({listing})"), lines


OWN_REGISTRATION = "import motivation.models  # registers the name with timm\n"
OTHER_MODEL = """
`{name}` is not one of timm's models: {by} registers it.
The code below needs the program that has trained these weights, the package `motivation`; in a clone of it:

```
pip install .
```
"""

MODEL_CARD = """\
---
{header}
---

# {name}
{trained}

| | |
|---|---|
{rows}
{needs}
```python
{registration}import timm

model = timm.create_model({source!r}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
```
"""
