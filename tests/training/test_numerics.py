"""``--check-numerics`` names what is not finite first; without a fault it changes nothing."""

import copy
import math

import pytest
import torch
from support.program import assert_equal, load
from support.toys import Toy, batch, learner, snapshot

from motivation.training.finite import NotFiniteError
from motivation.training.learner import Learner, UpdateRule
from motivation.training.numerics import CheckedLearner


def checked(model, rule=None):
    one = learner(model, rule=rule)
    one = CheckedLearner(one.role, one.task, one.optimizer, None, one.rule)
    one.place = lambda: "update 7"
    return one


def poison(tensor):
    with torch.no_grad():
        tensor.view(-1)[0] = math.inf


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("norm.bias", "the output of norm (BatchNorm2d) is not finite in update 7; neither is its bias"),
        ("blocks.1.weight", "the output of blocks.1 (Linear) is not finite in update 7; neither is its weight"),
        ("images", "an image of the batch is not finite in update 7"),
    ],
)
def test_the_first_output_that_is_not_finite_is_named(place, message):
    one, data = checked(Toy()), batch()
    one.train([data])
    poison(data.images if place == "images" else one.model.get_parameter(place))
    with pytest.raises(NotFiniteError) as caught:
        one.train([data])
    assert str(caught.value) == f"--check-numerics: {message}"


class Unsteady(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


def unsteady():
    model = Toy()
    model.blocks[1].register_forward_hook(lambda module, inputs, output: Unsteady.apply(output))
    return model


def test_the_parameter_whose_gradient_is_the_first_of_the_backward_pass_is_named_before_the_step():
    one = checked(unsteady())
    before = one.model.head.weight.clone()
    with pytest.raises(
        NotFiniteError, match=r"the gradient of blocks\.1\.bias is not finite in update 7; nor are 7 more"
    ):
        one.train([batch()])
    assert torch.equal(one.model.head.weight, before)


def test_gradients_that_overflow_are_the_gradient_scalers_matter():
    one = checked(unsteady(), UpdateRule(scaler=torch.amp.GradScaler("cpu")))
    one.train([batch()])
    assert one.rule.scaler.get_scale() < 2.0**16


def test_a_copy_of_the_model_is_no_copy_of_the_learner():
    model = checked(Toy()).model
    hooks, copied = (list(one.stem._forward_hooks.values()) for one in (model, copy.deepcopy(model)))
    assert copied == hooks  # under DDP a learner cannot be copied while its model is


def test_only_updates_are_checked():
    one = checked(Toy())
    poison(one.model.head.weight)
    assert not one.eval_model(batch().images).isfinite().all()


def test_without_a_fault_the_updates_have_the_same_bits():
    plain, same = learner(Toy()), checked(Toy())
    for one in (plain, same):
        for seed in range(3):
            one.train([batch(seed)])
    assert_equal(snapshot(same), snapshot(plain))


def test_a_run_that_overflows_ends_with_code_3(train, monkeypatch, capsys):
    real, steps = Learner._step, []

    def step(self):
        real(self)
        steps.append(self)
        if len(steps) == 7:  # the second update of epoch 1
            poison(self.model.layer2[0].conv2.weight)

    monkeypatch.setattr(Learner, "_step", step)
    run = train("--check-numerics", code=3)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "the output of layer2.0.conv2 (Conv2d) is not finite in epoch 1, update 2 (base model)" in line
    assert line.endswith(f"the last good checkpoint is {run}/last.pth.tar")
    assert load(run / "last.pth.tar")["epoch"] == 0
