"""``python -m motivation benchmark WHAT``: figures for this machine, as Markdown tables.

python -m motivation benchmark switch
python -m motivation benchmark race resnet20 --timm-script TIMM/train.py --programs timm plain
python -m motivation benchmark race resnet20 --programs plain larger motivated -- --amp --amp-dtype bfloat16
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
from contextlib import suppress
from pathlib import Path

import torch
from timm.models import is_model

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.options.checks import StartupError
from motivation.options.parse import OptionParser
from motivation.tools.benchmark.around import account
from motivation.tools.benchmark.memory import MODELS, memory_table
from motivation.tools.benchmark.race import Program, RaceError, Result, expected_ratios, middle, race, ratios
from motivation.tools.benchmark.recipes import PROGRAMS, RECIPES, Recipe, arguments, make_images, programs_of
from motivation.tools.benchmark.scale import Throughput, scale_table
from motivation.tools.benchmark.switching import PAIRS, measure, switch_table
from motivation.tools.benchmark.timeline import WARMUP_UPDATES, timeline
from motivation.tools.benchmark.timing import machine, table

EXIT_FAILED, EXIT_BAD_INPUT = 1, 2


def make_parser() -> ArgumentParser:
    """The command's flags."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = OptionParser(
        prog="python -m motivation benchmark",
        description="Measure what this program costs, side by side with what it is compared with.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(dest="kind", required=True, parser_class=OptionParser)
    switch = kinds.add_parser("switch", help="a switch beside a flat copy of as many bytes")
    switch.add_argument("--rounds", type=_positive, default=50, help="times each is done")
    racing = kinds.add_parser("race", help="training scripts in turns: images/s, start-up, cost of motivation")
    racing.add_argument("--programs", nargs="+", choices=PROGRAMS, default=["plain", "larger", "motivated"])
    racing.add_argument("--timm-script", type=Path, help="timm's train.py, for the program 'timm'")
    racing.add_argument("--turns", type=_positive, default=12, help="of each program")
    racing.add_argument("--updates", type=_positive, default=24, help="of a turn")
    racing.add_argument("--warmup", type=_positive, default=5, help="updates of each model before the first turn")
    racing.add_argument(
        "--starts", type=_positive, default=1, help="how often each is started; the shortest start-up counts"
    )
    around = kinds.add_parser("around", help="switches, logs, progress bar and condition as parts of a run's time")
    around.add_argument("--updates", type=_positive, default=200, help="of the epoch that counts")
    timeline = kinds.add_parser("timeline", help="how long a GPU stands still, by torch's profiler")
    timeline.add_argument("--updates", type=_positive, default=50, help="that are profiled")
    for kind in (racing, around, timeline):
        kind.add_argument("recipe", choices=sorted(RECIPES))
        kind.add_argument("--k", type=_positive, default=2, help="--motivation-k of the motivated run")
        kind.add_argument("--batch-size", type=_positive, help="default: the recipe's, smaller on a CPU")
        kind.add_argument("--workers", type=int, default=2, help="data workers of each program")
    memory = kinds.add_parser("memory", help="what DistributedDataParallel adds for a model")
    memory.add_argument("--models", nargs="+", type=_model, default=list(MODELS), help="timm names")
    scale = kinds.add_parser("scale", help="hours and cost of the A3 run on ImageNet, computed from two throughputs")
    scale.add_argument("--base", type=_rate, required=True, help="training images/s of the base on one GPU")
    scale.add_argument("--larger", type=_rate, required=True, help="the same of the larger model")
    scale.add_argument("--gpus", type=_positive, nargs="+", default=[1, 8, 16])
    scale.add_argument("--ks", type=_positive, nargs="+", default=[2, 3, 4, 5])
    scale.add_argument("--price", type=float, default=2.0, help="of a GPU for an hour")
    scale.add_argument("--efficiency", type=_rate, default=1.0, help="speed of n GPUs over n times that of one")
    for kind in (switch, racing, around, timeline, memory):
        kind.add_argument("--device", default=device)
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
    """Run the command; returns its exit code: 0, 1 where a program failed, 2 for bad input."""
    words = list(sys.argv[1:] if argv is None else argv)
    own, extra = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    args = make_parser().parse_args(own)
    if args.kind == "scale":
        print(scale_table(Throughput(args.base, args.larger), args.gpus, args.ks, args.price, args.efficiency))
        return 0
    device = torch.device(args.device)
    print(f"{machine(device)}\n", flush=True)
    if args.kind == "switch":
        print(switch_table([measure(pair, device, args.rounds) for pair in PAIRS]))
        return 0
    if args.kind == "memory":
        print(memory_table(args.models, device))
        return 0
    if args.kind == "race" and "timm" in args.programs and not (args.timm_script and args.timm_script.is_file()):
        print("error: --timm-script: give the train.py of timm's repository for the program 'timm'", file=sys.stderr)
        return EXIT_BAD_INPUT
    if args.kind == "timeline" and device.type != "cuda":
        print("error: timeline: there is a timeline of a GPU only; give --device cuda", file=sys.stderr)
        return EXIT_BAD_INPUT
    if faults := list(_misplaced(extra)):
        print("\n".join(f"error: {fault}" for fault in faults), file=sys.stderr)
        return EXIT_BAD_INPUT
    recipe = RECIPES[args.recipe]
    args.batch_size = args.batch_size or recipe.batch_size[device.type == "cpu"]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            report = {"race": _race, "around": _around, "timeline": _timeline}[args.kind]
            print(report(args, recipe, extra, Path(scratch)))
    except RaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except StartupError as error:
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _misplaced(extra: Sequence[str]) -> Iterator[str]:
    """What the programs must not be told past the benchmark, which makes as many images as they train on."""
    for word in extra:
        name = word.split("=")[0]
        if name in ("-b", "-j", "--batch-size", "--workers", "--device"):
            yield f"{name}: give it before the --"
        if name == "--grad-accum-steps":
            yield f"{name}: an update has one batch here; give a larger --batch-size"


def _race(args: Namespace, recipe: Recipe, extra: Sequence[str], scratch: Path) -> str:
    updates = args.turns * args.updates + 60 * args.warmup  # one update in six warms the motivated model up
    make_images(recipe, scratch / "data", updates * args.batch_size)
    shared = {
        model: (
            *arguments(recipe, model, scratch / "data", scratch / "out", args.device, args.batch_size, args.workers),
            *extra,
        )
        for model in (recipe.base, recipe.larger)
    }
    found = programs_of(recipe, args.programs, args.timm_script, shared, args.k)
    programs = {
        name: Program(script, (*words, f"--experiment={name}"), models)
        for name, (script, words, models) in found.items()
    }
    results = race(programs, args.turns, args.updates, args.warmup, scratch, args.starts)
    return race_report(results, args, extra)


def race_report(results: dict[str, Result], args: Namespace, extra: Sequence[str] = ()) -> str:
    """A table of the programs, and the ratios that there are."""
    rows = [
        (name, f"{1000 * one.per_update_s:.2f}", f"{args.batch_size / one.per_update_s:.1f}",
         f"{one.start_up_s:.2f}", one.new_graphs)
        for name, one in results.items()
    ]  # fmt: skip
    columns = ["program", "ms an update", "images/s", "start-up s", "new graphs"]
    lines = [
        f"{args.recipe}, {args.batch_size} images an update, {args.workers} data workers"
        + (f", {shlex.join(extra)}" if extra else "")
        + f"; {args.turns} turns of {args.updates} updates; ratios: median (middle half)",
        "",
        table(columns, rows),
        "",
    ]
    for one, other in (("plain", "timm"), ("on-device", "timm"), ("on-device", "padded")):
        if one in results and other in results:
            lines.append(f"- images/s, {one} / {other}: {middle(ratios(results, one, other))}")
    if {"plain", "larger", "motivated"} <= set(results):
        found = middle(expected_ratios(results, "motivated", "plain", "larger"))
        counts = [sum(turn.updates[model] for turn in results["motivated"].turns) for model in (0, 1)]
        lines.append(
            f"- motivated run, time / (n_base t_base + n_motivated t_motivated): {found}; {counts[0]} base, "
            f"{counts[1]} motivated updates"
        )
    return "\n".join(lines)


def _motivated_words(
    args: Namespace, recipe: Recipe, extra: Sequence[str], scratch: Path, updates: int
) -> tuple[list[str], list[str]]:
    """The flags of a run of the base on ``updates`` made-up batches, and those that make it motivated."""
    make_images(recipe, scratch / "data", updates * args.batch_size)
    words = arguments(
        recipe, recipe.base, scratch / "data", scratch / "out", args.device, args.batch_size, args.workers
    )
    motivated = [f"--motivated-model={recipe.larger}", f"--motivation-k={args.k}", "--motivation-condition=loss"]
    return [*words, *extra], motivated


def _around(args: Namespace, recipe: Recipe, extra: Sequence[str], scratch: Path) -> str:
    words, motivated = _motivated_words(args, recipe, extra, scratch, args.updates)
    found = account([*words, *motivated])
    title = (
        f"{args.recipe}, {args.batch_size} images an update: {found.updates} updates in {found.seconds:.2f} s, "
        f"{found.switches} switches, share {found.share:.3f}"
    )
    rows = [(part, f"{found.per_update_us(part):.1f}", f"{found.percent(part):.3f} %") for part in found.parts]
    return f"{title}\n\n{table(['part', 'us an update', 'of the time'], rows)}"


def _timeline(args: Namespace, recipe: Recipe, extra: Sequence[str], scratch: Path) -> str:
    words, motivated = _motivated_words(args, recipe, extra, scratch, args.updates + WARMUP_UPDATES + 2)
    rows = []
    for name, more in (("plain", []), ("motivated", motivated)):
        found = timeline([*words, *more, f"--experiment={name}"], args.updates)
        longest = max(found.gaps, default=0.0)
        rows.append((name, f"{found.idle_percent:.2f} %", f"{longest:.0f}"))
    title = f"{args.recipe}, {args.batch_size} images an update, {args.updates} updates"
    return f"{title}\n\n{table(['run', 'device idle', 'longest gap us'], rows)}"
