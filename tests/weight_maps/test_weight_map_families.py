"""timm's models nest as section 3.3 says, tensor by tensor; placements; what no slice may tear."""

import pytest
import timm
from timm.layers import convert_splitbn_model
from torch import nn

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from weight_maps import WeightMapError, find_map, leading
from weight_maps.find import make_model


def build(name, **kwargs):
    return make_model(name, meta=True, **kwargs)


def links(base, motivated, small=None, large=None, **options):
    weights_map = find_map(base, motivated, build(base, **(small or {})), build(motivated, **(large or {})), **options)
    return {link.base: link for link in weights_map.links}


TWO_TO_3463 = {"layer1.1": "layer1.2", "layer2.1": "layer2.3", "layer3.1": "layer3.5", "layer4.1": "layer4.2"}
"""Stages of 2 blocks in stages of 3, 4, 6 and 3."""


@pytest.mark.parametrize(
    ("base", "motivated", "moved"),
    [
        ("resnet18", "resnet34", TWO_TO_3463),
        ("resnet50.a1_in1k", "resnet101.a1h_in1k", {"layer3.5": "layer3.22"}),
        ("resnext50_32x4d", "resnext101_32x4d", {"layer3.5": "layer3.22"}),
        ("resnetv2_50", "resnetv2_101", {"stages.2.blocks.5": "stages.2.blocks.22"}),
        ("resnet8_cifar", "resnet110_cifar", {}),
        ("resnet20_cifar", "resnet32_cifar", {f"layer{stage}.2": f"layer{stage}.4" for stage in (1, 2, 3)}),
    ],
)
def test_a_resnets_last_block_goes_to_the_last_and_the_others_to_the_first(base, motivated, moved):
    found = {name: link.motivated for name, link in links(base, motivated).items()}
    assert set(found) == set(build(base).state_dict())
    for name, target in found.items():
        block = next((block for block in moved if name.startswith(block + ".")), None)
        assert target == (name if block is None else name.replace(block, moved[block]))


def test_changed_heads_and_channels_need_no_special_case():
    changed = {"num_classes": 7, "in_chans": 1}
    assert links("resnet50", "resnet101", changed, changed)["fc.weight"].motivated == "fc.weight"


def test_extra_buffers_of_split_batchnorm_are_mapped_too():
    base, motivated = (convert_splitbn_model(timm.create_model(n), 2) for n in ("resnet8_cifar", "resnet14_cifar"))
    found = {link.base for link in find_map("resnet8_cifar", "resnet14_cifar", base, motivated).links}
    assert found == set(base.state_dict())
    assert any("aux_bn" in name for name in found)


@pytest.mark.parametrize(("motivated", "width"), [("vit_small_patch16_224", 384), ("deit_base_patch16_224", 768)])
def test_vit_takes_leading_slices_and_each_of_q_k_v_its_third(motivated, width):
    found = links("vit_tiny_patch16_224", motivated)
    shapes = {name: tuple(tensor.shape) for name, tensor in build("vit_tiny_patch16_224").state_dict().items()}
    assert set(found) == set(shapes)
    thirds = tuple((i * width, i * width + 192) for i in range(3))
    for name, link in found.items():
        assert link.motivated == name
        if ".attn.qkv." in name:
            assert link.index == (thirds, *leading(shapes[name][1:]))
        else:
            assert link.index == leading(shapes[name])


def test_the_resnet_of_a_hybrid_is_placed_too():
    found = links("vit_base_resnet26d_224", "vit_base_resnet50d_224")
    name = "patch_embed.backbone.layer2.{}.conv1.weight"
    assert [found[name.format(i)].motivated for i in (0, 1)] == [name.format(i) for i in (0, 3)]


@pytest.mark.parametrize(
    ("base", "motivated"),
    [
        ("efficientnet_b0", "efficientnet_b1"),
        ("efficientnet_b0", "efficientnet_b7"),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite2"),
        ("efficientnetv2_s", "efficientnetv2_m"),
    ],
)
def test_efficientnet_maps_first_blocks_and_leading_channels(base, motivated):
    found = links(base, motivated)
    assert set(found) == set(build(base).state_dict())
    for name, link in found.items():
        assert link.motivated == name
        assert link.index == leading(link.shape)


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ("paper", [0, 1, 2, 3, 4, 22]),
        ("first", range(6)),
        ("last", [0, 18, 19, 20, 21, 22]),
        ("even", [0, 4, 9, 13, 18, 22]),
    ],
)
def test_a_block_that_changes_the_resolution_stays_the_first(placement, expected):
    found = links("resnet50", "resnet101", placement=placement)
    assert [found[f"layer3.{i}.conv2.weight"].motivated for i in range(6)] == [
        f"layer3.{i}.conv2.weight" for i in expected
    ]
    assert found["layer3.0.downsample.0.weight"].motivated == "layer3.0.downsample.0.weight"


def test_auto_aligns_runs_of_the_same_kind():
    found = links("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224")
    places = [found[f"layers.2.blocks.{i}.norm1.weight"].motivated for i in range(6)]
    assert places == [f"layers.2.blocks.{i}.norm1.weight" for i in [0, 1, 2, 3, 4, 17]]
    wide = links("swin_small_patch4_window7_224", "swin_base_patch4_window7_224")
    assert wide["layers.0.blocks.0.attn.relative_position_bias_table"].index == leading((169, 3))
    assert wide["layers.1.downsample.reduction.weight"].index[1] == tuple((i * 128, i * 128 + 96) for i in range(4))


def test_blocks_go_to_the_nearest_of_their_own_kind():
    found = links("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", placement="even")
    places = [int(found[f"layers.2.blocks.{i}.norm1.weight"].motivated.split(".")[3]) for i in range(6)]
    assert all(place % 2 == i % 2 for i, place in enumerate(places)), "shifted windows meet shifted windows"
    assert (places[0], places[-1]) == (0, 17)
    found = links("gcvit_xxtiny", "gcvit_xtiny", placement="last")
    places = [int(found[f"stages.3.blocks.{i}.norm1.weight"].motivated.split(".")[3]) for i in range(2)]
    assert places == [2, 3], "of five; global attention meets global attention"
    found = links("vit_dwee_patch16_reg1_gap_256", "vit_dwee_patch16_reg1_gap_256", {"depth": 2}, {"depth": 3})
    assert found["blocks.1.norm1.weight"].motivated == "blocks.1.norm1.weight", "the constant of its depth"


def test_attention_blocks_at_the_end_of_a_stage_meet_attention_blocks():
    assert find_map("efficientformerv2_s0", "efficientformerv2_s1")


def test_regnet_blocks_named_by_letters_are_blocks():
    found = links("regnety_008", "regnety_008_tv")
    assert found["s3.b8.conv1.conv.weight"].motivated == "s3.b8.conv1.conv.weight"


@pytest.mark.parametrize(
    ("base", "motivated", "reason"),
    [
        ("vit_large_patch14_224", "vit_huge_patch14_224", "heads are 64 wide .*, in the motivated model 80"),
        ("pvt_v2_b0", "pvt_v2_b1", "heads are 32 wide .*, in the motivated model 64"),
        ("xcit_nano_12_p8_224", "xcit_tiny_12_p8_224", "heads are 32 wide, in the motivated model 48"),
        ("regnetx_016", "regnetx_032", "groups are 24 channels wide, in the motivated model 48"),
        ("visformer_tiny", "visformer_small", "groups are 24 channels wide"),
        ("vit_base_patch16_224", "vit_large_patch16_384", "positions must be the same"),
        ("swin_base_patch4_window7_224", "swin_large_patch4_window12_384", "window_size is"),
        ("densenet121", "densenet169", "concatenation of all earlier ones"),
        ("ghostnet_050", "ghostnet_100", "concatenation of two layers"),
        ("inception_next_atto", "inception_next_tiny", "InceptionDWConv2d splits or joins its channels at"),
        ("mobilenetv3_small_050", "mobilenetv3_small_075", "has_skip is True"),
        ("efficientnetv2_rw_t", "efficientnetv2_rw_s", "ConvBnAct in the base, .*EdgeResidual in the motivated"),
        ("vit_small_patch16_rope_mixed_224", "vit_large_patch16_rope_mixed_224", "depth is 12, in the mot"),
        ("vit_tiny_patch16_dinov3_qkvb", "vit_small_patch16_lingbot", "global_pool is avg, in the mot"),
        ("resnet50", "seresnet50", "layer1.0.se: is in the motivated model only"),
        ("resnet50", "vit_base_patch16_224", "not of one construction"),
        ("resnet101", "resnet50", "layer3: the base has 23 blocks, the motivated model 6"),
        ("resnet34", "resnet50", "\\[64, 64, 3, 3\\] does not fit into layer1.0.conv1.weight \\[64, 64, 1, 1\\]"),
        ("resnet50", "resnet101d", "no conv1.weight"),
        ("vit_medium_patch16_rope_reg1_gap_256", "vit_betwixt_patch16_rope_reg4_gap_256", "num_prefix_tokens"),
    ],
)
def test_what_a_slice_would_tear_is_refused_with_the_reason(base, motivated, reason):
    with pytest.raises(WeightMapError, match=reason) as caught:
        find_map(base, motivated)
    assert all("\n" not in fault for fault in caught.value.faults)


def test_plain_slices_are_given_to_those_who_ask_for_them():
    with pytest.raises(WeightMapError, match="groups"):
        find_map("regnetx_016", "regnetx_032", map_name="auto")
    found = {link.base: link for link in find_map("regnetx_016", "regnetx_032", map_name="slices").links}
    assert found["s1.b1.conv2.conv.weight"].index == leading((72, 24, 3, 3))


def test_state_dicts_are_enough_where_the_name_tells_the_rest():
    small, large = (build(name).state_dict() for name in ("vit_tiny_patch16_224", "vit_small_patch16_224"))
    assert len(find_map("vit_tiny_patch16_224", "vit_small_patch16_224", small, large).links) == len(small)
    with pytest.raises(WeightMapError, match="heads are"):
        find_map("pvt_v2_b0", "pvt_v2_b1", build("pvt_v2_b0").state_dict(), build("pvt_v2_b1").state_dict())


def test_without_modules_auto_does_not_guess_heads():
    small = {"block.attn.weight": (4, 4)}
    with pytest.raises(WeightMapError, match="do not show in shapes"):
        find_map("mine_small", "mine_large", small, {"block.attn.weight": (8, 8)})
    deeper = {"blocks.0.attn.weight": (4, 4), "blocks.1.attn.weight": (4, 4)}
    shallow = {"blocks.0.attn.weight": (4, 4)}
    assert len(find_map("mine_small", "mine_large", shallow, deeper).links) == 1


@pytest.mark.parametrize(
    ("name", "small", "large", "reason"),
    [
        ("vit_tiny_patch16_224", {"depth": 2, "global_pool": "avg", "pool_include_prefix": True},
         {"depth": 2, "global_pool": "avg"}, "pool_include_prefix is True"),
        ("eva02_tiny_patch14_224", {"depth": 2, "use_rot_pos_emb": False}, {"depth": 3}, "rope.* only"),
        ("nf_regnet_b0", {"alpha": 0.9}, {}, "alpha is 0.9"),
        ("vit_tiny_patch16_224", {"depth": 2, "num_heads": 6}, {"depth": 2}, "heads are 32 wide"),
    ],
)  # fmt: skip
def test_settings_without_tensors_must_agree(name, small, large, reason):
    with pytest.raises(WeightMapError, match=reason):
        find_map(name, name, build(name, **small), build(name, **large))


class Heads(nn.Module):
    """An attention of another library: the settings of its heads, and a matrix."""

    def __init__(self, width, **settings):
        super().__init__()
        vars(self).update(settings)
        self.query = nn.Linear(width, width)


@pytest.mark.parametrize(
    ("count", "width"),
    [
        ("num_attention_heads", "attention_head_size"),  # BERT
        ("n_heads", "key_value_proj_dim"),  # T5
        (None, "head_dim"),  # Llama
        (None, "head_size"),  # GPT-NeoX
    ],
)
def test_heads_of_hugging_face_models_must_be_of_one_width(count, width):
    small, same, other = (
        Heads(heads * size, **{width: size}, **({count: heads} if count else {}))
        for heads, size in ((2, 4), (4, 4), (2, 8))
    )
    assert len(find_map("mine_small", "mine_large", small, same).links) == 2
    with pytest.raises(WeightMapError, match="heads are 4 wide"):
        find_map("mine_small", "mine_large", small, other)


def test_pooling_that_concatenates_is_refused_for_another_width():
    models = [
        build(name, global_pool="catavgmax") for name in ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2")
    ]
    find_map("efficientnet_b0", "efficientnet_b1", *models[:2])
    with pytest.raises(WeightMapError, match="catavgmax concatenates"):
        find_map("efficientnet_b0", "efficientnet_b2", models[0], models[2])


def test_layers_that_mix_positions_need_as_many_of_them():
    models = [build("mixer_s32_224"), build("mixer_b32_224", img_size=256)]
    with pytest.raises(WeightMapError, match="mixes 49 positions, in the motivated model 64"):
        find_map("mixer_s32_224", "mixer_b32_224", *models)


@pytest.mark.skipif(not timm.is_model("qwen3_vit_88m"), reason="newer than the lowest timm that is supported")
def test_a_merger_takes_the_leading_channels_of_each_neighbour():
    sizes = [{"depth": 1, "embed_dim": dim, "num_heads": dim // 48} for dim in (96, 144)]
    found = links("qwen3_vit_88m_enc", "qwen3_vit_306m_enc", *sizes)
    with pytest.raises(WeightMapError, match="is in the motivated model only"):
        find_map("qwen3_vit_88m", "qwen3_vit_88m_merge")
    (merger,) = [link for name, link in found.items() if name.endswith("merger.fc1.weight")]
    assert merger.index[1] == tuple((i * 144, i * 144 + 96) for i in range(4))


@pytest.mark.parametrize(
    "pair",
    [("nest_small", "nest_base"), ("maxvit_tiny_tf_224", "maxvit_large_tf_224"), ("mixer_s32_224", "mixer_b32_224")],
)
def test_tables_of_positions_are_sliced_on_the_axis_of_channels_or_heads(pair):
    assert find_map(*pair).links


def test_state_dicts_of_other_depths_have_no_borrowed_heads():
    dicts = [build(f"vit_{size}_patch16_224", depth=2).state_dict() for size in ("tiny", "small")]
    with pytest.raises(WeightMapError, match="do not show in shapes"):
        find_map("vit_tiny_patch16_224", "vit_small_patch16_224", *dicts)


@pytest.mark.parametrize("pair", [("dla102x", "dla102x2"), ("dpn98", "dpn131")])
def test_a_concatenation_is_no_obstacle_where_no_channel_moves(pair):
    assert len(find_map(*pair).links) == len(build(pair[0]).state_dict())


def perceptron(width, depth):
    hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), *hidden, nn.Linear(width, 1))


class Inside(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net


@pytest.mark.parametrize("wrap", [lambda net: net, Inside])
def test_a_plain_list_of_layers_grows_in_width_only(wrap):
    """Its last layer has another number in a deeper one, where a layer of the same kind may stand in its place."""
    wider = find_map("a", "b", wrap(perceptron(8, 2)), wrap(perceptron(16, 2)), map_name="auto")
    assert len(wider.links) == 6
    with pytest.raises(WeightMapError, match="a list of single layers, 2 with weights in the base and 4"):
        find_map("a", "b", wrap(perceptron(8, 1)), wrap(perceptron(16, 3)), map_name="auto")


def test_a_model_that_is_a_list_of_blocks_grows_in_depth():
    small, large = (nn.Sequential(*[Inside(nn.Linear(4, 4)) for _ in range(depth)]) for depth in (2, 4))
    found = {link.base: link.motivated for link in find_map("a", "b", small, large, map_name="auto").links}
    assert found["1.net.weight"] == "3.net.weight"
