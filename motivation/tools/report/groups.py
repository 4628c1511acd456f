"""Groups the runs of one configuration over seeds and folds, and finds the classical runs to compare them with.

The paper (section 4) gives means over runs of Arch-X-C, Arch-X-Y-B, Arch-X-Y-M and Arch-Y-C. Two runs are of one
configuration (*ours*) if all options that change what is measured are equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from motivation.method.condition_registry import takes
from motivation.method.records import Role
from motivation.options.flags import FLAGS
from motivation.options.parse import make_parser
from motivation.training.run_folder import NOT_MEASURED, RunFolder

Settings = dict[str, Any]
"""The options that change what is measured, by name."""


@dataclass(eq=False)
class Group:
    """The runs of one configuration.

    Attributes:
        condition: the motivation condition; None where the base is trained classically.
        settings: the options that change what is measured, and the name of the data set.
        runs: in the order in which they were found.
    """

    condition: str | None
    settings: Settings = field(repr=False)
    runs: list[RunFolder] = field(default_factory=list)

    @property
    def base(self) -> str:
        """timm name of the model that always trains."""
        return self.settings["model"]

    @property
    def motivated(self) -> str | None:
        """timm name of the larger model; None where the base is trained classically."""
        return self.settings["motivated_model"] if self.condition else None


def group_runs(runs: Iterable[RunFolder]) -> list[Group]:
    """Return one group for each configuration, in the order in which they were found."""
    groups: dict[str, Group] = {}
    for run in runs:
        condition = run.condition if run.motivated and run.condition != "never" else None
        options = all_options(run)
        settings = _measured(options, condition) | {"dataset": data_set(options)}
        groups.setdefault(as_key(settings), Group(condition, settings)).runs.append(run)
    return list(groups.values())


@cache
def _defaults() -> dict[str, Any]:
    return {name: value for name, value in vars(make_parser().parse_args([])).items() if name != "config"}


def all_options(run: RunFolder) -> dict[str, Any]:
    """Return a run's options, with the defaults of those that its ``args.yaml`` lacks, as timm's lacks ours."""
    return _defaults() | run.options


def _measured(options: dict[str, Any], condition: str | None) -> Settings:
    """Return the options that change what is measured of a run under a condition."""

    def counts(name: str, value: Any) -> bool:
        flag = FLAGS.get(name)
        if name in NOT_MEASURED or (flag is None and not value):  # unset flags of other versions of timm
            return False
        if flag is None or not flag.motivated:
            return True
        if condition is None or (name == "motivation_k" and not takes(condition, "k")):
            return False
        return not flag.conditions or condition in flag.conditions

    return {name: value for name, value in options.items() if counts(name, value)}


def data_set(options: dict[str, Any]) -> str:
    """Return the name of a run's data set: ``--dataset``, and the folder's name where that says more.

    >>> data_set({"dataset": "torch/cifar10", "data_dir": "/data/a"}), data_set({"dataset": "", "data_dir": "/x/pets"})
    ('torch/cifar10', 'pets')
    """
    dataset = options.get("dataset") or ""
    if "/" in dataset and "folder" not in dataset:
        return dataset
    folder = Path(str(options.get("data_dir") or options.get("data") or "")).name
    return f"{dataset} {folder}".strip()


def as_key(value: Any) -> str:
    """Return options in a form that can be a key, with lists and tuples alike."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{as_key(name)}: {as_key(item)}" for name, item in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(as_key, value)) + "]"
    return repr(value)


def differing(settings: Sequence[Settings]) -> list[str]:
    """Return the names of the options in which these settings are not all equal, in alphabetical order."""
    names = {name for one in settings for name in one}
    return sorted(name for name in names if len({as_key(one.get(name)) for one in settings}) > 1)


def repeated(group: Group) -> list[tuple[RunFolder, RunFolder]]:
    """Return pairs of runs with the same seed and fold: one measurement twice, which makes a deviation too small."""
    first: dict[Any, RunFolder] = {}
    keys = [(first.setdefault((run.seed, run.options.get("fold")), run), run) for run in group.runs]
    return [(one, other) for one, other in keys if one is not other]


def model_options(options: dict[str, Any], role: Role) -> Settings:
    """Return the options of one of a motivated run's models as those of a plain run of that model would be."""
    plain = dict(options)
    if role is Role.MOTIVATED:
        own = {name: options[f"motivated_{name}"] for name in ("model", "pretrained", "initial_checkpoint")}
        regularisation = {name: options[f"motivated_{name}"] for name in ("drop", "drop_path", "drop_block")}
        plain |= own | {name: value for name, value in regularisation.items() if value is not None}
        plain["model_kwargs"] = {**(options["model_kwargs"] or {}), **(options["motivated_model_kwargs"] or {})}
        plain["pretrained_path"] = None
    return _measured(plain, None)


def classical_twin(group: Group, role: Role, groups: Iterable[Group]) -> tuple[Group, list[str]] | None:
    """Find the classical runs of one of a motivated group's models.

    Returns:
        The group with the fewest differing options on the same data set, and those options; None if there is none.
    """
    wanted = model_options(group.settings, role)
    candidates = [
        (other, differing([wanted, other.settings]))
        for other in groups
        if (other.motivated, other.base, other.settings["dataset"]) == (None, wanted["model"], wanted["dataset"])
    ]
    return min(candidates, key=lambda candidate: len(candidate[1]), default=None)
