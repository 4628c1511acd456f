"""Random legal flags: each run, and the command after it, ends well or in lines that say why not."""

from collections import Counter

import fuzz_flags
import pytest
from support.program import FewDigits


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_flags_end_well_or_in_lines_that_say_why(first, tmp_path, monkeypatch):
    monkeypatch.setattr("motivation.data.datasets.SklearnDigits", FewDigits.__base__)  # it takes few by itself
    ends, failures = fuzz_flags.run_cases(seed=19, first=first, runs=10, folder=tmp_path)
    assert failures == []
    parts = Counter(word for end, count in ends.items() for word in end.replace(",", ":").split(": ") * count)
    assert parts["ran"] > 5
    assert parts["refused"] > 0


def test_a_traceback_is_told_as_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz_flags, "train_main", lambda *words: 1 // 0)
    how, why = fuzz_flags.run(fuzz_flags.Case("train", [], ["report", "{run}"]), tmp_path, tmp_path)
    assert how == "train: traceback"
    assert "ZeroDivisionError" in why
