"""FLOPs are counted by the conventions that are said, and counting leaves the model and the process as they were."""

import pytest
import timm
import torch
from support.program import assert_equal
from timm.layers import use_fused_attn
from torch import nn

from motivation.method.random_states import get_rng_state, rng_to_dict
from motivation.training.flops import forward_flops, torch_flops


@pytest.mark.parametrize("fused", [True, False])
def test_torch_flops_of_a_transformer_count_attention(fused):
    dim, depth, tokens, classes, side, patch = 64, 2, 17, 10, 32, 8
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=side, patch_size=patch, embed_dim=dim, depth=depth, num_heads=4, num_classes=classes
    )
    for block in model.blocks:
        block.attn.fused_attn = fused
    layers = depth * tokens * (3 * dim * dim + dim * dim + 2 * 4 * dim * dim)
    patches = (tokens - 1) * 3 * patch * patch * dim
    linear = 2 * (layers + patches + classes * dim)
    attention = depth * 2 * 2 * tokens * tokens * dim
    assert torch_flops(model, (3, side, side)) == linear + attention


def test_thop_leaves_attention_out_and_torch_has_it():
    model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
    tokens, dim = 197, 192
    difference = torch_flops(model, (3, 224, 224)) - forward_flops(model, (3, 224, 224))
    assert difference == 2 * 2 * 2 * tokens * tokens * dim


def test_the_fast_path_of_torchs_attention_is_counted():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, tokens):
            return self.attention(tokens, tokens, tokens)[0]

    assert torch_flops(Attending(), (10, 32)) == 2 * 10 * 4 * 32 * 32 + 2 * 2 * 10 * 10 * 32


def test_a_model_with_attention_pooling_is_counted():
    """Its latent is a parameter that is expanded, which the counter's tracker refuses where gradients are wanted."""
    model = timm.create_model("vit_base_patch16_siglip_224", depth=1, img_size=32, num_classes=3)
    assert torch_flops(model, (3, 32, 32)) > 0


def test_convolutions_without_norms_cost_the_same_in_both_conventions():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 6 * 6, 5))
    expected = 2 * (8 * 36 * 2 * 9 + 8 * 36 * 5)
    assert torch_flops(model, (4, 8, 8)) == forward_flops(model, (4, 8, 8)) == expected


def test_a_parameter_of_whole_numbers_stays_one():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Parameter(torch.tensor([2, 0]), requires_grad=False)
            self.linear = nn.Linear(2, 5)

        def forward(self, images):
            return self.linear(images.flatten(1)[:, self.places])

    assert forward_flops(Choosing(), (3, 1, 1)) == torch_flops(Choosing(), (3, 1, 1)) == 2 * 2 * 5


@pytest.mark.parametrize("count", [forward_flops, torch_flops])
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
        torch_flops(nn.Conv2d(3, 4, 3), (1, 8, 8))
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
