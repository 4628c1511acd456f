"""A map places every base tensor, says all that is wrong with it, and copies there and back without loss."""

import pytest
import torch

from weight_maps import Link, WeightMap, WeightMapError, leading

BASE = {"a": (2, 3), "b": (4,)}
LARGE = {"a": (5, 6), "b": (9,), "c": (7,)}


def links(**over):
    made = {"a": Link("a", "a", leading((2, 3))), "b": Link("b", "b", leading((4,)))}
    made.update(over)
    return tuple(made.values())


def faults(weights_map, base=BASE, motivated=LARGE):
    with pytest.raises(WeightMapError) as caught:
        weights_map.check(base, motivated)
    return caught.value.faults


def test_a_good_map_passes():
    WeightMap(links()).check(BASE, LARGE)


def test_every_fault_is_listed_at_once():
    weights_map = WeightMap(
        (
            Link("a", "a", (((0, 2),), ((4, 7),))),  # beyond the end
            Link("b", "nowhere", leading((4,))),
            Link("ghost", "c", leading((4,))),
        ),
        {"spook": "gone"},
        ("the builder's own reason",),
    )
    found = "\n".join(faults(weights_map, {**BASE, "d": (1,)}))
    said = ("axis 1 would take 7 of 6", "no nowhere", "no such tensor", "d: neither mapped", "spook", "own reason")
    assert all(words in found for words in said)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (links(a=Link("a", "a", (((0, 2),), ((0, 2),)))),
         "a: shape [2, 3], but the part of a [5, 6] it is mapped to has shape [2, 2]"),
        (links(a=Link("a", "c", leading((2, 3)))), "a: 2 axes indexed, c has shape [7]"),
        (links(b=Link("b", "b", (((0, 2), (1, 3)),))), "b: axis 0 takes an element of b twice"),
        ((*links(), Link("b", "c", leading((4,)))), "b: mapped twice"),
        (links(b=Link("b", "b", (((-2, 2),),))), "b: axis 0 has the run (-2, 2), which is not 0 <= start <= stop"),
        (links(b=Link("b", "b", (((4, 0),),))), "b: axis 0 has the run (4, 0), which is not 0 <= start <= stop"),
    ],
)  # fmt: skip
def test_each_fault_is_named(made, expected):
    assert faults(WeightMap(made)) == [expected]


def test_two_base_tensors_on_the_same_target_are_a_fault():
    weights_map = WeightMap((Link("a", "c", leading((4,))), Link("b", "c", (((3, 7),),))))
    assert faults(weights_map, {"a": (4,), "b": (4,)}) == ["b and a: both on the same part of c"]


def test_two_base_tensors_on_disjoint_parts_are_fine():
    WeightMap((Link("a", "c", leading((3,))), Link("b", "c", (((3, 7),),)))).check({"a": (3,), "b": (4,)}, LARGE)


def test_a_declared_unmapped_tensor_is_no_fault_and_stays_out_of_the_pairs():
    weights_map = WeightMap(links()).without(["b"], "kept apart")
    weights_map.check(BASE, LARGE)
    assert [link.base for link in weights_map.links] == ["a"]
    assert weights_map.unmapped == {"b": "kept apart"}


def test_expand_then_extract_restores_the_base_and_leaves_the_rest():
    base = {name: torch.randn(shape) for name, shape in BASE.items()}
    large = {name: torch.randn(shape) for name, shape in LARGE.items()}
    base_before, large_before = ({k: v.clone() for k, v in d.items()} for d in (base, large))
    weights_map = WeightMap(links())
    weights_map.expand(base, large)
    assert torch.equal(large["a"][:2, :3], base_before["a"])
    assert torch.equal(large["a"][2:], large_before["a"][2:])
    assert torch.equal(large["a"][:, 3:], large_before["a"][:, 3:])
    assert torch.equal(large["c"], large_before["c"])
    base["a"].zero_()
    weights_map.extract(large, base)
    assert all(torch.equal(base[name], base_before[name]) for name in base)


def test_runs_of_an_axis_keep_their_order_like_a_fused_qkv():
    small, large = torch.arange(6.0), torch.zeros(12)
    link = Link("qkv", "qkv", (((0, 2), (4, 6), (8, 10)),))
    WeightMap((link,)).expand({"qkv": small}, {"qkv": large})
    assert large.tolist() == [0, 1, 0, 0, 2, 3, 0, 0, 4, 5, 0, 0]
    assert link.shape == (6,)
    assert not link.covers((12,))
    assert Link("b", "b", leading((4,))).covers((4,))


@pytest.mark.parametrize(
    ("index", "width", "copies"),
    [
        ((((0, 2), (4, 6), (8, 10)), ((0, 3),)), 5, 1),  # slices of q, k and v at equal distances
        ((((0, 2), (4, 6), (8, 10)), ((0, 3),)), 3, 3),  # whole rows, which are copied with other whole tensors
        ((((0, 2), (4, 6), (9, 11)), ((0, 3),)), 5, 3),
        ((((8, 10), (4, 6), (0, 2)), ((0, 3),)), 5, 3),
        ((((0, 2), (4, 7), (8, 10)), ((0, 3),)), 5, 3),
        ((((0, 7),), ((0, 1), (2, 3), (4, 5))), 5, 1),
        ((((0, 2), (4, 6)), ((0, 1), (2, 3))), 5, 4),
        ((((0, 0),), ((0, 3),)), 5, 1),
    ],
)
def test_equal_runs_at_equal_distances_are_one_copy(index, width, copies):
    link = Link("qkv", "qkv", index)
    small, large = torch.rand(link.shape), torch.zeros(12, width)
    expected = large.clone()
    rows, columns = ([i for start, stop in axis for i in range(start, stop)] for axis in index)
    expected[torch.tensor(rows, dtype=torch.long)[:, None], torch.tensor(columns)] = small
    WeightMap((link,)).expand({"qkv": small}, {"qkv": large})
    assert torch.equal(large, expected)
    assert len(link.views(small, large)) == copies
    taken = torch.zeros_like(small)
    WeightMap((link,)).extract({"qkv": large}, {"qkv": taken})
    assert torch.equal(taken, small)


def test_a_prefixed_map_is_the_map_of_two_parents():
    weights_map = WeightMap(links(), {"d": "why"}).prefixed("student.")
    assert {link.base for link in weights_map.links} == {"student.a", "student.b"}
    assert weights_map.unmapped == {"student.d": "why"}


def test_nothing_is_copied_if_a_tensor_of_the_map_is_missing():
    base = {name: torch.ones(shape) for name, shape in BASE.items()}
    wrapped = {f"module.{name}": torch.zeros(shape) for name, shape in LARGE.items()}
    with pytest.raises(WeightMapError, match="the motivated model has no a"):
        WeightMap(links()).expand(base, wrapped)
    with pytest.raises(WeightMapError, match="the motivated model has no b"):
        WeightMap(links()).extract(wrapped, base)
