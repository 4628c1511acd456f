"""The copies of a switch: *expand* and *extract* (paper, section 3.5).

*expand* copies base -> motivated, *extract* copies motivated -> base: parameters, buffers, optimizer state and EMA,
along the weights map. All copies are planned once and done in place, so that optimizers, DDP and compiled graphs keep
their tensors; many tensors are copied at a time.
"""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor, nn

from motivation.method.copies import Copies, copy_all, grouped
from motivation.method.optimizer_state import StateCarrier, parameter_pairs, unsupported_reasons
from motivation.method.side import Side
from weight_maps import WeightMap

BATCHNORM_CHOICES = ("copy", "separate")


class Switch:
    """Copy what two models share from one to the other.

    Args:
        base, motivated: the two models.
        weights_map: where the base lies inside the motivated model.
        batchnorm: see `MotivatedPair`.

    Raises:
        ValueError: weights or optimizer state cannot be carried; the reasons are listed.
    """

    def __init__(self, base: Side, motivated: Side, weights_map: WeightMap, batchnorm: str = "separate"):
        if batchnorm not in BATCHNORM_CHOICES:
            raise ValueError(f"batchnorm is one of {', '.join(BATCHNORM_CHOICES)}, not {batchnorm!r}")
        if batchnorm == "separate":
            weights_map = weights_map.without(running_statistics(base.model), "each model keeps its own statistics")
        small, large = base.model.state_dict(), motivated.model.state_dict()
        if reasons := _storage_mismatches(weights_map, small, large):
            raise ValueError("the weights cannot be carried: " + "; ".join(reasons))
        tensors = weights_map.pairs(small, large)
        if base.ema is not None:
            tensors += weights_map.pairs(base.ema_model.state_dict(), motivated.ema_model.state_dict())
        self._weights_to_motivated = grouped(tensors)
        self._weights_to_base = grouped((large, small) for small, large in tensors)

        shared = parameter_pairs(
            weights_map.links,
            dict(base.model.named_parameters(remove_duplicate=False)),
            dict(motivated.model.named_parameters(remove_duplicate=False)),
            base.optimizer,
            motivated.optimizer,
        )
        if reasons := unsupported_reasons(shared, base.optimizer, motivated.optimizer):
            raise ValueError("the optimizer's state cannot follow a switch: " + "; ".join(reasons))
        self.state_to_motivated = StateCarrier(shared, base.optimizer, motivated.optimizer, to_motivated=True)
        self.state_to_base = StateCarrier(shared, base.optimizer, motivated.optimizer, to_motivated=False)

    def expand(self, optimizer_state: bool = True) -> None:
        """Copy the base into the motivated model, whose differential part stays as it is.

        Args:
            optimizer_state: False to copy weights, buffers and EMA only, which is enough to evaluate or save.
        """
        copy_all(self.prepare_copies(to_motivated=True) if optimizer_state else self._weights_to_motivated)

    def extract(self) -> None:
        """Copy the base's part of the motivated model back into the base; the motivated model stays as it is."""
        copy_all(self.prepare_copies(to_motivated=False))

    def prepare_copies(self, to_motivated: bool) -> Copies:
        """Return all copies of a switch at this moment; see `StateCarrier.prepare_copies`."""
        if to_motivated:
            return self._weights_to_motivated + self.state_to_motivated.prepare_copies()
        return self._weights_to_base + self.state_to_base.prepare_copies()


def running_statistics(model: nn.Module) -> list[str]:
    """Return the names of all running_mean, running_var and num_batches_tracked of a model's normalisation layers."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if getattr(module, "running_mean", None) is not None
        for name in ("running_mean", "running_var", "num_batches_tracked")
        if getattr(module, name, None) is not None
    ]


def _storage_mismatches(weights_map: WeightMap, base: dict[str, Tensor], motivated: dict[str, Tensor]) -> list[str]:
    """Return why two state dicts are not stored alike.

    Both models must use the same dtypes (a conversion would round) and tie the same weights (otherwise two source
    tensors overwrite each other).
    """
    reasons = []
    counterparts: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    for link in weights_map.links:
        small, large = base[link.base], motivated[link.motivated]
        if small.dtype != large.dtype:
            reasons.append(f"{link.base} is {small.dtype}, its counterpart {large.dtype}")
        if small.numel() and small.device.type != "meta":
            counterparts["the base", small.data_ptr()][large.data_ptr()] = link.base
            counterparts["the motivated model", large.data_ptr()][small.data_ptr()] = link.motivated
    for (model, _), tied in counterparts.items():
        names = set(tied.values())  # one name with several counterparts: disjoint parts of it, which is no fault
        if len(names) > 1:
            reasons.append(f"{' and '.join(sorted(names))} are one tensor in {model} only")
    most = 3
    return [*reasons[:most], f"and {len(reasons) - most} more"] if len(reasons) > most else reasons
