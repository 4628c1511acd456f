"""A process is started on the device that was asked for."""

import pytest
import torch
from support.program import DIGITS, built

from motivation.build.ranks import Ranks, facts_of_options
from motivation.build.runtime import start_runtime
from motivation.options.derived import device_of
from motivation.options.parse import parse


def test_any_accelerator_is_made_the_current_one(monkeypatch):
    current = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    for device in ("xpu:1", "xpu", "cpu"):
        start_runtime(parse([*DIGITS, "--device", device])[0], Ranks())
    assert current == [torch.device("xpu:1")]


@pytest.mark.parametrize(
    ("there", "chosen"), [(torch.device("cuda"), "cuda"), (torch.device("mps"), "mps"), (None, "cpu")]
)
def test_auto_is_the_accelerator_that_is_there_or_the_cpu_and_is_compared_between_ranks(there, chosen, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: there)
    args = parse(["--device", "auto"])[0]
    assert device_of(args) == facts_of_options(args)["--device"] == chosen


def test_what_auto_stands_for_is_said_and_args_yaml_keeps_the_word(tmp_path, caplog):
    caplog.set_level("INFO")
    run = built(tmp_path, "--device", "auto")
    assert run.device.type == "cpu" or torch.accelerator.is_available()
    assert f"Training on {run.device} (--device auto) in float32" in caplog.text
    assert "device: auto" in (tmp_path / "run" / "args.yaml").read_text()
