"""The three rules of section 3.3 on tiny layouts, written out by hand; other families are refused."""

import pytest

from weight_maps import Facts, Layout, WeightMapError, find_map


def layout(shapes):
    """Return a layout whose module is known: it has this embedding dimension, no heads and no groups."""
    return Layout(shapes, {"": Facts("toy.Net", {"embed_dim": shapes.get("cls_token", (0,))[-1]})})


def mapped(name, base, motivated, **options):
    found = find_map("small", "large", layout(base), layout(motivated), map_name=name, **options)
    return {link.base: (link.motivated, link.index) for link in found.links}


def first(*sizes):
    return tuple(((0, size),) for size in sizes)


def resnet(blocks):
    """Return a stem, one stage and a head."""
    block = {"conv1.weight": (8, 8, 3, 3), "bn1.running_mean": (8,)}
    stage = {f"layer1.{i}.{name}": shape for i in range(blocks) for name, shape in block.items()}
    return {"conv1.weight": (8, 3, 3, 3), **stage, "fc.weight": (10, 8)}


def test_resnet_maps_the_last_layer_to_the_last_and_the_others_to_the_first_ones():
    found = mapped("resnet", resnet(3), resnet(5))
    assert {name: target for name, (target, _) in found.items()} == {
        "conv1.weight": "conv1.weight",
        "layer1.0.conv1.weight": "layer1.0.conv1.weight",
        "layer1.0.bn1.running_mean": "layer1.0.bn1.running_mean",
        "layer1.1.conv1.weight": "layer1.1.conv1.weight",
        "layer1.1.bn1.running_mean": "layer1.1.bn1.running_mean",
        "layer1.2.conv1.weight": "layer1.4.conv1.weight",
        "layer1.2.bn1.running_mean": "layer1.4.bn1.running_mean",
        "fc.weight": "fc.weight",
    }
    assert found["layer1.2.conv1.weight"][1] == first(8, 8, 3, 3)


def vit(width, blocks=1):
    """Return a vision transformer of four patches and ten classes."""
    block = {
        "norm1.weight": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "mlp.fc1.weight": (4 * width, width),
    }
    return {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 5, width),
        **{f"blocks.{i}.{name}": shape for i in range(blocks) for name, shape in block.items()},
        "head.weight": (10, width),
    }


VIT_4_IN_6 = {
    "cls_token": first(1, 1, 4),
    "pos_embed": first(1, 5, 4),
    "blocks.0.norm1.weight": first(4),
    "blocks.0.attn.qkv.weight": (((0, 4), (6, 10), (12, 16)), ((0, 4),)),
    "blocks.0.attn.qkv.bias": (((0, 4), (6, 10), (12, 16)),),
    "blocks.0.mlp.fc1.weight": first(16, 4),
    "head.weight": first(10, 4),
}


def test_vit_maps_the_first_features_of_every_axis_and_of_each_of_q_k_v():
    assert mapped("vit", vit(4), vit(6)) == {name: (name, index) for name, index in VIT_4_IN_6.items()}


def test_vit_fused_takes_the_first_rows_of_q_k_v_as_they_lie():
    literal = {**VIT_4_IN_6, "blocks.0.attn.qkv.weight": first(12, 4), "blocks.0.attn.qkv.bias": first(12)}
    assert mapped("vit_fused", vit(4), vit(6)) == {name: (name, index) for name, index in literal.items()}


def efficientnet(width, blocks):
    """Return a stem, two stages, the second of which has this many blocks, and a head."""
    block = {"conv_pw.weight": (2 * width, width, 1, 1), "bn1.running_var": (2 * width,)}
    return {
        "conv_stem.weight": (width, 3, 3, 3),
        "blocks.0.0.conv_pw.weight": (width, width, 1, 1),
        **{f"blocks.1.{i}.{name}": shape for i in range(blocks) for name, shape in block.items()},
        "classifier.bias": (10,),
    }


def test_efficientnet_maps_the_first_channels_and_the_first_layers_of_a_stage():
    assert mapped("efficientnet", efficientnet(4, 2), efficientnet(6, 4)) == {
        "conv_stem.weight": ("conv_stem.weight", first(4, 3, 3, 3)),
        "blocks.0.0.conv_pw.weight": ("blocks.0.0.conv_pw.weight", first(4, 4, 1, 1)),
        "blocks.1.0.conv_pw.weight": ("blocks.1.0.conv_pw.weight", first(8, 4, 1, 1)),
        "blocks.1.0.bn1.running_var": ("blocks.1.0.bn1.running_var", first(8)),
        "blocks.1.1.conv_pw.weight": ("blocks.1.1.conv_pw.weight", first(8, 4, 1, 1)),
        "blocks.1.1.bn1.running_var": ("blocks.1.1.bn1.running_var", first(8)),
        "classifier.bias": ("classifier.bias", first(10)),
    }


@pytest.mark.parametrize(
    ("placement", "expected"), [("first", [0, 1, 2]), ("last", [3, 4, 5]), ("even", [0, 3, 5]), ("paper", [0, 1, 5])]
)
def test_another_placement_is_taken_by_every_family(placement, expected):
    found = mapped("resnet", resnet(3), resnet(6), placement=placement)
    assert [found[f"layer1.{i}.conv1.weight"][0] for i in range(3)] == [f"layer1.{i}.conv1.weight" for i in expected]
    found = mapped("vit", vit(4, 3), vit(6, 6), placement=placement)
    assert [found[f"blocks.{i}.norm1.weight"][0] for i in range(3)] == [f"blocks.{i}.norm1.weight" for i in expected]
    found = mapped("efficientnet", efficientnet(4, 3), efficientnet(4, 6), placement=placement)
    expected = [0, 1, 2] if placement == "paper" else expected
    assert [found[f"blocks.1.{i}.conv_pw.weight"][0] for i in range(3)] == [
        f"blocks.1.{i}.conv_pw.weight" for i in expected
    ]


RESNETS, VITS = ("resnet18", "resnet34"), ("vit_tiny_patch16_224", "vit_small_patch16_224")
EFFICIENTNETS = ("efficientnet_b0", "efficientnet_b1")


@pytest.mark.parametrize(
    ("name", "pair", "reason"),
    [
        ("resnet", VITS, "the base model is no ResNet"),
        ("resnet", EFFICIENTNETS, "the base model is no ResNet"),
        ("resnet", ("convnext_atto", "convnext_femto"), "the base model is no ResNet"),
        ("resnet", ("resnet18", VITS[1]), "the motivated model is no ResNet"),
        ("vit", RESNETS, "the base model is no vision transformer"),
        ("vit", ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224"), "is no vision transformer"),
        ("vit_fused", EFFICIENTNETS, "the base model is no vision transformer"),
        ("efficientnet", VITS, "the base model is no EfficientNet"),
        ("efficientnet", RESNETS, "the base model is no EfficientNet"),
    ],
)
def test_a_pair_of_another_family_is_refused_for_one_reason(name, pair, reason):
    with pytest.raises(WeightMapError, match=reason) as caught:
        find_map(*pair, map_name=name)
    assert len(caught.value.faults) == 1
