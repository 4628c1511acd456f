"""``python -m motivation map-coverage``: measure how much of timm can be mapped, for the table of docs/coverage.md.

Three measurements: which pairs of models of different size have a map (on the meta device), whether the motivated model
contains the base's computation (`weight_maps.containment`), and whether a pair trains in turns: expand, update,
extract, update, with AdamW and with LAMB.
"""

from __future__ import annotations

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
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from motivation.method.conditions import Never
from motivation.method.pair import MotivatedPair
from motivation.method.side import Side
from motivation.options.derived import device_of
from motivation.options.parse import OptionParser
from motivation.tools.tables import markdown_table
from weight_maps import find_map
from weight_maps.containment import compare
from weight_maps.coverage import ModuleCoverage, Pair, cover, modules_of_timm
from weight_maps.find import image_size


@dataclass
class Trial:
    """Result of computing with one pair.

    Attributes:
        shallow: with few blocks, because the whole models are large.
        contained: the base's computation is found inside.
        trained: the pair trains in turns.
        detail: what went wrong.
    """

    pair: Pair
    shallow: bool
    contained: bool = False
    trained: bool = False
    detail: str = ""


def try_pair(pair: Pair, shallow: bool = False, device: str = "cpu", images: int = 2) -> Trial:
    """Build a pair with weights, compare its computation and train it in turns.

    Args:
        shallow: give the base one block and the motivated model two, if they are made by depth.
    """
    trial = Trial(pair, shallow)
    torch.manual_seed(0)
    try:
        base, motivated = _models(pair, shallow, device)
        fixed = [model for model in (base, motivated) if model.pretrained_cfg.get("fixed_input_size")]
        batch = torch.randn(images, *image_size((fixed or [base])[0]), device=device)
        found = compare(find_map(*pair, base, motivated), base, motivated, batch[:1])
        trial.contained, trial.detail = found.holds, found.first_difference or ""
        faults = {opt: trains_in_turns(base, motivated, pair, batch, opt) for opt in ("adamw", "lamb")}
        trial.trained = not any(faults.values())
        trial.detail += "".join(f" {opt}: {fault}" for opt, fault in faults.items() if fault)
    except Exception as error:  # noqa: BLE001  (any of a thousand models may raise anything; the table says which)
        trial.detail += f" {type(error).__name__}: {error}"
    trial.detail = " ".join(trial.detail.split())[:300]
    return trial


def _models(pair: Pair, shallow: bool, device: str) -> list[Any]:
    depths: list[dict[str, Any]] = [{"depth": 1}, {"depth": 2}] if shallow else [{}, {}]
    try:
        return [timm.create_model(name, **depth).to(device) for name, depth in zip(pair, depths, strict=True)]
    except TypeError:
        if not shallow:
            raise
        return _models(pair, False, device)  # it has no such argument


def trains_in_turns(base: nn.Module, motivated: nn.Module, pair: Pair, images: Tensor, opt: str) -> str | None:
    """Expand, update, extract and update, and return which invariant of a switch was broken, or None.

    The invariants: the base comes back bit for bit, the differential part is left alone, and no tensor is replaced.
    """
    weights_map = find_map(*pair, base, motivated)
    small, large = (
        Side(model.train(), create_optimizer_v2(model, opt=opt, lr=1e-4, weight_decay=0.05))
        for model in (base, motivated)
    )
    turns = MotivatedPair(small, large, weights_map, Never())
    pointers = [tensor.data_ptr() for model in (base, motivated) for tensor in model.state_dict().values()]

    def update(side: Side) -> None:
        _mean_square(side.model(images)).backward()
        side.optimizer.step()
        side.optimizer.zero_grad()

    update(small)
    before, before_large = _copied(small), _copied(large)
    turns.expand()
    grown = _copied(large)
    part = {name: torch.empty_like(tensor) for name, tensor in base.state_dict().items()}
    weights_map.extract(before_large, part)
    weights_map.expand(part, grown)
    if not _same({name: grown[name] for name in before_large}, before_large):
        return "expand changed the differential part"
    turns.extract()
    if not _same(before, _copied(small)):
        return "expand and extract changed the base"
    turns.expand()
    update(large)
    trained = _copied(large)
    turns.extract()
    if not _same(trained, _copied(large)):
        return "extract changed the motivated model"
    update(small)
    if pointers != [tensor.data_ptr() for model in (base, motivated) for tensor in model.state_dict().values()]:
        return "a tensor was replaced"
    return None


def _mean_square(output: Any) -> Tensor:
    """Return a loss for any output, a tensor or a nest of them."""
    if isinstance(output, Tensor):
        return output.float().square().mean()
    return torch.stack([_mean_square(one) for one in output]).mean()


def _copied(side: Side) -> dict[str, Tensor]:
    state = {name: tensor.clone() for name, tensor in side.model.state_dict().items()}
    for number, values in enumerate(side.optimizer.state.values()):
        state.update({f"{number}.{k}": v.clone() for k, v in values.items() if isinstance(v, Tensor)})
    return state


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


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
    _prepare_process()
    module, names, count, largest = job
    coverage = cover(module, names)
    return coverage, chosen_pairs(coverage, count, largest) if count != 0 else []


def _try(job: tuple[Pair, bool, str]) -> Trial:
    _prepare_process()
    trial = try_pair(*job)
    gc.collect()  # models with hooks are cycles
    return trial


def _prepare_process() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def table(found: Sequence[ModuleCoverage], trials: Iterable[Trial]) -> str:
    """Make the Markdown table, with a line for each module that has pairs."""
    by_pair = {trial.pair: trial for trial in trials}
    head = "timm module|models|pairs|plain nests|mapped|computed|found inside|trained|refused (pairs)"
    rows = [head.split("|")]
    for one in found:
        if one.pairs:
            tried = [by_pair[pair] for pair in one.mapped if pair in by_pair]
            counts = [one.models, len(one.pairs), len(one.plain), len(one.mapped), len(tried)]
            counts += [sum(trial.contained for trial in tried), sum(trial.trained for trial in tried)]
            rows.append([one.module, *map(str, counts), "; ".join(one.main_reasons()) or "-"])
    return markdown_table(rows)


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


def as_json(found: Sequence[ModuleCoverage], trials: Iterable[Trial]) -> dict[str, Any]:
    """Return every pair with its reasons, and all trials."""
    modules = {
        one.module: {**vars(one), "refused": {" < ".join(pair): faults for pair, faults in one.refused.items()}}
        for one in found
    }
    return {"timm": timm.__version__, "modules": modules, "trials": [vars(trial) for trial in trials]}


def make_parser() -> OptionParser:
    """Make the parser of the command's options."""
    parser = OptionParser(prog="python -m motivation map-coverage", description=__doc__)
    parser.add_argument("--modules", nargs="+", metavar="NAME", help="timm modules; default all")
    parser.add_argument("--compute", default="2", metavar="N", help="mapped pairs to compute per module, or all")
    parser.add_argument(
        "--largest", type=float, default=120e6, metavar="N", help="parameters of the largest to compute"
    )
    parser.add_argument("--device", default="cpu", help="where to compute")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every pair with its reasons here")
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
        results = sorted(pool.map(_cover, jobs, chunksize=1), key=lambda result: result[0].module)
        work = [(pair, shallow, device_of(args)) for _, chosen in results for pair, shallow in chosen]
        print(f"{len(work)} pairs to compute after {time.monotonic() - started:.0f} s", flush=True)
        for trial in pool.imap_unordered(_try, work, chunksize=1):
            trials.append(trial)
            if not (trial.contained and trial.trained):
                print(*trial.pair, "contained" if trial.contained else "NOT CONTAINED", trial.detail, flush=True)
    found = [coverage for coverage, _ in results]
    text = "\n".join([*summary(found, trials), "", table(found, trials)])
    print(text)
    if args.markdown:
        args.markdown.write_text(text + "\n")
    if args.json:
        args.json.write_text(json.dumps(as_json(found, trials), indent=1))
