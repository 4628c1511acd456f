"""The cost of a forward pass, and the average cost of a run (paper, supplementary section 6).

Convention ``flops``, which reproduces the paper's CIFAR figures to every digit: 2 per multiply-add of convolutions and
linear layers, 5 per element of a BatchNorm, 1 per element of a ReLU, 1 per input element of the final average pool, for
one image. It is counted by thop, which leaves out the matrix products of attention; torch's own counter
(`torch_flops`) counts those, but no norms or activations.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import AdaptiveAvgMaxPool2d
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from motivation.method.random_states import fork_rng
from motivation.method.records import Role

CONVENTION = "flops"


def _conv_flops(module: Any, inputs: Tensor, output: Tensor) -> float:
    return 2.0 * output.numel() * (module.in_channels // module.groups * module.weight[0, 0].numel())


def _linear_flops(module: Any, inputs: Tensor, output: Tensor) -> float:
    return 2.0 * output.numel() * module.in_features


def _batchnorm_flops(module: Any, inputs: Tensor, output: Tensor) -> float:
    activates = isinstance(getattr(module, "act", None), nn.ReLU)  # timm's BatchNormAct2d holds its activation
    return (5.0 + activates) * output.numel()


def _relu_flops(module: Any, inputs: Tensor, output: Tensor) -> float:
    return float(output.numel())


def _pool_flops(module: Any, inputs: Tensor, output: Tensor) -> float:
    return float(inputs.numel())


RULES = (
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv_flops),
    ((nn.Linear,), _linear_flops),
    ((nn.modules.batchnorm._BatchNorm,), _batchnorm_flops),
    ((nn.ReLU,), _relu_flops),
    ((nn.AdaptiveAvgPool2d, AdaptiveAvgMaxPool2d), _pool_flops),
)
"""Functions of ``(module, inputs, output)`` that count the FLOPs of these classes and their subclasses."""


def _thop_rules(model: nn.Module) -> dict[type, Any]:
    """Return thop's counting functions for the classes of a model's modules."""

    def adds(rule: Any) -> Any:
        def count(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            module.total_ops += torch.tensor([rule(module, inputs[0], output)], dtype=torch.float64)

        return count

    kinds = {type(module) for module in model.modules()}
    return {kind: adds(rule) for classes, rule in RULES for kind in kinds if issubclass(kind, classes)}


def _copy_to_profile(model: nn.Module) -> nn.Module:
    """Return a copy on the CPU in float32, in evaluation mode, without gradients.

    Parameters that are on the CPU in float32 already are shared, since nothing writes to them. Integers stay integers.
    """
    shared: dict[int, Any] = {}
    for parameter in model.parameters():
        dtype = torch.float32 if parameter.is_floating_point() else parameter.dtype
        shared[id(parameter)] = nn.Parameter(parameter.detach().to(device="cpu", dtype=dtype), requires_grad=False)
    return copy.deepcopy(model, memo=shared).to(device="cpu", dtype=torch.float32).eval()


def forward_flops(model: nn.Module, input_size: tuple[int, ...]) -> float:
    """Return the FLOPs of one image's forward pass by convention `CONVENTION`.

    Args:
        model: not changed; a copy on the CPU is profiled, because thop leaves keys and hooks behind.
        input_size: ``(C, H, W)``.
    """
    from thop import profile

    with fork_rng(), torch.no_grad():
        copied = _copy_to_profile(model)
        total, _ = profile(copied, (torch.zeros(1, *input_size),), custom_ops=_thop_rules(copied), verbose=False)
    return float(total)


@contextmanager
def _attention_as_matrix_products() -> Iterator[None]:
    """Compute attention by matrix products, which the counter counts on every machine.

    Which fused kernel is chosen otherwise depends on device, masks and shapes, and the fast path of
    `torch.nn.MultiheadAttention` in evaluation mode is one operation that the counter does not know.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def torch_flops(model: nn.Module, input_size: tuple[int, ...]) -> int:
    """Return the FLOPs of one image's forward pass by `torch.utils.flop_counter`, which are twice the multiply-adds.

    2 per multiply-add of convolutions, matrix products and attention; nothing for norms, activations, pooling and
    recurrent layers.

    Args:
        model: not changed; a copy on the CPU is run.
        input_size: ``(C, H, W)``.
    """
    counter = FlopCounterMode(display=False)
    with fork_rng(), torch.no_grad(), _attention_as_matrix_products():
        # without gradients: the counter's module tracker fails on views that require them
        copied = _copy_to_profile(model)
        with counter:
            copied(torch.zeros(1, *input_size))
    return counter.get_total_flops()


def average_flops(updates: Mapping[Role, float], flops: Mapping[Role, float]) -> float:
    """Return the mean cost of a forward pass over the updates of both models (paper, supplementary section 6).

    >>> average_flops({Role.BASE: 3, Role.MOTIVATED: 1}, {Role.BASE: 100.0, Role.MOTIVATED: 200.0})
    125.0
    """
    total = sum(updates.values())
    return sum(updates[role] * flops[role] for role in Role) / total if total else 0.0


def readable(flops: float) -> str:
    """
    >>> readable(82_824_896)
    '82.82M'
    """
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if flops >= scale:
            return f"{flops / scale:.2f}{unit}"
    return f"{flops:.0f}"
