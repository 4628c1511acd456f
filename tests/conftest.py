"""Fixtures: clean random and global states, and the program run in this process on small data."""

import logging

import pytest
import torch

from motivation.method.random_states import random_states, set_random_states
from motivation.tools.train import main

DIGITS = [
    "--dataset", "sklearn/digits", "--input-size", "1", "8", "8", "--num-classes", "10", "--mean", "0.3",
    "--std", "0.36",
    "--device", "cpu", "-b", "240", "-vb", "180", "-j", "0", "--epochs", "2", "--lr", "0.05", "--warmup-epochs", "0",
    "--model", "resnet8_cifar", "--train-pad", "1", "--hflip", "0", "--color-jitter", "0", "--smoothing", "0",
]  # fmt: skip
"""A run of 5 updates an epoch on scikit-learn's digits at 8 px."""

MOTIVATED = ["--motivated-model", "resnet14_cifar", "--motivation-k", "1"]


@pytest.fixture(autouse=True)
def _clean_state():
    states, threads = random_states(), torch.get_num_threads()
    handlers = list(logging.getLogger().handlers)
    yield
    set_random_states(states)
    torch.set_num_threads(threads)
    logging.getLogger().handlers = handlers
    torch._dynamo.reset()


@pytest.fixture
def train(tmp_path):
    """``train(*flags, name=...)`` trains on digits and returns the run's folder; flags go over `DIGITS`."""

    def run(*flags, name="run", code=0):
        argv = [*DIGITS, "--output", str(tmp_path), "--experiment", name, *map(str, flags)]
        assert main(argv) == code
        return tmp_path / name

    return run


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
