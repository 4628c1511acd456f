"""Fixtures: clean random and global states, and the program run in this process on small data."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from support.once import models_looked_at_once
from support.processes import ForkedRun
from support.program import DIGITS, FewDigits

from motivation.__main__ import main as command_main
from motivation.method import condition_registry
from motivation.method.random_states import get_rng_state, set_rng_state
from motivation.tools.train import main
from motivation.training import hooks


@pytest.fixture(autouse=True)
def _clean_state():
    state, threads = get_rng_state(), torch.get_num_threads()
    handlers = list(logging.getLogger().handlers)
    yield
    set_rng_state(state)
    torch.set_num_threads(threads)
    logging.getLogger().handlers = handlers
    torch._dynamo.reset()


class Eager:
    """The module torch, but for ``torch.compile``, which leaves functions as they are."""

    def __getattr__(self, name):
        return getattr(torch, name)

    @staticmethod
    def compile(function, **_):
        return function


@pytest.fixture(autouse=True, scope="session")
def _cheap_runs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("motivation.data.datasets.SklearnDigits", FewDigits)
        patch.setattr(
            sys.modules["timm.optim.kron"], "torch", Eager()
        )  # Kron compiles itself, which takes half a minute
        patch.setattr("os.fsync", lambda descriptor: None)  # no test pulls the plug
        with models_looked_at_once():
            yield


@pytest.fixture
def train(tmp_path):
    """``train(*flags, name=...)`` trains on digits and returns the run's folder; flags go over `DIGITS`."""

    def run(*flags, name="run", code=0):
        argv = [*DIGITS, "--output", str(tmp_path), "--experiment", name, *map(str, flags)]
        assert main(argv) == code
        return tmp_path / name

    return run


@pytest.fixture
def forgotten_plugins():
    """Forget after the test what plugins have registered."""
    registries = condition_registry._conditions, hooks._hooks
    before = [dict(registry) for registry in registries]
    yield
    for registry, kept in zip(registries, before):
        registry.clear()
        registry.update(kept)


@pytest.fixture
def forked_runs(monkeypatch):
    """Let sweeps fork their runs, which saves them the imports."""
    names = SimpleNamespace(Popen=ForkedRun, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr("motivation.tools.sweep.subprocess", names)


@pytest.fixture
def command(capsys):
    """``command("report", *words, code=0)`` runs a command of ``python -m motivation``; what it says on out and err."""

    def run(*words, code=0):
        try:
            ended = command_main(list(map(str, words)))
        except SystemExit as end:
            ended = end.code
        said = capsys.readouterr()
        assert ended == code, said.err
        return said

    return run
