"""The conditions and variants in configs/frontier train, and change what they say."""

import pytest
from support.processes import finish, on_few_digits, run_module, start
from support.program import DIGITS, MOTIVATED, rows

CHANGED = ("--motivation-plugins", "configs/frontier/variants.py", "--motivation-condition", "changed")
OTHERS = ("--motivation-plugins", "configs/frontier/conditions.py", "--motivation-condition")
KWARGS = "--motivation-plugin-kwargs"
CASES = {
    "rate": [*CHANGED, KWARGS, "rate=2"],
    "decay": [*CHANGED, KWARGS, "decay=0"],
    "momentum": [*CHANGED, KWARGS, "momentum=0"],
    "distillation": [*CHANGED, KWARGS, "distillation=1"],
    "late": [*OTHERS, "windowed", KWARGS, "begin=0.5"],
    "share": [*OTHERS, "share", KWARGS, "share=0.4"],
}


@pytest.fixture(scope="module")
def updates(tmp_path_factory):
    """``updates(*flags)`` trains two epochs and returns the rows of ``updates.csv``."""

    def run(*flags):
        folder = tmp_path_factory.mktemp("run")
        words = [*DIGITS, *MOTIVATED, "--weight-decay", "0.01", "--output", folder, "--experiment", "run", *flags]
        process = start(on_few_digits, run_module, "motivation", "train", *words, log=folder / "log")
        assert finish(process) == 0, (folder / "log").read_text()
        return rows(folder / "run" / "updates.csv")

    return run


@pytest.fixture(scope="module")
def plain(updates):
    return updates()


def test_a_variant_that_changes_nothing_trains_as_the_paper_does(updates, plain):
    assert updates(*CHANGED) == plain


@pytest.mark.parametrize("flags", CASES.values(), ids=CASES)
def test_a_variant_changes_what_follows_the_first_motivated_update(updates, plain, flags):
    found = updates(*flags)
    first = next(place for place, row in enumerate(plain) if row["active"] == "motivated")
    assert [row["loss"] for row in found] != [row["loss"] for row in plain]
    if flags[: len(CHANGED)] == list(CHANGED):
        assert found[: first + 1] == plain[: first + 1]
