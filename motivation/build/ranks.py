"""Let the ranks of a run meet, refuse those that differ before one waits for another, and say each failure once.

All of it goes through the store at which torch's processes meet, so that nothing here needs a device or can be out of
step with the collectives of the training.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import timm
import torch
import torch.distributed as dist
from timm.utils import is_distributed_env, world_info_from_env
from torch.distributed.elastic.utils.store import synchronize
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

from motivation import __version__
from motivation.errors import InputError, print_errors
from motivation.options.derived import device_of
from motivation.options.faults import Fault, StartupError, one_line
from motivation.options.file_checks import RESUME_NEWEST
from motivation.options.flags import FLAGS

_logger = logging.getLogger("train")

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for others, torch's own default: they may be reading a large data set."""


class KnownToAllError(StartupError):
    """Faults that every rank knows of, with the ranks that have them."""


class Ranks:
    """Processes of a run, each of which has one of these; nothing waits in a run of one process.

    Attributes:
        rank, world_size: of this process, as its launcher says.
    """

    def __init__(self) -> None:
        self._launcher_fault = _launcher_fault()
        is_alone = self._launcher_fault is not None or not is_distributed_env()
        self.rank: int = 0
        self.world_size: int = 1
        if not is_alone:
            _, self.rank, self.world_size = world_info_from_env()
        self._store: dist.Store | None = None
        self._stages_done = 0
        self._compares_again = True

    def require_launcher(self) -> None:
        """Refuse to wait for other processes where nothing has started any.

        Raises:
            StartupError: a variable announces them, as in a shell on a SLURM node, but no launcher says how to meet.
        """
        if self._launcher_fault is not None:
            raise StartupError([self._launcher_fault])

    @property
    def speaks(self) -> bool:
        """True on the process that says what all know: the first, and with torchrun the first of each machine."""
        if "TORCHELASTIC_RUN_ID" in os.environ:  # each machine has a console of its own
            return os.environ["LOCAL_RANK"] == "0"
        return self.rank == 0

    @property
    def store(self) -> dist.Store:
        """The store at which all ranks meet; waits for them the first time.

        Raises:
            StartupError: they do not come, or there is no way to them.
        """
        if self._store is None:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            if self.rank == 0:
                _logger.info(f"Waiting for {self.world_size} processes at {place}.")
            address = f"env://?rank={self.rank}&world_size={self.world_size}"
            try:
                self._store, _, _ = next(rendezvous(address, timeout=PATIENCE))
            except (dist.DistError, ValueError) as error:  # the latter for a port that cannot be one
                self._compares_again = False
                text = f"the {self.world_size} processes cannot meet there: {one_line(error)}"
                raise StartupError([Fault(f"MASTER_ADDR:MASTER_PORT {place}", text)]) from error
            if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
                # the store outlives a restart, and with it the addresses of processes that are gone
                attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
                self._store = dist.PrefixStore(f"attempt {attempt}", self._store)
        return self._store

    def address(self) -> str | None:
        """Return the address at which torch's process group finds the same store; None in a run of one process."""
        if self.world_size == 1:
            return None
        store = self.store

        def meet(url: str, **options: Any) -> Iterator[tuple[Any, int, int]]:
            yield store, self.rank, self.world_size

        scheme = f"motivation{id(self)}"
        with suppress(RuntimeError):  # registered already, by an earlier run of these ranks
            register_rendezvous_handler(scheme, meet)
        return f"{scheme}://"

    # --- before the training

    def compare(
        self, facts: Mapping[str, Any], faults: Iterable[Fault | str] = (), message: Any = None, is_last: bool = False
    ) -> Any:
        """Compare facts with those of the other ranks, for which it waits; return the first rank's message.

        Args:
            facts: numbers and texts by their names, which must be equal on all ranks.
            faults: why this rank cannot go on.
            message: what the first rank tells the others.
            is_last: True if the ranks do not compare again before they train.

        Raises:
            StartupError: this rank has faults; `KnownToAllError` if another has some or facts differ.
        """
        faults = list(faults)
        if self.world_size == 1:
            if faults:
                raise StartupError(faults)
            return message
        own = {"host": platform.node(), "facts": facts, "faults": list(map(str, faults)), "message": message}
        stage = f"stage {self._stages_done}: "
        self._stages_done += 1
        self._compares_again = not is_last
        words = synchronize(
            self.store, json.dumps(own).encode(), self.rank, self.world_size, stage, PATIENCE.total_seconds()
        )
        ranks = [json.loads(word) for word in words]
        if lines := _faults_of(ranks) or _differences(ranks):
            raise KnownToAllError(lines)
        return ranks[0]["message"]

    def tell(self, error: Exception | str, more: str = "") -> None:
        """Say why this rank ends: each cause once, whichever ranks have it.

        As long as ranks compare again, the others are told too, for they wait for this one.

        Args:
            error: an error or its text.
            more: what follows it, and is not known to all ranks.
        """
        faults = error.faults if isinstance(error, InputError) else [str(error)]
        if self.world_size == 1:
            print_errors(*faults[:-1], "; ".join(filter(None, [str(faults[-1]), more])))
            return
        is_known = isinstance(error, KnownToAllError)
        if not is_known and self._compares_again:
            try:
                self.compare({}, faults)
            except KnownToAllError as known:
                faults, is_known = known.faults, True
        if is_known:
            own = faults if self.speaks else []
        else:
            own = [f"{self._name}: {fault}" for fault in faults if self._is_first_to_say(str(fault))]
        print_errors(*own, *([f"{self._name}: {more}"] if more else []))

    @property
    def _name(self) -> str:
        return f"rank {self.rank} on {platform.node()}"

    def _is_first_to_say(self, text: str) -> bool:
        if self._store is None:
            return True
        try:
            return self._store.add(f"said: {hashlib.sha256(text.encode()).hexdigest()}", 1) == 1
        except RuntimeError:  # the store went with the process that had it
            return True


LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")
"""Words of gloo and NCCL for the end of another process; neither has an error class for it."""


def is_lost_connection(error: Exception) -> bool:
    """Return True if a rank cannot reach another any more: the cause is there, and is said there."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in LOST_CONNECTION)


def _launcher_fault() -> Fault | None:
    """Return why the processes that the environment announces cannot meet; None if they can, or there is only one."""
    announced = "WORLD_SIZE" if "WORLD_SIZE" in os.environ else "SLURM_NTASKS"
    if fault := _unreadable(announced):
        return fault
    if not is_distributed_env():
        return None
    count = f"{announced}={os.environ[announced]}"
    needed = ["MASTER_ADDR", "MASTER_PORT"] + ["RANK"] * ("SLURM_PROCID" not in os.environ)
    if missing := [name for name in needed if name not in os.environ]:
        text = (
            f"several processes are announced, but without {', '.join(missing)}: start them with torchrun or srun, or "
            f"unset {announced} to train in this one"
        )
        return Fault(count, text)
    if fault := _unreadable("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        return fault
    _, rank, world_size = world_info_from_env()
    return None if rank < world_size else Fault(count, f"no process of these has the rank {rank}: they count from 0")


def _unreadable(*names: str) -> Fault | None:
    for name in names:
        if not os.environ.get(name, "0").isdecimal():
            return Fault(f"{name}={os.environ[name]}", "must be a whole number, as torchrun and srun set it")
    return None


UNSHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Switches off that all restarts of torchrun on several machines share one store, in which the dead stay listed."""


def restart_faults() -> list[Fault]:
    """Return why torchrun could not restart the processes on several machines, which is better said at the start."""
    restarts, nodes = (int(os.environ.get(name, 0)) for name in ("TORCHELASTIC_MAX_RESTARTS", "GROUP_WORLD_SIZE"))
    if not restarts or nodes < 2 or os.environ.get(UNSHARED_STORE) == "1":
        return []
    text = (
        f"set {UNSHARED_STORE}=1 for torchrun on all machines; without it a restarted process waits for some that are "
        "gone"
    )
    return [Fault("--max-restarts", text, str(restarts))]


# --- what is compared


def facts_of_options(args: Namespace) -> dict[str, Any]:
    """Return the options that all ranks must have alike, and the versions of the packages that decide."""
    options = {flag.option: getattr(args, flag.dest) for flag in FLAGS.values() if not flag.per_rank}
    options["--device"] = device_of(args).partition(":")[0]
    options["--resume"] = args.resume if args.resume in ("", RESUME_NEWEST) else "a file"
    versions = {"motivation": __version__, "torch": torch.__version__, "timm": timm.__version__}
    return options | {f"the version of {name}": version for name, version in versions.items()}


def _faults_of(ranks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the faults of all ranks, each once, with the ranks that have it unless all have."""
    having: dict[str, list[int]] = {}
    for index, rank in enumerate(ranks):
        for fault in dict.fromkeys(rank["faults"]):
            having.setdefault(fault, []).append(index)
    return [
        fault if len(indices) == len(ranks) else f"{_named(indices, ranks)}: {fault}"
        for fault, indices in having.items()
    ]


def _differences(ranks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each fact that is not the same on all ranks."""
    lines = []
    for name in dict.fromkeys(name for rank in ranks for name in rank["facts"]):
        having: dict[str, list[int]] = {}
        for index, rank in enumerate(ranks):
            having.setdefault(str(rank["facts"].get(name)) or "nothing", []).append(index)
        if len(having) > 1:
            values = "; ".join(f"{value} on {_named(indices, ranks)}" for value, indices in having.items())
            lines.append(f"{name} must be the same on all ranks: {values}")
    return lines


def _named(indices: Sequence[int], ranks: Sequence[Mapping[str, Any]]) -> str:
    hosts = ", ".join(dict.fromkeys(ranks[index]["host"] for index in indices))
    return f"rank{'s' * (len(indices) > 1)} {', '.join(map(str, indices))} on {hosts}"
