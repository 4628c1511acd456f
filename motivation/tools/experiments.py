"""``python -m motivation experiments table1``: the runs behind a table of the paper, then the report beside it.

Each row of a table is a config, run with several seeds; rows that follow others (fine-tuning, the scheduled ablation)
come after them. What is done is skipped and what was interrupted is resumed, so the same command may be given again.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motivation.options.parse import OptionParser
from motivation.training.run_folder import RunError, read_run

ROOT = Path(__file__).resolve().parents[2]
EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
LEAST_OF_SIGNALS = 128
"""Exit codes of runs that a signal has stopped are above it."""


@dataclass(frozen=True)
class Experiment:
    """One row: a config, and what it follows.

    Attributes:
        config: its path under ``configs/``, without the ending.
        runs: with how many seeds.
        checkpoint: of a fine-tuning: the experiment whose run with the first seed it begins with.
        follows: of a scheduled run: the experiment (config, or name) whose runs give its counts.
        name: of the runs' folders; default the config's.
        flags: with which it differs from its config.
    """

    config: str
    runs: int = 3
    checkpoint: str | None = None
    follows: str | None = None
    name: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Of the runs' folders, before the seed."""
        return self.name or self.config.replace("/", "-")


def _of(folder: str, *stems: str, runs: int = 3) -> tuple[Experiment, ...]:
    return tuple(Experiment(f"{folder}/{stem}", runs) for stem in stems)


def _reproduction(data: str, epochs: int, runs: int, ks: Sequence[int] = ()) -> tuple[Experiment, ...]:
    """X-C, X-Y (also with other k) and Y-C on data at hand, the ablations, and X-C for ``epochs``: the FLOPs of X-Y."""
    config, pair = f"reproduction/{data}", f"{data}-pair"
    alone, judged = "--motivated-model=", "--motivation-bn-recalibrate=50"
    random, scheduled = (f"--motivation-condition={name}" for name in ("random", "scheduled"))
    return (
        Experiment(config, runs, name=f"{data}-base", flags=(alone,)),
        Experiment(config, runs, name=pair),
        Experiment(config, runs, name=f"{data}-base-longer", flags=(alone, f"--epochs={epochs}")),
        Experiment(config, runs, name=f"{data}-pair-recalibrated", flags=(judged,)),
        Experiment(config, runs, name=f"{data}-pair-separate", flags=("--motivation-bn=separate",)),
        Experiment(config, runs, name=f"{data}-larger", flags=("--model=resnet14_cifar", alone)),
        Experiment(config, runs, name=f"{data}-random-recalibrated", flags=(random, judged)),
        Experiment(config, runs, name=f"{data}-scheduled-recalibrated", follows=pair, flags=(scheduled, judged)),
        *(
            Experiment(config, runs, name=f"{data}-pair-k{k}-recalibrated", flags=(f"--motivation-k={k}", judged))
            for k in ks
        ),
    )


_RESNETS = (
    "resnet20",
    "resnet20_resnet32",
    "resnet32",
    "resnet32_resnet44",
    "resnet44",
    "resnet44_resnet56",
    "resnet56",
)
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
    "reproduction-digits": _reproduction("digits", 230, runs=10, ks=(3, 4)),
    "reproduction-fashion-mnist": _reproduction("fashion_mnist", 18, runs=3),
}
"""The rows of each table of the paper that has accuracies, and of docs/reproduction.md; those that others follow
first."""


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        command: with ``--resume``, if it was interrupted.
        folder: where it is.
        state: ``new``, ``to resume`` or ``done``.
    """

    command: list[str]
    folder: Path
    state: str


def make_parser() -> ArgumentParser:
    """The parser of what stands before ``--``."""
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
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left, and do nothing")
    return parser


def plan(args: Namespace, further: Sequence[str] = ()) -> list[Run]:
    """All runs, in an order in which each finds those that it follows.

    Raises:
        ValueError: no row is left by ``--only``.
    """
    rows = [row for row in TABLES[args.table] if not args.only or any(word in row.title for word in args.only)]
    if not rows:
        names = ", ".join(row.title for row in TABLES[args.table])
        raise ValueError(f"--only: {args.table} has no such row; it has {names}")
    runs = []
    for row in rows:
        seeds = list(dict.fromkeys(args.seeds)) if args.seeds else list(range(row.runs))
        runs += [_run(row, seed, seeds, args, further) for seed in seeds]
    there = {run.folder for run in runs}
    for row in rows:
        for config in (row.checkpoint, row.follows):
            seeds = args.seeds or [0]
            if config and (place := _place(config, seeds[0], args)) not in there and _state(place) != "done":
                raise ValueError(
                    f"--only: {row.title} follows {Experiment(config).title}, which is neither done nor asked for"
                )
    return runs


def _run(row: Experiment, seed: int, seeds: Sequence[int], args: Namespace, further: Sequence[str]) -> Run:
    folder = args.output / f"{row.title}-seed{seed}"
    program = "finetune.py" if row.checkpoint else "train_motivated.py"
    launcher = [sys.executable]
    if args.processes > 1:
        launcher += ["-m", "torch.distributed.run", f"--nproc_per_node={args.processes}"]
    words = ["--config", str(ROOT / "configs" / f"{row.config}.yaml"), "--seed", str(seed)]
    words += [*row.flags, "--output", str(args.output), "--experiment", folder.name]
    if row.checkpoint:
        words += ["--checkpoint", str(_place(row.checkpoint, seeds[0], args))]
    if row.follows:
        words += ["--motivation-scheduled-runs", *(str(_place(row.follows, one, args)) for one in seeds)]
    state = _state(folder)
    if state == "to resume":
        words += ["--resume", "auto"]
    return Run([*launcher, str(ROOT / program), *words, *further], folder, state)


def _place(config: str, seed: int, args: Namespace) -> Path:
    return args.output / f"{Experiment(config).title}-seed{seed}"


def _state(folder: Path) -> str:
    try:
        if read_run(folder).completed:
            return "done"
    except RunError:
        pass
    return "to resume" if any(folder.glob("*.pth.tar")) else "new"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 if a run failed, 2 for bad input, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    args, further = make_parser().parse_args(words[:cut]), words[cut + 1 :]
    try:
        runs = plan(args, further)
        left = [run for run in runs if run.state != "done"]
        if args.dry_run:
            for run in left:
                print(shlex.join(run.command))
            print(f"# {len(runs)} runs, {len(runs) - len(left)} of them done; then the report beside {args.table}")
            _remark(args, runs, further)
            return 0
        _remark(args, runs, further)
        for number, run in enumerate(left, 1):
            print(f"[{number}/{len(left)}] {run.folder.name}", flush=True)
            code = _finished(run.command)
            if code > LEAST_OF_SIGNALS or code < 0:
                raise KeyboardInterrupt
            if code:
                print(f"error: {run.folder.name} ended with exit code {code}", file=sys.stderr)
                return EXIT_FAILED
        return _report(args, runs)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on.", file=sys.stderr)
        return EXIT_INTERRUPTED


def _remark(args: Namespace, runs: Sequence[Run], further: Sequence[str]) -> None:
    """An update's images are --batch-size x processes x --grad-accum-steps; a recipe is for one number of them."""
    sizes = any(word.startswith(("-b", "--batch-size", "--grad-accum-steps")) for word in further)
    wanted = 8 if any("imagenet-" in run.folder.name for run in runs if run.state != "done") else 1
    if args.processes != wanted and not sizes:
        print(
            f"# mind the batch: the recipes are for {wanted} process(es) of their --batch-size; with --processes "
            f"{args.processes} give --batch-size or --grad-accum-steps after --",
            file=sys.stderr,
        )


def _finished(command: Sequence[str]) -> int:
    """Run to its end; Ctrl-C reaches the run too, which stops by itself after an update, so it is waited for."""
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _report(args: Namespace, runs: Sequence[Run]) -> int:
    from motivation.tools.report.command import main as report
    from motivation.tools.report.paper import TABLES as PRINTED

    beside = ["--paper", args.table] if args.table in PRINTED else []
    return report([*(str(run.folder) for run in runs), *beside])
