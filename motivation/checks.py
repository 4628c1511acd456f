"""Every fault of the options that can be known before training, found together (house rule: fail once, at start-up)."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence


class StartupError(ValueError):
    """Options that cannot be run. ``faults`` has a line for each."""

    def __init__(self, faults: Sequence[str]):
        self.faults = list(faults)
        super().__init__("; ".join(faults))


def check_options(args: Namespace) -> None:
    """Raise `StartupError` with all faults."""
