"""The computed check finds the base inside, and says where it is not; small pairs of many families pass it."""

import dataclasses

import pytest
import timm
import torch

from motivation.tools.map_coverage import try_pair
from weight_maps import Link, WeightMap, find_map
from weight_maps.containment import compare
from weight_maps.find import image_size

VIT = {"img_size": 16, "patch_size": 8, "num_classes": 5, "depth": 2}


def pair(base, motivated, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(base, **kwargs), timm.create_model(motivated, **kwargs)


def test_a_right_map_is_found_inside_and_nothing_is_changed():
    base, motivated = pair("vit_tiny_patch16_224", "vit_small_patch16_224", **VIT)
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in (base, motivated)]
    weights_map = find_map("vit_tiny_patch16_224", "vit_small_patch16_224", base, motivated)
    found = compare(weights_map, base, motivated, torch.randn(2, 3, 16, 16), tolerance=1e-6)
    assert found.holds
    assert found.layers > 10
    for model, state in zip((base, motivated), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_first_rows_of_a_fused_qkv_are_not_the_bases_computation():
    base, motivated = pair("vit_tiny_patch16_224", "vit_small_patch16_224", **VIT)
    weights_map = find_map("vit_tiny_patch16_224", "vit_small_patch16_224", base, motivated, map_name="vit_fused")
    found = compare(weights_map, base, motivated, torch.randn(2, 3, 16, 16))
    assert not found.holds
    assert found.first_difference.startswith("blocks.0.attn.proj: output differs")


def test_plain_slices_through_groups_are_not():
    base, motivated = pair("regnetx_002", "regnetx_004", num_classes=5)
    small, large = base.state_dict(), motivated.state_dict()
    shared = [n for n in small if n.startswith(("stem", "s1"))]
    links = tuple(Link(n, n, tuple(((0, s),) for s in small[n].shape)) for n in shared)
    found = compare(WeightMap(links), base, motivated, torch.randn(1, 3, 32, 32))
    assert "stem" not in str(found.first_difference)
    assert not found.holds
    assert large["s1.b1.conv2.conv.weight"].shape[1] == 2 * small["s1.b1.conv2.conv.weight"].shape[1]


def test_layers_at_swapped_places_are_not():
    base, motivated = pair("resnet10t", "resnet18d", num_classes=5)
    good = find_map("resnet10t", "resnet18d", base, motivated)
    assert compare(good, base, motivated, torch.randn(1, 3, 32, 32)).holds
    swap = {"layer1.0.conv1.weight": "layer1.0.conv2.weight", "layer1.0.conv2.weight": "layer1.0.conv1.weight"}
    links = [dataclasses.replace(link, motivated=swap.get(link.motivated, link.motivated)) for link in good.links]
    wrong = WeightMap(tuple(links))
    wrong.check(base, motivated)
    found = compare(wrong, base, motivated, torch.randn(1, 3, 32, 32))
    assert found.first_difference.startswith("layer1.0.conv")


def test_a_head_that_stays_apart_is_not_compared():
    base, motivated = pair("resnet10t", "resnet18d", num_classes=5)
    apart = find_map("resnet10t", "resnet18d", base, motivated).without(["fc.weight", "fc.bias"], "heads of their own")
    assert compare(apart, base, motivated, torch.randn(1, 3, 32, 32)).holds


def test_features_in_a_list_are_compared_too():
    base, motivated = pair("convnext_atto", "convnext_femto", features_only=True)
    found = compare(
        find_map("convnext_atto", "convnext_femto", base, motivated), base, motivated, torch.randn(1, 3, 32, 32)
    )
    assert found.holds, found.first_difference


SMALL_PAIRS = [
    ("convnext_atto", "convnext_femto"),
    ("mobilenetv3_small_075", "mobilenetv3_small_100"),
    ("lcnet_035", "lcnet_050"),
    ("regnetx_004", "regnetx_004_tv"),
    ("levit_128s", "levit_128"),
    ("starnet_s050", "starnet_s100"),
    ("repghostnet_050", "repghostnet_058"),
    ("mobilevitv2_050", "mobilevitv2_075"),
    ("cs3darknet_focus_s", "cs3darknet_focus_m"),
    ("mobilenetv2_035", "mobilenetv2_050"),
]  # fmt: skip


@pytest.mark.parametrize("names", SMALL_PAIRS, ids="-".join)
def test_a_small_pair_of_each_kind_is_found_inside_and_trains_in_turns(names, monkeypatch):
    def size(model):
        return image_size(model) if model.pretrained_cfg.get("fixed_input_size") else (3, 64, 64)

    monkeypatch.setattr("motivation.tools.map_coverage.image_size", size)
    trial = try_pair(names)
    assert (trial.contained, trial.trained, trial.detail) == (True, True, "")
