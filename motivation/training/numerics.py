"""``--check-numerics``: end a run at the first module output, loss or gradient that is not finite, and name it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from motivation.data.update_loader import MicroBatch
from motivation.training.finite import NotFiniteError, are_finite, nonfinite_names
from motivation.training.learner import Learner


class CheckedLearner(Learner):
    """Check all that an update computes.

    The smallest and largest number of each output are found on the device and read together after the forward pass, so
    that a GPU waits once for it. With a gradient scaler the gradients are not checked: it skips a step whose gradients
    overflow, and goes on with a smaller scale.

    Attributes:
        place: returns words for the update that is being done.
    """

    def __init__(self, *parts: Any, **settings: Any):
        super().__init__(*parts, **settings)
        self.place: Callable[[], str] = str
        self._extremes: list[tuple[str, nn.Module | None, Tensor]] = []
        self._is_in_update = False
        self._latest: tuple[Tensor, int] | None = None
        for name, module in self.model.named_modules():
            module.register_forward_hook(self._output_hook(f"the output of {name or 'the model'}"))

    def _forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        self._extremes.clear()
        self._see("an image of the batch", None, batch.images)
        self._is_in_update = True
        try:
            loss, reported = super()._forward(batch)
        finally:
            self._is_in_update = False
            self._latest = None
        self._see("the loss", None, loss)
        self._refuse_outputs()
        return loss, reported

    def _step(self) -> None:
        if self.rule.scaler is None:
            self._refuse_gradients()
        super()._step()

    def _output_hook(self, what: str) -> Callable[..., None]:
        """Return a hook that is a function: a copy of the model, as for its FLOPs, must not copy this learner too."""

        def see_output(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._is_in_update:
                for value in tree_leaves(output):
                    if isinstance(value, Tensor):
                        self._see(f"{what} ({type(module).__name__})", module, value)

        return see_output

    def _see(self, what: str, module: nn.Module | None, value: Tensor) -> None:
        is_latest = self._latest is not None and value is self._latest[0] and value._version == self._latest[1]
        if value.is_floating_point() and value.numel() and not is_latest:  # a block returns what its last layer does
            self._extremes.append((what, module, torch.stack(torch.aminmax(value.detach())).float()))
            self._latest = value, value._version

    def _refuse_outputs(self) -> None:
        are_finite = torch.stack([extremes for _, _, extremes in self._extremes]).isfinite().all(1).tolist()
        if all(are_finite):
            return
        what, module, _ = self._extremes[are_finite.index(False)]
        own = [] if module is None else nonfinite_names({**module._parameters, **module._buffers})
        self._refuse(what, f"; neither is its {', '.join(own)}" if own else "")

    def _refuse_gradients(self) -> None:
        gradients = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        if not are_finite(gradients):
            names = nonfinite_names(gradients)  # the last is the first of the backward pass
            self._refuse(f"the gradient of {names[-1]}", f"; nor are {len(names) - 1} more" * (len(names) > 1))

    def _refuse(self, what: str, more: str) -> None:
        raise NotFiniteError(f"--check-numerics: {what} is not finite in {self.place()}{more}")
