"""``python -m motivation cost``: the cost of a run before it is paid (paper, supplementary section 6).

python -m motivation cost cifar10/resnet20_resnet32 --images 50000
python -m motivation cost --model resnet50 --motivated-model resnet101 --input-size 3 160 160 --k 2 3 4 --json

F_avg = F_base + share (F_motivated - F_base), where the share of motivated updates is 1/(k+1)! if successive losses are
independent: update t is motivated if the k + 1 losses before it lie in falling order, one order of (k+1)!.

No data set is opened and nothing is trained: each model is made with random weights and run forward once per counter,
on one image on the CPU. That takes seconds, and the memory of both models and a copy of one.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.build.feasible import model_faults, startup_faults
from motivation.build.learners import make_schedule
from motivation.build.models import model_name, untrained_models
from motivation.errors import print_text
from motivation.method.condition_registry import condition_names, has_streak_law, make_condition
from motivation.method.conditions import streak_share
from motivation.method.records import Role
from motivation.options.derived import accum_steps
from motivation.options.faults import Fault, StartupError, blaming
from motivation.options.flag_types import Flag, at_least
from motivation.options.parse import OptionParser, parse
from motivation.options.parse import make_parser as make_training_parser
from motivation.tools.tables import text_table
from motivation.training.flops import CONVENTIONS, average_flops, forward_flops, forward_macs, readable, thop_flops

READ_HERE = (
    "--model", "--motivated-model", "--motivation-condition", "--motivation-map", "--motivation-plugins",
    "--naflex-loader", "--in-chans", "--sched",
)  # fmt: skip
"""Flags whose faults concern a prediction; data, files and devices do not."""

WITHOUT_K = ("never", "random", "always")
"""Conditions whose share is known and does not depend on k."""

HARDLY = 0.01
"""Share below which the differential part hardly trains."""


@dataclass(frozen=True)
class ModelCost:
    """One model: its size, and the cost of one image's forward pass by three conventions."""

    name: str
    parameters: int
    flops: float
    thop_flops: float
    macs: float


@dataclass(frozen=True)
class Length:
    """The length of a run, in epochs and updates of each."""

    epochs: int
    updates_per_epoch: int

    @property
    def updates(self) -> int:
        """Return the updates of the whole run."""
        return self.epochs * self.updates_per_epoch


@dataclass(frozen=True)
class Row:
    """One way to train.

    Attributes:
        label: of the table, k or words.
        k: length of the streak; None where none is waited for.
        share: of motivated updates; None for two runs.
        flops: average forward FLOPs of an update's image, F_avg.
        over_base, over_motivated: the same as multiples of either model alone.
        motivated_updates: to expect of the run; None if its length is unknown.
        this_run: the options ask for it.
    """

    label: str
    k: int | None
    share: float | None
    flops: float
    over_base: float
    over_motivated: float
    motivated_updates: float | None
    this_run: bool = False


def make_parser() -> ArgumentParser:
    """Return the parser of the command's own flags."""
    parser = OptionParser(
        prog="python -m motivation cost",
        usage="%(prog)s [CONFIG] [flags of train_motivated.py] [--k K ...] [--images N] [--json]",
        description="Predict what a motivated run costs. Each model is run forward on one image, without data.",
        epilog="All flags of train_motivated.py are taken (its --help lists them); no data are read.",
        allow_abbrev=False,
    )
    ks, one = [1, 2, 3, 4, 5, 6], at_least(1)
    length = parser.add_mutually_exclusive_group()
    for place, flag in (
        (parser, Flag("--k", int, "streaks to compare; default 1 to 6", default=ks, nargs="+", metavar="K",
                      allowed=one)),
        (length, Flag("--images", int, "images trained on, for the number of updates; default --train-num-samples",
                      allowed=one)),
        (length, Flag("--updates-per-epoch", int, "the same, if it is known", allowed=one)),
        (parser, Flag("--processes", int, "of the run, as torchrun starts them", default=1, allowed=one)),
        (parser, Flag("--json", bool, "print JSON instead of the tables")),
    ):  # fmt: skip
        flag.add_to(place)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the prediction.

    Raises:
        StartupError: the options make no run whose cost can be told.
    """
    words = sys.argv[1:] if argv is None else argv
    own, rest = make_parser().parse_known_args([word for word in words if word != "--"])  # as other commands have it
    print_text(predict(own, training_options(rest)))
    return 0


def training_options(argv: Sequence[str]) -> Namespace:
    """Return the options of a run; a config may stand where a run has its data folder."""
    parser = make_training_parser()
    given = parser.parse_known_args(argv)[0]
    if given.data and _is_config(given.data):
        if given.config:
            parser.error(f"two configurations, {', '.join(given.config)} and {given.data}; give one")
        argv = [*argv, "--config", given.data]
    return parse(argv)[0]


def _is_config(name: str) -> bool:
    """Return True for the name of a config and not of a data folder, which may be on another machine."""
    return name.endswith((".yaml", ".yml")) or not (os.path.isabs(name) or os.path.isdir(name))


def predict(own: Namespace, args: Namespace) -> str:
    """Return the tables, or JSON.

    Raises:
        StartupError: the options make no run whose cost can be told.
    """
    faults = [fault for fault in startup_faults(args)[1] if fault.flag in READ_HERE]
    if own.images is not None and _sizes_vary(args):
        faults.append(Fault("--images", "batches vary in size with these options; give --updates-per-epoch"))
    if faults := [*faults, *model_faults(args)]:
        raise StartupError(faults)
    length = run_length(own, args)
    models, input_size = untrained_models(args)
    costs = {role: model_cost(model_name(args, role), model, input_size) for role, model in models.items()}
    rows: list[Row] = []
    if args.motivated_model:
        flops = {role: cost.flops for role, cost in costs.items()}
        rows = prediction(own.k, flops, args.motivation_condition, args.motivation_k, length)
    if own.json:
        found = {
            "input_size": list(input_size),
            "models": {role.value: vars(cost) for role, cost in costs.items()},
            "epochs": length.epochs if length else None,
            "updates_per_epoch": length.updates_per_epoch if length else None,
            "updates": length.updates if length else None,
            "rows": [vars(row) for row in rows],
        }
        return json.dumps(found, indent=2)
    models_text = model_table(costs, input_size)
    if not rows:
        return f"{models_text}\n\nOne model: give --motivated-model for shares and averages."
    return f"{models_text}\n\n{prediction_table(rows, args.motivation_condition, length)}"


def model_cost(name: str, model: nn.Module, input_size: tuple[int, ...]) -> ModelCost:
    """Run copies of a model on one image ``(C, H, W)`` without data, once per convention.

    Raises:
        StartupError: it does not take images of that size.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with blaming("--input-size", " ".join(map(str, input_size))):
        counts = [count(model, input_size) for count in (forward_flops, thop_flops, forward_macs)]
    return ModelCost(name, parameters, *counts)


def run_length(own: Namespace, args: Namespace) -> Length | None:
    """Return epochs (with cool-down and warm-up, as the schedule has them) and updates of each; None if not known.

    Raises:
        StartupError: the images do not fill one batch, or the schedule does not take its options.
    """
    images, updates = own.images or args.train_num_samples, own.updates_per_epoch
    if not updates and args.train_img_sizes is not None and args.train_batches_per_epoch:
        updates = -(-args.train_batches_per_epoch // accum_steps(args))
    elif not updates and images and not _sizes_vary(args):
        updates = updates_per_epoch(images, args.batch_size, accum_steps(args), own.processes)
        if not updates:
            flag = "--images" if own.images else "--train-num-samples"
            raise StartupError([Fault(flag, f"{images} do not fill one batch of {args.batch_size} per process")])
    if not updates:
        return None
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=args.lr or 0.1)
    return Length(make_schedule(optimizer, args, updates, decreasing=False)[1], updates)


def _sizes_vary(args: Namespace) -> bool:
    return args.train_img_sizes is not None or args.naflex_loader


def updates_per_epoch(images: int, batch_size: int, accumulate: int, processes: int) -> int:
    """Return the updates of an epoch over ``images`` training images, as the loader cuts them.

    Every process has an equal part, rounded up, and drops its last batch if that is not whole; the last update may be
    of fewer micro-batches.

    >>> updates_per_epoch(1437, batch_size=64, accumulate=1, processes=1)
    22
    """
    batches = -(-images // processes) // batch_size
    return -(-batches // accumulate)


def prediction(
    ks: Sequence[int], flops: dict[Role, float], condition: str, own_k: int, length: Length | None = None
) -> list[Row]:
    """Return a row for each k, for a condition with another law, and for the ways to train without the method.

    Args:
        ks: lengths of the streak, in the order of the rows.
        flops: forward FLOPs of the two models.
        condition, own_k: those of the options; k is added to ``ks`` if the condition waits for a streak.
        length: None if unknown.
    """

    def row(label: str, share: float, k: int | None = None, this_run: bool = False) -> Row:
        average = average_flops({Role.BASE: 1 - share, Role.MOTIVATED: share}, flops)
        updates = None if length is None else share * length.updates
        return Row(label, k, share, average, average / base, average / motivated, updates, this_run)

    def share_of(k: int) -> float:
        return streak_share(k) if length is None else expected_motivated_updates(k, length) / length.updates

    base, motivated = flops[Role.BASE], flops[Role.MOTIVATED]
    waits = has_streak_law(condition)
    rows = [
        row(f"k = {k}", share_of(k), k, waits and k == own_k)
        for k in (sorted({*ks, own_k}) if waits else dict.fromkeys(ks))
    ]
    if condition == "random":
        rows.append(row("random", 0.5, this_run=True))
    rows.append(row("base alone", 0.0, this_run=condition == "never"))
    rows.append(row("motivated alone", 1.0, this_run=condition == "always"))
    both = base + motivated
    return [*rows, Row("both, two runs", None, None, both, both / base, both / motivated, None)]


def expected_motivated_updates(k: int, length: Length) -> float:
    """Return the motivated updates to expect of a run, if successive losses are independent.

    An epoch forgets the streak, so its first k + 1 updates train the base; each of the others is motivated with
    probability 1/(k+1)!.

    >>> expected_motivated_updates(2, Length(epochs=30, updates_per_epoch=22))
    95.0
    """
    return make_condition("loss", k).expected_updates(length.epochs, length.updates_per_epoch) or 0.0


LAW = """\
The shares are those of independent losses: 1/(k+1)!, and none in the first k + 1 updates of an epoch, where an epoch's
length is given. Measured in a small run of long epochs: 0.165, 0.039, 0.0067 at k = 2, 3, 4.
A loss that falls steeply, as in a short run, gives more.
F_avg is the forward pass of one image in torch flops, averaged over the updates; the paper takes it for training."""


def model_table(models: dict[Role, ModelCost], input_size: Sequence[int]) -> str:
    """Return parameters and forward cost of the models as text, with what the figures mean."""
    rows = [["", "model", "parameters", *CONVENTIONS]]
    for role, cost in models.items():
        figures = map(readable, (cost.flops, cost.thop_flops, cost.macs))
        rows.append([role.value, cost.name, f"{cost.parameters:,}", *figures])
    size = " x ".join(map(str, input_size))
    conventions = "\n".join(f"{name:12} {text}" for name, text in CONVENTIONS.items())
    return f"{text_table(rows)}\nForward pass of one image of {size}, the training size.\n{conventions}"


def prediction_table(rows: Sequence[Row], condition: str, length: Length | None) -> str:
    """Return share, F_avg and its ratios as text, with remarks."""
    cells = [["", "share", "F_avg", "x base alone", "x motivated alone", "motivated updates", ""]]
    for row in rows:
        share = "-" if row.share is None else f"{row.share:.4g}"
        ratios = f"{row.over_base:.3f}", f"{row.over_motivated:.3f}"
        mark = "<- this run" if row.this_run else ""
        cells.append([row.label, share, readable(row.flops), *ratios, _count(row.motivated_updates), mark])
    if not length:
        cells = [[*line[:5], line[6]] for line in cells]
    lines = [text_table(cells), LAW]
    if length:
        size = f"{length.epochs} epochs x {length.updates_per_epoch} = {length.updates:,}"
        lines.append(f"Of {size} updates.")
    if not has_streak_law(condition) and condition not in WITHOUT_K:
        lawful = ", ".join(filter(has_streak_law, condition_names()))
        lines.append(f"This run: no law is known for --motivation-condition {condition}; the rows are for {lawful}.")
    low = [row for row in rows if row.k is not None and row.share is not None and row.share < HARDLY]
    if low:
        labels = ", ".join(str(row.k) for row in low)
        mine = ", this run's among them" if any(row.this_run for row in low) else ""
        lines.append(f"warning: share under 1 % at k = {labels}{mine}: the differential part hardly trains.")
    return "\n".join(lines)


def _count(updates: float | None) -> str:
    """
    >>> _count(None), _count(0.25), _count(3216.7)
    ('-', '0.2', '3,217')
    """
    if updates is None:
        return "-"
    return f"{updates:,.0f}" if updates >= 10 or updates == 0 else f"{updates:.1f}"
