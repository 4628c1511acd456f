"""A model that cannot fit into the memory is refused before it fills it, whoever makes it."""

import pytest
from support.program import DIGITS
from torch.nn.modules import module

from motivation.build.models import untrained_models
from motivation.options.faults import StartupError
from motivation.options.parse import parse
from weight_maps import size_limit
from weight_maps.__main__ import main
from weight_maps.find import make_model
from weight_maps.size_limit import ModelSizeError


def test_modules_without_end_are_refused_and_nothing_is_left_behind(monkeypatch):
    monkeypatch.setattr(size_limit, "MOST_MODULES", 100)
    with pytest.raises(ModelSizeError, match="test_vit has more than 100 modules"):
        make_model("test_vit", meta=True, depth=1000)
    assert not module._global_module_registration_hooks
    assert not module._global_parameter_registration_hooks


def test_weights_are_counted_as_they_come(monkeypatch):
    monkeypatch.setattr(size_limit, "memory_of_machine", lambda: 2**20)
    make_model("test_vit", meta=True, depth=1)
    with pytest.raises(ModelSizeError, match="GiB of weights"):
        make_model("test_vit", meta=True)


@pytest.mark.parametrize("value", [10**9, -(10**9), [1, 10**9], {"a": [10**9]}])
def test_a_number_among_the_arguments_may_stand_anywhere(value):
    with pytest.raises(ModelSizeError, match="takes no depth of more than"):
        make_model("test_vit", depth=value)


def test_tools_that_make_models_of_a_strangers_options_refuse_them():
    args = parse([*DIGITS, "--model", "test_vit", "--model-kwargs", "mlp_ratio=10000000000.0"])[0]
    with pytest.raises(StartupError, match="GiB of weights"):
        untrained_models(args)


def test_the_command_says_it_in_a_line(capsys):
    assert main(["test_vit", "test_vit", "--num-classes", "1000000000"]) == 1
    assert "takes no num_classes of more" in capsys.readouterr().err
