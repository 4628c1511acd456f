"""A weights map: where each tensor of the base model lies inside the motivated model (paper, section 3.3).

A map is plain data (names and index ranges); `WeightMap.expand` and `WeightMap.extract` apply it to modules or state
dicts. It knows nothing of optimizers or training, so it also serves a script that only grows a checkpoint.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Shapes = Mapping[str, Sequence[int]]
"""Tensor name to shape, in the order of a state dict."""

Axis = tuple[tuple[int, int], ...]
"""Half-open ranges ``(start, stop)`` of indices along one axis of the motivated tensor. Concatenated, they are the
base's indices 0, 1, 2, ..."""


class WeightMapError(ValueError):
    """Raised for a map that cannot be used; ``faults`` has one line for each reason."""

    def __init__(self, title: str, faults: Sequence[str]):
        self.title = title
        self.faults = list(faults)
        super().__init__("\n  ".join([title, *faults]))


@dataclass(frozen=True)
class Link:
    """One base tensor and the part of a motivated tensor that holds the same weights.

    Attributes:
        base, motivated: names of the two tensors.
        index: one `Axis` per dimension. A base ``[8, 4]`` in the first rows and columns of a motivated ``[16, 8]`` has
            the index ``(((0, 8),), ((0, 4),))``.
    """

    base: str
    motivated: str
    index: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the part, which the base tensor must have."""
        return tuple(sum(stop - start for start, stop in axis) for axis in self.index)

    def covers(self, motivated_shape: Sequence[int]) -> bool:
        """Return True if the part is the whole motivated tensor, in order."""
        return self.index == leading(motivated_shape)

    def overlaps(self, other: Link) -> bool:
        """Return True if both take the same element of a motivated tensor."""
        return self.motivated == other.motivated and all(
            any(a < d and c < b for a, b in mine for c, d in theirs)
            for mine, theirs in zip(self.index, other.index, strict=False)
        )

    def views(self, base: Tensor, motivated: Tensor, axes: Sequence[int] | None = None) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of views of equal shape that share memory with ``base`` and ``motivated``.

        A plain slice gives one pair; an axis in several runs (a fused qkv) gives one pair for each run, or one for all
        where that is fewer copies, see `_joined`.

        Args:
            base: tensor of the shape `shape`, or with the axes ``axes`` of it.
            motivated: the tensor that holds it.
            axes: for each dimension of the tensors its axis in the index, or -1 for a dimension of size one; default
                all axes in order.
        """
        index = self.index if axes is None else tuple(((0, 1),) if a < 0 else self.index[a] for a in axes)
        pairs = []
        for runs in itertools.product(*(_runs_of(axis) for axis in index)):
            small, large = base, motivated
            for dim, (start, target, length) in enumerate(runs):
                small = small.narrow(dim, start, length)
                large = large.narrow(dim, target, length)
            pairs.append((small, large))
        return _joined(pairs)


def _joined(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Join the views of equal runs at equal distances to one view with a further axis in front.

    Contiguous views stay apart: many of these are copied at a time, slices one by one.
    """
    if len(pairs) < 2 or pairs[0][1].is_contiguous() or len({small.shape for small, _ in pairs}) > 1:
        return pairs
    views = []
    for runs in zip(*pairs, strict=True):
        distances = {b.storage_offset() - a.storage_offset() for a, b in itertools.pairwise(runs)}
        if len(distances) > 1 or min(distances) < 0:
            return pairs
        views.append(runs[0].as_strided((len(runs), *runs[0].shape), (*distances, *runs[0].stride())))
    return [(views[0], views[1])]


def _runs_of(axis: Axis) -> list[tuple[int, int, int]]:
    """Return ``(start in the base, start in the motivated, length)`` of each run."""
    runs, position = [], 0
    for start, stop in axis:
        runs.append((position, start, stop - start))
        position += stop - start
    return runs


def leading(shape: Sequence[int]) -> tuple[Axis, ...]:
    """Return the index of the first ``shape[i]`` elements on every axis i."""
    return tuple(((0, int(size)),) for size in shape)


def fits(small: Sequence[int], large: Sequence[int]) -> bool:
    """Return True if a tensor has as many axes as another and none of them is longer.

    >>> fits((2, 3), (2, 4)), fits((2, 3), (3, 2)), fits((2,), (2, 1))
    (True, False, False)
    """
    return len(small) == len(large) and all(a <= b for a, b in zip(small, large, strict=True))


def shapes_of(tensors: nn.Module | Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of a module or a state dict; accept shapes as they are."""
    items = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    return {
        name: tuple(value.shape) if isinstance(value, Tensor) else tuple(value)  # type: ignore[arg-type]
        for name, value in items.items()
    }


def _tensors_of(model: nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return model.state_dict() if isinstance(model, nn.Module) else model


@dataclass(frozen=True)
class WeightMap:
    """The place of every base tensor in the motivated model.

    Attributes:
        links: one `Link` per mapped base tensor.
        unmapped: base tensors without a counterpart, with the reason: excluded by `without`, or not found (then also in
            ``refusals``).
        refusals: reasons against the map that its builder found; `check` reports them with its own.
    """

    links: tuple[Link, ...]
    unmapped: Mapping[str, str] = field(default_factory=dict)
    refusals: tuple[str, ...] = ()

    def check(
        self,
        base: nn.Module | Mapping[str, object],
        motivated: nn.Module | Mapping[str, object],
        title: str = "the motivated model does not contain the base model:",
    ) -> None:
        """Raise `WeightMapError` with every fault of the map for these two models."""
        faults = self._faults(shapes_of(base), shapes_of(motivated))
        if faults:
            raise WeightMapError(title, faults)

    def _faults(self, base: Shapes, motivated: Shapes) -> list[str]:
        faults = list(self.refusals)
        seen: dict[str, list[Link]] = defaultdict(list)
        mapped: set[str] = set()
        for link in self.links:
            if link.base not in base:
                faults.append(f"{link.base}: the base model has no such tensor")
                continue
            if link.base in mapped:
                faults.append(f"{link.base}: mapped twice")
            mapped.add(link.base)
            if link.motivated not in motivated:
                faults.append(f"{link.base}: the motivated model has no {link.motivated}")
                continue
            faults += _shape_faults(link, base[link.base], motivated[link.motivated])
            for other in seen[link.motivated]:
                if link.overlaps(other):
                    faults.append(f"{link.base} and {other.base}: both on the same part of {link.motivated}")
            seen[link.motivated].append(link)
        for name in base:
            if name not in mapped and name not in self.unmapped:
                faults.append(f"{name}: neither mapped nor declared unmapped")
        for name in self.unmapped:
            if name not in base:
                faults.append(f"{name}: declared unmapped, but the base model has no such tensor")
        return faults

    def without(self, names: Iterable[str], reason: str) -> WeightMap:
        """Return the map with these base tensors declared unmapped."""
        drop = set(names)
        links = tuple(link for link in self.links if link.base not in drop)
        return WeightMap(links, {**self.unmapped, **dict.fromkeys(sorted(drop), reason)}, self.refusals)

    def prefixed(self, prefix: str) -> WeightMap:
        """Return the map for two modules that hold the models as children, e.g. with the prefix ``'student.'``."""
        links = tuple(Link(prefix + link.base, prefix + link.motivated, link.index) for link in self.links)
        return WeightMap(links, {prefix + name: why for name, why in self.unmapped.items()}, self.refusals)

    def pairs(self, base: Mapping[str, Tensor], motivated: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return views ``(base, motivated)`` of the mapped tensors that both hold, in the order of the links."""
        return [
            pair
            for link in self.links
            if link.base in base and link.motivated in motivated
            for pair in link.views(base[link.base], motivated[link.motivated])
        ]

    @torch.no_grad()
    def expand(self, base: nn.Module | Mapping[str, Tensor], motivated: nn.Module | Mapping[str, Tensor]) -> None:
        """Copy the base's tensors into the motivated model, in place, and leave its differential part alone.

        Raises:
            WeightMapError: one of them lacks a tensor that the map names.
        """
        for small, large in self._all_pairs(base, motivated):
            large.copy_(small)

    @torch.no_grad()
    def extract(self, motivated: nn.Module | Mapping[str, Tensor], base: nn.Module | Mapping[str, Tensor]) -> None:
        """Copy the base's part of the motivated model back into the base, in place.

        Raises:
            WeightMapError: one of them lacks a tensor that the map names.
        """
        for small, large in self._all_pairs(base, motivated):
            small.copy_(large)

    def _all_pairs(
        self, base: nn.Module | Mapping[str, Tensor], motivated: nn.Module | Mapping[str, Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        base, motivated = _tensors_of(base), _tensors_of(motivated)
        faults = [f"the base has no {link.base}" for link in self.links if link.base not in base]
        faults += [
            f"the motivated model has no {link.motivated}" for link in self.links if link.motivated not in motivated
        ]
        if faults:
            title = "the map is of other tensors (give the modules without DDP or torch.compile around them):"
            raise WeightMapError(title, faults)
        return self.pairs(base, motivated)


def _shape_faults(link: Link, base: Sequence[int], motivated: Sequence[int]) -> list[str]:
    if len(link.index) != len(motivated):
        return [f"{link.base}: {len(link.index)} axes indexed, {link.motivated} has shape {list(motivated)}"]
    faults = []
    for dim, (axis, size) in enumerate(zip(link.index, motivated, strict=True)):
        if wrong := [run for run in axis if not 0 <= run[0] <= run[1]]:
            faults.append(f"{link.base}: axis {dim} has the run {wrong[0]}, which is not 0 <= start <= stop")
        elif any(stop > size for _, stop in axis):
            faults.append(
                f"{link.base} {list(base)} does not fit into {link.motivated} {list(motivated)}: "
                f"axis {dim} would take {max(stop for _, stop in axis)} of {size}"
            )
        elif any(a < d and c < b for (a, b), (c, d) in itertools.combinations(axis, 2)):
            faults.append(f"{link.base}: axis {dim} takes an element of {link.motivated} twice")
    if not faults and link.shape != tuple(base):
        faults.append(
            f"{link.base}: shape {list(base)}, but the part of {link.motivated} {list(motivated)} it is "
            f"mapped to has shape {list(link.shape)}"
        )
    return faults
