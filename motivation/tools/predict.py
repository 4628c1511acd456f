"""``python -m motivation predict SOURCE FOLDER``: what saved models say of images, and where the two disagree.

The images are prepared as for the validation of the run; they need no labels.
"""

from __future__ import annotations

import csv
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motivation.build.datasets import image_mode
from motivation.build.loaders import make_validator
from motivation.build.models import patch_size
from motivation.data.image_files import UnlabelledImages
from motivation.data.workers import end_workers
from motivation.errors import InputError, print_text, writing
from motivation.method.records import Role
from motivation.options.parse import OptionParser
from motivation.tools.evaluation import add_source_flags, load_models, place, start, telling_data_errors
from motivation.tools.saved_models import Source, evaluation_config, find_source
from motivation.tools.tables import text_table
from motivation.training.evaluate import Validator
from motivation.training.run_files import refuse_run_file


def make_parser() -> ArgumentParser:
    """Return the parser of this command."""
    parser = OptionParser(
        prog="python -m motivation predict",
        description="Write the class of each image by both models of a run, those on which they disagree first.",
    )
    add_source_flags(parser)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="of images, at any depth; no labels are needed")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, default=Path("predictions.csv"), help="the table of predictions, as CSV"
    )
    return parser


@dataclass
class Predictions:
    """Hold the classes that one model gives to images, and how fast it was.

    Attributes:
        classes: numbers of the most likely class, ``[N]``, in the order of `Seen.images`.
        probabilities: of these classes by softmax, ``[N]``.
        images, seconds: how many went through the model, and how long its forward passes took.
    """

    classes: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Return the speed of the forward passes, without reading images and copying them to the device."""
        return self.images / self.seconds


@dataclass(frozen=True)
class Seen:
    """Hold the predictions of all models for the images of a folder.

    Attributes:
        images: numbers of those that could be read.
        unreadable: numbers of the others.
        by_role: what each model says of ``images``.
    """

    images: list[int]
    unreadable: list[int]
    by_role: dict[Role, Predictions]

    def disagrees(self, position: int) -> bool:
        """Return True if the models name different classes for one of ``images``."""
        return len({one.classes[position] for one in self.by_role.values()}) > 1

    def order(self) -> list[int]:
        """Return the positions in ``images``: those of disagreement first, then by the lower of the probabilities."""

        def rank(position: int) -> tuple[bool, float]:
            return not self.disagrees(position), min(one.probabilities[position] for one in self.by_role.values())

        return sorted(range(len(self.images)), key=rank)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the predictions, and print how fast and how different the models are.

    Raises:
        InputError: the models or the images cannot be used.
    """
    own = make_parser().parse_args(argv)
    refuse_run_file(own.out.resolve())
    refuse_other_file(own.out)
    source = find_source(own.source, own.best, own.trust)
    if not own.trust:
        source.args.device_modules = None
    models = load_models(source)
    config = evaluation_config(source.args, own.source)
    dataset = UnlabelledImages(own.folder, image_mode(source.args, config["input_size"]))
    if not dataset.files:
        raise InputError(f"there are no images in {own.folder}")
    names = source.label_names
    if names is not None and len(names) != next(iter(models.values())).num_classes:
        names = None
    seen = predict(source, models, dataset, own, config)
    for index in seen.unreadable:
        print_text(f"left out: {dataset.files[index]}: {dataset.why_unreadable(index)}", sys.stderr)
    if not seen.images:
        raise InputError(f"none of the {len(dataset)} images in {own.folder} can be read")
    write_table(own.out, seen, dataset, names)
    print_text(summary(source, seen, own))
    return 0


def refuse_other_file(path: Path) -> None:
    """Refuse to write over a file that is no table of predictions.

    Raises:
        InputError: it is one.
    """
    if not path.is_file():
        return
    with writing(path), open(path, "rb") as file:
        header = file.readline()
    if header and not header.startswith(b"file,"):
        raise InputError(f"--out: {path} is there and no table of predictions; give another name")


def predict(
    source: Source, models: dict[Role, nn.Module], dataset: UnlabelledImages, own: Namespace, config: dict[str, Any]
) -> Seen:
    """Run the models on all images.

    Args:
        source: of the models.
        models: by role, on the CPU.
        dataset: the images.
        own: the command's flags.
        config: timm's data configuration of the run.

    Raises:
        InputError: the device is not there, or images cannot be prepared for these models.
    """
    args = source.args
    args.tta, args.data_on_device = 0, False  # images are not views of the same one, and may be many
    runtime = start(own, args)
    patches = patch_size(next(iter(models.values())))
    placed = {role: place(model, args, runtime) for role, model in models.items()}
    validator = make_validator(args, runtime, config, patches, None, dataset)
    seen = Seen([], [], {role: Predictions() for role in placed})
    try:
        with telling_data_errors(), torch.inference_mode():
            for images, numbers in validator.loader:
                images, numbers = validator.prepare(images, numbers)
                kept = (numbers >= 0).nonzero().flatten()
                seen.images.extend(numbers[kept].tolist())
                seen.unreadable.extend((-1 - numbers[numbers < 0]).tolist())
                for role, model in placed.items():
                    _add(seen.by_role[role], validator, model, images, kept)
    finally:
        end_workers(validator.loader)
    return seen


def _add(found: Predictions, validator: Validator, model: nn.Module, images: Any, kept: Tensor) -> None:
    """Run a model on a batch; on the first one twice, as the first pass of a model is slow."""
    if not found.images:
        validator.forward(model, images)
    _wait_for(validator.device)
    began = time.perf_counter()
    output = validator.forward(model, images)
    _wait_for(validator.device)
    found.seconds += time.perf_counter() - began
    found.images += output.shape[0]
    likely = output.float().softmax(dim=1)[kept].max(dim=1)
    found.classes.extend(likely.indices.tolist())
    found.probabilities.extend(likely.values.tolist())


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def write_table(path: Path, seen: Seen, dataset: UnlabelledImages, names: list[str] | None) -> None:
    """Write a line for each image.

    Args:
        path: of the CSV file.
        seen: the predictions.
        dataset: the images.
        names: of the classes; None to write their numbers.
    """
    header = ["file", *(f"{role.value}_{what}" for role in seen.by_role for what in ("class", "probability"))]
    # names of files that are not valid text keep their bytes
    with writing(path), open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for position in seen.order():
            row: list[object] = [dataset.files[seen.images[position]]]
            for one in seen.by_role.values():
                number = one.classes[position]
                row += [number if names is None else names[number], f"{one.probabilities[position]:.6f}"]
            writer.writerow(row)


def summary(source: Source, seen: Seen, own: Namespace) -> str:
    """Return how fast the models are, and on how many images they disagree."""
    rows = [["", "model", "weights", "images/s"]]
    for saved in source.models:
        speed = f"{seen.by_role[saved.role].images_per_second:,.0f}"
        rows.append([saved.role.value, saved.name, saved.weights, speed])
    count = len(seen.images)
    lines = [text_table(rows), "", f"{count:,} image{'s' * (count != 1)}: {own.out}"]
    if len(seen.by_role) > 1:
        different = sum(map(seen.disagrees, range(count)))
        lines.append(
            f"The models disagree on {different:,} of them ({100 * different / count:.1f} %), which come first."
        )
    if seen.unreadable:
        lines.append(
            f"{len(seen.unreadable):,} could not be read and {'is' if len(seen.unreadable) == 1 else 'are'} left out."
        )
    return "\n".join(lines)
