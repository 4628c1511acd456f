"""Blocks that only the motivated model has begin as the identity."""

import pytest
import timm
import torch
from torch import nn

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from weight_maps import WeightMapError, begin_as_identity, find_map

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 2}
SWIN_V2 = "swinv2_tiny_window8_256"
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "num_heads": (1, 2), "drop_path_rate": 0.2}
CONVNEXT = {"dims": (8, 16, 24, 32)}
PAIRS = {
    "resnet": ("resnet8_cifar", "resnet14_cifar", {}, {}),
    "bottlenecks": ("resnet26", "resnet50", {"channels": (8, 16, 24, 32)}, {"zero_init_last": False}),
    "efficientnet": ("test_efficientnet", "test_efficientnet", {}, {"depth_multiplier": 2}),
    "vit": ("vit_tiny_patch16_224", "vit_tiny_patch16_224", {**VIT, "depth": 2}, {"depth": 5}),
    "layer scale": ("deit3_small_patch16_224", "deit3_small_patch16_224", {**VIT, "depth": 1}, {"depth": 3}),
    "zero already": (SWIN_V2, SWIN_V2, {**SWIN, "depths": (2, 2)}, {"depths": (2, 4)}),
    "convnext": ("convnext_atto", "convnext_atto", {**CONVNEXT, "depths": (1, 1, 1, 1)}, {"depths": (1, 2, 3, 1)}),
}  # fmt: skip


def make(base, motivated, kwargs, larger):
    torch.manual_seed(0)
    small = timm.create_model(base, num_classes=5, **kwargs)
    large = timm.create_model(motivated, num_classes=5, **kwargs | larger)
    return small, large, find_map(base, motivated, small, large)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_deeper_model_begins_by_computing_what_the_base_computes(pair):
    small, large, weights_map = make(*pair)
    images = torch.randn(2, 3, 32, 32)
    before, stream = {name: tensor.clone() for name, tensor in large.state_dict().items()}, torch.get_rng_state()
    blocks = begin_as_identity(weights_map, large, images)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(module.training for module in large.modules())
    changed = {name for name, tensor in large.state_dict().items() if not torch.equal(tensor, before[name])}
    assert all(name.startswith(tuple(f"{block}." for block in blocks)) for name in changed)
    assert bool(changed) == (pair is not PAIRS["zero already"])

    weights_map.expand(small, large)
    with torch.no_grad():
        assert torch.equal(large.eval()(images), small.eval()(images))
    nn.functional.cross_entropy(large.train()(images), torch.tensor([0, 1])).backward()
    for block in blocks:
        assert any(tensor.grad.any() for tensor in large.get_submodule(block).parameters())


def test_what_has_no_blocks_of_its_own_is_refused():
    _, large, weights_map = make(
        "vit_tiny_patch16_224", "vit_tiny_patch16_224", VIT | {"depth": 2}, {"embed_dim": 64, "num_heads": 4}
    )
    with pytest.raises(WeightMapError, match="no blocks of its own"):
        begin_as_identity(weights_map, large, torch.randn(1, 3, 32, 32))


class Chain(nn.Module):
    """Blocks without shortcuts."""

    def __init__(self, depth):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(depth))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_blocks_without_shortcuts_are_refused_and_stay_as_they_are():
    small, large = Chain(1), Chain(2)
    before = {name: tensor.clone() for name, tensor in large.state_dict().items()}
    weights_map = find_map("Chain", "Chain", small, large, map_name="auto")
    with pytest.raises(WeightMapError, match=r"(?s)do not return their input.*blocks\.1"):
        begin_as_identity(weights_map, large, torch.randn(3, 4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in large.state_dict().items())
