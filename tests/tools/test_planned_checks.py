"""Folders with other runs are refused before a sweep begins."""

import pytest

from motivation.errors import InputError
from motivation.options.parse import parse
from motivation.tools.planned_checks import refuse_other_runs
from motivation.tools.sweep import PlannedRun

WORDS = ("--model", "resnet8_cifar", "--lr", "0.1", "--folds", "2", "--fold", "1", "--seed", "3")


def made(tmp_path, name, *words):
    """The options of a run, in its folder."""
    run = PlannedRun(tmp_path / name, WORDS)
    run.folder.mkdir()
    (run.folder / "args.yaml").write_text(parse([*WORDS, *words])[1])
    return run


def test_what_may_be_there_is_a_run_of_the_same_options_half_a_run_or_none(tmp_path):
    half = made(tmp_path, "half")
    (half.folder / "args.yaml").write_text("")  # killed while it wrote them
    same = made(tmp_path, "same", "--output", "elsewhere", "-j", "0", "--log-interval", "7")
    older = made(tmp_path, "older")  # of a version without one of the options, which has its default here
    lines = (older.folder / "args.yaml").read_text().splitlines()
    (older.folder / "args.yaml").write_text("\n".join(line for line in lines if not line.startswith("val_interval")))
    refuse_other_runs([half, same, older, PlannedRun(tmp_path / "none", WORDS)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lr", "0.2"], r"run was made with other options \(lr 0.2 there, 0.1 here\): delete it"),
        (["--folds", "3"], "folds 3 there, 2 here"),
        (["--lr", "0.2", "--epochs", "9"], "epochs 9 there, 300 here; lr 0.2 there"),
    ],
)
def test_a_run_with_other_options_is_refused(words, message, tmp_path):
    with pytest.raises(InputError, match=message):
        refuse_other_runs([made(tmp_path, "run", *words)])
