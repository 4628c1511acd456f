"""What a forward pass costs, and what a run has cost (paper, supplementary section 6).

Convention ``flops``, the one that reproduces the paper's CIFAR figures to every digit: 2 per multiply-add of
convolutions and linear layers, 5 per element of a BatchNorm, 1 per element of a ReLU, 1 per input element of the final
average pool, all for one image. Counted by thop, which leaves the matrix products of attention out; torch's own counter
(`torch_flops`) has them, and no norms or activations.
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


def _count_convolution(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    per_element = module.in_channels // module.groups * module.weight[0, 0].numel()
    module.total_ops += torch.tensor([2.0 * output.numel() * per_element], dtype=torch.float64)


def _count_linear(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    module.total_ops += torch.tensor([2.0 * output.numel() * module.in_features], dtype=torch.float64)


def _count_batchnorm(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    activated = isinstance(getattr(module, "act", None), nn.ReLU)  # timm's BatchNormAct2d holds its activation
    module.total_ops += torch.tensor([(5.0 + activated) * output.numel()], dtype=torch.float64)


def _count_relu(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    module.total_ops += torch.tensor([float(output.numel())], dtype=torch.float64)


def _count_pool(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    module.total_ops += torch.tensor([float(inputs[0].numel())], dtype=torch.float64)


def _rules(model: nn.Module) -> dict[type, Any]:
    rules: dict[type, Any] = {}
    for module in model.modules():
        kind = type(module)
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            rules[kind] = _count_convolution
        elif isinstance(module, nn.Linear):
            rules[kind] = _count_linear
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            rules[kind] = _count_batchnorm
        elif isinstance(module, nn.ReLU):
            rules[kind] = _count_relu
        elif isinstance(module, (nn.AdaptiveAvgPool2d, AdaptiveAvgMaxPool2d)):
            rules[kind] = _count_pool
    return rules


def _twin(model: nn.Module) -> nn.Module:
    """A copy to profile: on the CPU, in float32, in evaluation mode, without gradients.

    Parameters that are there and of that kind already are shared: nothing writes to them. Whole numbers stay what they
    are.
    """
    shared: dict[int, Any] = {}
    for parameter in model.parameters():
        dtype = torch.float32 if parameter.is_floating_point() else parameter.dtype
        shared[id(parameter)] = nn.Parameter(parameter.detach().to(device="cpu", dtype=dtype), requires_grad=False)
    return copy.deepcopy(model, memo=shared).to(device="cpu", dtype=torch.float32).eval()


def forward_flops(model: nn.Module, input_size: tuple[int, ...]) -> float:
    """FLOPs of one image's forward pass, convention `CONVENTION`.

    Args:
        model: not touched; a copy on the CPU is profiled, because thop leaves keys and hooks behind.
        input_size: ``(C, H, W)``.
    """
    from thop import profile

    with fork_rng(), torch.no_grad():
        twin = _twin(model)
        total, _ = profile(twin, (torch.zeros(1, *input_size),), custom_ops=_rules(twin), verbose=False)
    return float(total)


@contextmanager
def _attention_in_plain_products() -> Iterator[None]:
    """Attention as matrix products, which the counter knows on every machine.

    Which fused kernel is chosen depends on device, masks and shapes, and the fast path of `torch.nn.MultiheadAttention`
    in evaluation mode is one operation that the counter takes for nothing.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def torch_flops(model: nn.Module, input_size: tuple[int, ...]) -> int:
    """FLOPs of one image's forward pass as `torch.utils.flop_counter` counts them; half of it are multiply-adds.

    2 per multiply-add of convolutions, matrix products and attention; nothing for norms, activations and pooling, nor
    for recurrent layers.

    Args:
        model: not touched; a copy on the CPU is run.
        input_size: ``(C, H, W)``.
    """
    counter = FlopCounterMode(display=False)
    with fork_rng(), torch.no_grad(), _attention_in_plain_products():
        twin = _twin(model)  # without gradients: the counter's module tracker fails on views of those that want them
        with counter:
            twin(torch.zeros(1, *input_size))
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
