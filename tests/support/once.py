"""Compute once, for all runs of a test session, what a run computes of its models before it trains.

A run of a second spends a third of its time on a trial of both models on the meta device and on counting their FLOPs.
Both depend on the model and the shape of the images alone.
"""

from contextlib import contextmanager

import pytest

from motivation.build import forward_trial, run
from motivation.tools import cost
from motivation.tools.report import rows


def _identity(model):
    """Return a key of all that a forward pass on the meta device depends on."""
    shapes = tuple((name, tuple(value.shape), value.dtype) for name, value in model.state_dict().items())
    classes = tuple((type(module), type(module).forward) for module in model.modules())
    return repr(model), shapes, classes


@contextmanager
def models_looked_at_once():
    """Remember the batches that a model took on the meta device, and the counts of its operations."""
    taken, counts = set(), {}
    try_batch = forward_trial._Trial._run

    def trial(self, model, batch, images, device):
        if device != "meta":
            return try_batch(self, model, batch, images, device)
        key = (_identity(model), batch, images, self.dtype)
        if key in taken:
            return None
        why = try_batch(self, model, batch, images, device)
        if why is None:
            taken.add(key)
        return why

    def remembering(count):
        def counted(model, input_size):
            key = (count, _identity(model), tuple(input_size))
            if key not in counts:
                counts[key] = count(model, input_size)
            return counts[key]

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward_trial._Trial, "_run", trial)
        for module in (run, cost, rows):
            for name in {"forward_flops", "thop_flops", "forward_macs"} & vars(module).keys():
                patch.setattr(module, name, remembering(getattr(module, name)))
        yield
