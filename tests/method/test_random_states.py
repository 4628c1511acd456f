"""Random states of all generators are restored, on any accelerator."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from motivation.method.random_states import fork_rng, get_rng_state, rng_from_dict, rng_to_dict, set_rng_state


class FakeDevice(SimpleNamespace):
    """torch's module of an accelerator, of which only the generator is there."""

    def __init__(self, **answers):
        super().__init__(state=torch.zeros(2, dtype=torch.uint8), is_available=lambda: True, **answers)

    def get_rng_state(self):
        return self.state.clone()

    def set_rng_state(self, state):
        self.state = state.clone()


def use(monkeypatch, name, **answers):
    device = FakeDevice(**answers)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(name))
    monkeypatch.setattr(torch, "get_device_module", lambda accelerator: device)
    return device


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


@pytest.mark.parametrize("name", ["cuda", "xpu", "mps"])  # MPS has nothing to initialize
def test_a_fork_and_a_checkpoint_restore_the_generator_of_the_accelerator(name, monkeypatch):
    device = use(monkeypatch, name, **({} if name == "mps" else {"is_initialized": lambda: True}))
    saved = rng_to_dict(get_rng_state())
    with fork_rng():
        inside = drawn()
        device.state += 1
    assert drawn() == inside
    assert not device.state.any()
    device.state += 1
    set_rng_state(rng_from_dict(saved))
    assert saved.keys() == {"python", "numpy", "torch", name}
    assert not device.state.any()
    assert drawn() == inside


def test_an_accelerator_that_is_not_in_use_is_not_touched(monkeypatch):
    device = use(monkeypatch, "cuda", is_initialized=lambda: False)
    of_a_gpu = rng_to_dict(get_rng_state()) | {"cuda": torch.ones(2, dtype=torch.uint8)}
    assert get_rng_state().device is None
    set_rng_state(rng_from_dict(of_a_gpu))
    assert not device.state.any()


def test_the_state_of_another_accelerator_is_left_out(monkeypatch):
    of_a_gpu = rng_to_dict(get_rng_state()) | {"cuda": torch.ones(2, dtype=torch.uint8)}
    device = use(monkeypatch, "xpu", is_initialized=lambda: True)
    expected = drawn()
    set_rng_state(rng_from_dict(of_a_gpu))
    assert drawn() == expected
    assert not device.state.any()
