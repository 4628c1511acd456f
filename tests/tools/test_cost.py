"""The prediction of a run's cost is the arithmetic it says."""

import json
import math
import random
import subprocess
import sys

import pytest
from support.program import ROOT, assert_equal

from motivation.method.random_states import get_rng_state, rng_to_dict
from motivation.method.records import Role
from motivation.tools.cost import Length, expected_motivated_updates, prediction, updates_per_epoch

CONFIGS = [
    path
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if path.parent.name in ("configs", "digits", "imagenet") and "motivated_model:" in path.read_text()
]
"""Of motivated runs, a few: the others are of the same models."""
RESNETS = ["--model", "resnet8_cifar", "--input-size", "3", "8", "8"]
PAIR = [*RESNETS, "--motivated-model", "resnet14_cifar"]


@pytest.fixture
def cost(command):
    """``cost(*arguments)`` is what the command prints; with ``code=2`` its errors."""

    def run(*arguments, code=0):
        out, err = command("cost", *arguments, code=code)
        return err if code else out

    return run


def line_of(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.split()


# The figures


@pytest.mark.parametrize(("base", "motivated"), [(20, 32), (44, 56)])
def test_command_prints_the_papers_table_8(cost, base, motivated):
    published = {20: "82.82M", 32: "140.13M", 44: "197.44M", 56: "254.76M"}
    text = cost(
        "--model", f"resnet{base}_cifar", "--motivated-model", f"resnet{motivated}_cifar", "--input-size", 3, 32, 32
    )
    assert line_of(text, "base  ")[3] == published[base]
    assert line_of(text, "motivated  ")[3] == published[motivated]


@pytest.mark.parametrize(("side", "base", "motivated"), [(160, 2.1, 4.0), (224, 4.1, 7.8)])
def test_multiply_adds_of_resnets_are_the_published_ones(cost, side, base, motivated):
    data = json.loads(
        cost("--model", "resnet50", "--motivated-model", "resnet101", "--input-size", 3, side, side, "--json")
    )
    assert data["input_size"] == [3, side, side]
    assert data["models"]["base"]["parameters"] == 25_557_032
    assert round(data["models"]["base"]["macs"] / 1e9, 1) == base
    assert round(data["models"]["motivated"]["macs"] / 1e9, 1) == motivated


# The prediction


def test_rows_follow_the_law_and_their_ratios_the_costs():
    rows = prediction([1, 2, 3], {Role.BASE: 100.0, Role.MOTIVATED: 160.0}, condition="loss", own_k=2)
    streaks, (base, motivated, both) = rows[:3], rows[3:]
    for row, k in zip(streaks, (1, 2, 3)):
        assert row.share == pytest.approx(1 / math.factorial(k + 1))
        assert row.flops == pytest.approx(100 + 60 * row.share)
        assert row.over_base == pytest.approx(row.flops / 100)
        assert row.over_motivated == pytest.approx(row.flops / 160)
        assert row.this_run == (k == 2)
    assert (base.flops, motivated.flops, both.flops) == (100.0, 160.0, 260.0)
    assert both.over_motivated == 1.625
    assert all(row.motivated_updates is None for row in rows)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_motivated_updates_are_those_of_a_simulation_with_independent_losses(k):
    stream, epochs, updates = random.Random(5), 20_000, 12
    motivated = 0
    for _ in range(epochs):
        streak, previous = 0, None
        for _ in range(updates):
            motivated += streak >= k
            loss = stream.random()
            streak = streak + 1 if previous is not None and loss < previous else 0
            previous = loss
    assert expected_motivated_updates(k, Length(epochs, updates)) == pytest.approx(motivated, rel=0.05)
    assert expected_motivated_updates(k, Length(epochs=10, updates_per_epoch=k)) == 0


@pytest.mark.parametrize(
    ("images", "batch", "accumulate", "processes", "updates"),
    [
        (100, 10, 1, 1, 10), (109, 10, 1, 1, 10), (100, 10, 3, 1, 4), (100, 10, 1, 3, 3), (9, 10, 1, 1, 0),
        (19, 10, 1, 2, 1),
        (1_281_167, 256, 1, 8, 625),
    ],
)  # fmt: skip
def test_updates_of_an_epoch_are_whole_batches(images, batch, accumulate, processes, updates):
    assert updates_per_epoch(images, batch, accumulate, processes) == updates


@pytest.mark.parametrize(
    ("condition", "label", "share"),
    [("never", "base alone", 0), ("always", "motivated alone", 1), ("random", "random", 0.5)],
)
def test_a_condition_with_another_law_has_its_own_row(condition, label, share):
    rows = prediction([2], {Role.BASE: 100.0, Role.MOTIVATED: 200.0}, condition, own_k=2, length=Length(2, 50))
    (row,) = [row for row in rows if row.this_run]
    assert (row.label, row.share) == (label, share)
    assert row.motivated_updates == 100 * share


def test_the_runs_own_k_is_added_and_marked(cost):
    text = cost(*PAIR, "--k", 2, 3, "--motivation-k", 7)
    rows = [line for line in text.splitlines() if line.startswith("k = ")]
    assert [line.split()[2] for line in rows] == ["2", "3", "7"]
    assert [line.endswith("<- this run") for line in rows] == [False, False, True]
    assert text.count("<- this run") == 1


# The command


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT)) for path in CONFIGS])
def test_every_configuration_is_predicted(path, cost):
    data = json.loads(cost(path, "--json"))
    assert set(data["models"]) == {"base", "motivated"}
    (row,) = [row for row in data["rows"] if row["this_run"]]
    base, motivated = (data["models"][role]["flops"] for role in ("base", "motivated"))
    assert base < row["flops"] < motivated
    assert row["flops"] == pytest.approx(base + row["share"] * (motivated - base))


def test_a_positional_file_is_the_configuration_and_flags_win_over_it(cost):
    quick = ROOT / "configs/quickstart.yaml"
    assert cost(quick, "--images", 1437) == cost("--config", quick, "--images", 1437)
    text = cost("--motivation-k", 3, quick, "--model-kwargs", "shortcut=A")
    assert line_of(text, "base  ")[1] == "resnet8_cifar"
    assert line_of(text, "base  ")[2] != line_of(cost(quick), "base  ")[2]
    assert next(line for line in text.splitlines() if "<- this run" in line).startswith("k = 3")


def test_a_config_is_found_by_its_name_and_a_data_folder_is_none(cost, tmp_path):
    assert cost("quickstart") == cost("--config", "quickstart")
    assert cost(tmp_path, *PAIR) == cost("/data/on/another/machine", *PAIR) == cost(*PAIR)


def test_quickstarts_updates_are_those_it_trains(cost):
    data = json.loads(cost(ROOT / "configs/quickstart.yaml", "--images", 1437, "--json"))
    assert (data["epochs"], data["updates_per_epoch"], data["updates"]) == (30, 22, 660)
    assert cost(ROOT / "configs/quickstart.yaml", "--updates-per-epoch", 22).count("660") == 2


def test_the_schedules_further_epochs_count(cost):
    data = json.loads(cost(*PAIR, "--epochs", 5, "--cooldown-epochs", 2, "--updates-per-epoch", 10, "--json"))
    assert data["updates"] == 70


def test_without_a_length_there_is_no_column_of_updates(cost):
    assert "motivated updates" not in cost(*PAIR)
    assert "motivated updates" in cost(*PAIR, "--train-num-samples", 1280)


def test_small_shares_are_warned_of(cost):
    warning = "the differential part hardly trains"
    assert warning not in cost(*PAIR, "--k", 1, 2, 3)
    assert "at k = 4: " in cost(*PAIR, "--k", 3, 4)
    assert "this run's" in cost(*PAIR, "--motivation-k", 4)


def test_one_model_has_its_cost_and_is_told_what_is_missing(cost):
    text = cost(*RESNETS)
    assert "give --motivated-model" in text
    assert "F_avg" not in text
    assert json.loads(cost(*RESNETS, "--json"))["rows"] == []


def test_each_convention_is_explained_where_it_is_shown(cost):
    lines = cost(*PAIR).splitlines()
    for convention in ("torch flops", "thop flops", "macs"):
        assert convention in lines[0]
        assert any(line.startswith(convention) for line in lines[1:])


def test_weights_devices_and_folders_of_the_run_are_not_needed(cost):
    cost(*PAIR, "--pretrained", "--device", "cuda", "--data-dir", "nowhere", "--initial-checkpoint", "nowhere.pth")
    cost(*PAIR, "--grad-checkpointing", "--resume", "nowhere.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnt50"], "did you mean resnet50"),
        ([*RESNETS, "--motivated-model", "resnet14_cifarr"], "did you mean"),
        ([*RESNETS, "--motivated-model", "resnet18", "--num-classes", "10"], "does not contain"),
        ([*RESNETS, "--model-kwargs", "nonsense=1"], "unexpected keyword argument 'nonsense'"),
        ([*RESNETS, "--model-kwargs", "nonsense"], "words of the form name=value"),
        (["--model", "test_vit", "--input-size", "3", "33", "33"], "takes images of 160x160, not of 33x33"),
        ([*PAIR, "--motivation-condition", "los"], "did you mean loss"),
        ([*PAIR, "--motivation-k", "0"], "--motivation-k: at least 1, not 0"),
        ([*PAIR, "--nonsense"], "unknown: --nonsense"),
        ([*PAIR, "--k", "0"], "--k: at least 1"),
        ([*PAIR, "--k", "two"], "invalid int value"),
        ([*PAIR, "--images", "5"], "--images: 5 do not fill one batch of 128"),
        ([*PAIR, "--images", "-5"], "--images: at least 1"),
        ([*PAIR, "--images", "5", "--updates-per-epoch", "5"], "not allowed with"),
        ([*PAIR, "--images", "5000", "--train-img-sizes", "8", "16"], "--images: batches vary"),
        (["nowhere.yaml"], "cannot read nowhere.yaml"),
        (["quickstrt"], "did you mean quickstart"),
        (["nowhere.yaml", "--config", "elsewhere.yaml"], "two configurations"),
        ([*PAIR, "--motivation-plugins", "nowhere.py"], "there is no such file"),
    ],
)
def test_wrong_input_ends_in_one_line_and_its_reasons(arguments, message, cost):
    line, *reasons = cost(*arguments, code=2).splitlines()
    assert line.startswith("error: ")
    assert all(reason.startswith("  ") for reason in reasons)
    assert message in line


def test_several_faults_come_at_once_a_line_each(cost):
    lines = cost("--model", "resnt50", "--motivation-condition", "los", code=2).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)


def test_the_prediction_draws_no_random_number_that_stays(cost):
    before = rng_to_dict(get_rng_state())
    cost(*PAIR, "--images", 1280)
    assert_equal(rng_to_dict(get_rng_state()), before)


def test_the_module_is_a_command_and_a_closed_pipe_is_no_error():
    words = [sys.executable, "-m", "motivation", "cost", *PAIR]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert "BrokenPipe" not in errors
    assert "Traceback" not in errors
    assert process.returncode == 0


def test_control_characters_in_names_are_escaped(cost, monkeypatch):
    monkeypatch.setattr("motivation.tools.cost.predict", lambda *_: "resnet\x1b[31m")
    assert cost(*PAIR) == "resnet\\x1b[31m\n"
