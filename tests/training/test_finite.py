"""What is not finite is never saved: not the weights, not the EMA, not the optimizer's state."""

import math
from types import SimpleNamespace

import pytest
import torch
from support.program import MOTIVATED, load
from support.toys import Toy, batch, learner

from motivation.method.records import DeferredScalar, Role, UpdateRecord
from motivation.training.finite import NonFiniteLossGuard, NotFiniteError, are_finite, nonfinite_names
from motivation.training.records import EpochRecord, best_epoch
from motivation.training.run import Run

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


@pytest.mark.parametrize(
    ("opt", "setting", "value", "dtype"),
    [
        ("sgd", "lr", 1e5, torch.float16),
        ("sgd", "weight_decay", 1e5, torch.float16),
        ("sgd", "momentum", 1e5, torch.float16),
        ("adamw", "lr", 3e38, torch.float32),
        ("nadamw", "betas", (1.0, 1.0), torch.float32),
    ],
)
def test_an_optimizer_whose_factors_overflow_is_an_error_of_numbers(opt, setting, value, dtype):
    one = learner(Toy().to(dtype), opt=opt)
    one.optimizer.param_groups[0][setting] = one.optimizer.param_groups[1][setting] = value
    noise = batch()
    noise.images = noise.images.to(dtype)
    with pytest.raises(NotFiniteError, match=r"the optimizer's step overflows .* smaller --lr"):
        one.train([noise]) and one.train([noise])


def test_any_other_error_of_a_step_flies(monkeypatch):
    one = learner(Toy())
    monkeypatch.setattr(one.optimizer, "step", lambda: torch.ones(2) + torch.ones(3))
    with pytest.raises(RuntimeError, match="size of tensor"):
        one.train([batch()])


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


def record(loss, update=0):
    return UpdateRecord(0, update, update + 1, Role.BASE, {"loss": DeferredScalar(loss)})


@pytest.mark.parametrize("late", [0, 2])
def test_losses_that_are_not_finite_are_counted_and_too_many_in_a_row_end_the_run(late, caplog):
    guard = NonFiniteLossGuard(3, late)
    for update, loss in enumerate([1.0, float("nan"), float("inf"), 2.0, float("nan"), float("nan")]):
        guard.watch(record(loss, update))
    guard.flush()
    assert (guard.count, guard.in_a_row) == (4, 2)
    assert caplog.text.count("in a row, at most 3") == 4
    assert "epoch 0, update 5 (base model) is nan: 2 in a row" in caplog.text
    with pytest.raises(NotFiniteError, match="the last 2 losses"):
        guard.finish()
    last = NonFiniteLossGuard(1, delay=1)
    last.watch(record(float("nan"), 6))
    with pytest.raises(NotFiniteError, match=r"1 losses in a row .*--max-nonfinite 1.* at epoch 0, update 6"):
        last.flush()


@pytest.mark.parametrize(("device", "motivated", "delay"), [("cpu", None, 0), ("cuda", object(), 0), ("cuda", None, 1)])
def test_ranks_stop_at_the_update_that_the_votes_were_cast_in_or_the_next(device, motivated, delay, monkeypatch):
    pair = SimpleNamespace(motivated=motivated)
    run = Run(pair, None, None, None, None, {}, 0, 1, world_size=2, device=torch.device(device))
    monkeypatch.setattr(Run, "_agree_on_signal", lambda self: setattr(self, "interrupted_by", 15))
    stopped = [run.interrupted_after_update(DeferredScalar(float(update == 3))) for update in range(3 + delay + 1)]
    assert stopped == [False] * (3 + delay) + [True]
