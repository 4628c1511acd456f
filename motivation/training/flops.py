"""The cost of a forward pass, and the average cost of a run (paper, supplementary section 6).

Two conventions, both for one image:

``torch flops``, of which the figures of runs are: torch's `FlopCounterMode`, 2 per multiply-add of convolutions, matrix
products, attention and recurrent layers, and this project's rules: 5 per element of a BatchNorm, 1 per element of a
ReLU, 1 per element that is averaged (as by the pool before the classifier).

``thop flops``: the same rules, counted by thop, which looks at modules: it misses attention's products and layers that
compute through another module's weight, and counts a module with two parents twice. The paper's tables were made so;
for its CIFAR ResNets both conventions agree to the last digit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import AdaptiveAvgMaxPool2d
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from motivation.method.random_states import fork_rng
from motivation.method.records import Role

CONVENTION = "torch flops"
"""Name of the convention of `forward_flops`, as runs write it down."""

THOP_CONVENTION = "thop flops"
"""Name of the convention of `thop_flops`."""

CONVENTIONS = {
    CONVENTION: "2 per multiply-add by torch.utils.flop_counter, 5 per BatchNorm, 1 per ReLU and per averaged element",
    THOP_CONVENTION: "the same rules counted by thop, as in the paper's tables; attention's products are missed",
    "macs": "multiply-adds by torch.utils.flop_counter",
}
"""The conventions in a line each."""


def convention_of(result: Mapping[str, Any]) -> str:
    """Return the name of the convention in which a run's ``result.json`` has its FLOPs.

    Older runs, which counted by thop, call it "flops".
    """
    convention = str(result.get("convention") or CONVENTION)
    return THOP_CONVENTION if convention == "flops" else convention


aten = torch.ops.aten


def _batchnorm(input_shape: list[int], *_: Any, **__: Any) -> int:
    return 5 * math.prod(input_shape)


def _lstm(input_shape: list[int], input_weight: list[int], hidden_weight: list[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(input_shape[:2]) * (math.prod(input_weight) + math.prod(hidden_weight))


def _elements(input_shape: list[int], *_: Any, **__: Any) -> int:
    return math.prod(input_shape)


MATRIX_RULES: dict[Any, Any] = {aten.mkldnn_rnn_layer: _lstm}
"""FLOPs of matrix products that torch's counter leaves out: an LSTM on the CPU is one operation."""

CHEAP_RULES: dict[Any, Any] = {
    aten.native_batch_norm: _batchnorm,
    aten._native_batch_norm_legit_no_training: _batchnorm,
    aten.relu: _elements,
    aten.relu_: _elements,
    aten.mean: _elements,
    aten.avg_pool2d: _elements,
    aten._adaptive_avg_pool2d: _elements,
}
"""FLOPs of this project's rules, as functions of the shape of an operation's first argument."""


def _conv_of_module(module: Any, inputs: Tensor, output: Tensor) -> float:
    return 2.0 * output.numel() * (module.in_channels // module.groups * module.weight[0, 0].numel())


def _linear_of_module(module: Any, inputs: Tensor, output: Tensor) -> float:
    return 2.0 * output.numel() * module.in_features


def _batchnorm_of_module(module: Any, inputs: Tensor, output: Tensor) -> float:
    activates = isinstance(getattr(module, "act", None), nn.ReLU)  # timm's BatchNormAct2d holds its activation
    return (5.0 + activates) * output.numel()


def _relu_of_module(module: Any, inputs: Tensor, output: Tensor) -> float:
    return float(output.numel())


def _pool_of_module(module: Any, inputs: Tensor, output: Tensor) -> float:
    return float(inputs.numel())


THOP_RULES = (
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv_of_module),
    ((nn.Linear,), _linear_of_module),
    ((nn.modules.batchnorm._BatchNorm,), _batchnorm_of_module),
    ((nn.ReLU,), _relu_of_module),
    ((nn.AdaptiveAvgPool2d, AdaptiveAvgMaxPool2d), _pool_of_module),
)
"""Functions of ``(module, inputs, output)`` that count the FLOPs of these classes and their subclasses."""


def _thop_rules(model: nn.Module) -> dict[type, Any]:
    """Return thop's counting functions for the classes of a model's modules."""

    def adds(rule: Any) -> Any:
        def count(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            module.total_ops += torch.tensor([rule(module, inputs[0], output)], dtype=torch.float64)

        return count

    kinds = {type(module) for module in model.modules()}
    return {kind: adds(rule) for classes, rule in THOP_RULES for kind in kinds if issubclass(kind, classes)}


def forward_flops(model: nn.Module, input_size: tuple[int, ...]) -> float:
    """Return the FLOPs of one image's forward pass by convention `CONVENTION`.

    Args:
        model: not changed.
        input_size: ``(C, H, W)``.
    """
    return _count_operations(model, input_size, MATRIX_RULES | CHEAP_RULES)


def forward_macs(model: nn.Module, input_size: tuple[int, ...]) -> float:
    """Return the multiply-adds of one image's forward pass: half of the FLOPs without norms, activations and pools.

    Args:
        model: not changed.
        input_size: ``(C, H, W)``.
    """
    return _count_operations(model, input_size, MATRIX_RULES) / 2


def thop_flops(model: nn.Module, input_size: tuple[int, ...]) -> float:
    """Return the FLOPs of one image's forward pass by convention `THOP_CONVENTION`, the one of the paper's tables.

    Args:
        model: not changed.
        input_size: ``(C, H, W)``.
    """
    from thop import profile

    def count(copied: nn.Module, image: Tensor) -> float:
        return float(profile(copied, (image,), custom_ops=_thop_rules(copied), verbose=False)[0])

    return _count_on_copy(model, input_size, count)


def _count_operations(model: nn.Module, input_size: tuple[int, ...], rules: dict[Any, Any]) -> float:
    def count(copied: nn.Module, image: Tensor) -> float:
        counter = FlopCounterMode(display=False, custom_mapping=rules)
        with counter:
            copied(image)
        return float(counter.get_total_flops())

    return _count_on_copy(model, input_size, count)


def _count_on_copy(model: nn.Module, input_size: tuple[int, ...], count: Callable[[nn.Module, Tensor], float]) -> float:
    """Count on a copy without data (on the meta device), or on the CPU where the model needs the values of tensors."""
    with fork_rng(), torch.no_grad(), _attention_as_matrix_products():
        try:
            return count(_evaluating_copy(model, "meta"), torch.empty(1, *input_size, device="meta"))
        except Exception:  # noqa: BLE001  (what a missing value raises depends on how the model asks for it)
            return count(_evaluating_copy(model, "cpu"), torch.zeros(1, *input_size))


def _evaluating_copy(model: nn.Module, device: str) -> nn.Module:
    """Return a copy on the device in float32, in evaluation mode, without gradients; integers stay integers.

    The tensors are converted first, so that a copy on the meta device takes no memory and one on the CPU shares what is
    there already (nothing writes to it). So are plain attributes, of which `torch.nn.utils.weight_norm` has one that
    Python cannot copy.
    """
    tensors: dict[int, Any] = {}
    plain = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    for tensor in [*model.parameters(), *model.buffers(), *plain]:
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        converted = tensor.detach().to(device=device, dtype=dtype)
        is_parameter = isinstance(tensor, nn.Parameter)
        tensors[id(tensor)] = nn.Parameter(converted, requires_grad=False) if is_parameter else converted
    return copy.deepcopy(model, memo=tensors).eval()


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
