"""A switch carries optimizer state along the map, for every optimizer that timm has here or refuses by name."""

import warnings
from pathlib import Path

import pytest
import timm
import torch
from support.program import assert_equal
from support.toys import Toy, assert_carried, learner, make_pair, snapshot, switch, toy_map, update
from timm.optim import Adafactor, create_optimizer_v2, list_optimizers
from torch import nn

from motivation.method.optimizer_probe import first_step, inner_optimizer, kept_axes
from motivation.method.optimizer_state import load_optimizer
from motivation.method.records import Role
from motivation.method.switch import Switch

NAMES = list_optimizers()
REFUSED = dict.fromkeys(["kron", "kronc", "kronw"], "keeps list 'Q'")
OLDER_TIMM = tuple(int(part) for part in timm.__version__.split(".")[:3]) < (1, 0, 31)
if OLDER_TIMM:  # where they keep lists of cached numbers in their groups
    REFUSED |= dict.fromkeys(["radabelief", "radamlegacy"], "keeps list 'buffer'")
NOT_HERE = [name for name in NAMES if name.startswith(("bnb", "fused"))]
"""They need a GPU library."""
WORKS = [name for name in NAMES if name not in REFUSED and name not in NOT_HERE]

LOOKS_FOR_STATE = {"adoptc", "adoptw", "cadoptc", "cadoptw"}
"""Their first step decays the weights or not by whether there is a state at all (from timm 1.0.31 on)."""


SEEN = set((Path(__file__).parents[1] / "files" / "optimizers_of_timm_1.0.31.txt").read_text().split())
"""A name that is not among them is new: look at it, then add it."""


def test_every_optimizer_of_timm_has_been_looked_at():
    assert set(NAMES) <= SEEN


def made(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pair(name, lr=1e-2)


@pytest.mark.parametrize("name", WORKS)
def test_switches_carry_the_state_of(name):
    pair = made(name)
    pointers = {tensor.data_ptr() for one in pair.sides for tensor in one.model.state_dict().values() if tensor.numel()}
    for step in range(2):
        update(pair.base, step)
    before = snapshot(pair.base)
    switch(pair)
    compared = assert_carried(pair, name, to_motivated=True)
    switch(pair)
    assert_equal(snapshot(pair.base), before)
    switch(pair)
    update(pair.motivated, 3)
    switch(pair)
    assert assert_carried(pair, name, to_motivated=False) == compared or name == "momentum"
    update(pair.base, 4)
    for one in pair.sides:
        for tensor in one.model.state_dict().values():
            assert torch.isfinite(tensor.float()).all()
            assert not tensor.numel() or tensor.data_ptr() in pointers, f"{name} replaced a weight"


@pytest.mark.parametrize("name", ["lookahead_sgd", "lookahead_adamw", "lookahead_lamb", "lookahead_rmsproptf"])
def test_lookahead_carries_slow_weights_and_its_counter(name):
    pair = made(name)
    for step in range(7):
        update(pair.base, step)
    switch(pair)
    assert_carried(pair, name, to_motivated=True)
    assert all(group["lookahead_step"] == 7 for group in pair.motivated.optimizer.param_groups)
    for step in range(6):
        update(pair.motivated, step)
    switch(pair)
    assert_carried(pair, name, to_motivated=False)


UNDER_LOOKAHEAD = [name for name in WORKS if not (OLDER_TIMM and name == "adahessian")]
"""An older Lookahead does not ask for the second-order gradients that AdaHessian needs."""


@pytest.mark.parametrize("name", UNDER_LOOKAHEAD)
def test_lookahead_is_accepted_around(name):
    made(f"lookahead_{name}")


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_at_start_up_also_under_lookahead(name):
    for full in (name, f"lookahead_{name}"):
        with pytest.raises(ValueError, match=REFUSED[name]):
            made(full)


@pytest.mark.parametrize("name", NOT_HERE)
def test_not_installed_here(name):
    with pytest.raises((AssertionError, ImportError, RuntimeError)):
        create_optimizer_v2(Toy(), opt=name, lr=0.1)


def first_updates(name):
    """A parameter after its first update: from no state, and from the state that a switch makes."""
    torch.manual_seed(0)
    values, gradient = torch.randn(6, 5), torch.randn(6, 5)
    for given in (False, True):
        parameter = nn.Parameter(values.clone())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = create_optimizer_v2([parameter], opt=name, lr=0.01, weight_decay=0.1, momentum=0.9)
        if given:
            initial, _ = first_step(optimizer, 0, parameter)
            inner_optimizer(optimizer).state[parameter].update(initial)
        parameter.grad = gradient.clone()
        optimizer.step()
        yield parameter.detach().clone()


@pytest.mark.parametrize("name", [name for name in WORKS if name not in {*LOOKS_FOR_STATE, "adahessian"}])
def test_made_state_is_the_optimizers_own_first_step(name):
    """AdaHessian is left out: it needs the gradient's graph, not a given gradient."""
    assert torch.equal(*first_updates(name))


def test_rmsproptf_starts_new_rows_at_one_not_zero():
    pair = make_pair("rmsproptf", wide=True)
    update(pair.base)
    switch(pair)
    weight = dict(pair.motivated.model.named_parameters())["head.weight"]
    state = pair.motivated.optimizer.state[weight]
    assert torch.equal(state["square_avg"][:, 4:], torch.ones(3, 2))
    assert not torch.equal(state["square_avg"][:, :4], torch.ones(3, 4))


def test_momentum_of_mapped_slice_is_carried_and_the_rest_starts_at_zero():
    pair = make_pair("sgd", wide=True)
    update(pair.base)
    switch(pair)
    small = dict(pair.base.model.named_parameters())["blocks.0.weight"]
    large = dict(pair.motivated.model.named_parameters())["blocks.0.weight"]
    carried = pair.motivated.optimizer.state[large]["momentum_buffer"]
    assert torch.equal(carried[:4, :4], pair.base.optimizer.state[small]["momentum_buffer"])
    assert carried[4:].abs().sum() == carried[:, 4:].abs().sum() == 0


def test_differential_tensors_get_no_state_before_their_first_update():
    pair = make_pair("adamw", wide=False)
    update(pair.base)
    switch(pair)
    new = dict(pair.motivated.model.named_parameters())["blocks.2.weight"]
    assert new not in pair.motivated.optimizer.state
    update(pair.motivated)
    assert pair.motivated.optimizer.state[new]["step"] == 1
    old = dict(pair.motivated.model.named_parameters())["blocks.0.weight"]
    assert pair.motivated.optimizer.state[old]["step"] == 2


@pytest.mark.parametrize("name", ["lamb", "adan"])
def test_counters_of_a_parameter_group_are_carried_whole(name):
    pair = make_pair(name)
    for step in range(3):
        update(pair.base, step)
    switch(pair)
    assert [group["step"] for group in pair.motivated.optimizer.param_groups] == [3, 3]
    update(pair.motivated)
    switch(pair)
    assert [group["step"] for group in pair.base.optimizer.param_groups] == [4, 4]


def test_the_probe_leaves_optimizer_and_random_states_alone():
    pair = make_pair("adamw")
    update(pair.base)
    before, states = snapshot(pair.base), torch.get_rng_state()
    first_step(pair.base.optimizer, 0, next(pair.base.model.parameters()))
    assert torch.equal(states, torch.get_rng_state())
    assert_equal(snapshot(pair.base), before)


@pytest.mark.parametrize(
    ("state", "parameter", "expected"),
    [
        ((4, 3), (4, 3), [(0, 1)]),
        ((4,), (4, 3), [(0,)]),
        ((1, 3), (4, 3), [(-1, 1)]),
        ((64, 3, 3), (64, 64, 3, 3), [(0, 2, 3), (1, 2, 3)]),
        ((5,), (4, 3), []),
        ((2, 3), (4, 3), []),
    ],
)
def test_factored_state_is_read_from_its_shape(state, parameter, expected):
    assert [axes for axes in kept_axes(state, parameter) if axes in expected] == expected
    assert bool(kept_axes(state, parameter)) == bool(expected)


def test_adafactor_that_factors_one_side_only_is_refused():
    base, motivated = Toy(4, 1), Toy(6, 1)
    one, other = learner(base), learner(motivated, Role.MOTIVATED)
    one.optimizer = Adafactor(base.parameters(), lr=0.1, min_dim_size_to_factor=5)
    other.optimizer = Adafactor(motivated.parameters(), lr=0.1, min_dim_size_to_factor=5)
    with pytest.raises(ValueError, match="exp_avg_sq_row"):
        Switch(one, other, toy_map(base))


SCHEDULES = {
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30),
    "lambda": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5)),
    "one_cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, 30),
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("opt", ["adamw", "sgd", "lamb", "rmsproptf"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_torchs_schedulers_which_wrap_the_step_do_not_disturb_the_probe(name, opt):
    """They put a `step` of their own on the optimizer; a twin must not take it along."""
    small, large = (make_pair(opt=opt).sides for _ in range(2))  # the same weights twice, without and with schedulers
    plain, scheduled = (sides[0].optimizer for sides in (small, large))
    SCHEDULES[name](scheduled)
    parameters = [next(sides[0].model.parameters()) for sides in (small, large)]
    lr = [group["lr"] for group in scheduled.param_groups]
    expected, found = (first_step(o, 0, p) for o, p in zip((plain, scheduled), parameters))
    assert expected[0].keys() == found[0].keys()
    assert expected[1].keys() - {"lr"} == found[1].keys() - {"lr"}
    assert [group["lr"] for group in scheduled.param_groups] == lr
    assert not scheduled.state


@pytest.mark.parametrize("name", ["adahessian", "lookahead_adahessian", "adagrad", "lamb"])
def test_the_state_of_an_optimizer_that_has_not_stepped_yet_is_loaded(name):
    def make():
        return create_optimizer_v2([nn.Parameter(torch.ones(4, 3))], opt=name, lr=0.1)

    saved = make().state_dict()
    other = make()
    load_optimizer(other, saved)
    assert other.state_dict()["state"].keys() == saved["state"].keys()


@pytest.mark.parametrize("name", ["nadam", "adafactor", "lookahead_nadam"])
def test_scalars_of_half_precision_parameters_are_loaded_bit_for_bit(name):
    weight = nn.Parameter(torch.ones(4, 3, dtype=torch.bfloat16))
    optimizer = create_optimizer_v2([weight], opt=name, lr=0.1)
    for _ in range(3):
        weight.grad = torch.full_like(weight, 0.3)
        optimizer.step()
    saved = optimizer.state_dict()
    other = create_optimizer_v2([nn.Parameter(weight.detach().clone())], opt=name, lr=0.1)
    load_optimizer(other, saved)
    loaded = other.state_dict()["state"][0]
    scalars = {key: value for key, value in saved["state"][0].items() if torch.is_tensor(value) and not value.dim()}
    assert scalars
    for key, value in scalars.items():
        assert loaded[key].dtype is value.dtype
        assert torch.equal(loaded[key], value)


def test_a_probe_compiles_nothing():
    compiled = []

    def backend(module, _):
        compiled.append(module)
        return module.forward

    class Compiling(torch.optim.SGD):
        def step(self, closure=None):
            (parameter,) = self.param_groups[0]["params"]
            self.state[parameter]["double"] = torch.compile(lambda value: 2 * value, backend=backend)(
                parameter.detach()
            )

    parameter = torch.nn.Parameter(torch.ones(2))
    assert first_step(Compiling([parameter], lr=0.1), 0, parameter)[0]["double"].tolist() == [2, 2]
    assert not compiled
