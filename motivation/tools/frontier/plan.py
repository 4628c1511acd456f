"""The runs of a frontier: each way of training, for a ladder of budgets and several seeds.

A budget is a fraction of the configuration's epochs. The schedule is stretched over them, never cut: all options that
count epochs are multiplied by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motivation.errors import InputError
from motivation.method.records import Role
from motivation.tools.report.groups import model_options
from motivation.tools.sweep import PlannedRun

PER_RUN = ("epochs", "seed", "output", "experiment", "resume", "motivation_k")
"""Options that the command gives to each run, and the user may not."""

COUNT_EPOCHS: dict[str, tuple[str, ...]] = {
    "epochs": (),
    "warmup_epochs": (),
    "cooldown_epochs": (),
    "mixup_off_epoch": (),
    "decay_epochs": ("step", "wsd", "rsqrt"),
    "decay_milestones": ("multistep",),
}
"""The options that a budget stretches, and the only schedules that read them, if not all do."""

OF_MODEL = ("model", "drop", "drop_path", "drop_block", "initial_checkpoint", "model_kwargs")
"""The options that the larger model alone takes over from those of the motivated model."""


@dataclass(frozen=True)
class Way:
    """A way of training.

    Attributes:
        name: for the tables and the pictures.
        stem: begins the names of its runs' folders.
        words: its flags.
        role: of the one model that it trains; None for a motivated run, which trains both.
        k: of a motivated run.
        plain: the name of the motivated way without a variant's flags, if this is a variant of it.
    """

    name: str
    stem: str
    words: tuple[str, ...]
    role: Role | None = None
    k: int | None = None
    plain: str | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """The models that it ends with."""
        return tuple(Role) if self.role is None else (self.role,)


@dataclass(frozen=True)
class Cell:
    """One run: a way, a budget and a seed."""

    way: Way
    budget: float
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"{self.way.stem}-budget{self.budget:g}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A frontier.

    Attributes:
        folder: holds the folders of all runs.
        arguments: for `train_motivated.py`, the same for all runs.
        options: the options that these arguments mean.
        ways: base alone and larger alone first.
        budgets: of the two classical ways, as fractions of the configuration's epochs, growing.
        motivated_budgets: of the motivated ways.
        seeds: of each way and budget.
    """

    folder: Path
    arguments: tuple[str, ...]
    options: Mapping[str, Any] = field(repr=False)
    ways: tuple[Way, ...]
    budgets: tuple[float, ...]
    motivated_budgets: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def headline(self) -> str:
        """Models, condition, epochs and seeds in one line."""
        options = self.options
        return (
            f"{options['model']} in {options['motivated_model']}, condition {options['motivation_condition']}, full "
            f"schedule of {options['epochs']} epochs, {len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        )

    def budgets_of(self, way: Way) -> tuple[float, ...]:
        """Return the budgets for which a way is trained."""
        return self.motivated_budgets if way.role is None else self.budgets

    def cells(self) -> list[Cell]:
        """List all runs, all of a seed before the next seed, so that an early look compares like with like."""
        return [Cell(way, budget, seed) for seed in self.seeds for way in self.ways for budget in self.budgets_of(way)]

    def run(self, cell: Cell) -> PlannedRun:
        """Return a run; its own arguments come after the user's, and so win over those of a YAML file."""
        stretched = stretch(self.options, cell.budget)
        words = (*self.arguments, *cell.way.words, *stretched, "--seed", str(cell.seed))
        return PlannedRun(self.folder / cell.name, words)

    def epochs(self, budget: float) -> int:
        """Return the epochs that a budget is."""
        return max(1, round(self.options["epochs"] * budget))


def stretch(options: Mapping[str, Any], budget: float) -> list[str]:
    """Return the flags that stretch a schedule.

    >>> stretch({"epochs": 40, "warmup_epochs": 5, "decay_milestones": [10, 30], "sched": "multistep"}, 0.5)
    ['--epochs', '20', '--warmup-epochs', '2', '--decay-milestones', '5', '15']
    """
    words = []
    for name, schedules in COUNT_EPOCHS.items():
        numbers = options.get(name)
        if numbers and (not schedules or options["sched"] in schedules):
            numbers = numbers if isinstance(numbers, (list, tuple)) else [numbers]
            scaled = [max(int(name == "epochs"), round(number * budget)) for number in numbers]
            words += [f"--{name.replace('_', '-')}", *map(str, scaled)]
    return words


def make_ways(options: Mapping[str, Any], ks: tuple[int, ...], variants: Mapping[str, tuple[str, ...]]) -> list[Way]:
    """Return base alone, larger alone, and each k without and with each variant's flags.

    Args:
        options: of a motivated run.
        ks: of the motivated runs; empty for a condition without k.
        variants: flags by the variant's name.

    Raises:
        InputError: the larger model alone cannot be described by flags.
    """
    alone = "--motivated-model="
    ways = [
        Way("base alone", "base", (alone,), Role.BASE),
        Way("larger alone", "larger", (*_larger_alone(dict(options)), alone), Role.MOTIVATED),
    ]
    for k in ks:
        name, words = f"k = {k}", ("--motivation-k", str(k))
        ways.append(Way(name, f"k{k}", words, k=k))
        ways += [
            Way(f"{name}, {variant}", f"k{k}-{variant}", (*words, *flags), k=k, plain=name)
            for variant, flags in variants.items()
        ]
    return ways


def _larger_alone(options: dict[str, Any]) -> list[str]:
    wanted = model_options(options, Role.MOTIVATED)
    if wanted["pretrained"] != options["pretrained"]:
        raise InputError("--pretrained and --motivated-pretrained: give both or neither, so that the ways compare")
    words = []
    for name in OF_MODEL:
        value = wanted[name]
        if value != options[name]:
            pairs = [f"{key}={item}" for key, item in value.items()] if isinstance(value, dict) else [str(value)]
            words += [f"--{name.replace('_', '-')}", *pairs]
    return words
