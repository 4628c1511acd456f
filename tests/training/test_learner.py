"""One call of a learner is one update, whatever it is made of."""

import copy
from types import SimpleNamespace

import pytest
import torch
from support.toys import Toy, batch, learner, make_pair, switch
from torch._subclasses.fake_tensor import FakeTensorMode

from motivation.method.records import DeferredScalar
from motivation.training.learner import UpdateRule


def weights(one):
    return torch.cat([p.detach().flatten() for p in one.model.parameters()])


def parts(total=3):
    return [batch(seed, size=8, accum_steps=total, is_last=seed == total - 1) for seed in range(total)]


def test_accumulated_micro_batches_are_one_update_of_their_mean():
    model = Toy()
    model.norm.eval = lambda: None
    accumulated, whole = learner(copy.deepcopy(model)), learner(copy.deepcopy(model))
    for one in (accumulated, whole):
        one.model.eval()  # BatchNorm on batch statistics would see other batches
    outcome = accumulated.train(parts())
    images = torch.cat([b.images for b in parts()])
    targets = torch.cat([b.targets for b in parts()])
    joint = batch()
    joint.images, joint.targets = images, targets
    expected = whole.train([joint])
    assert torch.allclose(weights(accumulated), weights(whole), atol=1e-6)
    assert outcome.loss.value == pytest.approx(expected.loss.value, rel=1e-5)
    assert outcome.images == expected.images == 24
    assert len(outcome.local_losses) == 3


def test_a_group_that_the_data_cut_short_is_no_update():
    one = learner(Toy())
    before = weights(one)
    assert one.train(parts()[:2]) is None
    assert torch.equal(before, weights(one))


def test_clipping_bounds_the_gradient():
    seen = []
    for mode, value in (("norm", 1e-3), ("value", 1e-4), ("agc", 1e-3)):
        one = learner(Toy(), weight_decay=0.0, rule=UpdateRule(clip_grad=value, clip_mode=mode), lr=1.0)
        free = learner(Toy(), weight_decay=0.0, lr=1.0)
        before = weights(one)
        one.train([batch()])
        free.train([batch()])
        seen.append((weights(one) - before).norm() < (weights(free) - before).norm())
    assert all(seen)


def test_a_gradient_scaler_gives_the_same_update():
    scaled = learner(Toy(), rule=UpdateRule(scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10), clip_grad=0.5))
    plain = learner(Toy(), rule=UpdateRule(clip_grad=0.5))
    for seed in range(3):
        scaled.train([batch(seed)])
        plain.train([batch(seed)])
    assert torch.allclose(weights(scaled), weights(plain), atol=1e-6)


def test_a_scaler_is_shared_over_switches_and_skips_an_overflow():
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    pair = make_pair(rule=UpdateRule(scaler=scaler))
    pair.active.train([batch(0)])
    switch(pair)
    before = weights(pair.active)
    overflow = batch(1)
    overflow.images = overflow.images * float("inf")
    pair.active.train([overflow])
    assert torch.equal(before, weights(pair.active))
    assert scaler.get_scale() == 2.0
    switch(pair)
    pair.active.train([batch(2)])
    assert torch.isfinite(weights(pair.active)).all()


def test_autocast_is_used_in_the_forward_pass():
    seen = []
    one = learner(Toy(), rule=UpdateRule(autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16)))
    one.model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    one.train([batch()])
    assert seen == [torch.bfloat16]


def test_the_exact_loss_of_a_bfloat16_model_has_no_ties_and_changes_no_weight():
    """Losses of about 5.0 that differ by 0.3 %: a step of bfloat16 there is 0.03."""
    models = [Toy().bfloat16() for _ in range(2)]
    learners = [learner(model, rule=UpdateRule(exact_loss=exact)) for model, exact in zip(models, (True, False))]
    reported = {True: [], False: []}
    for seed in range(40):
        part = batch(seed, size=64)
        part.images = part.images.bfloat16() * 0.01
        for one in learners:
            with torch.no_grad():
                one.model.head.bias.copy_(torch.tensor([0.0, 5.7, 0.0]))
            outcome = one.train([part])
            reported[one.rule.exact_loss].append(outcome.loss.value)
        assert torch.equal(*map(weights, learners))
    assert len(set(reported[True])) == 40
    assert len(set(reported[False])) < 30


def test_a_batch_scale_weighs_the_gradient_but_not_the_reported_loss():
    plain = learner(Toy(), weight_decay=0.0)
    half = learner(Toy(), weight_decay=0.0, rule=UpdateRule(batch_scale=lambda images: images / 16))
    before = weights(plain)
    outcomes = [one.train([batch(size=8)]) for one in (plain, half)]
    assert outcomes[0].loss.value == outcomes[1].loss.value
    assert torch.allclose((weights(half) - before) * 2, weights(plain) - before, atol=1e-6)


def test_a_deferred_scalar_is_read_once_and_multiplied_on_the_host():
    scalar = DeferredScalar(torch.tensor(0.1), 3)
    assert scalar.value == float(torch.tensor(0.1)) * 3
    assert scalar.value is scalar.value


def test_a_scalar_of_a_gpu_waits_for_the_stream_of_its_copy_and_then_lets_its_memory_go(monkeypatch):
    happened = []
    event = SimpleNamespace(record=happened.append, synchronize=lambda: happened.append("waits"))
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    with FakeTensorMode():
        scalar = DeferredScalar(torch.ones((), device="cuda:1"))
    assert happened == ["stream of cuda:1"]
    scalar._host = torch.tensor(0.5)  # what has arrived
    assert scalar.value == 0.5
    assert happened[1:] == ["waits"]
    assert scalar._event is None
    assert scalar._host == 0.0


def test_waiting_for_data_is_summed_over_micro_batches():
    batches = parts()
    for one in batches:
        one.data_time_s = 1.0
    assert learner(Toy()).train(batches).data_time_s == 3.0
