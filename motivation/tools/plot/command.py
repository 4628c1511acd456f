"""``python -m motivation plot RUN [--epoch E] [--beside RUN2]``: draws loss.png and epochs.png of a run.

The run may be in progress. One of timm's own has no ``updates.csv`` and gets epochs.png only.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from motivation.errors import writing
from motivation.options.flag_types import Flag, at_least
from motivation.options.parse import OptionParser
from motivation.tools.plot.data import Trajectory, epoch_rows, loss_name, title, trajectory
from motivation.tools.plot.figures import Panel, epochs_figure, loss_figure
from motivation.training.run_folder import RunError, RunFolder, read_run

DPI = 150


def make_parser() -> ArgumentParser:
    """Return the parser of this command."""
    parser = OptionParser(
        prog="python -m motivation plot",
        description="Draw loss.png, the loss of each update with the motivated stretches shaded, and epochs.png, "
        "accuracy, share and cost of each epoch.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, finished or in progress")
    parser.add_argument(
        "--epoch", type=int, metavar="E", help="that epoch alone, as loss_epochE.png, counted from 0; -1 is the last"
    )
    parser.add_argument("--beside", metavar="RUN2", help="a second run on identical axes, such as the base alone")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to write; default the folder of RUN")
    words = "updates in the running mean of the loss; 1 for none; default by length"
    Flag("--smooth", int, words, allowed=at_least(1)).add_to(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the pictures and print their paths.

    Raises:
        InputError: there is nothing to draw, or it cannot be written.
    """
    args = make_parser().parse_args(argv)
    figures = dict(_figures(args))
    folder = args.output or Path(args.run)
    with writing(folder, "; choose a folder with --output"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / name, dpi=DPI)
    for name in figures:
        print(folder / name)
    return 0


def _figures(args: Namespace) -> Iterator[tuple[str, Figure]]:
    """Yield the pictures that can be drawn, by the names of their files; say on standard error which cannot."""
    runs = [read_run(path) for path in (args.run, args.beside) if path is not None]
    run, beside = runs[0], runs[1] if len(runs) > 1 else None
    has_updates = [one for one in runs if (one.path / "updates.csv").is_file()]
    if run not in has_updates and (args.epoch is not None or not epoch_rows(run)):
        trajectory(run)  # raises the error that says what is missing
    paths = {one.path: trajectory(one) for one in has_updates}
    if run in has_updates:
        epoch = None if args.epoch is None else _chosen_epoch(args.epoch, paths)
        names = dict(zip([one.path for one in runs], _titles(runs), strict=True))
        panels = [Panel(names[one.path], loss_name(one), paths[one.path], bool(one.motivated)) for one in has_updates]
        yield "loss.png" if epoch is None else f"loss_epoch{epoch}.png", loss_figure(panels, epoch, args.smooth)
    for one in runs:
        for lacking, missing, file in (
            (one not in has_updates, "no updates.csv", "loss.png"),
            (not epoch_rows(one), "no epoch in summary.csv yet", "epochs.png"),
        ):
            if lacking:
                so = f"there is no {file}" if one is run else f"{file} is without it"
                print(f"note: {one.path} has {missing}, so {so}", file=sys.stderr)
    if epoch_rows(run):
        yield "epochs.png", epochs_figure(run, beside if beside and epoch_rows(beside) else None, paths.get(run.path))


def _titles(runs: Sequence[RunFolder]) -> list[str]:
    """Return a title for each run; with the folder's name where two would be the same."""
    titles = [title(run) for run in runs]
    return [f"{run.path.name}: {own}" if titles.count(own) > 1 else own for run, own in zip(runs, titles, strict=True)]


def _chosen_epoch(asked: int, paths: Mapping[Path, Trajectory]) -> int:
    """Return the number of the epoch that ``--epoch`` asks for; below 0 it is counted from the end of the first run.

    Args:
        asked: as given.
        paths: the updates of each run, by its folder.

    Raises:
        RunError: a run has no such epoch.
    """
    epoch = asked
    if asked < 0:
        epoch += int(next(iter(paths.values())).epochs[-1]) + 1
    for folder, path in paths.items():
        if epoch not in path.epochs:
            first, last = int(path.epochs[0]), int(path.epochs[-1])
            wanted = f"--epoch {asked}" + (f" is epoch {epoch}, but" if asked < 0 <= epoch else ":")
            raise RunError(f"{wanted} {folder} has epochs {first} to {last}; give one of these, or -1 for the last")
    return epoch
