"""Runs of one configuration, over seeds and folds, and the classical runs that they are compared with.

The paper (section 4) gives means over runs of Arch-X-C, Arch-X-Y-B, Arch-X-Y-M and Arch-Y-C; what makes two runs one
configuration is ours: all options that change what is measured are equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from motivation.method.condition_registry import takes
from motivation.method.records import Role
from motivation.options.parse import make_parser
from motivation.training.run_folder import NOT_MEASURED, RunFolder

READ_BY = {
    "motivation_ema_decay": ("ema",),
    "motivation_ema_drop": ("ema",),
    "motivation_valloss_images": ("valloss",),
    "motivation_scheduled_runs": ("scheduled",),
}
"""Options that only these conditions read."""

ALSO_IN_PLAIN_RUNS = ("motivation_bn_recalibrate",)

Settings = dict[str, Any]
"""The options that count, by name."""


@dataclass
class Group:
    """The runs of one configuration.

    Attributes:
        base: timm name of the model that always trains.
        motivated: of the larger model; None where the base is trained classically.
        condition: the motivation condition; None where the base is trained classically.
        settings: the options that count.
        runs: in the order in which they were found.
    """

    base: str
    motivated: str | None
    condition: str | None
    settings: Settings = field(repr=False)
    runs: list[RunFolder] = field(default_factory=list)


@cache
def _defaults() -> dict[str, Any]:
    return {name: value for name, value in vars(make_parser().parse_args([])).items() if name != "config"}


def all_options(run: RunFolder) -> dict[str, Any]:
    """A run's options; what its ``args.yaml`` lacks, as timm's own lacks ours, is as by default."""
    return {**_defaults(), **run.options}


def condition_of(run: RunFolder) -> str | None:
    """The condition under which a motivated model was trained; None if none was: `never` is the base trained alone."""
    condition = all_options(run)["motivation_condition"]
    return condition if run.motivated and condition != "never" else None


def data_set(options: dict[str, Any]) -> str:
    """What a run was trained on: ``--dataset``, and the name of the folder where that is what tells.

    >>> data_set({"dataset": "torch/cifar10", "data_dir": "/data/a"}), data_set({"dataset": "", "data_dir": "/x/pets"})
    ('torch/cifar10', 'pets')
    """
    dataset = options.get("dataset") or ""
    if "/" in dataset and "folder" not in dataset:
        return dataset
    folder = Path(str(options.get("data_dir") or options.get("data") or "")).name
    return " ".join(part for part in (dataset, folder) if part)


def _counts(name: str, value: Any, condition: str | None) -> bool:
    if name in NOT_MEASURED:
        return False
    if name not in _defaults() and not value:
        return False  # a flag of another version of timm, not set
    if not name.startswith(("motivated_", "motivation_")) or name in ALSO_IN_PLAIN_RUNS:
        return True
    if condition is None or (name == "motivation_k" and not takes(condition, "k")):
        return False
    return name not in READ_BY or condition in READ_BY[name]


def settings_of(run: RunFolder) -> Settings:
    """The options of a run that change what is measured of it."""
    options, condition = all_options(run), condition_of(run)
    settings = {name: value for name, value in options.items() if _counts(name, value, condition)}
    settings["dataset"] = data_set(options)
    return settings


def frozen(value: Any) -> Any:
    """A value of an option as one that can be a key."""
    if isinstance(value, dict):
        return tuple(sorted((str(name), frozen(item)) for name, item in value.items()))
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


def group_runs(runs: Iterable[RunFolder]) -> list[Group]:
    """One group for each configuration, in the order in which they were found."""
    groups: dict[Any, Group] = {}
    for run in runs:
        settings, condition = settings_of(run), condition_of(run)
        group = Group(run.base, run.motivated if condition else None, condition, settings)
        groups.setdefault(frozen(settings), group).runs.append(run)
    return list(groups.values())


def repeated(group: Group) -> list[tuple[RunFolder, RunFolder]]:
    """Pairs of runs with the same seed and fold: one measurement twice, which makes a deviation too small."""
    first: dict[Any, RunFolder] = {}
    pairs = []
    for run in group.runs:
        other = first.setdefault((run.options.get("seed", 42), run.options.get("fold")), run)
        if other is not run:
            pairs.append((other, run))
    return pairs


def differing(settings: Iterable[Settings]) -> list[str]:
    """Names of the options in which these are not all equal, in alphabetical order."""
    every = list(settings)
    names = {name for one in every for name in one}
    return sorted(name for name in names if len({frozen(one.get(name)) for one in every}) > 1)


def model_options(options: dict[str, Any], role: Role) -> dict[str, Any]:
    """The options of either model of a motivated run as those of a plain run of that model have to be."""
    plain = dict(options)
    if role is Role.MOTIVATED:
        plain["model"] = options["motivated_model"]
        plain["model_kwargs"] = {**(options["model_kwargs"] or {}), **(options["motivated_model_kwargs"] or {})}
        for name in ("drop", "drop_path", "drop_block"):
            if options[f"motivated_{name}"] is not None:
                plain[name] = options[f"motivated_{name}"]
        # weights to begin with are the base's own
        plain["pretrained"] = options["motivated_pretrained"]
        plain["initial_checkpoint"] = options["motivated_initial_checkpoint"]
        plain["pretrained_path"] = None
    return {name: value for name, value in plain.items() if _counts(name, value, None)}


def classical_twin(group: Group, role: Role, groups: Iterable[Group]) -> tuple[Group | None, list[str]]:
    """The classical runs of one of the two models of a motivated group.

    Args:
        group: a motivated one.
        role: whose classical runs.
        groups: all.

    Returns:
        The group with the fewest differing options on the same data set, None if there is none, and those options.
    """
    wanted = model_options(group.settings, role)
    candidates = [
        (differing((wanted, other.settings)), other)
        for other in groups
        if other.motivated is None
        and other.base == wanted["model"]
        and other.settings["dataset"] == wanted["dataset"]  # accuracies on two data sets have no difference
    ]
    if not candidates:
        return None, []
    faults, twin = min(candidates, key=lambda candidate: len(candidate[0]))
    return twin, faults
