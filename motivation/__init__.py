"""Train a small model with a larger one in turns: "Motivation Is Something You Need" (arXiv 2602.21064).

Algorithm 1 of the paper, and where each line of it is done::

    for epoch in epochs:                                 training/loop.py          train_epochs
        active = base                   (line 1)         method/pair.py            MotivatedPair.start_epoch
        streak = 0; previous = None     (ours)           method/conditions.py      Streak.start_epoch
        for batch in training data:                      training/loop.py          train_epoch
            motivated = streak >= k     (line 24)        method/conditions.py      Streak.motivated
            if motivated and active is base:             method/pair.py            MotivatedPair.select
                copy base -> motivated  (line 25)        method/switch.py          Switch.expand
                active = motivated
            if not motivated and active is motivated:
                copy motivated -> base  (line 31)        method/switch.py          Switch.extract
                active = base
            loss = active.model(batch)  (lines 7, 14)    training/learner.py       Learner.train
            loss.backward(); active.optimizer.step(); active.optimizer.zero_grad()
            streak = streak + 1 if loss < previous else 0
            previous = loss                              method/conditions.py      Streak.observe, next_streak
        if active is motivated:         (line 39)        method/pair.py            MotivatedPair.end_epoch
            copy motivated -> base
        evaluate both models, where due                  training/loop.py          evaluate_and_save

The paper copies at the end of an iteration; here it is done at the start of the next one, with the same weights (a
streak completed by the last batch of an epoch causes no switch). *copy* means: parameters, buffers (BatchNorm's running
statistics only with ``batchnorm='copy'``), optimizer state and the EMA of the weights. The streak is kept up to date by
`MotivatedPair.observe`, which also updates the EMAs.

The weights map (section 3.3) says what is copied where. In the package `weight_maps` the paper's rules are in resnet.py
(3.3.1), vit.py (3.3.2) and efficientnet.py (3.3.3); for other models there is auto.py (ours). Optimizer
state is carried along it by method/optimizer_state.py, the EMA of the weights by method/ema.py. To learn the method,
read the docstring of `MotivatedPair`.

The names below are all that a training loop, a condition or a hook of your own needs; each is imported when it is first
used, so ``import motivation`` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motivation.method.condition_registry import make_condition, register_condition
    from motivation.method.conditions import Condition
    from motivation.method.pair import MotivatedPair
    from motivation.method.side import Side
    from motivation.training.hooks import Hook, register_hook

__version__ = "0.1.0"

_MODULE_OF = {
    "Condition": "motivation.method.conditions",
    "Hook": "motivation.training.hooks",
    "MotivatedPair": "motivation.method.pair",
    "Side": "motivation.method.side",
    "make_condition": "motivation.method.condition_registry",
    "register_condition": "motivation.method.condition_registry",
    "register_hook": "motivation.training.hooks",
}

__all__ = [
    "Condition",
    "Hook",
    "MotivatedPair",
    "Side",
    "__version__",
    "make_condition",
    "register_condition",
    "register_hook",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
