"""Check that all ranks train the same model, where a condition of the user's own might decide otherwise on one.

The conditions of this project see signals that are equal on all ranks, so they need no check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from motivation.training.plugin_errors import PluginError


@dataclass(frozen=True)
class DecisionCheck:
    """Compare a decision over ranks; for `MotivatedPair.confirm`.

    It must come before the forward pass, in which ranks with different models would wait for each other or mix their
    tensors. The message goes from host to host, so that it waits for no gradients on the devices.

    Attributes:
        condition: its name.
        world_size: number of ranks.
        group: of all ranks, whose backend takes tensors on the CPU.
    """

    condition: str
    world_size: int
    group: Any

    def __call__(self, motivated: bool) -> bool:
        """Return the decision.

        Raises:
            PluginError: it is another on some rank.
        """
        own = torch.tensor(motivated)
        decisions = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(decisions, own, group=self.group)
        for_motivated = [rank for rank, decision in enumerate(decisions) if decision]
        if 0 < len(for_motivated) < self.world_size:
            raise PluginError(
                f"the condition {self.condition!r} does not decide alike on all ranks: the next update is for the "
                f"motivated model on {for_motivated} of {self.world_size} ranks only; it must depend on nothing but "
                "what `observe` shows it"
            )
        return motivated
