"""A process is started on the device that was asked for."""

import os

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
    monkeypatch.setattr(torch, "zeros", lambda *_, device: device)  # to see whether the device is there
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


def test_a_long_warm_up_and_more_workers_than_cores_are_said_in_our_words(tmp_path, caplog, monkeypatch, recwarn):
    monkeypatch.setattr("motivation.build.runtime.usable_cores", lambda: 1)
    caplog.set_level("INFO")
    built(tmp_path, "--epochs", "4", "--warmup-epochs", "1", "-j", "9")
    assert "Warm-up takes 1 of these epochs; --warmup-epochs 0 leaves it out." in caplog.text
    assert "--workers 9: this process has 1 CPU core(s)" in caplog.text
    assert not [warning for warning in recwarn if "worker processes" in str(warning.message)]


def test_what_auto_stands_for_is_said_and_args_yaml_keeps_the_word(tmp_path, caplog):
    caplog.set_level("INFO")
    run = built(tmp_path, "--device", "auto")
    assert run.device.type == "cpu" or torch.accelerator.is_available()
    assert f"Training on {run.device} (--device auto) in float32" in caplog.text
    assert "device: auto" in (tmp_path / "run" / "args.yaml").read_text()


@pytest.fixture
def _settings(monkeypatch):
    """Put torch's global settings back, as other tests expect them."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, torch.utils.deterministic.fill_uninitialized_memory
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    cudnn.benchmark, cudnn.deterministic, torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.mark.usefixtures("_settings")
def test_deterministic_kernels_are_chosen_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cudnn = torch.backends.cudnn
    for flags, chosen in (([], False), (["--deterministic"], True)):
        start_runtime(parse([*DIGITS, *flags])[0], Ranks())
        assert torch.are_deterministic_algorithms_enabled() == cudnn.deterministic == chosen
        assert cudnn.benchmark != chosen
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == chosen


@pytest.mark.usefixtures("_settings")
def test_an_operation_that_has_no_deterministic_kernel_ends_the_run_in_one_line(train, monkeypatch, capsys):
    def step(self):
        torch.zeros(2).put_(torch.tensor([0, 0]), torch.ones(2))

    monkeypatch.setattr("motivation.training.learner.Learner._step", step)
    train("--deterministic", code=2)
    line = "error: --deterministic: put_ does not have a deterministic implementation"
    assert line in capsys.readouterr().err.splitlines()
