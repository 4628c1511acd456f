"""When the motivated model is trained."""

import math
import random

import pytest

from motivation.conditions import (
    Condition,
    condition_names,
    expected_share,
    make_condition,
    next_streak,
    register_condition,
)
from motivation.conditions import _conditions as registry


class Record:
    def __init__(self, loss):
        self.loss = loss


def decisions(condition, losses, epoch=0):
    """The model that each update trains, as the loop asks for it."""
    condition.start_epoch(epoch, len(losses))
    made = []
    for loss in losses:
        made.append(condition.motivated)
        condition.observe(Record(loss))
    return made


def test_k_decreases_in_a_row_motivate_the_next_update():
    losses = [5, 4, 3, 2, 2, 1, 0.5, 0.4, 9]
    assert decisions(make_condition("loss", 2), losses) == [0, 0, 0, 1, 1, 0, 0, 1, 1]


def test_a_tie_ends_the_streak():
    assert next_streak(3, 1.0, 1.0) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_streak(bad):
    condition = make_condition("loss", 1)
    decisions(condition, [3, 2, bad])
    assert condition.streak == 0
    assert not condition.motivated


def test_an_epoch_forgets_streak_and_previous_loss():
    condition = make_condition("loss", 1)
    assert decisions(condition, [3, 2]) == [0, 0]
    assert condition.motivated
    assert decisions(condition, [1, 0.5, 0.1], epoch=1) == [0, 0, 1]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_independent_losses_give_the_law_of_the_streak(k):
    stream, updates = random.Random(k), 200_000
    share = sum(decisions(make_condition("loss", k), [stream.random() for _ in range(updates)])) / updates
    law = expected_share(k)
    # successive decisions are correlated over about k updates: count the effective sample accordingly
    assert abs(share - law) < 5 * math.sqrt((2 * k + 1) * law * (1 - law) / updates)
    assert make_condition("loss", k).expected_share == law


def test_never_and_always_are_the_bounds():
    assert decisions(make_condition("never", 1), [3, 2, 1]) == [False] * 3
    assert decisions(make_condition("always", 1), [1, 2, 3]) == [True] * 3


def test_state_goes_on_in_the_middle_of_an_epoch():
    losses = [3, 2, 1, 0.5, 0.6, 0.4]
    whole, first, second = (make_condition("loss", 2) for _ in range(3))
    expected = decisions(whole, losses)
    start = decisions(first, losses[:3])
    second.load_state_dict(first.state_dict())
    rest = []
    for loss in losses[3:]:
        rest.append(second.motivated)
        second.observe(Record(loss))
    assert start + rest == expected


def test_wrong_names_and_k_are_refused():
    with pytest.raises(ValueError, match="there are always, loss, never"):
        make_condition("los", 2)
    with pytest.raises(ValueError, match="at least 1"):
        make_condition("loss", 0)


def test_a_name_is_registered_once():
    class Mine(Condition):
        def __init__(self, k):
            pass

    try:
        register_condition("mine")(Mine)
        assert "mine" in condition_names()
        with pytest.raises(ValueError, match="registered already"):
            register_condition("mine")(Mine)
    finally:
        registry.pop("mine")
