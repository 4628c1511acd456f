"""MotivatedPair in a loop that is not ours: it is the method, and the one that the training program uses."""

import copy
import inspect
import re
from pathlib import Path

import pytest
import timm
import torch
from support.program import assert_equal
from support.toys import Toy, batch, toy_map
from timm.optim import Adahessian, Lookahead
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F

from motivation.method.condition_registry import make_condition
from motivation.method.pair import MotivatedPair
from motivation.method.records import Role, UpdateRecord
from motivation.method.side import Side
from weight_maps import Link, WeightMap, WeightMapError

ROOT = Path(__file__).parents[2]

needs_random_rounding = pytest.mark.skipif(
    "dtype" not in inspect.signature(ModelEmaV3).parameters,
    reason=f"timm {timm.__version__} does not round averages in bfloat16 at random",
)


def made(condition="loss", k=1, opt=torch.optim.AdamW, batchnorm="copy", ema=None, **options):
    """A pair of toys; ``ema`` is the dtype of the averages, None for no averages."""
    models = Toy(4, 2, seed=1), Toy(6, 3, seed=2)
    dtype = {} if ema in (None, torch.float32) else {"dtype": ema}
    emas = [None if ema is None else ModelEmaV3(model, decay=0.9, **dtype) for model in models]
    sides = [Side(model, opt(model.parameters(), lr=0.05), one) for model, one in zip(models, emas, strict=True)]
    return MotivatedPair(*sides, toy_map(models[0]), make_condition(condition, k, **options), batchnorm)


def step(pair, seed):
    """One update by hand; the role and the loss."""
    model, optimizer = pair.select()
    b = batch(seed)
    loss = F.cross_entropy(model(b.images), b.targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return pair.observe(loss), loss.item()


def role_of_next(pair):
    pair.select()
    return pair.role


def test_looking_at_a_pair_changes_nothing():
    pair = made("always")
    assert pair.active is pair.base
    assert not pair.is_motivated
    assert pair.counts.switches == 0
    assert pair.select() is pair.active is pair.motivated


@pytest.mark.parametrize(("condition", "switches"), [("always", 1), ("never", 0)])
def test_a_switch_is_a_change_of_the_model_between_two_updates(condition, switches):
    pair = made(condition)
    for epoch in range(3):
        pair.start_epoch(epoch, 2)
        for loss in (2.0, 1.0):
            pair.select()
            pair.observe(loss)
        pair.end_epoch()
    assert pair.counts.switches == switches


def test_the_active_side_follows_the_losses():
    pair = made(k=2)
    given, roles = [5.0, 4.0, 3.0, 2.0, 2.5, 2.0], []
    pair.start_epoch(0, 6)
    for loss in given:
        pair.select()
        roles.append(pair.role)
        pair.observe(loss)
    assert [role is Role.MOTIVATED for role in roles] == [False, False, False, True, True, False]
    assert pair.counts.share == 2 / 6
    assert pair.counts.switches == 2


def test_a_record_says_where_the_run_is():
    pair = made()
    pair.start_epoch(3, 10)
    record = [pair.observe(loss) for loss in (2.0, 1.0)][-1]
    assert isinstance(record, UpdateRecord)
    assert (record.epoch, record.update, record.step, record.role, record.loss) == (3, 1, 32, Role.BASE, 1.0)


def test_an_ema_that_a_side_brings_along_follows_every_update():
    pair, alone = made("never", ema=torch.float32), Toy(4, 2, seed=1)
    tracked = ModelEmaV3(alone, decay=0.9)
    for seed in range(4):
        step(pair, seed)
        tracked.update(pair.base.model, step=seed + 1)
    assert_equal(pair.base.ema.module.state_dict(), tracked.module.state_dict())
    assert pair.base.pending_decay == 1.0
    assert pair.motivated.pending_decay == 0.0  # the first update has decay 0
    pair.expand()
    assert pair.motivated.pending_decay == 1.0
    large, small = pair.motivated.ema.module.head.weight, pair.base.ema.module.head.weight
    assert torch.equal(large[:, :4], small)


def test_tensors_are_not_read_unless_the_condition_wants_them():
    class Unreadable(torch.Tensor):
        def __float__(self):
            raise AssertionError("read")

    loss = torch.tensor(1.0).as_subclass(Unreadable)
    made("never").observe(loss)
    with pytest.raises(AssertionError, match="read"):
        made("loss").observe(loss)


@pytest.mark.parametrize(("condition", "signal"), [("slope", "gradient_norm"), ("valloss", "validation_loss")])
def test_other_signals_are_given_by_the_loop(condition, signal):
    pair = made(condition)
    pair.observe(1.0, **{signal: 1.0})
    pair.observe(1.0, **{signal: 2.0 if condition == "slope" else 0.5})
    assert role_of_next(pair) is Role.MOTIVATED
    with pytest.raises(ValueError, match=f"the {signal} of an update was not measured"):
        pair.observe(1.0)


@pytest.mark.parametrize("cut", [3, 4, 7])
@pytest.mark.parametrize(("opt", "ema"), [(torch.optim.AdamW, torch.float32), (torch.optim.RMSprop, None)])
def test_a_state_goes_on_after_any_update_bit_for_bit(cut, opt, ema):
    whole, first, second = (made(opt=opt, ema=ema) for _ in range(3))
    for pair in (whole, first):
        pair.start_epoch(0, 10)
    expected = [step(whole, seed) for seed in range(10)]
    for seed in range(cut):
        step(first, seed)
    for seed in range(3):
        step(second, seed + 50)  # it has been elsewhere
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in range(cut, 10):
        record, loss = step(second, seed)
        assert (record.role, record.step, loss) == (expected[seed][0].role, seed + 1, expected[seed][1])
    assert_equal(second.state_dict(), whole.state_dict())
    assert {record.role for record, _ in expected} == set(Role)


@needs_random_rounding
def test_an_ema_in_bfloat16_does_not_lose_the_updates_at_which_its_model_was_idle():
    """Its 8 bits hold no change of 0.1 %: timm rounds at random, so that the mean over many weights is right."""
    model = nn.Linear(64, 64, bias=False).bfloat16()
    nn.init.zeros_(model.weight)
    side = Side(model, torch.optim.SGD(model.parameters()), ModelEmaV3(model, decay=0.9998))
    nn.init.ones_(model.weight)
    for step in range(2, 1202):
        if step % 6:
            side.defer_ema_update(step)
        else:
            side.apply_deferred_ema()
            side.update_ema(step)
    assert side.ema_model.weight.float().mean().item() == pytest.approx(1 - 0.9998**1200, abs=0.005)


@needs_random_rounding
def test_the_generators_of_optimizer_and_ema_are_a_part_of_the_state():
    def opt(parameters, lr):
        return Lookahead(Adahessian(parameters, lr=lr))

    one, other = (made(opt=opt, ema=torch.bfloat16) for _ in range(2))
    generators = [one.base.optimizer._base_optimizer.generator, one.motivated.ema._sr_generator]
    for generator in generators:
        torch.rand(3, generator=generator)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    restored = [other.base.optimizer._base_optimizer.generator, other.motivated.ema._sr_generator]
    for generator, again in zip(generators, restored, strict=True):
        assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=again))


@needs_random_rounding
def test_the_state_of_a_generator_on_another_kind_of_device_is_left_out():
    side = made(ema=torch.bfloat16).base
    before = side.generator_states()
    side.load_generator_states({name: torch.zeros(16, dtype=torch.uint8) for name in before})  # as CUDA's are
    assert_equal(side.generator_states(), before)


def test_a_state_of_another_condition_is_refused():
    with pytest.raises(ValueError, match="of the condition 'loss', not 'ema'"):
        made("ema").load_state_dict(made("loss").state_dict())


def test_wrapped_models_keep_their_wrappers():
    base, motivated = nn.Linear(3, 2), nn.Linear(3, 2)
    compiled = [torch.compile(model, backend="eager") for model in (base, motivated)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (base, motivated)]
    pair = MotivatedPair(*map(Side, compiled, optimizers), None, make_condition("always"))
    model, optimizer = pair.select()
    assert model is compiled[1]
    assert optimizer is optimizers[1]
    assert torch.equal(motivated.weight, base.weight)


def test_an_ema_of_a_wrapped_model_is_carried():
    models = Toy(4, 2, seed=1), Toy(6, 3, seed=2)
    emas = [ModelEmaV3(model, decay=0.9) for model in models]
    for ema in emas:
        ema.module = torch.compile(ema.module)
    sides = [Side(m, torch.optim.SGD(m.parameters()), ema) for m, ema in zip(models, emas, strict=True)]
    pair = MotivatedPair(*sides, toy_map(models[0]), make_condition("always"))
    torch.nn.init.ones_(pair.base.ema_model.head.bias)
    pair.select()
    assert pair.motivated.ema_model.head.bias.eq(1).all()


class Separate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))


class Fused(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)


def test_base_tensors_may_be_disjoint_parts_of_one_motivated_tensor():
    small, large = Separate(2), Fused(4)
    rows = {"q": (0, 2), "k": (4, 6), "v": (8, 10)}
    links = [Link(f"{name}.weight", "qkv.weight", ((run,), ((0, 2),))) for name, run in rows.items()]
    sides = [Side(model, torch.optim.Adam(model.parameters())) for model in (small, large)]
    pair = MotivatedPair(*sides, WeightMap(tuple(links)), make_condition("always"))
    for parameter in small.parameters():
        parameter.grad = torch.randn_like(parameter)
    pair.base.optimizer.step()
    pair.select()
    for name, (start, stop) in rows.items():
        weight = getattr(small, name).weight
        assert torch.equal(large.qkv.weight[start:stop, :2], weight)
        state = [side.optimizer.state[p]["exp_avg"] for side, p in zip(sides, (weight, large.qkv.weight), strict=True)]
        assert torch.equal(state[1][start:stop, :2], state[0])


def test_models_that_do_not_nest_are_refused_with_the_reasons():
    models = nn.Linear(3, 2), nn.Linear(2, 2)
    sides = [Side(model, torch.optim.SGD(model.parameters(), lr=0.1)) for model in models]
    with pytest.raises(WeightMapError, match="weight"):
        MotivatedPair(*sides, None, make_condition("loss"))


def test_the_example_of_the_document_trains_a_transformer_that_grows(monkeypatch):
    monkeypatch.chdir(ROOT)
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "own_loop.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(code, names)
    pair, losses = names["pair"], names["losses"]
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
    assert pair.counts.total == 300
    assert 0.05 < pair.counts.share < 0.35
    base, motivated = (side.model for side in pair.sides)
    assert not pair.is_motivated
    # the base's second block lies in the motivated model's last one, q, k and v each in its own third
    pair.sync_idle_model()
    large, small = motivated.blocks[3].attn.qkv.weight, base.blocks[1].attn.qkv.weight
    for part in range(3):
        assert torch.equal(large[64 * part : 64 * part + 32, :32], small[32 * part : 32 * part + 32])


def test_between_two_epochs_the_base_is_active():
    pair = made(k=1)
    pair.start_epoch(0, 3)
    for loss in (3.0, 2.0):
        pair.select()
        pair.observe(loss)
    pair.end_epoch()
    assert pair.condition.motivated
    assert role_of_next(pair) is Role.BASE
    assert pair.counts.switches == 0
    restored = made(k=1)
    restored.load_state_dict(pair.state_dict())
    assert role_of_next(restored) is Role.BASE
    pair.observe(1.0)  # a loop without epochs goes on
    assert role_of_next(pair) is Role.MOTIVATED


class Language(nn.Module):
    """Embedding and head, of one tensor or of two."""

    def __init__(self, width, tied, head_first=False):
        super().__init__()
        layers = {"embed": nn.Embedding(5, width), "head": nn.Linear(width, 5, bias=False)}
        for name in sorted(layers, reverse=head_first):
            setattr(self, name, layers[name])
        if tied:
            self.head.weight = self.embed.weight


def language_pair(base, motivated, opt=torch.optim.Adam, others=None, **options):
    optimizers = [opt(model.parameters(), lr=0.1) for model in others or (base, motivated)]
    return MotivatedPair(
        Side(base, optimizers[0]), Side(motivated, optimizers[1]), None, make_condition("always"), **options
    )


def test_a_tied_tensor_is_carried_once_whatever_its_names_order():
    pair = language_pair(Language(3, True), Language(6, True, head_first=True))
    base, motivated = pair.sides
    base.model.embed(torch.arange(5)).sum().backward()
    base.optimizer.step()
    assert pair.select() is motivated
    state = motivated.optimizer.state[motivated.model.embed.weight]
    assert torch.equal(state["exp_avg"][:, :3], base.optimizer.state[base.model.embed.weight]["exp_avg"])


def wrong_pairs():
    small, large = Language(3, False), Language(6, False)
    return {
        "are one tensor in the motivated model only": lambda: language_pair(small, Language(6, True)),
        "are one tensor in the base only": lambda: language_pair(Language(3, True), large),
        "is torch.float32, its counterpart torch.bfloat16": lambda: language_pair(small, Language(6, False).bfloat16()),
        "the optimizer of the base model has parameters that are not": lambda: language_pair(
            small, large, others=(large, small)
        ),
        "are the same module": lambda: language_pair(small, small),
        "batchnorm is one of copy, separate, not 'kopie'": lambda: language_pair(small, large, batchnorm="kopie"),
        "the optimizers are Adam and SGD": lambda: MotivatedPair(
            Side(small, torch.optim.Adam(small.parameters())), Side(large, torch.optim.SGD(large.parameters())), None,
            make_condition("loss"),
        ),
        "one side has an EMA and the other has none": lambda: MotivatedPair(
            Side(small, torch.optim.Adam(small.parameters()), ModelEmaV3(small)),
            Side(large, torch.optim.Adam(large.parameters())), None, make_condition("loss"),
        ),
        "there is no motivated model for the condition 'loss'": lambda: MotivatedPair(
            Side(small, torch.optim.Adam(small.parameters())), None, None, make_condition("loss")
        ),
        "condition is 'loss'; make one with make_condition": lambda: MotivatedPair(
            Side(small, torch.optim.Adam(small.parameters())), Side(large, torch.optim.Adam(large.parameters())), None,
            "loss",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("message", wrong_pairs())
def test_a_pair_that_cannot_be_right_is_refused(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        wrong_pairs()[message]()
