"""A checkpoint that is damaged inside a part is refused in one line that names the file and the part."""

import numpy as np
import pytest
import torch
from support.program import DIGITS, MOTIVATED, load

from motivation.tools.train import main

FLAGS = [*DIGITS, *MOTIVATED, "--model-ema", "--recovery-interval", "4"]
OURS = "motivation"
GONE = object()

DAMAGES = {
    "no pair": ((OURS, "pair"), GONE, "'motivation'"),
    "a pair that is a number": ((OURS, "pair"), 3, "'motivation'"),
    "no condition": ((OURS, "pair", "condition"), GONE, "'motivation'"),
    "no name of the condition": ((OURS, "pair", "condition", "name"), GONE, "'motivation'"),
    "a short position": ((OURS, "pair", "position"), [1, 2], "'motivation'"),
    "a position of words": ((OURS, "pair", "position"), ["a", "b", "c", "d"], "'motivation'"),
    "no ranks": ((OURS, "ranks"), GONE, "'motivation'"),
    "a rank that is a word": ((OURS, "ranks", 0), "x", "'motivation'"),
    "a format of another version": ((OURS, "format"), "x", "another version"),
    "no state of the condition": ((OURS, "pair", "condition", "state"), {}, "'pair'"),
    "a streak that is a word": ((OURS, "pair", "condition", "state", "streak"), "x", "'pair'"),
    "no counts of the base": ((OURS, "pair", "counts", "base"), GONE, "'pair'"),
    "weights of the motivated model that are a list": ((OURS, "pair", "motivated", "state_dict"), [1], "'pair'"),
    "no groups of the motivated optimizer": ((OURS, "pair", "motivated", "optimizer", "param_groups"), GONE, "'pair'"),
    "a clock that is a word": ((OURS, "clock"), "x", "'clock'"),
    "a guard without count": ((OURS, "guard"), {}, "'guard'"),
    "an epoch without loss": ((OURS, "records", 0, "train_loss"), GONE, "'records'"),
    "savers that are a number": ((OURS, "savers"), 3, "'savers'"),
    "a saver without files": ((OURS, "savers", "base", "kept"), GONE, "'savers'"),
    "statistics of another shape": (
        (OURS, "ranks", 0, "statistics", "base"), {"bn1.running_mean": torch.ones(1)}, "'statistics'"),
    "a place of the data that is a word": ((OURS, "ranks", 0, "feed"), "x", "'feed'"),
    "a short sum of losses": ((OURS, "ranks", 0, "losses"), [1.0], "'losses'"),
    "random states of another length": ((OURS, "ranks", 0, "rng", "torch"), torch.zeros(3, dtype=torch.uint8), "'rng'"),
    "no random states of NumPy": ((OURS, "ranks", 0, "rng", "numpy"), GONE, "'rng'"),
    "an empty optimizer": (("optimizer",), {}, "'optimizer'"),
    "no momentum in a group": (("optimizer", "param_groups", 0, "momentum"), GONE, "'optimizer'"),
    "a momentum that is a word": (("optimizer", "param_groups", 0, "momentum"), "x", "'optimizer'"),
    "a momentum buffer of another shape": (("optimizer", "state", 0, "momentum_buffer"), torch.ones(2), "'optimizer'"),
    "a momentum buffer that is a number": (("optimizer", "state", 0, "momentum_buffer"), 0.5, "'optimizer'"),
    "no momentum buffer": (("optimizer", "state", 0), {"other": 1}, "'optimizer'"),
    "a state that is a number": (("optimizer", "state", 0), 3, "'optimizer'"),
    "weights of another shape": (("state_dict", "conv1.weight"), torch.ones(2), "'state_dict'"),
    "an EMA that is a number": (("state_dict_ema",), 3, "'state_dict_ema'"),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main([*FLAGS, "--epochs", "1", "--output", str(folder), "--experiment", "run"]) == 0
    return folder / "run"


@pytest.mark.parametrize(("place", "value", "named"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_part_is_named(place, value, named, run, tmp_path, capsys):
    refused(run / "last.pth.tar", place, value, named, tmp_path, capsys)


@pytest.mark.parametrize("name", ["consumed", "epoch_start", "before"])
def test_a_damaged_place_inside_an_epoch_is_named(name, run, tmp_path, capsys):
    place = (OURS, "ranks", 0, "feed", name)
    refused(run / "recovery-0-3.pth.tar", place, ["x"], "'feed'", tmp_path, capsys)


def test_an_empty_optimizer_says_how_to_begin_with_a_new_one(run, tmp_path, capsys):
    refused(run / "last.pth.tar", ("optimizer",), {}, "--no-resume-opt begins with a new optimizer", tmp_path, capsys)
    refused(run / "last.pth.tar", ("optimizer", "param_groups"), [], "--no-resume-opt", tmp_path, capsys)


def test_options_that_group_parameters_otherwise_are_named(run, tmp_path, capsys):
    argv = [*FLAGS, "--resume", str(run / "last.pth.tar"), "--output", str(tmp_path), "--weight-decay", "0"]
    assert main(argv) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.endswith(
        "it was trained with --weight-decay 2e-05, this run has --weight-decay 0.0; give that, or --no-resume-opt"
    )


def test_settings_that_the_resumed_optimizer_replaces_are_said(run, tmp_path, caplog):
    flags = ["--weight-decay", "0.1", "--momentum", "0.5", "--lr", "0.2", "--epochs", "2"]
    argv = [*FLAGS, "--resume", str(run / "last.pth.tar"), "--output", str(tmp_path)]
    assert main([*argv, *flags]) == 0
    said = [record.message for record in caplog.records if "has no effect: the resumed" in record.message]
    assert said == [
        "--lr 0.2 has no effect: the resumed optimizer goes on with its own, 0.05.",
        "--weight-decay 0.1 has no effect: the resumed optimizer goes on with its own, 2e-05.",
        "--momentum 0.5 has no effect: the resumed optimizer goes on with its own, 0.9.",
    ]
    caplog.clear()
    assert main([*argv, "--epochs", "2"]) == 0
    assert "has no effect" not in caplog.text


def test_a_file_with_numbers_of_numpy_is_resumed(run, tmp_path):
    contents = load(run / "last.pth.tar")
    contents["metric"], contents["epoch"] = np.float64(contents["metric"]), np.int64(contents["epoch"])
    contents["args"].lr = np.float64(contents["args"].lr)
    torch.save(contents, tmp_path / "numpy.pth")
    argv = [*FLAGS, "--resume", str(tmp_path / "numpy.pth"), "--output", str(tmp_path), "--experiment", "again"]
    assert main([*argv, "--epochs", "2"]) == 0
    assert load(tmp_path / "again" / "last.pth.tar")["epoch"] == 1


def refused(file, place, value, named, tmp_path, capsys):
    contents = load(file)
    *path, last = place
    inside = contents
    for key in path:
        inside = inside[key]
    if value is GONE:
        del inside[last]
    else:
        inside[last] = value
    torch.save(contents, tmp_path / "damaged.pth")
    assert main([*FLAGS, "--resume", str(tmp_path / "damaged.pth"), "--output", str(tmp_path)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: --resume {tmp_path / 'damaged.pth'}: ")
    assert named in line
