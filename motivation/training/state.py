"""The state of a run: what its checkpoints hold, and what a resumed run takes back.

Every part is one row of `RUN_PARTS` or `RANK_PARTS`. What remembers something has ``state_dict`` and
``load_state_dict``; a row gives it a name in the file. The base's weights and optimizer are under timm's keys
(`motivation.training.checkpoint`) and all parts under the key `OUR_KEY`, so that the file of the base alone resumes a
run. The file of the motivated model is for use: its weights and EMA under timm's keys, no optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import unwrap_model

from motivation.data.loaders import CheckedLoader
from motivation.errors import InputError
from motivation.method.pair import Position
from motivation.method.random_states import get_rng_state, rng_from_dict, rng_to_dict, set_rng_state
from motivation.method.records import Counts, Role
from motivation.method.switch import running_statistics
from motivation.training.checkpoint import OUR_KEY
from motivation.training.learner import Learner
from motivation.training.plugin_errors import PluginError, is_users
from motivation.training.records import EpochRecord
from motivation.training.run import Run
from motivation.training.saver import Saver

FORMAT = 3
"""Version of the entry `OUR_KEY`."""


@dataclass(frozen=True)
class Part:
    """One row: a part of the state and who it belongs to.

    Attributes:
        name: its key in the file; without ``get`` and ``load`` it is an attribute of the run too, an object with
            ``state_dict`` and ``load_state_dict``.
        get: returns the part, in plain values and tensors.
        load: restores it in a run that was just built.
    """

    name: str
    get: Callable[[Run], Any] | None = None
    load: Callable[[Run, Any], None] | None = None

    def state_in(self, run: Run) -> Any:
        """Return this part of a run's state."""
        return self.get(run) if self.get is not None else getattr(run, self.name).state_dict()

    def load_into(self, run: Run, state: Any) -> None:
        """Restore what `state_in` returned."""
        if self.load is not None:
            self.load(run, state)
        else:
            getattr(run, self.name).load_state_dict(state)


_SOME_METRICS = {"loss": 0.0, "top1": 0.0, "top5": 0.0}
A_RECORD = EpochRecord(0, 0.0, _SOME_METRICS, _SOME_METRICS, 0.0, Counts(), Counts(), 0.0).state_dict()
"""The kinds of values that the record of an epoch has."""


def _load_records(run: Run, states: list[dict[str, Any]]) -> None:
    for number, state in enumerate(states):
        _refuse_other_kinds(state, A_RECORD, f"record {number}")
    records = map(EpochRecord.from_state, states)
    run.records = [record for record in records if record.epoch < run.start_epoch]


def _load_savers(run: Run, states: dict[str, Any]) -> None:
    for role, saver in run.savers.items():
        if role.value in states:
            saver.load_state_dict(states[role.value])


def _load_stop(run: Run, reason: str | None) -> None:
    """Keep a run stopped that a hook has stopped."""
    if run.resumed_mid_epoch:
        run.hooks.stop_reason = reason
    elif run.start_epoch < run.epochs:
        run.stopped_by = reason


RUN_PARTS = (
    Part("pair", lambda run: run.pair.state_dict(with_base=False), lambda run, state: run.pair.load_state_dict(state)),
    Part("clock"),
    Part("records", lambda run: [record.state_dict() for record in run.records], _load_records),
    Part("guard"),
    Part("hooks"),
    Part("stopped_by", lambda run: run.hooks.stop_reason, _load_stop),
    Part("savers", lambda run: {role.value: saver.state_dict() for role, saver in run.savers.items()}, _load_savers),
)
"""Parts that are the same on all ranks, or exist on the primary rank only."""


def _statistics(run: Run) -> dict[str, dict[str, torch.Tensor]]:
    """Return the running statistics of training where the models of the file have others.

    Ranks have statistics of their own, and a model whose statistics are re-estimated is saved as it was evaluated.
    """
    found = {}
    for key, module in _modules(run).items() if run.world_size > 1 else ():
        buffers = dict(module.named_buffers())
        found[key] = {name: buffers[name].detach().cpu().clone() for name in running_statistics(module)}
    for key, statistics in run.evaluator.training_statistics.items():
        found[key] = {name: value.cpu() for name, value in statistics.items()}  # a rank has no device of another's
    return found


@torch.no_grad()
def _load_statistics(run: Run, state: dict[str, dict[str, torch.Tensor]]) -> None:
    modules = _modules(run)
    for key in modules.keys() & state.keys():
        buffers = dict(modules[key].named_buffers())
        for name, value in state[key].items():
            if value.shape != buffers[name].shape:
                raise ValueError(f"{name} is of the shape {list(value.shape)}, not {list(buffers[name].shape)}")
            buffers[name].copy_(value)


def _modules(run: Run) -> dict[str, torch.nn.Module]:
    """Return all models and their EMAs by the names of `Learner.eval_models`."""
    return {name: unwrap_model(model) for side in run.pair.sides for name, model in side.eval_models().items()}


def _workers_run(run: Run) -> list[bool]:
    return [loader.workers_run for loader in _validation_loaders(run)]


def _load_workers_run(run: Run, state: list[bool]) -> None:
    for loader, workers_run in zip(_validation_loaders(run), state, strict=False):
        loader.workers_run = workers_run and loader.num_workers > 0


def _validation_loaders(run: Run) -> list[CheckedLoader]:
    loader = run.evaluator.validator and run.evaluator.validator.loader
    return [one for one in (loader, getattr(loader, "loader", None)) if isinstance(one, CheckedLoader)]


def _generators(run: Run) -> dict[str, dict[str, torch.Tensor]]:
    return {learner.role.value: learner.generator_states() for learner in run.pair.sides}


def _load_generators(run: Run, state: dict[str, dict[str, torch.Tensor]]) -> None:
    for learner in run.pair.sides:
        learner.load_generator_states(state.get(learner.role.value, {}))


RANK_PARTS = (
    Part("statistics", _statistics, _load_statistics),
    Part(
        "feed",
        lambda run: run.feed.state_dict(run.pair.updates_done),
        lambda run, state: run.feed.load_state_dict(state, run.pair.updates_done),
    ),
    Part("validation_workers_run", _workers_run, _load_workers_run),
    Part("losses"),
    Part("generators", _generators, _load_generators),
    Part("rng", lambda _: rng_to_dict(get_rng_state()), lambda _, state: set_rng_state(rng_from_dict(state))),
)
"""Parts that each rank has of its own. The random states are loaded last: nothing may draw from them in between."""


def load_state(run: Run, state: dict[str, Any], rank: int) -> None:
    """Restore the parts that a state holds; what it lacks stays as it is.

    Args:
        run: just built, with the base's weights and optimizer loaded.
        state: in the layout of `get_state`.
        rank: of this process.

    Raises:
        InputError: a part is damaged.
    """
    for parts, states in ((RUN_PARTS, state), (RANK_PARTS, state["ranks"][rank])):
        for part in parts:
            if part.name in states:
                present = _own_state(run, part)
                with blaming_part(part.name):
                    _refuse_other_kinds(states[part.name], present, part.name)
                    part.load_into(run, states[part.name])


FILE_VALUES = (dict, list, tuple, str, int, float, torch.Tensor, type(None))
"""Types of the values that a checkpoint holds; its options may be of others."""


@contextmanager
def blaming_part(name: str) -> Iterator[None]:
    """Turn what the values of a damaged file raise when they are loaded into an `InputError` that names the part.

    An attribute that one of our own objects lacks is a bug, not a damage, and keeps its traceback.
    """
    try:
        yield
    except (InputError, PluginError):
        raise
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, AttributeError) and not (error.name and isinstance(error.obj, FILE_VALUES)):
            raise
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        why = " ".join(str(error).split())[:300]
        raise InputError(f"its part {name!r} is damaged or of another run: {kind}{why}") from error


def _own_state(run: Run, part: Part) -> Any:
    """Return a part of the run's state without that of hooks and of a user's condition, who may save what they like."""
    if part.name == "hooks":
        return {}
    state = part.state_in(run)
    return {**state, "condition": {}} if part.name == "pair" and is_users(run.pair.condition) else state


def _refuse_other_kinds(saved: Any, present: Any, place: str) -> None:
    """Refuse a saved value of another kind than the present one; entries that only one has are left to their part."""
    if saved is None or present is None:
        return
    kinds: tuple[Any, ...] = ((int, float), dict, (list, tuple), str, torch.Tensor)
    kind = next(kind for kind in kinds if isinstance(present, kind))
    if not isinstance(saved, kind):
        raise ValueError(f"{place} is a {type(saved).__name__}, not a {type(present).__name__}")
    if kind is dict:
        for name in saved.keys() & present.keys():
            _refuse_other_kinds(saved[name], present[name], f"{place}.{name}")
    if kind == (list, tuple):
        for number, (one, other) in enumerate(zip(saved, present, strict=False)):
            _refuse_other_kinds(one, other, f"{place}.{number}")


def read_state(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry `OUR_KEY` of a file in the current format; the given one may be changed.

    Checks what decides how the rest is restored. The parts are checked when they are loaded.

    Raises:
        InputError: it is damaged, or of another version of this program.
    """
    if not entry:
        return {}
    with blaming_part(OUR_KEY):
        state = upgrade_format_2(entry) if entry.get("format") == 2 else entry
        if state.get("format") != FORMAT:
            raise InputError(f"it is of another version of this program (format {state.get('format')}, not {FORMAT})")
        needed = {name: state[name] for name in ("updates_per_epoch", "ranks")}
        _refuse_other_kinds(needed, {"updates_per_epoch": 0, "ranks": []}, OUR_KEY)
        _refuse_other_kinds(
            Position(*state["pair"]["position"]), Position(0, 0, 0, is_between_epochs=False), "position"
        )
        _refuse_other_kinds(state["pair"]["condition"]["name"], "", "the name of the condition")
        for rank in state["ranks"]:
            _refuse_other_kinds(rank["statistics"], {}, "statistics")
        return state


def get_state(run: Run, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of a run, on the primary rank.

    Args:
        ranks: what `gather_rank_states` gave.
    """
    parts = {part.name: part.state_in(run) for part in RUN_PARTS}
    place = {"generation": run.generation, "updates_per_epoch": run.clock.updates_per_epoch}
    return {"format": FORMAT, **place, **parts, "ranks": ranks}


def gather_rank_states(run: Run) -> list[dict[str, Any]]:
    """Return the states of all ranks on the primary one; all ranks call it."""
    own = {part.name: part.state_in(run) for part in RANK_PARTS}
    if run.world_size == 1:
        return [own]
    gathered: list[Any] = [None] * run.world_size if dist.get_rank() == 0 else []
    dist.gather_object(own, gathered or None, dst=0)
    return gathered


def write_epoch_files(run: Run, record: EpochRecord) -> None:
    """Write the checkpoints of an epoch that was evaluated; all ranks call it.

    No file is removed before the new ones are there.
    """
    metrics = {role: record.metric(role, run.ranking) for role in Role}
    ranks = gather_rank_states(run)
    savers = _savers(run)
    for learner, saver in savers:
        saver.rank_epoch(record.epoch, metrics[learner.role])
    for learner, saver in savers:
        saver.write_last(_contents(run, learner, ranks), record.epoch, metrics[learner.role])
    for _, saver in savers:
        saver.update_links(record.epoch)


def write_recovery_files(run: Run) -> None:
    """Write checkpoints inside an epoch; all ranks call it."""
    ranks = gather_rank_states(run)
    for learner, saver in _savers(run):
        saver.write_recovery(_contents(run, learner, ranks), run.pair.epoch, run.pair.update - 1)


def _savers(run: Run) -> list[tuple[Learner, Saver]]:
    """Return the savers in the order of writing: the base's is the last, whose file resumes the run."""
    return [(learner, run.savers[learner.role]) for learner in run.pair.sides[::-1] if learner.role in run.savers]


def _contents(run: Run, learner: Learner, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    contents = learner.state_dict()
    del contents["pending_decay"]
    if learner.role is Role.MOTIVATED:
        del contents["optimizer"]
        return {**contents, OUR_KEY: {"format": FORMAT, "role": learner.role.value}}
    if learner.rule.scaler is not None:
        contents["amp_scaler"] = learner.rule.scaler.state_dict()
    return {**contents, OUR_KEY: get_state(run, ranks)}


def upgrade_format_2(state: dict[str, Any]) -> dict[str, Any]:
    """Return the entry `OUR_KEY` of a file of format 2 in the current format; the given one is changed."""
    pair = {"position": state["position"], "condition": state["condition"], **state["switcher"]}
    if "motivated" in pair:
        pair["base_pending_decay"] = pair.pop("base_idle_decay")
        pair["motivated"]["pending_decay"] = pair["motivated"].pop("idle_decay")
    ranks = state["ranks"]
    for rank in ranks:
        rank["rng"] = rank.pop("random")
        if rank["losses"] is None:
            del rank["losses"]
    return {
        **{key: state[key] for key in ("updates_per_epoch", "hooks", "savers")},
        "format": 3,
        "pair": pair,
        "clock": state["plateau"],
        "records": state["epochs"],
        "guard": {"count": state["nonfinite"]},
        "stopped_by": state.get("stopped_by"),
        "ranks": ranks,
    }
