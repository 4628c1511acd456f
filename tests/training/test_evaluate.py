"""Validation metrics, and BatchNorm statistics that are re-estimated for it."""

from contextlib import nullcontext

import pytest
import torch
from support.toys import Toy
from support.waits import HostReads
from torch import nn

from motivation.training.batchnorm import Recalibration
from motivation.training.evaluate import Validator


def validator(loader, **options):
    return Validator(loader, torch.device("cpu"), nullcontext, **options)


class Identity(nn.Module):
    def forward(self, x):
        return x


def test_metrics_count_every_image_once():
    scores = torch.eye(10)[torch.tensor([0, 1, 2, 3, 4, 5, 6])] * 9
    targets = torch.tensor([0, 1, 2, 9, 9, 9, 9])
    metrics = validator([(scores[:4], targets[:4]), (scores[4:], targets[4:])]).validate(Identity())
    assert metrics["top1"] == pytest.approx(100 * 3 / 7)
    expected = nn.functional.cross_entropy(scores, targets).item()
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)
    assert list(metrics) == ["loss", "top1", "top5"]


def test_views_of_an_image_are_averaged():
    scores = torch.tensor([[9.0, 0, 0], [0, 5, 0], [0, 9, 0], [0, 0, 5], [0, 0, 1.0]])
    targets = torch.tensor([0, 0, 1, 1, 2])
    assert validator([(scores, targets)], tta=2).validate(Identity())["top1"] == 100


def recalibration(batches, number):
    loader = [(images, None) for images in batches]
    return Recalibration(loader, number, lambda images: images, nullcontext)


def test_re_estimated_statistics_are_the_cumulative_average_and_are_put_back():
    model = Toy()
    model(torch.randn(8, 2, 5, 5))
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batches = [torch.randn(8, 2, 5, 5) * s for s in (1, 2, 3)]
    with recalibration(batches, 2).applied_to(model) as kept:
        stems = [model.stem(b) for b in batches[:2]]
        expected = torch.stack([s.mean((0, 2, 3)) for s in stems]).mean(0)
        assert torch.allclose(model.norm.running_mean, expected, atol=1e-6)
        variance = torch.stack([s.transpose(0, 1).flatten(1).var(1) for s in stems]).mean(0)
        assert torch.allclose(model.norm.running_var, variance, atol=1e-5)
        assert not model.training
        assert torch.equal(kept["norm.running_mean"], before["norm.running_mean"])
        assert model.norm.momentum == 0.1
    assert model.training
    assert model.norm.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def _is_random_state(tensor):
    return tensor.dtype == torch.uint8


def test_no_batch_of_a_re_estimation_waits_for_the_batch_before():
    """As a layer with momentum None would for its counter."""
    reads = []
    batches = [torch.randn(8, 2, 5, 5)] * 3
    with HostReads(reads.append, _is_random_state), recalibration(batches, 3).applied_to(Toy()):
        pass
    assert reads == []


def test_dropout_is_off_while_statistics_are_re_estimated():
    model = Toy(dropout=0.9)
    seen = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    images = torch.randn(4, 2, 5, 5)
    with recalibration([images], 1).applied_to(model):
        pass
    assert (seen[0] == 0).float().mean() < 0.5


class Drawing:
    """Two batches, drawn from the global random stream."""

    def __iter__(self):
        for _ in range(2):
            yield torch.randn(4, 2, 5, 5), None


def test_a_short_loader_is_used_once_and_the_random_stream_stays():
    model, seen = Toy(), []
    model.norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    before = torch.get_rng_state()
    with Recalibration(Drawing(), 10**9, lambda images: images, nullcontext).applied_to(model):
        assert torch.equal(torch.get_rng_state(), before)
    assert len(seen) == 2


def test_an_empty_loader_ends_the_re_estimation():
    with recalibration([], 3).applied_to(Toy()):
        pass


def test_a_scripted_model_is_not_evaluated_in_inference_mode():
    images, targets = torch.zeros(2, 10), torch.tensor([0, 1])
    for scripted in (False, True):
        model = torch.jit.trace(Identity(), images) if scripted else Identity()
        loader = _Watched([(images, targets)])
        validator(loader).validate(model)
        assert loader.in_inference_mode == [not scripted]


class _Watched(list):
    def __iter__(self):
        self.in_inference_mode = [torch.is_inference_mode_enabled()]
        return super().__iter__()
