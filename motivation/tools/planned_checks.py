"""Checks of planned runs before the first of them starts: the folders that are there, the options, models and data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import yaml

from motivation.errors import InputError
from motivation.options.config_files import shown
from motivation.options.faults import Fault, StartupError
from motivation.options.parse import given_options, parse
from motivation.tools.report.groups import all_options
from motivation.tools.sweep import PlannedRun
from motivation.training.run_files import RunError
from motivation.training.run_folder import NOT_MEASURED, read_run


def refuse_own_flags(words: Sequence[str], names: Iterable[str], instead: str) -> None:
    """Refuse flags that a command gives to each run itself.

    Args:
        words: of the user, for all runs.
        names: of the options.
        instead: the command's own flags.

    Raises:
        InputError: there are some.
    """
    given = given_options(words)
    if wrong := [f"--{name.replace('_', '-')}" for name in names if name in given]:
        raise InputError(f"not after --, each run is given its own: {', '.join(wrong)}; use {instead}")


def refuse_other_runs(runs: Iterable[PlannedRun]) -> None:
    """Compare the options of the runs that are in the folders with those planned.

    Raises:
        InputError: they differ in what is measured.
    """
    for run in runs:
        if not (run.folder / "args.yaml").exists():
            continue
        try:
            there = all_options(read_run(run.folder))
        except RunError:
            continue  # killed while it wrote them
        here = yaml.safe_load(parse(run.arguments)[1])
        names = sorted({*there, *here}.difference(NOT_MEASURED))
        different = [
            f"{name} {shown(there.get(name))} there, {shown(here.get(name))} here"
            for name in names
            if there.get(name) != here.get(name)
        ]
        if different:
            raise InputError(
                f"{run.folder} was made with other options ({'; '.join(different[:3])}): delete it, or give "
                "another --output"
            )


def refuse_impossible_runs(runs: Iterable[PlannedRun], devices: Sequence[str | None]) -> None:
    """Check the options and models of runs, and the data of the last, without making one.

    Args:
        runs: of the planned ones, one of each kind.
        devices: on which they are to run; None leaves the device to the run's arguments.

    Raises:
        StartupError: the runs could not start.
    """
    from motivation.build.datasets import open_datasets
    from motivation.build.feasible import model_faults, startup_faults

    faults: list[Fault] = []
    for run in runs:
        of_run: list[Fault] = []
        for device in devices:
            args, _ = parse(run.command(device)[len(run.launcher) :])
            of_run += startup_faults(args)[1]
        faults += of_run or model_faults(args)
    faults = faults or open_datasets(args, world_size=1)[1]
    if faults:
        raise StartupError(dict.fromkeys(faults))
