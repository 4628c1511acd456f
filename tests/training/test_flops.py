"""FLOPs are counted by the conventions that are said, and counting leaves the model and the process as they were."""

import pytest
import timm
import torch
from support.program import assert_equal
from timm.layers import use_fused_attn
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import motivation.models  # noqa: F401 - the CIFAR ResNets
from motivation.method.random_states import get_rng_state, rng_to_dict
from motivation.training.flops import convention_of, forward_flops, forward_macs, readable, thop_flops
from weight_maps.find import make_model

MODELS = """
beit_base_patch16_224 gernet_s cait_s24_384 coat_tiny convit_tiny test_convnext cpubone_t0 crossvit_9_240 darknet21
cspnext_m davit_tiny deit_tiny_patch16_224 dla60 dpn98 efficientformerv2_s1 efficientnet_b0 efficientvim_m1
efficientvit_b0 eva02_tiny_patch14_224 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny hiera_base_224 sam2_hiera_tiny
hrnet_w18_small iformer_t inception_next_atto lcnetv2_base levit_128 lowformer_e2 mambaout_tiny coatnet_pico_rw_224
caformer_s18 gmlp_s16_224 mobilenetv3_small_050 mobilevit_xxs mvitv2_tiny nest_tiny nextvit_small nfnet_f0 pit_ti_224
pvt_v2_b2 qwen3_vit_88m regnety_064 repghostnet_080 repvit_m2 res2net50d resnest14d resnet50 resnetv2_34 rexnet_130
legacy_seresnet34 sequencer2d_s skresnet34 starnet_s2 swiftformer_s swin_tiny_patch4_window7_224
swinv2_tiny_window8_256 swinv2_cr_base_384 tiny_vit_5m_224 tresnet_m twins_svt_base vit_tiny_patch16_224
vit_tiny_r_s16_p8_224 test_vit_relpos samvit_base_patch16 vitamin_base_224 volo_d1_224 vovnet57a xception41
xcit_nano_12_p8_224
"""
"""A small model of each timm module that has mapped pairs, and some whose layers compute outside their modules."""
ONE_EACH = (1, 1, 1, 1)
SHALLOW = {
    "beit_base_patch16_224": {"depth": 2},
    "cait_s24_384": {"depth": 2},
    "coat_tiny": {"serial_depths": ONE_EACH, "parallel_depth": 1},
    "convit_tiny": {"depth": 3, "local_up_to_layer": 2},
    "crossvit_9_240": {"depth": ((1, 1, 0), (1, 1, 0))},
    "davit_tiny": {"depths": ONE_EACH},
    "deit_tiny_patch16_224": {"depth": 2},
    "dpn98": {"k_sec": ONE_EACH},
    "efficientformerv2_s1": {"depths": ONE_EACH},
    "eva02_tiny_patch14_224": {"depth": 2},
    "fastvit_t8": {"layers": ONE_EACH},
    "hiera_base_224": {"stages": ONE_EACH},
    "inception_next_atto": {"depths": ONE_EACH},
    "legacy_seresnet34": {"layers": ONE_EACH},
    "levit_128": {"depth": (1, 1, 1)},
    "mambaout_tiny": {"depths": ONE_EACH},
    "pvt_v2_b2": {"depths": ONE_EACH},
    "qwen3_vit_88m": {"depth": 2},
    "repvit_m2": {"depth": ONE_EACH},
    "res2net50d": {"layers": ONE_EACH},
    "resnet50": {"layers": ONE_EACH},
    "resnetv2_34": {"layers": ONE_EACH},
    "sam2_hiera_tiny": {"stages": ONE_EACH},
    "samvit_base_patch16": {"depth": 4},
    "sequencer2d_s": {"layers": ONE_EACH},
    "skresnet34": {"layers": ONE_EACH},
    "starnet_s2": {"depths": ONE_EACH},
    "swin_tiny_patch4_window7_224": {"depths": (2, 1, 1, 1)},
    "swinv2_cr_base_384": {"depths": ONE_EACH},
    "swinv2_tiny_window8_256": {"depths": ONE_EACH},
    "test_vit_relpos": {"depth": 2},
    "tiny_vit_5m_224": {"depths": ONE_EACH},
    "tresnet_m": {"layers": ONE_EACH},
    "twins_svt_base": {"depths": (1, 1, 2, 1)},
    "vit_tiny_patch16_224": {"depth": 2},
    "vit_tiny_r_s16_p8_224": {"depth": 2},
    "vitamin_base_224": {"depth": 2},
    "xcit_nano_12_p8_224": {"depth": 2},
}
"""Arguments that give them fewer blocks, of every kind."""
SMALL = {"sequencer2d_s": (3, 56, 56)}
"""Images of models that the meta device cannot run, so that the size takes time."""


@pytest.mark.parametrize("name", MODELS.split())
def test_the_figure_is_torchs_and_a_little_more(name):
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    model = make_model(name, meta=True, **SHALLOW.get(name, {}))
    size = SMALL.get(name, model.pretrained_cfg["input_size"])
    try:
        with FlopCounterMode(display=False) as counter:  # torch's own count of the same forward pass
            figure = forward_flops(model, size)
    except NotImplementedError:  # with data, the model is counted on the CPU
        pytest.skip(f"torch {torch.__version__} cannot run {name} on the meta device")
    assert 0.97 <= figure / counter.get_total_flops() <= 1.15


@pytest.mark.parametrize("fused", [True, False])
def test_attention_is_counted(fused):
    dim, depth, tokens, classes, side, patch = 64, 2, 17, 10, 32, 8
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=side, patch_size=patch, embed_dim=dim, depth=depth, num_heads=4, num_classes=classes
    )
    for block in model.blocks:
        block.attn.fused_attn = fused
    layers = depth * tokens * (3 * dim * dim + dim * dim + 2 * 4 * dim * dim)
    patches = (tokens - 1) * 3 * patch * patch * dim
    linear = layers + patches + classes * dim
    attention = depth * 2 * tokens * tokens * dim
    assert forward_macs(model, (3, side, side)) == linear + attention
    assert forward_flops(model, (3, side, side)) == 2 * (linear + attention)
    assert thop_flops(model, (3, side, side)) < 2 * (linear + attention)


def test_norms_activations_and_averages_follow_the_rules_however_they_are_computed():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

        def forward(self, images):
            return functional.relu(self.norm(self.conv(images))).mean((2, 3))

    elements = 8 * 6 * 6
    assert forward_macs(Functional(), (3, 8, 8)) == elements * 27
    assert forward_flops(Functional(), (3, 8, 8)) == elements * (2 * 27 + 5 + 1 + 1)


@pytest.mark.parametrize(("depth", "printed"), [(20, "82.82M"), (32, "140.13M"), (44, "197.44M"), (56, "254.76M")])
def test_both_conventions_give_the_papers_table_8(depth, printed):
    model = timm.create_model(f"resnet{depth}_cifar")
    assert forward_flops(model, (3, 32, 32)) == thop_flops(model, (3, 32, 32))
    assert readable(forward_flops(model, (3, 32, 32))) == printed


@pytest.mark.parametrize("needs_values", [False, True])
def test_an_lstm_is_counted_on_the_meta_device_and_on_the_cpu(needs_values):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(10, 7, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, tokens):
            if needs_values:
                tokens = tokens + tokens.sum().item()
            return self.lstm(tokens)[0]

    layers = sum(4 * 7 * (inputs + 7) for inputs in (10, 14))
    assert forward_macs(Recurrent(), (5, 10)) == 2 * 5 * layers


@pytest.mark.parametrize("ask", [lambda bias: bias.item(), lambda bias: bias.numpy(), lambda bias: f"{bias:.1f}"])
def test_a_model_that_needs_values_is_counted_however_it_asks_for_them(ask):
    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 5)

        def forward(self, images):
            return self.linear(images.flatten(1)) * float(ask(self.linear.bias.detach()[0]))

    assert forward_flops(Asking(), (1, 2, 2)) == thop_flops(Asking(), (1, 2, 2)) == 2 * 4 * 5


@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore")
def test_a_weight_that_is_computed_from_others_is_counted(wrap):
    layer = wrap(nn.Conv2d(3, 4, 3))
    assert forward_macs(layer, (3, 8, 8)) == 4 * 6 * 6 * 27


def test_a_module_with_two_parents_is_counted_once_a_call():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Sequential(nn.Linear(4, 4))
            self.other = nn.Sequential(self.one[0])

        def forward(self, images):
            return self.other(self.one(images.flatten(1)))

    assert forward_flops(Shared(), (1, 2, 2)) == 2 * 2 * 16


@pytest.mark.parametrize("convention", [("flops", "thop flops"), ("torch flops", "torch flops")])
def test_older_runs_keep_their_convention(convention):
    assert convention_of({"convention": convention[0]}) == convention[1]


def test_the_fast_path_of_torchs_attention_is_counted():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, tokens):
            return self.attention(tokens, tokens, tokens, need_weights=False)[0]

    assert forward_flops(Attending(), (10, 32)) == 2 * 10 * 4 * 32 * 32 + 2 * 2 * 10 * 10 * 32


def test_a_model_with_attention_pooling_is_counted():
    """Its latent is a parameter that is expanded, which the counter's tracker refuses where gradients are wanted."""
    model = timm.create_model("vit_base_patch16_siglip_224", depth=1, img_size=32, num_classes=3)
    assert forward_flops(model, (3, 32, 32)) > 0


def test_a_parameter_of_whole_numbers_stays_one():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Parameter(torch.tensor([2, 0]), requires_grad=False)
            self.linear = nn.Linear(2, 5)

        def forward(self, images):
            return self.linear(images.flatten(1)[:, self.places])

    assert forward_flops(Choosing(), (3, 1, 1)) == thop_flops(Choosing(), (3, 1, 1)) == 2 * 2 * 5


@pytest.mark.parametrize("count", [forward_flops, thop_flops])
def test_profiling_leaves_everything_as_it_was(count):
    class Noisy(nn.Module):
        """Draws from the random stream."""

        def __init__(self):
            super().__init__()
            self.inner = timm.create_model("test_vit", img_size=32)

        def forward(self, images):
            return self.inner(images + torch.rand_like(images))

    def settings():
        backends = torch.backends.cuda
        return [
            use_fused_attn(),
            torch.backends.mha.get_fastpath_enabled(),
            backends.flash_sdp_enabled(),
            backends.mem_efficient_sdp_enabled(),
            backends.math_sdp_enabled(),
            backends.cudnn_sdp_enabled(),
            torch.is_grad_enabled(),
        ]

    model = Noisy().to(torch.bfloat16).train()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    states, before = rng_to_dict(get_rng_state()), settings()
    assert count(model, (3, 32, 32)) > 0
    assert_equal(model.state_dict(), weights)
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert not any(hasattr(m, "total_ops") for m in model.modules())
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert_equal(rng_to_dict(get_rng_state()), states)
    assert settings() == before


def test_settings_come_back_when_the_model_fails():
    with pytest.raises(RuntimeError):
        forward_flops(nn.Conv2d(3, 4, 3), (1, 8, 8))
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
