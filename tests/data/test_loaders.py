"""A loader that is left inside an epoch goes on bit for bit; what cannot be read is named."""

import multiprocessing
import os
import random
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.program import DIGITS
from timm.data import resolve_data_config
from torch.utils.data import DataLoader
from torch.utils.data._utils import pin_memory

from motivation.build import loaders as build_loaders
from motivation.build.datasets import open_datasets
from motivation.build.loaders import make_loaders
from motivation.build.ranks import Ranks
from motivation.build.runtime import start_runtime
from motivation.data.loaders import CheckedLoader
from motivation.data.workers import dead_worker_text, end_workers
from motivation.method.random_states import get_rng_state, rng_from_dict, rng_to_dict, set_rng_state
from motivation.options.parse import parse

MIXED = ["--mixup", "0.5", "-b", "16", "--mixup-off-epoch", "1"]
CYCLED = ["--train-img-sizes", "8", "16", "--train-pad", "0", "--train-batches-per-epoch", "7"]
CYCLED += ["--train-batch-sizes", "33", "33"]
CASES = {
    "erasing": ["-j", "0", "--reprob", "0.5"],
    "no_prefetcher": ["--no-prefetcher", "--reprob", "0.4", *MIXED],
    "workers": ["-j", "2", "--reprob", "0.5", "--aa", "rand-m9", *MIXED],
    "accumulation": ["-j", "2", "-b", "10", "--grad-accum-steps", "3"],
    "sizes": ["-j", "0", "--train-img-sizes", "8", "16", "--train-pad", "0"],
    "images_over_again": ["-j", "0", "--reprob", "0.5", "--no-prefetcher", *CYCLED],
    "images_over_again_prefetched": ["-j", "0", "--reprob", "0.5", *CYCLED],
    "images_over_again_workers": ["-j", "1", "--reprob", "0.5", *CYCLED],
    "repeated": ["-j", "1", "--aug-repeats", "3"],
}
EPOCHS = 3

ROOT = Path(__file__).parents[2]


def feed_of(flags):
    args = parse([*DIGITS, *flags])[0]
    runtime = start_runtime(args, Ranks())
    return make_loaders(args, runtime, resolve_data_config(vars(args)), None, 10, open_datasets(args, 1)[0]).feed


def go_on(flags, seen, place=(0, None), stop=None, states=None):
    """Read up to ``stop``, in a process that begins at ``place``; returns what a checkpoint would hold there."""
    feed = feed_of(flags)
    epoch, updates = place
    if states is not None:
        random.seed(5)
        torch.rand(7)
        feed.load_state_dict(states["feed"], updates)
        set_rng_state(rng_from_dict(states["random"]))
    for number in range(epoch, EPOCHS):
        done = updates or 0
        updates = None
        for micro_batches in feed.updates(number):
            for batch in micro_batches:
                drawn = float(torch.rand(1)), random.random(), float(np.random.rand())
                seen.append((number, batch.index, batch.images.sum().item(), batch.targets.sum().item(), drawn))
            done += 1
            if (number, done) == stop:
                break
        if stop is not None and number == stop[0]:
            at = None if stop[1] is None else done
            states = {"feed": feed.state_dict(at), "random": rng_to_dict(get_rng_state())}
            end_workers(feed.loader)
            return states
    end_workers(feed.loader)
    return rng_to_dict(get_rng_state())


@pytest.mark.parametrize("flags", CASES.values(), ids=CASES)
def test_a_loader_goes_on_from_any_place_also_twice(flags):
    whole: list = []
    end = go_on(flags, whole)
    last = max(index for _, index, *_ in whole)
    for first, second in (((0, 1), (1, 2)), ((0, None), (2, 1)), ((1, 99), (2, 3))):
        parts: list = []
        states = go_on(flags, parts, stop=first)
        place = (first[0] + 1, None) if first[1] is None else first
        states = go_on(flags, parts, place, second, states)
        after = go_on(flags, parts, second, states=states)
        assert parts == whole, (first, second, last)
        assert str(after) == str(end)


@pytest.mark.parametrize("flags", [[], ["--mixup", "0.5"], ["--no-prefetcher"]])
def test_to_pin_a_batch_touches_its_tensors_and_not_each_number_of_the_random_states(flags, monkeypatch):
    loader = feed_of(["-j", "1", "-b", "16", *flags]).resumable
    batch = next(iter(loader.loader))
    touched = []

    def count(data, device=None, real=pin_memory.pin_memory):
        touched.append(type(data))
        return real(data, device)

    monkeypatch.setattr(pin_memory, "pin_memory", count)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    pinned = pin_memory.pin_memory(batch)
    end_workers(loader)
    assert len(touched) == 5  # the pair of batch and states, the batch, its images, its targets, the states
    assert pinned[1] == batch[1]
    assert isinstance(batch[1], bytes)


def test_all_loaders_pin_where_it_is_asked_for(monkeypatch):
    made = []

    def create(dataset, real=build_loaders.create_loader, **options):
        made.append(options["pin_memory"])
        return real(dataset, **options)

    monkeypatch.setattr(build_loaders, "create_loader", create)
    feed_of(["--pin-mem", "--motivation-bn-recalibrate", "1"])
    feed_of(["--pin-mem", "--no-pin-mem"])
    feed_of([])
    assert made == [True] * 3 + [False] * 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for it")
def test_a_worker_is_gone_when_its_parent_was_killed():
    """The pipe is closed when all that hold it are gone; the worker would hold it for a minute."""
    program = (
        "import os, time\n"
        "from motivation.data.workers import end_with_parent\n"
        "if not os.fork():\n"
        "    end_with_parent()\n"
        "    os.write(1, b'ready')\n"
        "    time.sleep(60)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert os.read(parent.stdout.fileno(), 5) == b"ready"
        parent.kill()
        assert select.select([parent.stdout], [], [], 30)[0]
        assert os.read(parent.stdout.fileno(), 5) == b""


def test_a_dead_worker_is_not_taken_for_an_image_that_cannot_be_read():
    """A process hears of its worker's end by a closed pipe or by a signal; the signal may come second, at any line."""
    ends = iter([ConnectionResetError("closed pipe"), RuntimeError("DataLoader worker (pid 7) is killed by signal")])

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            raise next(ends)

    with pytest.raises(RuntimeError, match=r"^DataLoader worker"):
        next(iter(CheckedLoader(DataLoader(Images(), batch_size=2), "train", 10)))


def test_a_dead_worker_is_found_behind_the_error_of_whoever_was_at_work():
    dead = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    hook = ValueError("a hook failed")
    hook.__cause__ = dead
    assert dead_worker_text(hook).startswith("DataLoader worker (pid 7) is killed by signal: Killed. Was the machine")
    assert dead_worker_text(ValueError("a hook failed")) is None


def test_a_closed_pipe_is_said_as_the_worker_that_died():
    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.zeros(1), 0

    class Iterator:
        def __init__(self):
            self._workers = [multiprocessing.get_context("fork").Process(target=os._exit, args=(3,))]
            self._workers[0].start()

        def __next__(self):
            raise ConnectionResetError("closed pipe")

    checked = CheckedLoader(DataLoader(Images(), batch_size=2), "train", 10)
    with pytest.raises(RuntimeError, match=r"^DataLoader worker \(pid \d+\) ended with exit code 3"):
        checked._next(Iterator(), 0)
