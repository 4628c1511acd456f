"""A plain run still gives the losses it gave when it was equal to timm's script."""

import json

import pytest
from support import golden

from motivation.data.datasets import SklearnDigits

KEPT = json.loads(golden.FILE.read_text())


@pytest.mark.parametrize("name", golden.CASES)
def test_losses_are_the_kept_ones(name, train, monkeypatch):
    monkeypatch.setattr("motivation.data.datasets.SklearnDigits", SklearnDigits)
    found = golden.losses(train(*golden.BATCHES, *golden.CASES[name]))
    kept = KEPT[name]
    assert len(found) == len(kept)
    for epoch, expected in zip(found, kept):
        # processors and library versions differ in the last digits, and ten updates amplify them
        assert epoch == pytest.approx(expected, rel=1e-3)
