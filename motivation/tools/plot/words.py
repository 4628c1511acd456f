"""What the pictures say: names of runs, losses and shares."""

from __future__ import annotations

from motivation.method.condition_registry import has_streak_law, takes
from motivation.method.conditions import expected_share
from motivation.training.run_folder import RunFolder


def title(run: RunFolder) -> str:
    """Models, condition, k and seed."""
    if not run.motivated:
        return f"{run.base} alone, seed {run.seed}"
    condition = run.options.get("motivation_condition", "loss")
    k = f", k = {run.options.get('motivation_k', 2)}" if takes(condition, "k") else ""
    return f"{run.base} in {run.motivated}, condition {condition}{k}, seed {run.seed}"


def titles(runs: list[RunFolder]) -> list[str]:
    """One title each; where two would be the same, with the folder's name."""
    plain = [title(run) for run in runs]
    return [f"{run.path.name}: {own}" if plain.count(own) > 1 else own for run, own in zip(runs, plain, strict=True)]


def loss_name(run: RunFolder) -> str:
    """What the training loss is, with its unit, by the run's options."""
    if run.options.get("kd_model_name"):
        return "training loss with distillation"
    if run.options.get("jsd_loss"):
        return "training loss: JSD + cross-entropy (nats)"
    kind = "binary cross-entropy" if run.options.get("bce_loss") else "cross-entropy"
    return f"training loss: {kind} (nats)"


def law(run: RunFolder) -> float | None:
    """The share to expect if successive signals were independent, where the condition has such a law."""
    if not run.motivated or not has_streak_law(run.options.get("motivation_condition", "loss")):
        return None
    return expected_share(int(run.options.get("motivation_k", 2)))


def percent(share: float) -> str:
    """
    >>> percent(0.15303), percent(0.00139), percent(0.0)
    ('15.3 %', '0.14 %', '0.0 %')
    """
    value = 100 * share
    return f"{value:.1f} %" if value >= 1 or not value else f"{value:.2g} %"


def updates(count: int) -> str:
    """
    >>> updates(1), updates(1200)
    ('1 update', '1,200 updates')
    """
    return f"{count:,} update{'s' * (count != 1)}"
