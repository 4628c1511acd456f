"""What is measured: flags that timm's script and ours both take, and made-up data to train on."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
OUR_SCRIPT = ROOT / "train_motivated.py"


@dataclass(frozen=True)
class Recipe:
    """Two models and how they are trained.

    Attributes:
        images: ``'small'`` (32 px, one file) or ``'files'`` (a folder of JPEGs of the size of ImageNet's).
        pads: whether its images could be cut by ``--train-pad``, which ``--data-on-device`` wants.
        batch_size: on a GPU, and on a CPU.
    """

    base: str
    larger: str
    images: str
    flags: tuple[str, ...]
    pads: bool
    batch_size: tuple[int, int]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


RECIPES = {
    "resnet20": Recipe(
        "resnet20_cifar",
        "resnet32_cifar",
        "small",
        _words(
            "--dataset torch/mnist --train-split train --val-split test --in-chans 1 --num-classes 10 "
            "--input-size 1 32 32 --mean 0.5 --std 0.25 --opt momentum --lr 0.1 --weight-decay 5e-4 "
            "--sched cosine --epochs 200 --warmup-epochs 0 --hflip 0.5 --color-jitter 0 --smoothing 0"
        ),
        True,
        (128, 128),
    ),
    "resnet50-a3": Recipe(
        "resnet50",
        "resnet101",
        "files",
        _words(
            "--train-split train --val-split validation --num-classes 1000 --input-size 3 160 160 --crop-pct 0.95 "
            "--interpolation bicubic --opt lamb --lr 8e-3 --weight-decay 0.02 --sched cosine --epochs 100 "
            "--warmup-epochs 5 --warmup-lr 1e-6 --bce-loss --bce-target-thresh 0.2 --mixup 0.1 --cutmix 1.0 "
            "--aa rand-m6-mstd0.5-inc1 --smoothing 0 --reprob 0"
        ),
        False,
        (256, 8),
    ),
}


def arguments(
    recipe: Recipe, model: str, data: Path, output: Path, device: str, batch_size: int, workers: int
) -> tuple[str, ...]:
    """The flags of a run; those of both scripts."""
    return (
        f"--data-dir={data}", f"--output={output}", "--experiment=run", f"--device={device}", f"--model={model}",
        f"--batch-size={batch_size}", f"--workers={workers}", *recipe.flags,
    )  # fmt: skip


def make_images(recipe: Recipe, folder: Path, count: int) -> None:
    """Noise to train on, ``count`` images, and a few to validate on."""
    if recipe.images == "small":
        _write_small(folder / "MNIST" / "raw", {"train": count, "t10k": 256})
    else:
        _write_files(folder, {"train": count, "validation": 16})


def _write_small(folder: Path, counts: dict[str, int]) -> None:
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for split, count in counts.items():
        images = numbers.integers(0, 256, (count, 32, 32), dtype=np.uint8)
        header = struct.pack(">4i", 0x803, count, 32, 32)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = numbers.integers(0, 10, count, dtype=np.uint8)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())


def _write_files(folder: Path, counts: dict[str, int], different: int = 64) -> None:
    """JPEGs of 500 x 375 pixels and about 100 kB; each of the different ones under many names."""
    from PIL import Image

    numbers = np.random.default_rng(0)
    made = folder / "made"
    made.mkdir(parents=True)
    for number in range(different):
        coarse = Image.fromarray(numbers.integers(0, 256, (47, 63, 3), dtype=np.uint8)).resize((500, 375))
        noise = numbers.normal(0, 12, (375, 500, 3))
        image = Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))
        image.save(made / f"{number}.jpg", quality=85)
    for split, count in counts.items():
        for number in range(count):
            place = folder / split / f"class{number % 4}"
            place.mkdir(parents=True, exist_ok=True)
            os.link(made / f"{number % different}.jpg", place / f"{number}.jpg")


def programs_of(
    recipe: Recipe, names: Sequence[str], timm_script: Path | None, shared: dict[str, tuple[str, ...]], k: int
) -> dict[str, tuple[Path, tuple[str, ...], int]]:
    """Script, arguments and number of models of each program by its name.

    Args:
        shared: by model name, the flags of a run of that model alone.
    """
    base, larger = shared[recipe.base], shared[recipe.larger]
    pad = ("--train-pad=4",) if recipe.pads else ()
    motivated = (f"--motivated-model={recipe.larger}", f"--motivation-k={k}", "--motivation-condition=loss")
    known = {
        "timm": (timm_script or Path(), base, 1),
        "plain": (OUR_SCRIPT, base, 1),
        "larger": (OUR_SCRIPT, larger, 1),
        "motivated": (OUR_SCRIPT, (*base, *motivated), 2),
        "padded": (OUR_SCRIPT, (*base, *pad), 1),
        "on-device": (OUR_SCRIPT, (*base, *pad, "--data-on-device"), 1),
    }
    return {name: known[name] for name in names}


PROGRAMS = ("timm", "plain", "larger", "motivated", "padded", "on-device")
