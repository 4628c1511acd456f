"""``python -m motivation experiments table1``: the runs behind a table of the paper, then the report beside it.

Each row of a table is a config, run with several seeds; rows that follow others (fine-tuning, the scheduled ablation)
come after them. What is done is skipped and what was interrupted is resumed, so the same command may be given again.
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motivation.errors import InputError, print_text
from motivation.options.parse import OptionParser
from motivation.tools.sweep import PlannedRun, State, Sweep, add_flags, launcher, split_words


@dataclass(frozen=True)
class Experiment:
    """One row: a config, and what it follows.

    Attributes:
        config: its name (`motivation.options.config_files.config_path`).
        runs: the number of seeds.
        checkpoint: for fine-tuning: the experiment (config, or name) whose run with the first seed gives the weights.
        follows: for the condition "scheduled": the experiment whose runs give the counts.
        name: for the runs' folders; default the config's.
        flags: that differ from the config.
    """

    config: str
    runs: int = 3
    checkpoint: str | None = None
    follows: str | None = None
    name: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name of the runs' folders, before the seed."""
        return self.name or self.config.replace("/", "-")


def _of(folder: str, *stems: str, runs: int = 3) -> tuple[Experiment, ...]:
    return tuple(Experiment(f"{folder}/{stem}", runs) for stem in stems)


def _reproduction(data: str, runs: int, epochs_longer: int, ks: Sequence[int] = ()) -> tuple[Experiment, ...]:
    """X-C, X-Y and Y-C on data at hand, the ablations, and X-C for as many epochs as the FLOPs of X-Y allow."""
    alone, recalibrated = "--motivated-model=", "--motivation-bn-recalibrate=50"
    flags = {
        "base": alone,
        "pair": "",
        "base-longer": f"{alone} --epochs={epochs_longer}",
        "pair-recalibrated": recalibrated,
        "pair-separate": "--motivation-bn=separate",
        "larger": f"--model=resnet14_cifar {alone}",
        "random-recalibrated": f"--motivation-condition=random {recalibrated}",
        "scheduled-recalibrated": f"--motivation-condition=scheduled {recalibrated}",
        **{f"pair-k{k}-recalibrated": f"--motivation-k={k} {recalibrated}" for k in ks},
    }
    return tuple(
        Experiment(
            f"reproduction/{data}",
            runs,
            follows=f"{data}-pair" if name.startswith("scheduled") else None,
            name=f"{data}-{name}",
            flags=tuple(words.split()),
        )
        for name, words in flags.items()
    )


_RESNETS = (*(f"resnet{n}" for n in (20, 32, 44, 56)), *(f"resnet{n}_resnet{n + 12}" for n in (20, 32, 44)))
_VITS = ("vit_tiny", "vit_tiny_vit_small", "vit_small")
_EFFICIENTNETS = tuple(f"efficientnet_b{size}" for size in range(6))
_ABLATED = ("resnet20_resnet32", "efficientnet_b0_b1")
_IMAGENET = ("resnet50_a3", "resnet50_resnet101_a3", "resnet101_a3")
_TRANSFER = ("cifar10", "cifar100", "flowers102", "oxford_pets")

TABLES: dict[str, tuple[Experiment, ...]] = {
    "table1": (*_of("cifar10", *_RESNETS, *_VITS), *_of("cifar100", *_RESNETS, *_VITS)),
    "table2": _of("imagenet", *_IMAGENET, runs=1),
    "table3": (
        *_of("imagenet", *_IMAGENET[:2], runs=1),
        *(
            Experiment(f"finetune/{data}", 3, f"imagenet/{source}", name=f"{data}-from-{source}")
            for data in _TRANSFER
            for source in _IMAGENET[:2]
        ),
    ),
    "table4": _of("cifar100", *_EFFICIENTNETS, *(f"efficientnet_b{size}_b{size + 1}" for size in range(5))),
    "table5": _of(
        "cifar100",
        *_EFFICIENTNETS,
        "efficientnet_b0_b1",
        *(f"efficientnet_b{size}_b{size + 1}_k2" for size in range(1, 5)),
    ),
    "table6": (
        *_of("cifar10", "resnet20", "resnet20_resnet32", "resnet32"),
        *_of("cifar100", "efficientnet_b0", "efficientnet_b0_b1", "efficientnet_b1"),
        *(Experiment(f"ablation/{stem}_random") for stem in _ABLATED),
        *(
            Experiment(f"ablation/{stem}_scheduled", follows=f"{folder}/{stem}")
            for stem, folder in zip(_ABLATED, ("cifar10", "cifar100"), strict=True)
        ),
    ),
    "table7": (
        *_of("cifar10", "resnet20", "resnet20_resnet32"),
        *_of("ablation", *(f"resnet20_resnet32_{name}" for name in ("ema", "valloss", "slope"))),
    ),
    "reproduction-digits": _reproduction("digits", runs=10, epochs_longer=230, ks=(3, 4)),
    "reproduction-fashion-mnist": _reproduction("fashion_mnist", runs=5, epochs_longer=24),
}
"""The rows of each table of the paper that has accuracies, and of docs/reproduction.md; those that others follow
first."""


def make_parser() -> ArgumentParser:
    """Return the parser of the words before ``--``."""
    parser = OptionParser(
        prog="python -m motivation experiments",
        usage="%(prog)s TABLE [options] [-- FURTHER ARGUMENTS OF EVERY RUN]",
        description="Run, or go on with, all runs behind a table of the paper, then report.",
    )
    parser.add_argument("table", choices=sorted(TABLES), help="which table")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="default 0, 1, 2; ImageNet: 0")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="only rows with such a word in their name"
    )
    parser.add_argument("--output", type=Path, default=Path("output/experiments"), metavar="FOLDER", help="of all runs")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="per run, by torchrun")
    add_flags(parser)
    return parser


def plan(args: Namespace, further: Sequence[str] = ()) -> list[PlannedRun]:
    """Return all runs, in an order in which each finds those that it follows.

    Raises:
        InputError: no row is left by ``--only``.
    """
    rows = [row for row in TABLES[args.table] if not args.only or any(word in row.title for word in args.only)]
    if not rows:
        names = ", ".join(row.title for row in TABLES[args.table])
        raise InputError(f"--only: {args.table} has no such row; it has {names}")
    runs = []
    for row in rows:
        seeds = list(dict.fromkeys(args.seeds or range(row.runs)))
        for seed in seeds:
            words, needs = ["--config", row.config, "--seed", str(seed), *row.flags], []
            if row.checkpoint:
                needs = [_folder(row.checkpoint, seeds[0], args)]
                words += ["--checkpoint", str(needs[0])]
            if row.follows:
                needs = [_folder(row.follows, one, args) for one in seeds]
                words += ["--motivation-scheduled-runs", *map(str, needs)]
            start = launcher("finetune" if row.checkpoint else "train", args.processes)
            runs.append(PlannedRun(_folder(row.title, seed, args), (*words, *further), tuple(needs), start))
    return runs


def _folder(name: str, seed: int, args: Namespace) -> Path:
    return args.output / f"{name.replace('/', '-')}-seed{seed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 if a run failed, 130 after Ctrl-C.

    Raises:
        InputError: the runs cannot be planned.
    """
    own, further = split_words(argv)
    args = make_parser().parse_args(own)
    if args.devices and args.processes > 1:
        raise InputError("--devices: not with --processes, where each process of a run takes a device of its own")
    sweep = Sweep(plan(args, further), args.jobs, args.devices, keep_going=False)
    _remark(args, sweep, further)
    if args.dry_run:
        sweep.show_commands()
        print_text(f"# then the report beside {args.table}")
        return 0
    return sweep.run(shlex.join(["python", "-m", "motivation", "experiments", *own, "--", *further])) or _report(
        args, sweep
    )


def _remark(args: Namespace, sweep: Sweep, further: Sequence[str]) -> None:
    """An update's images are --batch-size x processes x --grad-accum-steps; a recipe is for one number of them."""
    sizes = any(word.startswith(("-b", "--batch-size", "--grad-accum-steps")) for word in further)
    left = [run for run, state in sweep.states.items() if state is not State.DONE]
    wanted = 8 if any("imagenet-" in run.name for run in left) else 1
    if args.processes != wanted and not sizes:
        print(
            f"# mind the batch: the recipes are for {wanted} process(es) of their --batch-size; with --processes "
            f"{args.processes} give --batch-size or --grad-accum-steps after --",
            file=sys.stderr,
        )


def _report(args: Namespace, sweep: Sweep) -> int:
    from motivation.tools.report.command import main as report
    from motivation.tools.report.paper import TABLES as PRINTED

    beside = ["--paper", args.table] if args.table in PRINTED else []
    if args.table.startswith("reproduction") and not args.only:
        beside = ["--paired"]
    return report([*(str(run.folder) for run in sweep.states), *beside])
