"""Give the flags of each program that is measured, which timm's script takes too, and make data to train on."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motivation.versions import usable_cores

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


def default_workers(device_type: str) -> int:
    """Return the number of data workers: on a GPU all cores but two, so that it does not wait for data."""
    if device_type == "cpu":
        return 2  # they share the cores with the training
    return max(usable_cores() - 2, 2)


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


def make_jpegs(folder: Path, count: int, size: tuple[int, int] = (500, 375), different: int = 64) -> None:
    """Write JPEGs of noise, a few different ones under many names.

    Args:
        size: width and height; by default a file has about 100 kB, as in ImageNet.
    """
    from PIL import Image

    numbers = np.random.default_rng(0)
    originals = folder / "originals"
    originals.mkdir(parents=True)
    width, height = size
    for number in range(different):
        coarse = Image.fromarray(numbers.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
        noise = numbers.normal(0, 12, (height, width, 3))
        image = Image.fromarray((np.asarray(coarse.resize(size)) + noise).clip(0, 255).astype(np.uint8))
        image.save(originals / f"{number}.jpg", quality=85)
    for split, images in {"train": count, "validation": 16}.items():
        for number in range(images):
            place = folder / split / f"class{number % 4}"
            place.mkdir(parents=True, exist_ok=True)
            os.link(originals / f"{number % different}.jpg", place / f"{number}.jpg")


def make_tiny_jpegs(folder: Path, count: int) -> None:
    """Write JPEGs of 32 x 32 pixels, as small as the images of CIFAR."""
    make_jpegs(folder, count, size=(32, 32))


CIFAR_AT_224 = (
    "--train-split train --val-split validation --num-classes 100 --input-size 3 224 224 --hflip 0.5 --color-jitter 0 "
    "--smoothing 0"
)

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
    "vit": Recipe(
        "vit_tiny_patch16_224",
        "vit_small_patch16_224",
        f"{CIFAR_AT_224} --opt adamw --lr 2.5e-4 --weight-decay 0.05 --sched cosine --epochs 300 --warmup-epochs 20 "
        "--warmup-lr 1e-6 --aa rand-m9-mstd0.5-inc1 --reprob 0.25 --mixup 0.8 --cutmix 1.0 --drop-path 0",
        (64, 4),
        make_tiny_jpegs,
    ),
    "efficientnet": Recipe(
        "efficientnet_b1",
        "efficientnet_b2",
        f"{CIFAR_AT_224} --opt rmsproptf --opt-eps 1e-3 --momentum 0.9 --lr 0.01 --weight-decay 1e-4 --sched step "
        "--decay-epochs 2 --decay-rate 0.97 --epochs 350 --warmup-epochs 5 --warmup-lr 1e-6 "
        "--aa rand-m9-mstd0.5-inc1 --reprob 0 --mixup 0 --cutmix 0 --drop 0.2 --drop-path 0.2",
        (64, 4),
        make_tiny_jpegs,
    ),
}
