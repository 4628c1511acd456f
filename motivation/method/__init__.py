"""The method of the paper (section 3), usable without the rest of this package; imports torch and `weight_maps` only.

=============================================  =========================================================
Paper                                          Here
=============================================  =========================================================
3.1, 3.2 base and motivated model              side.py: `Side`, a model with its optimizer
3.3 weights map                                `weight_maps`, a package of its own
3.4 motivation condition                       conditions.py: `FallingLoss`; by name: condition_registry.py
3.5 training algorithm, Algorithm 1            pair.py: `MotivatedPair`, its docstring tells the method
3.5 copying weights and buffers at a switch    switch.py: `Switch`; copies.py
3.5 copying the optimizer's state              optimizer_state.py, optimizer_probe.py
=============================================  =========================================================

Ours: ema.py (the EMA of the weights through a switch), batchnorm.py (running statistics kept apart), records.py (what a
condition is told), random_states.py (what only a motivated run does draws no random number from the others).
"""
