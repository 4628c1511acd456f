"""Weights of other heads and channels: adapted where timm adapts its own, or one line that says what to do."""

import numpy as np
import pytest
import timm
import torch
from support.program import DIGITS

import motivation.models  # noqa: F401
from motivation.build.models import make_model
from motivation.build.transfer import refuse_misfit, transfer_weights
from motivation.method.records import Role
from motivation.options.parse import parse
from motivation.tools.train import main


@pytest.fixture
def saved(tmp_path):
    def save(**arguments):
        torch.manual_seed(0)
        model = timm.create_model("resnet8_cifar", **arguments)
        torch.save(model.state_dict(), tmp_path / "weights.pth")
        return model, tmp_path / "weights.pth"

    return save


@pytest.mark.parametrize("channels", [1, 4])
def test_weights_of_rgb_images_are_adapted_to_other_channels_as_timm_does(channels, saved):
    source, file = saved()
    model = timm.create_model("resnet8_cifar", in_chans=channels)
    said = transfer_weights(model, file)
    assert f"adapted from 3 channels to {channels}" in said
    expected = timm.models.adapt_input_conv(channels, source.conv1.weight)
    assert torch.equal(model.conv1.weight, expected)
    assert torch.equal(model.layer1[0].conv1.weight, source.layer1[0].conv1.weight)


@pytest.mark.parametrize(("file_has", "model_has", "hint"), [
    ({"num_classes": 3}, {}, "the head differs: --num-classes 3 keeps it, finetune.py --checkpoint makes a new one"),
    ({"num_classes": 0}, {}, "the head differs: finetune.py --checkpoint makes a new one"),
    ({}, {"in_chans": 1}, "its images have 3 channels: --in-chans 3, finetune.py --checkpoint adapts it"),
    ({"in_chans": 1}, {}, "its images have 1 channel: --in-chans 1"),
    ({"in_chans": 1, "num_classes": 3}, {}, "makes a new one; its images have 1 channel: --in-chans 1"),
])  # fmt: skip
def test_a_file_that_differs_in_head_or_channels_is_refused_with_what_to_do(file_has, model_has, hint, saved):
    _, file = saved(**file_has)
    with pytest.raises(ValueError, match="of another architecture") as refused:
        refuse_misfit(timm.create_model("resnet8_cifar", **model_has), file)
    assert str(refused.value).endswith(hint)


def test_a_file_of_another_model_has_no_hint(saved):
    _, file = saved()
    with pytest.raises(ValueError, match="of another architecture") as refused:
        refuse_misfit(timm.create_model("resnet14_cifar", num_classes=3), file)
    assert "head differs" not in str(refused.value)


def test_pretrained_weights_of_other_channels_name_their_file(saved, tmp_path, capsys):
    _, file = saved(in_chans=1)
    argv = [*DIGITS, "--input-size", "3", "8", "8", "--pretrained", "--pretrained-path", str(file)]
    assert main([*argv, "--output", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"error: --pretrained-path: {file} is of another architecture")
    assert line.endswith("its images have 1 channel: --in-chans 1")


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "resnet8_cifar"])
def test_the_initial_head_is_scaled_also_where_there_are_two(name, tmp_path):
    kwargs = ["--model-kwargs", "depth=1"] if "deit" in name else []
    words = [*DIGITS, "--model", name, "--input-size", "3", "224", "224", *kwargs]
    models = []
    for more in ([], ["--head-init-scale", "0.5"], ["--head-init-bias", "-3"]):
        torch.manual_seed(0)
        models.append(make_model(parse([*words, *more])[0], Role.BASE))
    heads = []
    for model in models:
        head = model.get_classifier()
        heads.append(head if isinstance(head, tuple) else (head,))
    for plain, scaled, biased in zip(*heads, strict=True):
        assert torch.equal(scaled.weight, plain.weight * 0.5)
        assert (biased.bias == -3).all()


def test_a_model_without_a_head_names_the_flag(tmp_path, capsys):
    argv = [*DIGITS, "--head-init-scale", "0.5", "--gp", "avg", "--model-kwargs", "num_classes=0"]
    assert main([*argv, "--output", str(tmp_path)]) == 2
    assert "--head-init-scale: the model's head has no weights" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--initial-checkpoint"], ["--pretrained", "--pretrained-path"]])
def test_weights_beside_numbers_of_numpy_are_read(flags, saved, tmp_path):
    model, file = saved(in_chans=1)
    torch.save({"state_dict": model.state_dict(), "metric": np.float64(1.0)}, file)
    made = make_model(parse([*DIGITS, *flags, str(file)])[0], Role.BASE)
    assert torch.equal(made.conv1.weight, model.conv1.weight)
