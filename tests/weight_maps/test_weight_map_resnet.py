"""ResNets, timm's and ours for CIFAR: the last block goes to the last, the others to the first."""

import pytest
import timm
import torch

import motivation.models  # noqa: F401
from weight_maps import WeightMapError, find_map
from weight_maps.resnet import last_to_last


def build(name, **kwargs):
    with torch.device("meta"):
        return timm.create_model(name, **kwargs)


def places(base, motivated, **kwargs):
    weights_map = find_map(base, motivated, build(base, **kwargs), build(motivated, **kwargs))
    return {link.base: link.motivated for link in weights_map.links}


@pytest.mark.parametrize(
    ("base", "motivated", "expected"),
    [
        (3, 5, [0, 1, 4]),
        (5, 5, [0, 1, 2, 3, 4]),
        (2, 3, [0, 2]),
        (1, 4, [0]),
        (1, 1, [0]),
        (6, 23, [0, 1, 2, 3, 4, 22]),
    ],
)
def test_blocks_align_as_the_paper_says(base, motivated, expected):
    assert last_to_last(base, motivated) == expected


def test_resnet50_lies_in_resnet101_tensor_by_tensor():
    found = places("resnet50", "resnet101")
    assert set(found) == set(build("resnet50").state_dict())
    for name, target in found.items():
        if name.startswith("layer3.5."):
            assert target == name.replace("layer3.5.", "layer3.22.")
        else:
            assert target == name


def test_cifar_resnet20_lies_in_resnet32_tensor_by_tensor():
    for name, target in places("resnet20_cifar", "resnet32_cifar").items():
        assert target == name.replace(".2.", ".4.") if ".2." in name else target == name


TWO_TO_3463 = {"layer1.1": "layer1.2", "layer2.1": "layer2.3", "layer3.1": "layer3.5", "layer4.1": "layer4.2"}
"""Stages of 2 blocks in stages of 3, 4, 6 and 3."""


@pytest.mark.parametrize(
    ("base", "motivated", "moved"),
    [
        ("resnet18", "resnet34", TWO_TO_3463),
        ("resnet26", "resnet50", TWO_TO_3463),
        ("resnet50", "resnet152", {"layer2.3": "layer2.7", "layer3.5": "layer3.35"}),
        ("resnet50d", "resnet101d", {"layer3.5": "layer3.22"}),
        ("wide_resnet50_2", "wide_resnet101_2", {"layer3.5": "layer3.22"}),
        ("resnext50_32x4d", "resnext101_32x4d", {"layer3.5": "layer3.22"}),
        ("resnet50.a1_in1k", "resnet101.a1h_in1k", {"layer3.5": "layer3.22"}),
        ("resnetv2_50", "resnetv2_101", {"stages.2.blocks.5": "stages.2.blocks.22"}),
        ("resnet14t", "resnet26t", {}),
        ("resnet8_cifar", "resnet110_cifar", {}),
    ],
)  # fmt: skip
def test_kin_that_differ_in_depth_are_mapped(base, motivated, moved):
    found = places(base, motivated)
    assert set(found) == set(build(base).state_dict())
    for name, target in found.items():
        block = next((block for block in moved if name.startswith(block + ".")), None)
        assert target == (name if block is None else name.replace(block, moved[block]))


def test_changed_heads_and_channels_need_no_special_case():
    assert places("resnet50", "resnet101", num_classes=7, in_chans=1)["fc.weight"] == "fc.weight"


def test_extra_buffers_of_split_batchnorm_are_mapped_too():
    from timm.layers import convert_splitbn_model

    base, motivated = (convert_splitbn_model(timm.create_model(n), 2) for n in ("resnet8_cifar", "resnet14_cifar"))
    weights_map = find_map("resnet8_cifar", "resnet14_cifar", base, motivated)
    assert {link.base for link in weights_map.links} == set(base.state_dict())
    assert any("aux_bn" in link.base for link in weights_map.links)


@pytest.mark.parametrize(
    ("base", "motivated", "reason"),
    [
        ("resnet101", "resnet50", "layer3: the base has 23 blocks, the motivated model 6"),
        ("resnet34", "resnet50", "\\[64, 64, 3, 3\\] does not fit into layer1.0.conv1.weight \\[64, 64, 1, 1\\]"),
        ("resnet50", "resnet101d", "no conv1.weight"),
        ("resnet50", "vit_tiny_patch16_224", "not of one construction"),
    ],
)
def test_what_does_not_nest_is_refused_with_the_reason(base, motivated, reason):
    with pytest.raises(WeightMapError, match=reason):
        places(base, motivated)
