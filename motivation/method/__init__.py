"""The method of the paper (section 3), usable without the rest of this package: imports torch, NumPy, `weight_maps`.

::

    3.1, 3.2  base and motivated model        side.py: Side, a model with its optimizer
    3.3       weights map                     weight_maps/resnet.py, vit.py, efficientnet.py
    3.4       motivation condition            conditions.py: FallingLoss; by name: condition_registry.py
    3.5       training algorithm              pair.py: MotivatedPair, whose docstring tells the method
              copies of weights and buffers   switch.py: Switch; copies.py
              copies of the optimizer's state optimizer_state.py, optimizer_probe.py

Ours: ema.py (the EMA of the weights through a switch), records.py (what a condition is told), random_states.py (a
motivated run leaves the random streams of a plain run as they are).
"""
