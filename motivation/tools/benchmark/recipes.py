"""Give the flags of each program that is measured, which timm's script takes too, and make data to train on."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).resolve().parents[2]
OUR_SCRIPT = PACKAGE / "__main__.py"
PROGRAMS = ("timm", "plain", "larger", "motivated", "padded", "on-device")


@dataclass(frozen=True)
class Recipe:
    """Two models, the flags they are trained with, and their data.

    Attributes:
        flags: separated by spaces.
        batch_size: images per update on a GPU, and on a CPU, where none is asked for.
        make_images: writes this many training images, and a few to validate on, into a new folder.
    """

    base: str
    larger: str
    flags: str
    batch_size: tuple[int, int]
    make_images: Callable[[Path, int], None]


def plain_flags(recipe: Recipe, model: str, folder: Path, device: str, batch_size: int, workers: int) -> list[str]:
    """Return the flags that train one model on the images in ``folder/data``; both scripts take them.

    Ours pins memory on CUDA in any case, timm's script only when it is told to.
    """
    return [
        f"--model={model}", f"--data-dir={folder / 'data'}", f"--output={folder / 'out'}", f"--device={device}",
        f"--batch-size={batch_size}", f"--workers={workers}", *["--pin-mem"] * device.startswith("cuda"),
        *recipe.flags.split(),
    ]  # fmt: skip


def motivated_flags(recipe: Recipe, k: int) -> list[str]:
    """Return the flags that add the larger model to a run of the base."""
    return [f"--motivated-model={recipe.larger}", f"--motivation-k={k}", "--motivation-condition=loss"]


def program_flags(name: str, base: Sequence[str], recipe: Recipe, k: int) -> list[str]:
    """Return the flags of one of `PROGRAMS`, given those of a plain run of the base."""
    more = {
        "larger": [f"--model={recipe.larger}"],  # the last one counts
        "motivated": motivated_flags(recipe, k),
        "padded": ["--train-pad=4"],
        "on-device": ["--train-pad=4", "--data-on-device"],
    }
    return [*base, *more.get(name, []), f"--experiment={name}"]


def make_small_images(folder: Path, count: int) -> None:
    """Write grey noise of 32 x 32 pixels in MNIST's file format."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for split, images in {"train": count, "t10k": 256}.items():
        pixels = numbers.integers(0, 256, (images, 32, 32), dtype=np.uint8)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, images, 32, 32) + pixels.tobytes())
        labels = numbers.integers(0, 10, images, dtype=np.uint8)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, images) + labels.tobytes())


def make_jpegs(folder: Path, count: int, different: int = 64) -> None:
    """Write JPEGs of 500 x 375 pixels and about 100 kB, as in ImageNet; a few different ones under many names."""
    from PIL import Image

    numbers = np.random.default_rng(0)
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for number in range(different):
        coarse = Image.fromarray(numbers.integers(0, 256, (47, 63, 3), dtype=np.uint8)).resize((500, 375))
        noise = numbers.normal(0, 12, (375, 500, 3))
        image = Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))
        image.save(originals / f"{number}.jpg", quality=85)
    for split, images in {"train": count, "validation": 16}.items():
        for number in range(images):
            place = folder / split / f"class{number % 4}"
            place.mkdir(parents=True, exist_ok=True)
            os.link(originals / f"{number % different}.jpg", place / f"{number}.jpg")


RECIPES = {
    "resnet20": Recipe(
        "resnet20_cifar",
        "resnet32_cifar",
        "--dataset torch/mnist --train-split train --val-split test --in-chans 1 --num-classes 10 "
        "--input-size 1 32 32 --mean 0.5 --std 0.25 --opt momentum --lr 0.1 --weight-decay 5e-4 "
        "--sched cosine --epochs 200 --warmup-epochs 0 --hflip 0.5 --color-jitter 0 --smoothing 0",
        (128, 128),
        make_small_images,
    ),
    "resnet50-a3": Recipe(
        "resnet50",
        "resnet101",
        "--train-split train --val-split validation --num-classes 1000 --input-size 3 160 160 --crop-pct 0.95 "
        "--interpolation bicubic --opt lamb --lr 8e-3 --weight-decay 0.02 --sched cosine --epochs 100 "
        "--warmup-epochs 5 --warmup-lr 1e-6 --bce-loss --bce-target-thresh 0.2 --mixup 0.1 --cutmix 1.0 "
        "--aa rand-m6-mstd0.5-inc1 --smoothing 0 --reprob 0",
        (256, 8),
        make_jpegs,
    ),
}
