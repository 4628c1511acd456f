"""``python -m motivation map-coverage``: measure how much of timm can be mapped, for the table of docs/coverage.md.

Three measurements: which pairs of models of different size have a map (on the meta device), whether the motivated model
contains the base's computation (`weight_maps.containment`), and whether a pair trains in turns: expand, update,
extract, update, with AdamW and with LAMB.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm import optim
from timm.task import ClassificationTask
from torch import Tensor, nn

from motivation.data.update_loader import MicroBatch
from motivation.method.conditions import Never
from motivation.method.pair import MotivatedPair
from motivation.method.records import Role
from motivation.training.learner import Learner, UpdateRule
from weight_maps import find_map
from weight_maps.containment import compare
from weight_maps.coverage import ModuleCoverage, Pair, cover, modules_of_timm
from weight_maps.find import image_size


@dataclass(frozen=True)
class Trial:
    """Result of computing with one pair; ``shallow`` if with few blocks, because the whole models are large."""

    pair: Pair
    contained: bool
    trained: bool
    detail: str
    shallow: bool = False


class _AnyLoss(nn.Module):
    """A loss for any output, a tensor or a nest of them: the mean square."""

    def forward(self, output: Any, target: Tensor) -> Tensor:
        if isinstance(output, Tensor):
            return output.float().square().mean()
        return torch.stack([self(one, target) for one in output]).mean()


def trains_in_turns(base: nn.Module, motivated: nn.Module, pair: Pair, images: Tensor, opt: str) -> str | None:
    """Expand, update, extract and update, and return which invariant of a switch was broken, or None.

    The invariants: the base comes back bit for bit, the differential part is left alone, and no tensor is replaced.
    """
    weights_map = find_map(*pair, base, motivated)
    learners = []
    for role, model in ((Role.BASE, base), (Role.MOTIVATED, motivated)):
        model.train()
        task = ClassificationTask(model, _AnyLoss(), verbose=False)
        optimizer = optim.create_optimizer_v2(model, opt=opt, lr=1e-4, weight_decay=0.05)
        learners.append(Learner(role, task, optimizer, None, UpdateRule()))
    turns = MotivatedPair(learners[0], learners[1], weights_map, Never())
    pointers = [tensor.data_ptr() for learner in learners for tensor in learner.model.state_dict().values()]
    target = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def update(learner: Learner) -> None:
        learner.train([MicroBatch(images, target, 1, True, 0)])

    update(turns.base)
    before = _copied(turns.base)
    mask = _differential(weights_map, motivated)
    outside = {name: tensor[mask[name]].clone() for name, tensor in motivated.state_dict().items()}
    turns.expand()
    if any(not torch.equal(t[mask[n]], outside[n]) for n, t in motivated.state_dict().items()):
        return "expand changed the differential part"
    turns.extract()
    if not _same(before, _copied(turns.base)):
        return "expand and extract changed the base"
    turns.expand()
    update(learners[1])
    large = _copied(learners[1])
    turns.extract()
    if not _same(large, _copied(learners[1])):
        return "extract changed the motivated model"
    update(turns.base)
    if pointers != [tensor.data_ptr() for learner in learners for tensor in learner.model.state_dict().values()]:
        return "a tensor was replaced"
    return None


def _copied(learner: Learner) -> dict[str, Tensor]:
    state = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    for number, values in enumerate(learner.optimizer.state.values()):
        state.update({f"{number}.{k}": v.clone() for k, v in values.items() if isinstance(v, Tensor)})
    return state


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _differential(weights_map: Any, motivated: nn.Module) -> dict[str, Tensor]:
    """Return for each tensor a mask of the elements that are not the base's; names of one tensor have one mask."""
    masks: dict[int, Tensor] = {}
    outside = {
        name: masks.setdefault(tensor.data_ptr() or id(tensor), torch.ones_like(tensor, dtype=torch.bool))
        for name, tensor in motivated.state_dict().items()
    }
    inside = {link.base: torch.zeros(link.shape, dtype=torch.bool) for link in weights_map.links}
    weights_map.expand({name: mask.to(next(iter(outside.values())).device) for name, mask in inside.items()}, outside)
    return outside


def try_pair(pair: Pair, device: str = "cpu", images: int = 2, shallow: bool = False) -> Trial:
    """Build a pair with weights, compare its computation and train it in turns.

    Args:
        shallow: give the base one block and the motivated model two, if they are made by depth.
    """
    torch.manual_seed(0)
    depths: list[dict[str, Any]] = [{"depth": 1}, {"depth": 2}] if shallow else [{}, {}]
    try:
        base, motivated = (timm.create_model(n, **d).to(device) for n, d in zip(pair, depths, strict=True))
    except TypeError:
        if not shallow:
            raise
        return try_pair(pair, device, images)  # it has no such argument
    models: list[Any] = [base, motivated]
    fixed = [model for model in models if model.pretrained_cfg.get("fixed_input_size")]
    batch = torch.randn(images, *image_size((fixed or [base])[0]), device=device)
    try:
        found = compare(find_map(*pair, base, motivated), base, motivated, batch[:1])
        contained, detail = found.holds, found.first_difference or ""
    except Exception as error:  # noqa: BLE001  (any of a thousand models may raise anything; the table says which)
        contained, detail = False, f"{type(error).__name__}: {error}"
    for opt in ("adamw", "lamb"):
        try:
            fault = trains_in_turns(base, motivated, pair, batch, opt)
        except Exception as error:  # noqa: BLE001
            fault = f"{type(error).__name__}: {error}"
        if fault:
            return Trial(pair, contained, False, f"{detail} {opt}: {fault}".strip().replace("\n", " ")[:300], shallow)
    return Trial(pair, contained, True, detail.replace("\n", " ")[:300], shallow)


def chosen_pairs(coverage: ModuleCoverage, count: int | None, largest: int) -> list[tuple[Pair, bool]]:
    """Choose the mapped pairs to compute with, each with a flag: shallow or not.

    Args:
        count: number of pairs, of different bases, the smallest first; None for all.
        largest: parameters of the largest model; where all pairs have more, the smallest pair is chosen, shallow.
    """
    sizes = coverage.parameters
    pairs = sorted(coverage.mapped, key=lambda pair: (sizes[pair[0]] + sizes[pair[1]], pair))
    small = [pair for pair in pairs if sizes[pair[1]] <= largest]
    if count is not None:
        by_base: dict[str, Pair] = {}
        for pair in small:
            by_base.setdefault(pair[0], pair)
        small = list(by_base.values())[:count]
    return [(pair, False) for pair in small] or [(pair, True) for pair in pairs[:1]]


def _cover(job: tuple[str, list[str], int | None, int]) -> tuple[ModuleCoverage, list[tuple[Pair, bool]]]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    module, names, count, largest = job
    coverage = cover(module, names)
    return coverage, chosen_pairs(coverage, count, largest) if count != 0 else []


def _try(job: tuple[Pair, str, bool]) -> Trial:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    pair, device, shallow = job
    try:
        trial = try_pair(pair, device, shallow=shallow)
    except Exception as error:  # noqa: BLE001  (the table says which model cannot be made)
        trial = Trial(pair, False, False, f"{type(error).__name__}: {error}"[:300], shallow)
    gc.collect()  # models with hooks are cycles
    return trial


def table(found: Sequence[ModuleCoverage], trials: Iterable[Trial]) -> list[str]:
    """Make the Markdown table, with a line for each module that has pairs."""
    by_pair = {trial.pair: trial for trial in trials}
    lines = [
        "| timm module | models | pairs | plain nests | mapped | computed | found inside | trained | refused (pairs) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        if not one.pairs:
            continue
        tried = [by_pair[pair] for pair in one.mapped if pair in by_pair]
        counts = [len(tried), sum(t.contained for t in tried), sum(t.trained for t in tried)]
        reasons = "; ".join(one.main_reasons()) or "-"
        lines.append(
            f"| {one.module} | {one.models} | {len(one.pairs)} | {len(one.plain)} | {len(one.mapped)} | "
            + " | ".join(map(str, counts))
            + f" | {reasons} |"
        )
    return lines


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command's options."""
    parser = argparse.ArgumentParser(prog="python -m motivation map-coverage", description=__doc__)
    parser.add_argument("--modules", nargs="+", metavar="NAME", help="timm modules; default all")
    parser.add_argument("--compute", default="2", metavar="N", help="mapped pairs to compute per module, or all")
    parser.add_argument(
        "--largest", type=float, default=120e6, metavar="N", help="parameters of the largest to compute"
    )
    parser.add_argument("--device", default="cpu", help="where to compute")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every pair with its reasons here")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S", help="start no pair after this")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the files."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    modules = modules_of_timm()
    if unknown := [name for name in args.modules or () if name not in modules]:
        parser.error(f"--modules: timm has no {', '.join(unknown)}")
    if args.compute != "all" and not args.compute.isdigit():
        parser.error(f"--compute: a number of pairs or all, not {args.compute!r}")
    if args.jobs < 1:
        parser.error(f"--jobs: at least 1, not {args.jobs}")
    if missing := [file.parent for file in (args.markdown, args.json) if file and not file.parent.is_dir()]:
        parser.error(f"there is no folder {missing[0]}")
    started = time.monotonic()
    count = None if args.compute == "all" else int(args.compute)
    jobs = [(module, modules[module], count, int(args.largest)) for module in args.modules or modules]
    jobs.sort(key=lambda job: -len(job[1]))
    trials: list[Trial] = []
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        results = pool.map(_cover, jobs, chunksize=1)
        results.sort(key=lambda result: result[0].module)
        pairs = [pair for _, chosen in results for pair in chosen]
        print(f"{len(pairs)} pairs to compute after {time.monotonic() - started:.0f} s", flush=True)
        work = [(pair, args.device, shallow) for pair, shallow in pairs]
        for trial in pool.imap_unordered(_try, work, chunksize=1):
            trials.append(trial)
            if not (trial.contained and trial.trained):
                print(*trial.pair, "contained" if trial.contained else "NOT CONTAINED", trial.detail, flush=True)
            if time.monotonic() - started > args.seconds:
                print(f"stopped after {len(trials)} of {len(pairs)} pairs")
                pool.terminate()
                break
    found = [coverage for coverage, _ in results]
    text = "\n".join([*summary(found, trials), "", *table(found, trials)])
    print(text)
    if args.markdown:
        args.markdown.write_text(text + "\n")
    if args.json:
        args.json.write_text(json.dumps(_as_json(found, trials), indent=1))


def summary(found: Sequence[ModuleCoverage], trials: Sequence[Trial]) -> list[str]:
    """Write the totals in words."""
    with_plain = [one for one in found if one.plain]
    mapped = [one for one in found if one.mapped]
    refused = [one.module for one in with_plain if not one.mapped]
    return [
        f"timm {timm.__version__}: {sum(one.models for one in found)} models in {len(found)} modules; "
        f"{sum(len(one.pairs) for one in found)} pairs, {sum(len(one.plain) for one in found)} of them plain nests in "
        f"{len(with_plain)} modules. {sum(len(one.mapped) for one in found)} pairs in {len(mapped)} modules are "
        f"mapped. Modules with a plain nest of which every pair is refused: {', '.join(refused) or 'none'}.",
        "",
        f"Computed: {len(trials)} pairs; the base's computation is found inside in "
        f"{sum(t.contained for t in trials)}, and {sum(t.trained for t in trials)} train in turns with AdamW and LAMB. "
        f"{sum(t.shallow for t in trials)} of them with one and two blocks, because the models are large.",
    ]


def _as_json(found: Sequence[ModuleCoverage], trials: Iterable[Trial]) -> dict[str, Any]:
    return {
        "timm": timm.__version__,
        "modules": {
            one.module: {
                "models": one.models,
                "plain": one.plain,
                "siblings": one.siblings,
                "mapped": one.mapped,
                "refused": {" < ".join(pair): faults for pair, faults in one.refused.items()},
                "failed": one.failed,
            }
            for one in found
        },
        "trials": [vars(trial) for trial in trials],
    }
