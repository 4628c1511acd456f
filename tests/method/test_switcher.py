"""The invariants of a switch."""

import copy

import pytest
import timm
import torch
from support.toys import Toy, batch, learner, pair, snapshot, toy_map, update

from motivation.data.update_loader import MicroBatch
from motivation.method.records import Role
from motivation.method.switcher import Switcher
from weight_maps import find_map


def equal(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)


OPTIMIZERS = ["sgd", "adamw", "lamb", "rmsproptf", "adafactor", "lion"]


@pytest.mark.parametrize("wide", [True, False], ids=["wider", "deeper"])
@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_expand_then_extract_leaves_the_base_bit_identical(opt, wide):
    switcher = pair(opt, wide=wide, ema_decay=0.9)
    for step in range(3):
        update(switcher.base, step)
        switcher.count_update(step + 1)
    before, ema = snapshot(switcher.base), copy.deepcopy(switcher.base.ema.module.state_dict())
    switcher.switch()
    switcher.switch()
    after = snapshot(switcher.base)
    assert equal(before["model"], after["model"])
    assert equal(ema, switcher.base.ema.module.state_dict())
    assert before["groups"] == after["groups"]
    for name, state in before["state"].items():
        for key, value in state.items():
            other = after["state"][name][key]
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def test_expand_leaves_the_differential_part_untouched():
    switcher = pair(wide=True)
    before = snapshot(switcher.motivated)["model"]
    update(switcher.base)
    switcher.expand()
    after = switcher.motivated.model.state_dict()
    base = switcher.base.model.state_dict()
    for name, value in after.items():
        if name not in base:
            assert torch.equal(value, before[name]), name
            continue
        mapped = tuple(slice(0, size) for size in base[name].shape)
        assert torch.equal(value[mapped], base[name]), name
        expected = before[name].clone()
        expected[mapped] = value[mapped]
        assert torch.equal(value, expected), name


def test_extract_leaves_the_motivated_model_untouched():
    switcher = pair()
    switcher.switch()
    update(switcher.motivated)
    before = snapshot(switcher.motivated)
    switcher.switch()
    after = snapshot(switcher.motivated)
    assert equal(before["model"], after["model"])
    assert before["state"].keys() == after["state"].keys()
    for name in before["state"]:
        assert all(torch.equal(before["state"][name][k], after["state"][name][k]) for k in before["state"][name])


def test_no_switch_replaces_a_tensor():
    switcher = pair("adamw", ema_decay=0.9)
    for step in range(2):
        update(switcher.base, step)
        switcher.switch()
        update(switcher.active, step)
        switcher.switch()

    def pointers():
        found = []
        for one in switcher.sides:
            found += [t.data_ptr() for t in one.model.state_dict().values()]
            found += [t.data_ptr() for t in one.ema.module.state_dict().values()]
            found += [v.data_ptr() for s in one.optimizer.state.values() for v in s.values()]
        return found

    before = pointers()
    for _ in range(4):
        switcher.switch()
        update(switcher.active)
    assert pointers() == before


def test_buffers_are_carried_with_copy_and_kept_apart_with_separate():
    for batchnorm in ("copy", "separate"):
        switcher = pair(batchnorm=batchnorm, wide=False)
        update(switcher.base)
        fresh = switcher.motivated.model.norm.running_mean.clone()
        switcher.switch()
        carried = torch.equal(switcher.motivated.model.norm.running_mean, switcher.base.model.norm.running_mean)
        kept = torch.equal(switcher.motivated.model.norm.running_mean, fresh)
        assert (carried, kept) == ((True, False) if batchnorm == "copy" else (False, True))
        assert torch.equal(switcher.motivated.model.norm.weight, switcher.base.model.norm.weight)


@pytest.mark.parametrize("wide", [True, False], ids=["wider", "deeper"])
@pytest.mark.parametrize("warmup", [True, False])
def test_the_ema_is_what_tracking_every_update_would_give(wide, warmup):
    switcher = pair(wide=wide)
    for one in switcher.sides:
        one.task.setup_ema(decay=0.9, use_warmup=warmup)
    switcher = Switcher(switcher.base, switcher.motivated, toy_map(switcher.base.model), "copy")
    tracked = copy.deepcopy(switcher.motivated.ema)
    schedule = [0, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 1]
    for step, motivated in enumerate(schedule, 1):
        if bool(motivated) != switcher.is_motivated:
            switcher.switch()
        update(switcher.active, step)
        switcher.count_update(step)
        whole = copy.deepcopy(switcher.motivated.model)
        if not motivated:
            toy_map(switcher.base.model).expand(switcher.base.model, whole)
        tracked.update(whole, step=step)
    assert switcher.is_motivated
    for name, value in tracked.module.state_dict().items():
        assert torch.allclose(switcher.motivated.ema.module.state_dict()[name].float(), value.float(), atol=1e-6), name
    switcher.switch()
    base = switcher.base.ema.module.state_dict()
    for name, value in base.items():
        mapped = tracked.module.state_dict()[name][tuple(slice(0, size) for size in value.shape)]
        assert torch.allclose(value.float(), mapped.float(), atol=1e-6), name


def test_evaluating_in_between_does_not_disturb_training():
    results, averages = [], []
    for looks in (False, True):
        switcher = pair("adamw", ema_decay=0.9)
        for step in range(1, 7):
            if step in (3, 5):
                switcher.switch()
            update(switcher.active, step)
            switcher.count_update(step)
            if looks and not switcher.is_motivated:
                switcher.expand(optimizer_state=False)
        results.append((snapshot(switcher.base), snapshot(switcher.motivated)))
        averages.append([copy.deepcopy(one.ema.module.state_dict()) for one in switcher.sides])
    for one, other in zip(*results):
        mapped = one["model"] if one is results[0][0] else {k: v for k, v in one["model"].items() if "blocks.2" in k}
        assert all(torch.equal(value, other["model"][key]) for key, value in mapped.items())
        for name in one["state"]:
            assert equal(one["state"][name], other["state"][name])
    for one, other in zip(averages[0][:1], averages[1][:1]):
        assert equal(one, other)


def test_bringing_the_idle_model_up_to_date_is_no_switch():
    for motivated in (False, True):
        runs = []
        for looks in (False, True):
            switcher = pair("adamw", ema_decay=0.9)
            for step in range(1, 8):
                if step == 3 or (step == 6 and motivated):
                    switcher.switch()
                update(switcher.active, step)
                switcher.count_update(step)
                if looks:
                    before = switcher.active
                    switcher.bring_up_to_date()
                    assert switcher.active is before
                    small, large = (one.model.state_dict() for one in switcher.sides)
                    assert torch.equal(small["head.weight"], large["head.weight"][:, :4])
            switcher.activate(Role.BASE)
            runs.append(switcher)
        assert runs[0].counts == runs[1].counts
        assert equal(runs[0].base.model.state_dict(), runs[1].base.model.state_dict())


def test_always_is_the_motivated_model_trained_alone_from_the_expanded_base():
    switcher = pair("adamw")
    alone_model = copy.deepcopy(switcher.motivated.model)
    toy_map(switcher.base.model).expand(switcher.base.model, alone_model)
    alone = learner(alone_model, opt="adamw")
    for step in range(6):
        if step in (2, 4):  # an epoch's end: the base is extracted and expanded again
            switcher.activate(Role.BASE)
        switcher.activate(Role.MOTIVATED)
        a, b = update(switcher.active, step), update(alone, step)
        assert a.loss.value == b.loss.value
    assert equal(switcher.motivated.model.state_dict(), alone_model.state_dict())


def test_counts_and_share_are_kept():
    switcher = pair()
    for step, motivated in enumerate([0, 1, 1, 0, 0], 1):
        switcher.activate(Role.MOTIVATED if motivated else Role.BASE)
        switcher.count_update(step)
    assert switcher.counts.switches == 2
    assert switcher.counts.share == 0.4


def test_state_is_saved_and_resumed_inside_a_motivated_stretch():
    switcher = pair("lamb", ema_decay=0.9)
    for step in range(1, 4):
        update(switcher.active, step)
        switcher.count_update(step)
        if step == 2:
            switcher.switch()
    state = copy.deepcopy((switcher.state_dict(), switcher.base.state_dict()))
    other = pair("lamb", ema_decay=0.9)
    other.base.load_state_dict(state[1])
    other.load_state_dict(state[0])
    assert other.is_motivated
    for one in (switcher, other):
        update(one.active, 9)
        one.count_update(4)
        one.switch()
        update(one.active, 10)
        one.count_update(5)
    for a, b in zip(switcher.sides, other.sides):
        assert equal(a.model.state_dict(), b.model.state_dict())
        assert equal(a.ema.module.state_dict(), b.ema.module.state_dict())
    assert switcher.counts == other.counts


def test_a_plain_run_has_nothing_to_switch_to():
    switcher = Switcher(learner(Toy()))
    with pytest.raises(AssertionError):
        switcher.switch()
    assert switcher.sides == (switcher.base,)
    assert batch().size == 8


@pytest.mark.parametrize("opt", ["adamw", "lamb", "sgd"])
def test_a_switch_carries_the_buffers_of_each_third_of_a_fused_qkv(opt):
    sizes = {"img_size": 8, "patch_size": 4, "num_classes": 3, "in_chans": 2, "depth": 1}
    small = timm.create_model("vit_tiny_patch16_224", embed_dim=64, num_heads=1, **sizes)
    large = timm.create_model("vit_small_patch16_224", embed_dim=128, num_heads=2, **sizes)
    learners = [learner(small, Role.BASE, opt), learner(large, Role.MOTIVATED, opt)]
    switcher = Switcher(*learners, find_map("vit_tiny_patch16_224", "vit_small_patch16_224", small, large))
    images = MicroBatch(torch.randn(4, 2, 8, 8), torch.tensor([0, 1, 2, 0]), 1, True, 0)
    switcher.base.train([images])
    switcher.switch()
    states = [one.optimizer.state[one.model.blocks[0].attn.qkv.weight] for one in learners]
    name = "momentum_buffer" if opt == "sgd" else "exp_avg"
    thirds = states[1][name].reshape(3, 128, 128)
    assert torch.equal(thirds[:, :64, :64].reshape(192, 64), states[0][name])
    assert states[0][name].abs().sum() > 0
    assert not thirds[:, 64:].any()
    assert not thirds[:, :, 64:].any()
    switcher.motivated.train([images])
    switcher.switch()
    thirds = large.blocks[0].attn.qkv.weight.reshape(3, 128, 128)
    assert torch.equal(thirds[:, :64, :64].reshape(192, 64), small.blocks[0].attn.qkv.weight)
