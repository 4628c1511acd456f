"""Properties of the general map on random nested nets: round trip, differential part, pointers, composition."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weight_maps import PLACEMENTS, find_map, leading_parts
from weight_maps.containment import compare
from weight_maps.core import Link, WeightMap

HEAD_WIDTH = 2


class Attention(nn.Module):
    """Self-attention with one layer for q, k and v."""

    def __init__(self, dim):
        super().__init__()
        self.num_heads, self.head_dim = dim // HEAD_WIDTH, HEAD_WIDTH
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        count, length, dim = x.shape
        q, k, v = self.qkv(x).reshape(count, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * self.head_dim**-0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(count, length, dim))


class Block(nn.Module):
    """Attention, a depthwise convolution and an MLP, each residual."""

    def __init__(self, dim, ratio):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim)
        self.conv = nn.Conv1d(dim, dim, 3, padding=1, groups=dim)
        self.norm2, self.mlp = (
            nn.LayerNorm(dim),
            nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim)),
        )

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        return x + self.mlp(self.norm2(x))


class Net(nn.Module):
    """Stages of blocks with a wider layer between them."""

    def __init__(self, heads, depths, ratio=2):
        super().__init__()
        dims = [HEAD_WIDTH * heads * (stage + 1) for stage in range(len(depths))]
        self.stem = nn.Linear(3, dims[0])
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(dim, ratio) for _ in range(depth)) for dim, depth in zip(dims, depths, strict=True)
        )
        self.between = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(dims))
        self.head = nn.Linear(dims[-1], 5)

    def forward(self, images):  # [B, 3, H, W] -> [B, 5]
        x = self.stem(images.flatten(2).transpose(1, 2))
        for number, stage in enumerate(self.stages):
            for block in stage:
                x = block(x)
            if number < len(self.between):
                x = self.between[number](x)
        return self.head(x.mean(1))


depths = st.lists(st.integers(1, 3), min_size=1, max_size=2)


@st.composite
def nested(draw, count):
    """Sizes of ``count`` nets, each inside the next."""
    heads, depth = draw(st.integers(1, 2)), draw(depths)
    sizes = [(heads, depth)]
    for _ in range(count - 1):
        heads += draw(st.integers(0, 1))
        depth = [d + draw(st.integers(0, 2)) for d in depth]
        sizes.append((heads, depth))
    return sizes


def build(size, seed):
    torch.manual_seed(seed)
    return Net(*size)


def mapped(base, motivated, placement="paper"):
    return find_map("small_net", "large_net", base, motivated, map_name="auto", placement=placement)


PLACED = st.sampled_from(PLACEMENTS)


@settings(max_examples=25, deadline=None)
@given(nested(2), PLACED)
def test_round_trip_differential_part_and_pointers(sizes, placement):
    base, motivated = build(sizes[0], 1), build(sizes[1], 2)
    weights_map = mapped(base, motivated, placement)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    outside = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in motivated.state_dict().items()}
    weights_map.expand({name: torch.zeros_like(t, dtype=torch.bool) for name, t in before.items()}, outside)
    large = {name: tensor.clone() for name, tensor in motivated.state_dict().items()}
    pointers = [t.data_ptr() for model in (base, motivated) for t in model.state_dict().values()]

    weights_map.expand(base, motivated)
    assert all(torch.equal(t[outside[n]], large[n][outside[n]]) for n, t in motivated.state_dict().items())
    assert sum(int((~mask).sum()) for mask in outside.values()) == sum(t.numel() for t in before.values())
    for parameter in base.parameters():
        nn.init.constant_(parameter, 7.0)
    grown = {name: tensor.clone() for name, tensor in motivated.state_dict().items()}
    weights_map.extract(motivated, base)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert all(torch.equal(tensor, grown[name]) for name, tensor in motivated.state_dict().items())
    assert pointers == [t.data_ptr() for model in (base, motivated) for t in model.state_dict().values()]


@settings(max_examples=20, deadline=None)
@given(nested(2), PLACED)
def test_the_bases_computation_is_found_inside(sizes, placement):
    base, motivated = build(sizes[0], 1), build(sizes[1], 2)
    found = compare(mapped(base, motivated, placement), base, motivated, torch.randn(2, 3, 2, 3))
    assert found.holds, found.first_difference


@settings(max_examples=25, deadline=None)
@given(nested(3), st.sampled_from(["paper", "first", "last"]))
def test_maps_compose(sizes, placement):
    a, b, c = (build(size, seed) for seed, size in enumerate(sizes))
    mapped(a, b, placement).expand(a, b)
    mapped(b, c, placement).expand(b, c)
    found = build(sizes[0], 9)
    mapped(a, c, placement).extract(c, found)
    assert all(torch.equal(tensor, a.state_dict()[name]) for name, tensor in found.state_dict().items())


sizes_of_parts = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.lists(sizes_of_parts, min_size=1, max_size=3), st.data())
def test_leading_parts_hold_the_leading_elements_of_each_part(base, data):
    motivated = [[size + data.draw(st.integers(0, 3)) for size in axis] for axis in base]
    index = leading_parts([tuple(axis) for axis in base], [tuple(axis) for axis in motivated])
    link = Link("x", "x", index)
    small, large = torch.randn([sum(axis) for axis in base]), torch.zeros([sum(axis) for axis in motivated])
    WeightMap((link,)).check({"x": small}, {"x": large})
    WeightMap((link,)).expand({"x": small}, {"x": large})
    for dim, (few, many) in enumerate(zip(base, motivated, strict=True)):
        large = torch.cat([part.narrow(dim, 0, n) for part, n in zip(large.split(many, dim), few, strict=True)], dim)
    assert torch.equal(large, small)


def test_parts_that_do_not_match_have_no_index():
    assert leading_parts([(2, 2)], [(3,)]) is None
    assert leading_parts([(4,)], [(3,)]) is None


def test_heads_of_another_width_are_refused():
    base, motivated = build((2, [1]), 1), build((2, [1]), 2)
    motivated.stages[0][0].attn.num_heads, motivated.stages[0][0].attn.head_dim = 1, 4
    with pytest.raises(ValueError, match="heads are 2 wide"):
        mapped(base, motivated)
