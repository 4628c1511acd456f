"""``python -m motivation plot RUN [--epoch E] [--beside RUN2]``: draws loss.png and epochs.png of a run.

The run may be in progress. One of timm's own has no ``updates.csv`` and gets epochs.png only.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from motivation.errors import print_text, writing
from motivation.options.flag_types import Flag, at_least
from motivation.options.parse import OptionParser
from motivation.tools.plot.data import title
from motivation.tools.plot.figures import Panel, epochs_figure, loss_figure
from motivation.training.run_files import RunError
from motivation.training.run_folder import read_run

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
        print_text(folder / name)
    return 0


def _figures(args: Namespace) -> Iterator[tuple[str, Figure]]:
    """Yield the pictures that can be drawn, by the names of their files; say on standard error which cannot."""
    runs = [read_run(path) for path in (args.run, args.beside) if path is not None]
    titles = [title(run) for run in runs]
    if len(set(titles)) < len(runs):
        titles = [f"{run.path.name}: {own}" for run, own in zip(runs, titles, strict=True)]
    run, panels = runs[0], [Panel(own, run, run.updates) for own, run in zip(titles, runs, strict=True)]
    drawn = [panel for panel in panels if len(panel.updates)]
    if args.epoch is not None or not run.epochs:
        run.require_updates()
    if len(run.updates):
        epoch = None if args.epoch is None else _chosen_epoch(args.epoch, drawn)
        yield "loss.png" if epoch is None else f"loss_epoch{epoch}.png", loss_figure(drawn, epoch, args.smooth)
    for one in runs:
        for rows, missing, file in (
            (one.updates, "no updates.csv", "loss.png"),
            (one.epochs, "no epoch in summary.csv yet", "epochs.png"),
        ):
            if not len(rows):
                so = f"there is no {file}" if one is run else f"{file} is without it"
                print_text(f"note: {one.path} has {missing}, so {so}", sys.stderr)
    if run.epochs:
        beside = next((one for one in runs[1:] if one.epochs), None)
        yield "epochs.png", epochs_figure(run, panels[0].updates, beside)


def _chosen_epoch(asked: int, panels: Sequence[Panel]) -> int:
    """Return the number of the epoch that ``--epoch`` asks for; below 0 it is counted from the end of the first run.

    Raises:
        RunError: a run has no such epoch.
    """
    epoch = asked if asked >= 0 else asked + int(panels[0].updates.epoch[-1]) + 1
    for panel in panels:
        first, last = panel.updates.epoch[[0, -1]]
        if epoch not in panel.updates.epoch:
            wanted = f"--epoch {asked}" + (f" is epoch {epoch}, but" if asked < 0 <= epoch else ":")
            there = f"{panel.run.path} has epochs {first} to {last}"
            raise RunError(f"{wanted} {there}; give one of these, or -1 for the last")
    return epoch
