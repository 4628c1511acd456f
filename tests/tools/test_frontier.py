"""``python -m motivation frontier``: its runs, accuracies at equal cost, the best split, and what it refuses."""

import math
import re

import numpy as np
import pytest
from support.program import DIGITS, MOTIVATED

from motivation.method.records import Role
from motivation.options.parse import parse
from motivation.tools.frontier.command import make_parser, make_plan
from motivation.tools.frontier.dynamics import dynamics
from motivation.tools.frontier.estimate import Ladder, best_split, compare, holm, over_budgets
from motivation.tools.frontier.plan import Way, stretch
from motivation.tools.train import main
from motivation.training.run_folder import UPDATE

NAN = math.nan
FLAGS = [word for place, word in enumerate(DIGITS) if "--epochs" not in DIGITS[max(place - 1, 0) : place + 1]]
BASE, LARGER = (
    Way(f"{name} alone", name, (), role) for name, role in (("base", Role.BASE), ("larger", Role.MOTIVATED))
)
K2, ZERO = Way("k = 2", "k2", (), k=2), Way("k = 2, zero", "k2-zero", (), k=2, plain="k = 2")


def ladder(way, costs, base=None, larger=None):
    top1 = {role: np.array(rows, float) for role, rows in zip(Role, (base, larger)) if rows is not None}
    return Ladder(way, tuple(range(1, len(costs) + 1)), np.array(costs, float), np.array(costs, float), top1)


ALONE = ladder(BASE, [1, 4], base=[[80, 90], [82, 92]])
LARGE = ladder(LARGER, [2, 8], larger=[[70, 96], [72, 98]])


def plan_of(tmp_path, *words, further=()):
    file = tmp_path / "c.yaml"
    file.write_text("model: resnet8_cifar\nmotivated_model: resnet14_cifar\nepochs: 40\nmotivated_drop: 0.2\n")
    args = make_parser().parse_args([str(file), "--output", str(tmp_path / "runs"), *words])
    return make_plan(args, further)


def test_each_way_meets_each_budget_with_each_seed_and_a_seed_is_done_before_the_next(tmp_path):
    plan = plan_of(tmp_path, "--budgets", "1", "0.5", "--motivated-budgets", "1", "--k", "2", "3", "--seeds", "4", "5")
    names = [cell.name for cell in plan.cells()]
    of_seed = ["base-budget0.5", "base-budget1", "larger-budget0.5", "larger-budget1", "k2-budget1", "k3-budget1"]
    assert names == [f"{name}-seed{seed}" for seed in (4, 5) for name in of_seed]
    assert len({plan.run(cell).folder for cell in plan.cells()}) == 12


def test_the_larger_alone_is_the_motivated_model_as_the_base_of_a_plain_run(tmp_path):
    plan = plan_of(tmp_path, further=["--motivated-model-kwargs", "zero_init_last=True"])
    cells = {cell.way.name: parse(plan.run(cell).arguments)[0] for cell in plan.cells() if cell.budget == 0.5}
    alone, larger, both = cells.values()
    assert (alone.model, alone.motivated_model, alone.epochs, alone.drop) == ("resnet8_cifar", "", 20, 0.0)
    assert (larger.model, larger.motivated_model, larger.epochs, larger.drop) == ("resnet14_cifar", "", 20, 0.2)
    assert larger.model_kwargs == {"zero_init_last": True}
    assert (both.model, both.motivated_model, both.motivation_k) == ("resnet8_cifar", "resnet14_cifar", 2)


def test_a_variant_adds_its_flags_to_each_k(tmp_path):
    ways = plan_of(tmp_path, "--k", "1", "2", "--variant", "slow", "--lr 0.01").ways
    assert [(way.name, way.plain) for way in ways[2:]] == [
        ("k = 1", None), ("k = 1, slow", "k = 1"), ("k = 2", None), ("k = 2, slow", "k = 2"),
    ]  # fmt: skip
    assert ways[3].words == ("--motivation-k", "1", "--lr", "0.01")


def test_a_schedule_is_stretched_with_all_that_counts_its_epochs():
    options = {"epochs": 40, "warmup_epochs": 5, "mixup_off_epoch": 30, "decay_epochs": 10, "cooldown_epochs": 0}
    assert stretch({**options, "sched": "cosine"}, 0.5) == [
        "--epochs", "20", "--warmup-epochs", "2", "--mixup-off-epoch", "15",
    ]  # fmt: skip
    assert stretch({**options, "sched": "step"}, 0.5)[-2:] == ["--decay-epochs", "5"]
    assert stretch({"epochs": 3}, 0.1) == ["--epochs", "1"]


def test_between_two_budgets_accuracy_is_linear_in_the_logarithm_of_the_cost():
    assert ALONE.at(Role.BASE, 2).tolist() == [85, 87]
    assert ALONE.at(Role.BASE, 4.05).tolist() == [90, 92]
    for outside in (0.9, 4.2, NAN):
        assert np.isnan(ALONE.at(Role.BASE, outside)).all()


def test_a_run_that_is_missing_is_missing_in_what_depends_on_it_alone():
    some = ladder(BASE, [1, 2, 4], base=[[80, 85, 90], [82, NAN, 92]])
    assert some.at(Role.BASE, 1).tolist() == [80, 82]
    assert np.isnan(some.at(Role.BASE, 1.5)).tolist() == [False, True]
    none = ladder(BASE, [1, NAN, 4], base=[[80, NAN, 90]])
    assert none.at(Role.BASE, 2).tolist() == [85]


def test_the_best_split_is_the_best_of_all_splits_of_the_cost():
    split = best_split(ALONE, LARGE, 6.0)
    by_hand = max(
        (ALONE.at(Role.BASE, part) + LARGE.at(Role.MOTIVATED, 6 - part)).mean() / 2 for part in np.linspace(1, 4, 301)
    )
    assert split.values.mean() == pytest.approx(by_hand, abs=0.01)
    assert split.values.mean() <= by_hand + 1e-9
    assert best_split(ALONE, LARGE, 2.5) is None  # the cheapest of both cost 3
    assert best_split(ALONE, LARGE, 13) is None


def test_a_split_is_found_also_where_the_base_costs_next_to_nothing():
    split = best_split(ladder(BASE, [1], base=[[80]]), ladder(LARGER, [1000], larger=[[90]]), 1001.0)
    assert (split.base_part, split.values.tolist()) == (1.0, [85])


def test_ways_are_compared_at_the_cost_that_each_had():
    motivated = ladder(K2, [2], base=[[86], [87]], larger=[[71], [74]])
    variant = ladder(ZERO, [2], base=[[86.5], [88]], larger=[[75], [75]])
    found = {
        (one.way.name, one.subject, one.against): one.values.tolist()
        for one in compare([ALONE, LARGE, motivated, variant])
    }
    assert found["k = 2", "base", "base alone"] == [1, 0]
    assert found["k = 2", "larger", "larger alone"] == [1, 2]
    assert ("k = 2", "both", "two runs") not in found  # no two runs fit
    assert found["k = 2, zero", "base", "k = 2"] == [0.5, 1]
    assert found["k = 2, zero", "larger", "k = 2"] == [4, 1]


def test_the_mean_over_budgets_is_one_comparison_with_scipys_p():
    from scipy.stats import ttest_rel

    base = [[84, 91], [86, 90.5], [85, 92]]
    alone = ladder(BASE, [1, 4], base=[[80, 90], [82, 92], [81, 93]])
    larger = ladder(LARGER, [10, 20], larger=[[70, 96]] * 3)
    found = compare([alone, larger, ladder(K2, [1, 4], base=base, larger=base)])
    (one,) = [test for test in over_budgets(found) if test.subject == "base"]
    assert one.values.tolist() == [2.5, 1.25, 1.5]
    assert one.p_value == pytest.approx(ttest_rel(np.mean(base, 1), np.mean(alone.top1[Role.BASE], 1)).pvalue)


def updates(*rows):
    """Updates of (epoch, loss, motivated)."""
    return np.array([(epoch, place, loss, on) for place, (epoch, loss, on) in enumerate(rows)], UPDATE).view(
        np.recarray
    )


def test_the_rise_after_falls_is_counted_within_epochs_whoever_trains():
    # epoch 0 falls twice, then rises by 3; epoch 1 begins lower, which is no fall, and falls twice at its end
    made = updates((0, 5, 0), (0, 4, 0), (0, 3, 0), (0, 6, 1), (1, 2, 0), (1, 1.5, 0), (1, 1, 0))
    found = dynamics(made, k=2)
    assert (found.share, found.rise) == (1 / 7, 3.0)
    assert found.gap == 6 - 4
    assert dynamics(made, k=1).rise == pytest.approx(np.mean([-1, 3, -0.5]))


def test_losses_that_are_independent_rise_after_falls_although_nobody_switches():
    losses = np.random.default_rng(0).normal(size=60_000)
    found = dynamics(updates(*((0, loss, 0) for loss in losses)), k=2)
    assert found.share == pytest.approx(1 / 6, abs=0.005)
    assert found.rise == pytest.approx(0.846, abs=0.02)  # minus the mean of the least of three
    assert math.isnan(found.gap)


def test_p_values_are_corrected_by_holm_and_missing_ones_do_not_count():
    assert holm([0.01, NAN, 0.04, 0.03])[::2] == pytest.approx([0.03, 0.06])
    assert math.isnan(holm([0.01, NAN])[1])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("words", "further", "message"),
    [
        (["--k", "0"], [], "--k: at least 1"),
        (["--budgets", "0"], [], "--budgets: at least 0.001"),
        (["--motivated-budgets", "nan"], [], "--motivated-budgets: at least"),
        (["--variant", "a/b", "--lr 1"], [], "--variant a/b: a name"),
        (["--variant", "a", "--lrr 1"], [], "--lrr"),
        (["--report-only"], ["--motivated-model", "resnet14_cifar"], "is done: give the command without --report-only"),
        ([], ["--epochs", "3"], "not after --, each run is given its own: --epochs"),
        ([], ["--motivated-model="], "has no motivated_model"),
        ([], ["--motivation-condition", "always"], "always has no k"),
        ([], ["--motivated-model", "resnet50"], "--motivated-model"),
    ],
)
def test_a_wrong_command_is_one_line_and_starts_nothing(words, further, message, command, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: resnet8_cifar\nmotivated_model: resnet14_cifar\n")
    folder = tmp_path / "runs"
    said = command("frontier", file, "--output", folder, *words, "--", *FLAGS, *further, code=2)
    assert message in said.err
    assert "Traceback" not in said.err
    assert not folder.exists()


def test_runs_end_in_tables_and_three_pictures(command, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("epochs: 4\n")
    words = [file, "--budgets", "0.5", "1", "--motivated-budgets", "1", "--k", "1", "--seeds", "0", "1"]
    words += ["--output", tmp_path / "runs"]
    flags = [*FLAGS, *MOTIVATED[:2]]
    plan = make_plan(make_parser().parse_args(list(map(str, words))), flags)
    for cell in plan.cells()[:-1]:  # the last is missing
        run = plan.run(cell)
        assert main(run.command()[len(run.launcher) :]) == 0
    assert "1 new" in command("frontier", *words, "--dry-run", "--", *flags).out
    said = command("frontier", *words, "--report-only", "--", *flags)
    assert re.search(r"k = 1 +\|[^|]+\| +1 \| +\d+\.\d+ +\|", said.out)
    assert re.search(r"base alone +\|[^|]+\| +2 \| +\d+\.\d+ ± \d", said.out)
    assert re.search(r"base alone +\| +1 \| +0\.\d+ ± .+\| +0\.5000 \|", said.out)
    assert "comparisons" in (tmp_path / "runs" / "frontier.md").read_text()
    for name in ("base", "larger", "both"):
        assert (tmp_path / "runs" / f"frontier_{name}.png").read_bytes()[:4] == b"\x89PNG"
