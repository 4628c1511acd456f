"""What is not finite is never saved: not the weights, not the EMA, not the optimizer's state."""

import math

import pytest
import torch
from support.program import MOTIVATED, load

from motivation.method.records import Role
from motivation.training.finite import are_finite, nonfinite_names
from motivation.training.records import EpochRecord, best_epoch

POISON = """
import torch
from motivation.training.hooks import Hook, register_hook
import motivation.training.learner as learner

real = learner.Learner._step
steps = []

def step(self):
    real(self)
    steps.append(self)
    if len(steps) == {number}:
        with torch.no_grad():
            next({tensors}).view(-1)[0] = float("nan")

learner.Learner._step = step
"""
TENSORS = {
    "weights": "self.model.parameters()",
    "ema": "self.ema.module.parameters()",
    "optimizer": "iter(next(iter(self.optimizer.state.values())).values())",
}


@pytest.mark.parametrize(
    ("tensors", "number", "flags"),
    [
        ("weights", 5, []),  # the last update of the last epoch
        ("ema", 5, ["--model-ema"]),
        ("optimizer", 5, []),
        ("weights", 3, [*MOTIVATED, "--recovery-interval", "3"]),
        ("weights", 5, [*MOTIVATED, "--motivation-condition", "always"]),
    ],
)
def test_a_step_that_overflows_behind_the_last_loss_is_not_saved(
    tensors, number, flags, train, tmp_path, monkeypatch, capsys
):
    import motivation.training.learner as learner

    monkeypatch.setattr(learner.Learner, "_step", learner.Learner._step)  # is put back afterwards
    (tmp_path / "poison.py").write_text(POISON.format(number=number, tensors=TENSORS[tensors]))
    plugin = ["--motivation-plugins", tmp_path / "poison.py"]
    run = train("--epochs", "1", "--max-nonfinite", "30", *flags, *plugin, code=3)
    assert not list(run.glob("**/*.pth.tar"))
    assert not (run / "result.json").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "not finite" in line


def test_the_error_says_what_is_not_finite_and_since_when(train, tmp_path, monkeypatch, capsys):
    import motivation.training.learner as learner

    monkeypatch.setattr(learner.Learner, "_step", learner.Learner._step)
    (tmp_path / "poison.py").write_text(POISON.format(number=10, tensors=TENSORS["weights"]))
    run = train("--epochs", "2", "--motivation-plugins", tmp_path / "poison.py", code=3)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "base.state_dict.conv1.weight" in line
    assert "not finite after update 4 of epoch 1; all were after update 4 of epoch 0" in line
    assert line.endswith(f"the last good checkpoint is {run}/last.pth.tar")
    assert load(run / "last.pth.tar")["epoch"] == 0


def test_one_read_tells_whether_all_tensors_are_finite():
    state = {"a": [torch.ones(2), torch.zeros(0)], "b": {"c": torch.tensor([1, 2]), "d": torch.ones(3).half()}}
    assert are_finite(state)
    state["b"]["d"][1] = math.inf
    assert not are_finite(state)
    assert nonfinite_names(state) == ["b.d"]
    assert are_finite({"text": "nan", "number": math.nan})  # only tensors are trained


@pytest.mark.parametrize("name", ["top1", "loss"])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_judged_loss_that_is_not_finite_ranks_below_everything(name, loss):
    judged = [{"loss": loss, "top1": 99.0}, {"loss": 2.0, "top1": 10.0}]
    records = [EpochRecord(epoch, 1.0, metrics, None, 0.1, None, None, 1.0) for epoch, metrics in enumerate(judged)]
    assert best_epoch(records, Role.BASE, name).epoch == 1
