"""The invariants of a switch."""

import copy

import pytest
import timm
import torch
from support.program import assert_equal
from support.toys import learner, make_pair, snapshot, switch, toy_map, update

from motivation.data.update_loader import MicroBatch
from motivation.method.conditions import Never
from motivation.method.pair import MotivatedPair
from motivation.method.records import Role
from weight_maps import find_map

OPTIMIZERS = ["sgd", "adamw", "lamb", "rmsproptf", "adafactor", "lion"]


@pytest.mark.parametrize("wide", [True, False], ids=["wider", "deeper"])
@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_expand_then_extract_leaves_the_base_bit_identical(opt, wide):
    pair = make_pair(opt, wide=wide, ema_decay=0.9)
    for step in range(3):
        update(pair.base, step)
        pair.observe(0.0)
    before = snapshot(pair.base)
    switch(pair)
    switch(pair)
    assert_equal(snapshot(pair.base), before)


def test_expand_leaves_the_differential_part_untouched():
    pair = make_pair(wide=True)
    before = snapshot(pair.motivated)["model"]
    update(pair.base)
    pair.expand()
    after = pair.motivated.model.state_dict()
    base = pair.base.model.state_dict()
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
    pair = make_pair()
    switch(pair)
    update(pair.motivated)
    before = snapshot(pair.motivated)
    switch(pair)
    assert_equal(snapshot(pair.motivated), before)


def test_no_switch_replaces_a_tensor():
    pair = make_pair("adamw", ema_decay=0.9)
    for step in range(2):
        update(pair.base, step)
        switch(pair)
        update(pair.active, step)
        switch(pair)

    def pointers():
        found = []
        for one in pair.sides:
            found += [t.data_ptr() for t in one.model.state_dict().values()]
            found += [t.data_ptr() for t in one.ema.module.state_dict().values()]
            found += [v.data_ptr() for s in one.optimizer.state.values() for v in s.values()]
        return found

    before = pointers()
    for _ in range(4):
        switch(pair)
        update(pair.active)
    assert pointers() == before


def test_buffers_are_carried_with_copy_and_kept_apart_with_separate():
    for batchnorm in ("copy", "separate"):
        pair = make_pair(batchnorm=batchnorm, wide=False)
        update(pair.base)
        fresh = pair.motivated.model.norm.running_mean.clone()
        switch(pair)
        carried = torch.equal(pair.motivated.model.norm.running_mean, pair.base.model.norm.running_mean)
        kept = torch.equal(pair.motivated.model.norm.running_mean, fresh)
        assert (carried, kept) == ((True, False) if batchnorm == "copy" else (False, True))
        assert torch.equal(pair.motivated.model.norm.weight, pair.base.model.norm.weight)


@pytest.mark.parametrize("wide", [True, False], ids=["wider", "deeper"])
@pytest.mark.parametrize("warmup", [True, False])
def test_the_ema_is_what_tracking_every_update_would_give(wide, warmup):
    pair = make_pair(wide=wide, ema_decay=0.9)
    for one in pair.sides:
        one.ema.use_warmup = warmup
    tracked = copy.deepcopy(pair.motivated.ema)
    schedule = [0, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 1]
    for step, motivated in enumerate(schedule, 1):
        if bool(motivated) != pair.is_motivated:
            switch(pair)
        update(pair.active, step)
        pair.observe(0.0)
        whole = copy.deepcopy(pair.motivated.model)
        if not motivated:
            toy_map(pair.base.model).expand(pair.base.model, whole)
        tracked.update(whole, step=step)
    assert pair.is_motivated
    for name, value in tracked.module.state_dict().items():
        assert torch.allclose(pair.motivated.ema.module.state_dict()[name].float(), value.float(), atol=1e-6), name
    switch(pair)
    base = pair.base.ema.module.state_dict()
    for name, value in base.items():
        mapped = tracked.module.state_dict()[name][tuple(slice(0, size) for size in value.shape)]
        assert torch.allclose(value.float(), mapped.float(), atol=1e-6), name


def test_evaluating_in_between_does_not_disturb_training():
    bases, motivated = [], []
    for looks in (False, True):
        pair = make_pair("adamw", ema_decay=0.9)
        for step in range(1, 7):
            if step in (3, 5):
                switch(pair)
            update(pair.active, step)
            pair.observe(0.0)
            if looks and not pair.is_motivated:
                pair.motivated.apply_deferred_ema()
                pair.sync_idle_model()
        bases.append(snapshot(pair.base))
        found = snapshot(pair.motivated)
        differential = {name: value for name, value in found["model"].items() if "blocks.2" in name}
        motivated.append([differential, found["state"]])
    assert_equal(*bases)
    assert_equal(*motivated)


def test_bringing_the_idle_model_up_to_date_is_no_switch():
    for motivated in (False, True):
        runs = []
        for looks in (False, True):
            pair = make_pair("adamw", ema_decay=0.9)
            for step in range(1, 8):
                if step == 3 or (step == 6 and motivated):
                    switch(pair)
                update(pair.active, step)
                pair.observe(0.0)
                if looks:
                    before = pair.active
                    pair.sync_idle_model()
                    assert pair.active is before
                    small, large = (one.model.state_dict() for one in pair.sides)
                    assert torch.equal(small["head.weight"], large["head.weight"][:, :4])
            pair._activate(motivated=False)
            runs.append(pair)
        assert runs[0].counts == runs[1].counts
        assert_equal(*(run.base.model.state_dict() for run in runs))


def test_always_is_the_motivated_model_trained_alone_from_the_expanded_base():
    pair = make_pair("adamw")
    alone_model = copy.deepcopy(pair.motivated.model)
    toy_map(pair.base.model).expand(pair.base.model, alone_model)
    alone = learner(alone_model, opt="adamw")
    for step in range(6):
        if step in (2, 4):  # an epoch's end: the base is extracted and expanded again
            pair._activate(motivated=False)
        pair._activate(motivated=True)
        a, b = update(pair.active, step), update(alone, step)
        assert a.loss.value == b.loss.value
    assert_equal(pair.motivated.model.state_dict(), alone_model.state_dict())


def test_a_switch_carries_the_buffers_of_each_third_of_a_fused_qkv():
    sizes = {"img_size": 8, "patch_size": 4, "num_classes": 3, "in_chans": 2, "depth": 1}
    small = timm.create_model("vit_tiny_patch16_224", embed_dim=64, num_heads=1, **sizes)
    large = timm.create_model("vit_small_patch16_224", embed_dim=128, num_heads=2, **sizes)
    learners = [learner(small, Role.BASE, "adamw"), learner(large, Role.MOTIVATED, "adamw")]
    weights_map = find_map("vit_tiny_patch16_224", "vit_small_patch16_224", small, large)
    pair = MotivatedPair(*learners, weights_map, Never())
    images = MicroBatch(torch.randn(4, 2, 8, 8), torch.tensor([0, 1, 2, 0]), 1, True, 0)
    pair.base.train([images])
    switch(pair)
    states = [one.optimizer.state[one.model.blocks[0].attn.qkv.weight] for one in learners]
    thirds = states[1]["exp_avg"].reshape(3, 128, 128)
    assert torch.equal(thirds[:, :64, :64].reshape(192, 64), states[0]["exp_avg"])
    assert states[0]["exp_avg"].abs().sum() > 0
    assert not thirds[:, 64:].any()
    assert not thirds[:, :, 64:].any()
    pair.motivated.train([images])
    switch(pair)
    thirds = large.blocks[0].attn.qkv.weight.reshape(3, 128, 128)
    assert torch.equal(thirds[:, :64, :64].reshape(192, 64), small.blocks[0].attn.qkv.weight)
