"""When the motivated model is trained: each condition's law, state and refusals."""

import math
import random

import numpy as np
import pytest

from motivation.method.condition_registry import _conditions as registry
from motivation.method.condition_registry import arguments_of, condition_names, make_condition, register_condition
from motivation.method.conditions import Condition, FallingAverage, next_streak, streak_share
from motivation.method.records import DeferredScalar, Role, UpdateRecord

SIGNAL_OF = {"loss": "loss", "ema": "loss", "valloss": "validation_loss", "slope": "gradient_norm"}
MILLION = 1_000_000


class Record:
    """A record of one signal, without the way to the host."""

    __slots__ = ("gradient_norm", "loss", "validation_loss")

    def __init__(self, value, signal="loss"):
        setattr(self, signal, value)


def decisions(condition, values, epoch=0, signal="loss"):
    """The model that each update trains, as the loop asks for it."""
    condition.start_epoch(epoch, len(values))
    made = []
    for value in values:
        made.append(condition.motivated)
        condition.observe(Record(value, signal))
    return made


def test_k_decreases_in_a_row_motivate_the_next_update():
    losses = [5, 4, 3, 2, 2, 1, 0.5, 0.4, 9]
    assert decisions(make_condition("loss", 2), losses) == [0, 0, 0, 1, 1, 0, 0, 1, 1]


def test_valloss_watches_the_held_out_loss_and_slope_a_rising_norm():
    falling, rising = [5, 4, 3, 2, 4], [1, 2, 3, 4, 2]
    assert decisions(make_condition("valloss", 2), falling, signal="validation_loss") == [0, 0, 0, 1, 1]
    assert decisions(make_condition("slope", 2), rising, signal="gradient_norm") == [0, 0, 0, 1, 1]
    assert decisions(make_condition("slope", 1), falling, signal="gradient_norm") == [0, 0, 0, 0, 0]


def test_ema_is_compared_with_its_last_value_by_a_relative_drop():
    condition = make_condition("ema", k=1, decay=0.5, drop=0.1)
    # averages: 10, 9, 8.2, 6.1: drops of 10 %, 8.9 % and 25.6 %
    made = decisions(condition, [10, 8, 7.4, 4.0, 6.0])
    assert made == [0, 0, 1, 0, 1]
    assert condition.state_dict()["previous"] == pytest.approx((6.1 + 6.0) / 2)


def test_an_average_starts_at_the_first_loss_and_anew_with_each_epoch():
    condition = make_condition("ema", k=1)
    decisions(condition, [100.0])
    decisions(condition, [2.0], epoch=1)
    assert condition.state_dict()["previous"] == 2.0


def test_a_drop_of_exactly_what_is_asked_counts_and_a_tie_never_does():
    assert decisions(make_condition("ema", k=1, decay=0.0, drop=0.5), [1.0, 0.5, 0.0]) == [0, 0, 1]
    assert decisions(make_condition("ema", k=1, decay=0.0, drop=0.0), [1.0, 1.0, 0.0]) == [0, 0, 0]


def test_a_loss_that_is_not_finite_ends_the_streak_of_the_average_but_does_not_enter_it():
    condition = make_condition("ema", k=1, decay=0.0)
    assert decisions(condition, [3.0, 2.0, math.nan, 1.0, 0.5]) == [0, 0, 1, 0, 1]


@pytest.mark.parametrize("name", ["loss", "valloss", "slope"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_signal_that_is_not_finite_ends_the_streak(bad, name):
    condition = make_condition(name, 1)
    decisions(condition, [3, 4, 3, bad], signal=SIGNAL_OF[name])
    assert condition.streak == 0
    assert not condition.motivated


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_signal_is_not_compared_with_one_that_is_not_finite(bad):
    assert next_streak(1, bad, 1.0) == 0


@pytest.mark.parametrize("name", SIGNAL_OF)
def test_an_epoch_forgets_streak_and_previous_signal(name):
    condition, signal = make_condition(name, 1), SIGNAL_OF[name]
    good = [1.0, 2.0] if name == "slope" else [2.0, 1.0]
    decisions(condition, good, signal=signal)
    assert condition.motivated
    made = decisions(condition, [good[1] * 3] if name == "slope" else [good[1] / 3], epoch=1, signal=signal)
    assert made == [False]
    assert not condition.motivated


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["loss", "valloss", "slope"])
def test_independent_signals_give_the_law_of_the_streak(name, k):
    """A million updates; the standard error is that of the counts of 1000 separate stretches, which are independent."""
    signals = np.random.default_rng([k, len(name)]).random((1000, MILLION // 1000)).tolist()
    condition, signal = make_condition(name, k), SIGNAL_OF[name]
    condition.start_epoch(0, MILLION)
    record, counts = Record(0.0, signal), []
    for stretch in signals:
        count = 0
        for value in stretch:
            setattr(record, signal, value)
            count += condition.motivated
            condition.observe(record)
        counts.append(count)
    share, law = sum(counts) / MILLION, streak_share(k)
    error = np.std(counts, ddof=1) / math.sqrt(len(counts)) / len(signals[0])
    assert 0 < error < 0.2 * law
    assert abs(share - law) < 5 * error
    assert condition.expected_share == law


@pytest.mark.parametrize("updates", [1, 2, 7, 100])
def test_scheduled_draws_exactly_the_counts_it_is_given(updates):
    counts = [0, 1, updates, updates / 2, updates - 0.5]
    condition = make_condition("scheduled", counts=counts, seed=3)
    condition.start_run(len(counts), updates)
    drawn = [sum(decisions(condition, [0.0] * updates, epoch)) for epoch in range(len(counts))]
    assert drawn == [math.floor(count + 0.5) for count in counts]
    assert condition.expected_share == pytest.approx(sum(drawn) / (updates * len(counts)))


def test_scheduled_updates_lie_anywhere_in_the_epoch():
    condition = make_condition("scheduled", counts=[3] * 2000)
    hits = np.sum([decisions(condition, [0.0] * 10, epoch) for epoch in range(2000)], axis=0)
    assert hits.sum() == 6000
    assert (abs(hits - 600) < 5 * math.sqrt(2000 * 0.3 * 0.7)).all()


def test_random_draws_a_number_uniform_in_zero_to_all_updates():
    condition, updates, epochs = make_condition("random", seed=1), 9, 5000
    counts = [sum(decisions(condition, [0.0] * updates, epoch)) for epoch in range(epochs)]
    histogram = np.bincount(counts, minlength=updates + 1)
    expected = epochs / (updates + 1)
    assert (abs(histogram - expected) < 5 * math.sqrt(expected)).all()
    assert condition.expected_share == 0.5


@pytest.mark.parametrize("name", ["random", "scheduled"])
def test_draws_are_those_of_seed_and_epoch_and_of_no_global_stream(name):
    options = {"counts": [10] * 4} if name == "scheduled" else {}

    def drawn(seed, epoch):
        random.seed(random.random())
        return decisions(make_condition(name, seed=seed, **options), [0.0] * 30, epoch)

    before = random.getstate()
    condition = make_condition(name, seed=1, **options)
    condition.start_epoch(0, 30)
    assert random.getstate() == before
    assert drawn(1, 3) == drawn(1, 3)
    assert drawn(1, 3) != drawn(2, 3)
    assert drawn(1, 2) != drawn(1, 3)


def test_scheduled_refuses_a_run_that_its_counts_do_not_fit():
    condition = make_condition("scheduled", counts=[3, 8])
    with pytest.raises(ValueError, match="have 2 epochs, this one 3"):
        condition.start_run(3, 10)
    with pytest.raises(ValueError, match="up to 8 motivated updates in an epoch of this run's 7"):
        condition.start_run(2, 7)


def test_scheduled_says_which_epoch_has_no_count():
    condition = make_condition("scheduled", counts=[1, 9])
    condition.start_epoch(0, 4)
    for epoch in (1, 2):
        with pytest.raises(ValueError, match=f"no count for epoch {epoch} of 4 updates; call start_run"):
            condition.start_epoch(epoch, 4)


def test_drawn_conditions_must_know_the_length_of_an_epoch():
    with pytest.raises(ValueError, match="how many updates it has"):
        make_condition("random").start_epoch(0, None)


def test_never_and_always_are_the_bounds():
    assert decisions(make_condition("never", 1), [3, 2, 1]) == [False] * 3
    assert decisions(make_condition("always", 1), [1, 2, 3]) == [True] * 3


@pytest.mark.parametrize("name", ["loss", "ema", "valloss", "slope", "random", "scheduled", "never", "always"])
def test_state_goes_on_in_the_middle_of_an_epoch(name):
    stream = random.Random(5)
    values, signal = [stream.random() for _ in range(60)], SIGNAL_OF.get(name, "loss")
    options = {"counts": [9, 20]} if name == "scheduled" else {}
    whole, first, second = (make_condition(name, 1, seed=4, **options) for _ in range(3))
    expected = decisions(whole, values, 1, signal)
    for cut in (0, 1, 30, 59):
        first.start_epoch(1, 60)
        for value in values[:cut]:
            first.observe(Record(value, signal))
        second.load_state_dict(first.state_dict())
        rest = []
        for value in values[cut:]:
            rest.append(second.motivated)
            second.observe(Record(value, signal))
        assert rest == expected[cut:]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("los", {}, "there are always, ema, loss, never, random"),
        ("loss", {"k": 0}, "at least 1"),
        ("loss", {"decay": 0.5}, "takes no 'decay'; it takes k"),
        ("never", {"decay": 0.5}, "it takes nothing"),
        ("ema", {"decay": 1.0}, "from 0 to below 1, not 1.0"),
        ("ema", {"drop": -0.1}, "relative drop"),
        ("scheduled", {}, "cannot be made"),
    ],
)
def test_wrong_names_and_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_condition(name, **options)


@pytest.fixture
def register():
    """`register_condition` whose names are forgotten afterwards."""
    before = dict(registry)
    yield register_condition
    registry.clear()
    registry.update(before)


def test_a_name_is_registered_once(register):
    class Mine(Condition):
        motivated = False

    register("mine")(Mine)
    assert "mine" in condition_names()
    with pytest.raises(ValueError, match="registered already"):
        register("mine")(Mine)


def test_a_class_is_registered_under_one_name(register):
    class Mine(Condition):
        motivated = False

    register("first")(Mine)
    with pytest.raises(ValueError, match="Mine is registered already, as 'first'"):
        register("second")(Mine)


def test_keyword_arguments_of_a_constructor_are_those_of_the_next_class(register):
    @register("handed on")
    class HandedOn(FallingAverage):
        def __init__(self, extra=0, **kwargs):
            super().__init__(**kwargs)
            self.extra = extra

    @register("any")
    class Any(Condition):
        motivated = False

        def __init__(self, **kwargs):
            self.given = kwargs

    condition = make_condition("handed on", 3, decay=0.8, extra=1)
    assert (condition.k, condition.decay, condition.extra) == (3, 0.8, 1)
    assert arguments_of(HandedOn) == ["extra", "k", "decay", "drop"]
    assert make_condition("any", 3, decay=0.8).given == {"decay": 0.8}


def test_a_class_that_cannot_decide_is_refused_when_it_is_registered(register):
    with pytest.raises(ValueError, match="has no `motivated`"):
        register("a")(type("A", (Condition,), {}))
    with pytest.raises(ValueError, match="is not a class derived from"):
        register("b")(type("B", (), {"motivated": False}))
    with pytest.raises(ValueError, match="needs 'weights'; there are loss, gradient_norm"):
        register("c")(type("C", (Condition,), {"motivated": False, "needs": ("weights",)}))


def test_a_record_tells_only_what_was_measured():
    record = UpdateRecord(0, 0, 1, Role.BASE, {"loss": DeferredScalar(1.5)})
    assert record.loss == 1.5
    with pytest.raises(ValueError, match="gradient_norm of an update was not measured"):
        _ = record.gradient_norm
