"""``python -m weight_maps``: table, JSON, picture, list, and checkpoints grown and cut."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from weight_maps import find_map
from weight_maps.__main__ import main
from weight_maps.checkpoints import read_weights
from weight_maps.find import model_layout
from weight_maps.summary import summarise

VITS = ["vit_tiny_patch16_224", "vit_small_patch16_224"]


def summary(base, motivated, **options):
    layouts = model_layout(base), model_layout(motivated)
    return summarise(find_map(base, motivated, *layouts, **options), *layouts, (base, motivated))


def stage(found, name):
    (one,) = [stage for stage in found.stages if stage.name == name]
    return one


def test_the_table_says_what_lies_where(capsys):
    assert main(["resnet50", "resnet101"]) == 0
    text = capsys.readouterr().out
    assert "0..4 -> 0..4, 5 -> 22" in text
    assert "25.56M of 44.55M parameters of resnet101 are those of resnet50: 57.4 %" in text
    assert "Every tensor of the base has its place." in text


def test_the_summary_counts_parameters_and_blocks():
    found = summary("resnet50", "resnet101")
    assert found.base_parameters == found.shared == 25_557_032
    assert found.motivated_parameters == 44_549_160
    third = stage(found, "layer3")
    assert (third.base_blocks, len(third.blocks)) == (6, 23)
    assert [block.index for block in third.blocks if block.shared] == [0, 1, 2, 3, 4, 22]
    assert sum(one.parameters for one in found.stages) == found.motivated_parameters


def test_stages_of_other_families_are_found():
    assert [s.name for s in summary(*VITS).stages if s.base_blocks] == ["blocks"]
    names = [s.name for s in summary("efficientnet_b0", "efficientnet_b1").stages if s.base_blocks]
    assert names == [f"blocks.{i}" for i in range(7)]
    swin = summary("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224")
    assert stage(swin, "layers.2.blocks").places == "0..4 -> 0..4, 5 -> 17"
    assert stage(swin, "layers.1").base_blocks == 0


def test_width_is_said_in_slices():
    slices = stage(summary(*VITS), "blocks").slices
    assert slices[0] == "192 of 384"
    assert "576 of 1152 in 3 parts" in slices


def test_json_holds_the_same(capsys):
    assert main(["resnet18", "resnet34", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["map_name"] == "resnet"
    assert found["share"] == pytest.approx(found["shared"] / found["motivated_parameters"])
    assert [s["places"] for s in found["stages"] if s["base_blocks"]][2] == "0 -> 0, 1 -> 5"


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_is_drawn(tmp_path, ending):
    file = tmp_path / f"map.{ending}"
    assert main([*VITS, "--plot", str(file)]) == 0
    assert file.stat().st_size > 10_000


def test_the_list_names_every_map(capsys):
    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    for name in ("auto", "efficientnet", "resnet", "slices", "vit", "vit_fused"):
        assert f"\n{name} " in "\n" + text


def test_verify_takes_channels_and_sizes_from_the_arguments(capsys):
    assert main(["resnet10t", "resnet18d", "--verify", "--model-kwargs", "in_chans=1"]) == 0
    assert main([*VITS, "--verify", "--model-kwargs", "img_size=[32,32]", "depth=1"]) == 0
    capsys.readouterr()


def test_plugins_bring_models(capsys):
    assert main(["resnet20_cifar", "resnet32_cifar", "--plugins", "motivation.models", "--placement", "first"]) == 0
    assert "0..2 -> 0..2" in capsys.readouterr().out


def test_verify_computes(capsys):
    names = [*VITS, "--img-size", "32", "--model-kwargs", "depth=1"]
    assert main([*names, "--verify"]) == 0
    assert main([*names, "--verify", "--map", "vit_fused"]) == 1
    assert "blocks.0.attn.proj: output differs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["resnet18", "resnt34"], "timm has no model 'resnt34'"),
        (["densenet121", "densenet169"], "densenet169 does not contain densenet121"),
        (["resnet18", "resnet34", "--map", "nothing"], "no weights map is called 'nothing'"),
        (["resnet18", "resnet34", "--plugins", "nowhere.py"], "nowhere.py: there is no such file"),
        (["resnet18", "resnet34", "--plot", "map.abc"], "map.abc"),
        (["resnet18", "resnet34", "--model-kwargs", "nonsense"], "'nonsense' is not of the form name=value"),
        (["resnet18", "resnet34", "--model-kwargs", "nonsense=1"], "resnet18 cannot be made"),
        (["resnet18", "resnet34", "--expand", "nowhere.pth", "x.pth"], "nowhere.pth: there is no such file"),
        (["resnet18", "resnet34", "--expand", "nowhere.pth", "x.doc"], "x.doc: a checkpoint ends in .safetensors"),
        (["resnet18", "resnet34", "--onto", "x.pth"], "--onto goes with --expand"),
        (["resnet18", "resnet34", "--model-kwargs", "act_layer=nonsense"], "resnet18 cannot be made: KeyError"),
        (["resnet18", "resnet34", "--model-kwargs", "output_stride=7"], "resnet18 cannot be made: AssertionError"),
        ([*VITS, "--verify", "--img-size", "20", "--model-kwargs", "depth=1", "dynamic_img_size=true"],
         "does not take images of 3 x 20 x 20"),
        (["resnet18", "resnet34", "--expand", "a.pth", "nowhere/x.pth"], "there is no folder nowhere"),
        (["resnet18", "resnet34", "--expand", "a.pth", "a.pth"], "would overwrite the file it is made from"),
        (["resnet18", "resnet34", "--expand", "a.pth", "b.pth", "--plot", "x.png"], "one at a time"),
        (["resnet18", "resnet34", "--num-classes", "-3"], "--num-classes: a number of classes, not -3"),
        (["resnet18", "resnet34", "--plot", "picture"], "the ending of 'picture' says how to draw"),
        (["resnet18", "resnet34", "--plugins", ".foo"], "neither a file that ends in .py nor the name of a module"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_an_exit_code(capsys, monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    found = capsys.readouterr()
    assert found.err.startswith("error: ")
    assert expected in found.err
    assert "Traceback" not in found.err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small(tmp_path):
    """A training checkpoint of a resnet10t with 7 classes, as timm writes it."""
    from argparse import Namespace

    model = timm.create_model("resnet10t", num_classes=7)
    torch.save(
        {"state_dict": model.state_dict(), "args": Namespace(model="resnet10t"), "epoch": 3}, tmp_path / "s.pth.tar"
    )
    return tmp_path / "s.pth.tar", model


@pytest.mark.parametrize("ending", ["safetensors", "pth.tar"])
def test_a_checkpoint_is_grown_and_cut_out_again(small, tmp_path, ending):
    file, model = small
    big, back = tmp_path / f"big.{ending}", tmp_path / "back.safetensors"
    assert main(["resnet10t", "resnet18d", "--expand", str(file), str(big)]) == 0
    grown = read_weights(big)
    assert torch.equal(grown["layer2.0.conv1.weight"], model.state_dict()["layer2.0.conv1.weight"])
    assert grown["fc.weight"].shape == (7, 512)
    timm.create_model("resnet18d", num_classes=7).load_state_dict(grown)
    assert main(["resnet10t", "resnet18d", "--extract", str(big), str(back)]) == 0
    cut = load_file(back)
    assert cut.keys() == model.state_dict().keys()
    assert all(torch.equal(cut[name], value) for name, value in model.state_dict().items())


def test_growing_onto_a_checkpoint_keeps_its_other_weights(small, tmp_path):
    file, model = small
    large = timm.create_model("resnet18d", num_classes=7)
    save_file(large.state_dict(), tmp_path / "large.safetensors")
    big, onto = tmp_path / "big.safetensors", tmp_path / "large.safetensors"
    assert main(["resnet10t", "resnet18d", "--expand", str(file), str(big), "--onto", str(onto)]) == 0
    grown = load_file(big)
    assert torch.equal(grown["layer1.1.conv1.weight"], large.state_dict()["layer1.1.conv1.weight"])
    assert torch.equal(grown["layer1.0.conv1.weight"], model.state_dict()["layer1.0.conv1.weight"])


def test_growing_is_the_same_for_the_same_seed(small, tmp_path):
    for name in ("a", "b"):
        assert main(["resnet10t", "resnet18d", "--expand", str(small[0]), str(tmp_path / f"{name}.safetensors")]) == 0
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("a", "b"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_file_of_another_model_or_no_checkpoint_is_said(small, tmp_path, capsys):
    target = str(tmp_path / "big.pth")
    assert main(["resnet18", "resnet34", "--expand", str(small[0]), target]) == 1
    assert "s.pth.tar: not the weights of resnet18: " in capsys.readouterr().err
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert main(["resnet18", "resnet34", "--expand", str(tmp_path / "text.pth"), target]) == 1
    assert "text.pth: not a readable checkpoint" in capsys.readouterr().err
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    assert main(["resnet18", "resnet34", "--expand", str(tmp_path / "empty.pth"), target]) == 1
    assert "empty.pth: holds no state dict" in capsys.readouterr().err
    assert not (tmp_path / "big.pth").exists()


class _Code:
    def __reduce__(self):
        return print, ("code was run",)


def test_a_file_that_carries_code_is_refused(tmp_path, capsys):
    torch.save({"state_dict": _Code()}, tmp_path / "code.pth")
    assert main(["resnet18", "resnet34", "--expand", str(tmp_path / "code.pth"), str(tmp_path / "big.pth")]) == 1
    found = capsys.readouterr()
    assert "not a readable checkpoint" in found.err
    assert "code was run" not in found.out


def test_control_characters_in_names_are_escaped(small, tmp_path, capsys):
    pair, target = ["resnet10t", "resnet18d"], tmp_path / "a\x1b[31m.safetensors"
    assert main([*pair, "--expand", str(small[0]), str(target)]) == 0
    assert main([*pair, "--expand", str(tmp_path / "\x1b[31m"), str(target)]) == 1
    said = capsys.readouterr()
    assert "a\\x1b[31m.safetensors: " in said.out
    assert "\x1b" not in said.out + said.err
