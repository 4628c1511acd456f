"""Train a small model with a larger one in turns: "Motivation Is Something You Need" (arXiv 2602.21064).

Algorithm 1 of the paper, and where each line of it is done::

    for epoch in epochs:                                 training/loop.py          train_epochs
        active = base; streak = 0                        method/pair.py            MotivatedPair.start_epoch
        for batch in training data:                      training/loop.py          train_epoch
            if streak >= k and active is base:           method/pair.py            MotivatedPair.select
                copy base -> motivated                   method/pair.py, switch.py expand
                active = motivated
            if streak < k and active is motivated:
                copy motivated -> base                   method/pair.py, switch.py extract
                active = base
            loss = active.forward(batch)                 training/learner.py       Learner.train
            loss.backward(); optimizer.step()
            if loss < previous loss: streak += 1         method/pair.py            MotivatedPair.observe
            else: streak = 0                             method/conditions.py      FallingLoss, next_streak
            previous loss = loss
        if active is motivated:                          method/pair.py            MotivatedPair.end_epoch
            copy motivated -> base
        evaluate the base, and the motivated model       training/evaluate.py      Evaluator.evaluate_both

The weights map (section 3.3) says what is copied where: the package `weight_maps` has the paper's rules for ResNet, ViT
and EfficientNet in a file each. Optimizer state is carried along it by method/optimizer_state.py, the EMA of the weights
by method/ema.py. To learn the method, read the docstring of `MotivatedPair`.

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
