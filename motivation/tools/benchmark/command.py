"""``python -m motivation benchmark WHAT``: figures for this machine, as Markdown tables.

python -m motivation benchmark switch
python -m motivation benchmark race resnet20 --timm-script TIMM/train.py --programs timm plain
python -m motivation benchmark race resnet20 --programs plain larger motivated -- --amp --amp-dtype bfloat16
python -m motivation benchmark race vit --programs plain larger motivated -- --amp --amp-dtype bfloat16
python -m motivation benchmark around resnet20
python -m motivation benchmark timeline resnet20
python -m motivation benchmark memory
python -m motivation benchmark scale --base 1000 --larger 600 --price 2
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from timm.models import is_model

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.errors import EXIT_FAILED, InputError, print_errors, print_text
from motivation.options.derived import AUTO_DEVICE, device_of
from motivation.options.flags import FLAGS
from motivation.options.parse import OptionParser
from motivation.tools.benchmark.around import around_table
from motivation.tools.benchmark.memory import MODELS, memory_table
from motivation.tools.benchmark.race import Program, RaceError, race, race_report
from motivation.tools.benchmark.recipes import (
    OUR_SCRIPT,
    PROGRAMS,
    RECIPES,
    default_workers,
    motivated_flags,
    plain_flags,
    program_flags,
)
from motivation.tools.benchmark.scale import scale_table
from motivation.tools.benchmark.switching import OPTIMIZERS, switch_table
from motivation.tools.benchmark.timeline import WARMUP_UPDATES, timeline_table
from motivation.tools.benchmark.timing import machine

MEASURED_FLAGS = ("-b", "-j", "--batch-size", "--workers", "--device")
"""Flags that every measured program is given by the benchmark itself."""


def make_parser() -> ArgumentParser:
    """Return the command's parser; ``run`` of what it parses is the function to call."""
    parser = OptionParser(
        prog="python -m motivation benchmark",
        description="Measure what this program costs, side by side with what it is compared with.",
        epilog="Flags after -- go to the programs that are measured.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, parser_class=OptionParser)

    switch = commands.add_parser("switch", help="a switch beside a flat copy of as many bytes")
    switch.add_argument("--rounds", type=_positive, default=50, help="how often each copy is made")
    switch.add_argument("--opts", nargs="+", default=list(OPTIMIZERS), help="optimizers, by timm's names")
    switch.set_defaults(run=lambda args: switch_table(torch.device(args.device), args.rounds, args.opts))

    racing = commands.add_parser("race", help="training scripts in turns: images/s, start-up, cost of motivation")
    racing.add_argument("--programs", nargs="+", choices=PROGRAMS, default=["plain", "larger", "motivated"])
    racing.add_argument("--timm-script", type=Path, help="timm's train.py, for the program 'timm'")
    racing.add_argument("--turns", type=_positive, default=12, help="number of turns of each program")
    racing.add_argument("--updates", type=_positive, default=24, help="updates in a turn")
    racing.add_argument("--warmup", type=_positive, default=5, help="updates of each model before the first turn")
    racing.add_argument("--starts", type=_positive, default=1, help="starts of each; the shortest start-up counts")
    racing.set_defaults(run=_race)

    around = commands.add_parser("around", help="switches, logs, progress bar and condition as parts of a run's time")
    around.add_argument("--updates", type=_positive, default=200, help="updates in the epoch that is timed")
    around.set_defaults(run=_around)

    timeline = commands.add_parser("timeline", help="how long a GPU is idle, by torch's profiler")
    timeline.add_argument("--updates", type=_positive, default=50, help="updates that are profiled")
    timeline.set_defaults(run=_timeline)

    for command in (racing, around, timeline):
        command.add_argument("recipe", choices=sorted(RECIPES))
        command.add_argument("--k", type=_positive, default=2, help="--motivation-k of the motivated run")
        command.add_argument("--batch-size", type=_positive, help="default: the recipe's, smaller on a CPU")
        command.add_argument(
            "--workers", type=int, help="data workers of each program; default: 2 on a CPU, else all cores but two"
        )

    memory = commands.add_parser("memory", help="what DistributedDataParallel adds for a model")
    memory.add_argument("--models", nargs="+", type=_model, default=list(MODELS), help="timm names")
    memory.set_defaults(run=lambda args: memory_table(args.models, torch.device(args.device)))

    scale = commands.add_parser("scale", help="hours and cost of the A3 run on ImageNet, computed from two throughputs")
    scale.add_argument("--base", type=_rate, required=True, help="training images/s of the base on one GPU")
    scale.add_argument("--larger", type=_rate, required=True, help="the same of the larger model")
    scale.add_argument("--gpus", type=_positive, nargs="+", default=[1, 8, 16])
    scale.add_argument("--ks", type=_positive, nargs="+", default=[2, 3, 4, 5])
    scale.add_argument("--price", type=float, default=2.0, help="price of a GPU for an hour")
    scale.add_argument("--efficiency", type=_rate, default=1.0, help="speed of n GPUs over n times that of one")
    scale.set_defaults(
        run=lambda args: scale_table(args.base, args.larger, args.gpus, args.ks, args.price, args.efficiency),
        device=None,
    )

    for command in (switch, racing, around, timeline, memory):
        command.add_argument("--device", default=AUTO_DEVICE, help=FLAGS["device"].help)
    return parser


def _positive(word: str) -> int:
    if not word.isdigit() or not int(word):
        raise ArgumentTypeError(f"a whole number from 1 on, not {word!r}")
    return int(word)


def _rate(word: str) -> float:
    with suppress(ValueError):
        if 0 < float(word) < float("inf"):
            return float(word)
    raise ArgumentTypeError(f"a number above 0, not {word!r}")


def _model(word: str) -> str:
    if not is_model(word):
        raise ArgumentTypeError(f"timm has no model {word!r}")
    return word


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 1 where a program failed.

    Raises:
        InputError: the flags cannot be used.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    own, extra = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    args = make_parser().parse_args(own)
    args.extra = extra
    if args.device is not None:
        args.device = device_of(args)
        print_text(f"{machine(torch.device(args.device))}\n")
    try:
        print_text(args.run(args))
    except RaceError as error:
        print_errors(str(error))
        return EXIT_FAILED
    return 0


@contextmanager
def _plain_run(args: Namespace, updates: int) -> Iterator[tuple[Path, list[str]]]:
    """Make images for so many updates in a temporary folder; yield it and the flags of a plain run on them."""
    _refuse_misplaced(args.extra)
    recipe = RECIPES[args.recipe]
    device_type = torch.device(args.device).type
    args.batch_size = args.batch_size or recipe.batch_size[device_type == "cpu"]
    args.workers = default_workers(device_type) if args.workers is None else args.workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe.make_images(folder / "data", updates * args.batch_size)
        flags = plain_flags(recipe, recipe.base, folder, args.device, args.batch_size, args.workers)
        yield folder, [*flags, *args.extra]


def _refuse_misplaced(extra: Sequence[str]) -> None:
    """Refuse flags after ``--`` that decide how many images are trained on, since the images are made here."""
    names = [word.split("=")[0] for word in extra]
    faults = [f"{name}: give it before the --" for name in names if name in MEASURED_FLAGS]
    if "--grad-accum-steps" in names:
        faults.append("--grad-accum-steps: an update has one batch here; give a larger --batch-size")
    if faults:
        raise InputError(*faults)


def _race(args: Namespace) -> str:
    if "timm" in args.programs and not (args.timm_script and args.timm_script.is_file()):
        raise InputError("--timm-script: give the train.py of timm's repository for the program 'timm'")
    recipe = RECIPES[args.recipe]
    updates = args.turns * args.updates + 60 * args.warmup  # one update in six warms the motivated model up
    with _plain_run(args, updates) as (folder, flags):
        programs = {}
        for name in args.programs:
            words = program_flags(name, flags, recipe, args.k)
            script, words = (args.timm_script, words) if name == "timm" else (OUR_SCRIPT, ["train", *words])
            programs[name] = Program(script, tuple(words), models=2 if name == "motivated" else 1)
        results = race(programs, args.turns, args.updates, args.warmup, folder, args.starts)
    extra = f", {shlex.join(args.extra)}" if args.extra else ""
    title = (
        f"{args.recipe}, {args.batch_size} images an update, {args.workers} data workers{extra}; "
        f"{args.turns} turns of {args.updates} updates; ratios: median (middle half)"
    )
    return race_report(results, title, args.batch_size)


def _around(args: Namespace) -> str:
    with _plain_run(args, args.updates) as (_, flags):
        found = around_table([*flags, *motivated_flags(RECIPES[args.recipe], args.k)])
    return f"{args.recipe}, {args.batch_size} images an update: {found}"


def _timeline(args: Namespace) -> str:
    if args.device.split(":")[0] != "cuda":
        raise InputError("timeline: there is a timeline of a GPU only; give --device cuda")
    recipe = RECIPES[args.recipe]
    with _plain_run(args, args.updates + WARMUP_UPDATES + 2) as (_, flags):
        programs = {name: program_flags(name, flags, recipe, args.k) for name in ("plain", "motivated")}
        found = timeline_table(programs, args.updates)
    return f"{args.recipe}, {args.batch_size} images an update, {args.updates} updates\n\n{found}"
