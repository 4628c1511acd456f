"""Pairs that are suggested are mapped, and cost what the law of the streak says."""

import pytest

from motivation.tools.suggest import suggestions
from weight_maps.__main__ import main

CIFAR = ["resnet8_cifar", "resnet14_cifar", "resnet20_cifar"]


def test_models_that_contain_a_base_and_the_other_way_round():
    larger = {one.name: one for one in suggestions("resnet14_cifar", names=CIFAR)}
    assert larger.keys() == {"resnet20_cifar"}
    (base,) = suggestions("resnet20_cifar", inside=True, names=["resnet14*"])
    assert base.name == "resnet14_cifar"
    assert base.part == larger["resnet20_cifar"].part == pytest.approx(174_762 / 272_474, abs=0.01)
    assert base.relative == larger["resnet20_cifar"].relative > 1


def test_the_cost_is_that_of_the_share():
    (one,) = suggestions("resnet8_cifar", names=["resnet20_cifar"])
    assert one.cost(2) == pytest.approx(1 + (one.relative - 1) / 6)


def test_the_table_is_sorted_by_cost_and_cut_at_a_budget(capsys):
    assert main(["--suggest", "resnet8_cifar", "--in-stock", *CIFAR]) == 0
    out = capsys.readouterr().out
    assert out.index("resnet14_cifar") < out.index("resnet20_cifar")
    assert main(["--suggest", "resnet8_cifar", "--in-stock", *CIFAR, "--budget", "1.3x"]) == 0
    assert "resnet20_cifar" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suggest", "resnet20_cifar", "--in-stock", *CIFAR], "no model of its timm module contains it"),
        (["--suggest", "resnet8_cifar", "--in-stock", *CIFAR, "--budget", "1"], "the cheapest costs"),
        (["--suggest", "nonesuch"], "timm has no model 'nonesuch'"),
        (["--inside", "resnet8_cifar", "--budget", "cheap"], "--budget: a multiple such as 1.2x"),
    ],
)
def test_what_cannot_be_suggested_is_one_line(words, message, capsys):
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
