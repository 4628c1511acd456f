"""Flags of small runs, readers of what runs write, and comparisons."""

import csv
from pathlib import Path

import torch

from motivation.data.datasets import SklearnDigits

ROOT = Path(__file__).parents[2]
"""The repository."""
FILES = ROOT / "tests" / "files"
"""Data that tests compare with."""

DIGITS = [
    "--dataset", "sklearn/digits", "--input-size", "1", "8", "8", "--num-classes", "10", "--mean", "0.3",
    "--std", "0.36",
    "--device", "cpu", "-b", "20", "-vb", "15", "-j", "0", "--epochs", "2", "--lr", "0.05", "--warmup-epochs", "0",
    "--model", "resnet8_cifar", "--train-pad", "1", "--hflip", "0", "--color-jitter", "0", "--smoothing", "0",
]  # fmt: skip
"""A run of 5 updates an epoch on `FewDigits`."""

MOTIVATED = ["--motivated-model", "resnet14_cifar", "--motivation-k", "1"]

FINETUNE_DIGITS = [
    "--dataset", "sklearn/digits", "--device", "cpu", "-b", "20", "-vb", "15", "-j", "0", "--epochs", "1",
    "--aa", "", "--mixup", "0", "--cutmix", "0", "--aug-repeats", "0", "--train-pad", "1", "--hflip", "0",
]  # fmt: skip
"""The same for `finetune.py`, without the augmentation of its recipe."""


class FewDigits(SklearnDigits):
    """A twelfth of scikit-learn's digits: 119 images for training, 30 for validation."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.images, self.targets = self.images[9::12], self.targets[9::12]


def load(path):
    """A checkpoint's contents."""
    from motivation.training.checkpoint import read_checkpoint

    return read_checkpoint(path)


def assert_equal(ours, theirs, where=""):
    """Same nested values, tensors bit for bit."""
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype, where
        assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            assert_equal(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), where
        for index, (a, b) in enumerate(zip(ours, theirs)):
            assert_equal(a, b, f"{where}/{index}")
    else:
        assert ours == theirs or (ours != ours and theirs != theirs), f"{where}: {ours} != {theirs}"


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def built(output, *flags):
    """A run that is made and not trained, in the folder ``run``."""
    from motivation.build.run import build_run
    from motivation.options.parse import parse

    return build_run(*parse([*DIGITS, "--output", str(output), "--experiment", "run", *map(str, flags)]))


def part_and_whole(train, *flags, epochs=4, half=2):
    whole = train(*flags, "--epochs", epochs, name="whole")
    train(*flags, "--epochs", half, name="part")
    last = whole.parent / "part" / "last.pth.tar"
    return whole, train(*flags, "--epochs", epochs, "--resume", last, name="part")


def assert_same_run(whole, part):
    assert rows(whole / "updates.csv") == rows(part / "updates.csv")
    for file in ("last.pth.tar", "motivated/last.pth.tar", "model_best.pth.tar", "motivated/model_best.pth.tar"):
        a, b = load(whole / file), load(part / file)
        for key in a.keys() - {"args", "motivation"}:
            assert_equal(b[key], a[key], f"{file}/{key}")
    a, b = (load(run / "last.pth.tar")["motivation"] for run in (whole, part))
    for state in (a, b):  # one run may have gone back
        del state["generation"]
    for state in (*a["records"], *b["records"]):
        del state["elapsed_s"]
    assert_equal(b, a, "motivation")
    for one, other in zip(rows(whole / "summary.csv"), rows(part / "summary.csv"), strict=True):
        assert (
            one.items() - {"seconds": one["seconds"]}.items() == other.items() - {"seconds": other["seconds"]}.items()
        )
