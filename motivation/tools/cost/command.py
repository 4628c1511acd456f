"""``python -m motivation cost``: what the models of some options cost, and what to expect of each k, before a run.

python -m motivation cost configs/cifar10/resnet20_resnet32.yaml --images 50000
python -m motivation cost --model resnet50 --motivated-model resnet101 --input-size 3 160 160 --k 2 3 4 --json

No data set is opened and nothing is trained: each model is made with random weights and run forward once per counter,
on one image on the CPU. That takes seconds, and the memory of both models and a copy of one.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

import torch

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.build.feasible import model_faults, startup_faults
from motivation.build.learners import make_schedule
from motivation.build.models import model_name, untrained_models
from motivation.method.records import Role
from motivation.options.derived import accum_steps
from motivation.options.faults import Fault, StartupError, blaming
from motivation.options.parse import OptionParser, parse
from motivation.options.parse import make_parser as make_training_parser
from motivation.tools.cost.predict import Length, ModelCost, as_json, model_cost, prediction, updates_per_epoch
from motivation.tools.cost.table import model_table, prediction_table

EXIT_BAD_INPUT = 2

READ_HERE = (
    "--model",
    "--motivated-model",
    "--motivation-condition",
    "--motivation-map",
    "--motivation-plugins",
    "--naflex-loader",
    "--in-chans",
    "--sched",
)
"""Flags whose faults concern a prediction; data, files and devices do not."""


def make_parser() -> ArgumentParser:
    """The command's own flags; `motivation.options.parse.make_parser` has those of the run."""
    parser = OptionParser(
        prog="python -m motivation cost",
        usage="%(prog)s [CONFIG.yaml] [flags of train_motivated.py] [--k K ...] [--images N] [--json]",
        description="Predict what a motivated run costs. Each model is run forward twice, on one image on the CPU.",
        epilog="All flags of train_motivated.py are taken (its --help lists them); no data are read.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--k", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6], metavar="K", help="streaks to compare; default 1 to 6"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="images trained on, for the number of updates; default --train-num-samples",
    )
    length.add_argument("--updates-per-epoch", type=int, metavar="N", help="the same, if it is known")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="of the run, as torchrun starts them")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 2 for bad input."""
    own, rest = make_parser().parse_known_args(argv)
    args = training_options(rest)
    try:
        print(predict(own, args), flush=True)
    except StartupError as error:
        for fault in error.faults:
            print(f"error: {one_line(str(fault))}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:  # the reader, such as head, has enough; Python would flush again at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def training_options(argv: Sequence[str]) -> Namespace:
    """The options of a run; a single ``*.yaml`` where the data folder may stand is its ``--config``."""
    parser = make_training_parser()
    given = parser.parse_known_args(argv)[0]
    if str(given.data or "").endswith((".yaml", ".yml")):
        if given.config:
            parser.error(f"two configurations, {', '.join(given.config)} and {given.data}; give one")
        argv = [*argv, "--config", given.data]
    return parse(argv)[0]


def predict(own: Namespace, args: Namespace) -> str:
    """What the command prints.

    Raises:
        StartupError: the options make no run whose cost could be told.
    """
    faults = [fault for fault in startup_faults(args)[1] if fault.flag in READ_HERE]
    faults += [*own_faults(own, args), *model_faults(args)]
    if faults:
        raise StartupError(faults)
    length = run_length(own, args)
    models, input_size = costs(args)
    if len(models) == 1:
        if own.json:
            return json.dumps(as_json(models, input_size, [], length), indent=2)
        return f"{model_table(models, input_size)}\n\nOne model: give --motivated-model for shares and averages."
    base, motivated = (models[role.value].flops for role in (Role.BASE, Role.MOTIVATED))
    rows = prediction(own.k, base, motivated, args.motivation_condition, args.motivation_k, length)
    if own.json:
        return json.dumps(as_json(models, input_size, rows, length), indent=2)
    return f"{model_table(models, input_size)}\n\n{prediction_table(rows, args.motivation_condition, length)}"


def own_faults(own: Namespace, args: Namespace) -> list[Fault]:
    """What is wrong with the command's own flags."""
    numbers = [("--k", k) for k in own.k]
    numbers += [
        ("--images", own.images),
        ("--updates-per-epoch", own.updates_per_epoch),
        ("--processes", own.processes),
    ]
    faults = [Fault(flag, f"at least 1, not {number}") for flag, number in numbers if number is not None and number < 1]
    if own.images is not None and (args.train_img_sizes is not None or args.naflex_loader):
        faults.append(Fault("--images", "batches vary in size with these options; give --updates-per-epoch"))
    return faults


def costs(args: Namespace) -> tuple[dict[str, ModelCost], tuple[int, int, int]]:
    """The cost of the models by their role, and the size ``(C, H, W)`` they train at.

    Raises:
        StartupError: a model cannot be made, or does not take images of that size.
    """
    models, input_size = untrained_models(args)
    found = {}
    for role, model in models.items():
        with blaming("--input-size", " ".join(map(str, input_size))):
            found[role.value] = model_cost(model_name(args, role), model, input_size)
    return found, input_size


def run_length(own: Namespace, args: Namespace) -> Length | None:
    """Epochs (with cool-down and warm-up, as the schedule has them) and updates of each, if the options tell.

    Raises:
        StartupError: the images do not fill one batch.
    """
    images = own.images or args.train_num_samples
    varies = args.train_img_sizes is not None or args.naflex_loader
    updates = own.updates_per_epoch
    accumulate = accum_steps(args)
    if not updates and args.train_img_sizes is not None and args.train_batches_per_epoch:
        updates = -(-args.train_batches_per_epoch // accumulate)
    elif not updates and images and not varies:
        updates = updates_per_epoch(images, args.batch_size, accumulate, own.processes)
        if not updates:
            flag = "--images" if own.images else "--train-num-samples"
            raise StartupError([Fault(flag, f"{images} do not fill one batch of {args.batch_size} per process")])
    if not updates:
        return None
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=args.lr or 0.1)
    return Length(make_schedule(optimizer, args, updates, decreasing=False)[1], updates)


def one_line(fault: str) -> str:
    """A fault's first line, its first reason, and how many more there are.

    >>> one_line("b does not contain a:\\n  x: small\\n  y: small")
    'b does not contain a: x: small (and 1 more)'
    """
    first, *others = [" ".join(line.split()) for line in fault.strip().splitlines()]
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return f"{first} {others[0]}{more}" if others else first
