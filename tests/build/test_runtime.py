"""A process is started on the device that was asked for."""

import torch
from support.program import DIGITS

from motivation.build.ranks import Ranks
from motivation.build.runtime import start_runtime
from motivation.options.parse import parse


def test_any_accelerator_is_made_the_current_one(monkeypatch):
    current = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    for device in ("xpu:1", "xpu", "cpu"):
        start_runtime(parse([*DIGITS, "--device", device])[0], Ranks())
    assert current == [torch.device("xpu:1")]
