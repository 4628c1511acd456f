"""A switch is planned once, and anew only when there are other tensors to copy."""

import pytest
import torch
from support.toys import assert_carried, make_pair, switch, update

from motivation.method.copies import copy_all, grouped
from motivation.method.optimizer_state import StateCarrier, load_optimizer


@pytest.fixture
def plans(monkeypatch):
    """The directions that were planned, in order."""
    made, plan = [], StateCarrier._make_plan

    def counted(self):
        made.append(self.to_motivated)
        return plan(self)

    monkeypatch.setattr(StateCarrier, "_make_plan", counted)
    return made


def switched(pair, times, seed=0):
    """So many switches, each followed by an update."""
    for number in range(times):
        switch(pair)
        assert_carried(pair, "", pair.is_motivated)
        update(pair.active, seed + number)


@pytest.mark.parametrize("opt", ["momentum", "adamw", "lamb", "rmsproptf"])
def test_a_switch_is_planned_once_for_each_direction(plans, opt):
    pair = make_pair(opt, lr=1e-2)
    update(pair.base)
    switched(pair, 10)
    assert plans == [True, False, True]  # the second time with the state of the differential part, of its first update


def test_a_switch_is_planned_anew_after_a_state_was_loaded(plans):
    pair = make_pair("adamw", lr=1e-2)
    update(pair.base)
    switched(pair, 4)
    for side in pair.sides:
        load_optimizer(side.optimizer, side.optimizer.state_dict())
    plans.clear()
    switched(pair, 4, seed=9)
    assert plans == [True, False]


def test_tensors_that_are_rebound_at_every_step_are_carried_and_not_kept_alive(plans):
    pair = make_pair("adamw", lr=1e-2)
    states = [side.optimizer.state for side in pair.sides]

    def rebind():
        for state in states:
            for values in state.values():
                values["exp_avg"] = values["exp_avg"].clone()

    update(pair.base)
    for number in range(12):
        switch(pair)
        assert_carried(pair, "", pair.is_motivated)
        update(pair.active, number)
        rebind()
    assert len(plans) == 12
    assert pair._switch.state_to_motivated._plan is pair._switch.state_to_base._plan is None


def test_a_scalar_that_is_no_tensor_is_carried_by_a_plan_that_holds(plans):
    pair = make_pair("momentum", lr=1e-2)
    for side in pair.sides:
        update(side)
        for values in side.optimizer.state.values():
            values["count"] = 0
    for number in range(1, 6):
        for values in pair.active.optimizer.state.values():
            values["count"] = number
        switch(pair)
        mapped = [pair.active.optimizer.state[getattr(shared, pair.role.value)] for shared in shared_by(pair)]
        assert {values["count"] for values in mapped} == {number}
    assert plans == [True, False]


def test_a_value_that_becomes_a_tensor_is_copied_not_shared(plans):
    pair = make_pair("momentum", wide=False, lr=1e-2)
    for side in pair.sides:
        update(side)
        for values in side.optimizer.state.values():
            values["late"] = None
    switched(pair, 2)
    for parameter, values in pair.base.optimizer.state.items():
        values["late"] = torch.ones_like(parameter)
    switch(pair)
    for shared in shared_by(pair):
        sent, got = (pair.base.optimizer.state[shared.base], pair.motivated.optimizer.state[shared.motivated])
        assert torch.equal(got["late"], sent["late"])
        assert got["late"] is not sent["late"]
    assert plans == [True, False, True]


def test_what_an_optimizer_keeps_beside_its_parameters_is_left_alone(plans):
    pair = make_pair("momentum", lr=1e-2)
    for side in pair.sides:
        update(side)
        side.optimizer.state["rounds"] = 3
    switched(pair, 4)
    assert plans == [True, False]


def shared_by(pair):
    return pair._switch.state_to_base.pairs


def test_slices_stand_apart_from_whole_tensors():
    large = torch.zeros(4, 6)
    pairs = [
        (torch.ones(3, 3), large[:3, :3]),
        (torch.ones(5), torch.zeros(5)),
        (torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.zeros(2, 3, 4, 4)),
        (torch.ones(7), torch.zeros(9)[:7]),
        (torch.ones(4, 1).expand(4, 3), torch.zeros(4, 3)),
        (torch.ones(1, 1, 3), torch.zeros(1, 1, 6)[:, :, :3]),
    ]
    copies = grouped(pairs)
    assert [len(sources) for sources, _ in copies] == [3, 3]
    copy_all(copies)
    assert all(torch.equal(source, target) for source, target in pairs)
    assert large.sum() == 9
