"""Ranks that cannot start, or differ, end together, and each cause is said once on each console."""

import json
import platform
import socket

import pytest
import torch
from support.processes import finish, free_port, run_script, start
from support.program import DIGITS, ROOT

from motivation.build.ranks import is_lost_connection, restart_faults
from motivation.options.flags import FLAGS
from motivation.tools.train import main

HOST = platform.node()
FAILS_ON_RANK_1 = """
import os
from motivation import Condition, register_condition

@register_condition("fails_on_rank_1")
class Fails(Condition):
    motivated = property(lambda self: False)

    def observe(self, record):
        if os.environ["RANK"] == "1":
            raise KeyError("table")

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
"""
DECIDES_ALONE = """
import os
from motivation import Condition, register_condition

@register_condition("decides_alone")
class DecidesAlone(Condition):
    motivated = False

    def observe(self, record):
        self.motivated = record.step == 1 and os.environ["RANK"] == "1"
"""
NEEDS_OF_ITS_OWN = """
import os
from motivation import Condition, register_condition
from motivation.training.hooks import Hook, register_hook

@register_condition("needs_of_its_own")
class Needs(Condition):
    motivated = False
    needs = ("gradient_norm",) if os.environ["RANK"] == "1" else ()

    def observe(self, record):
        pass

if os.environ["RANK"] == "0":
    @register_hook("of_rank_0")
    class OfRank0(Hook):
        pass
"""
NODES = [{"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "0"}] * 2


SETS = {"whole": 8, "incomplete": 6, "renamed": 8}
"""Images of each class."""


def images(folder, number):
    """Class folders of black images."""
    from PIL import Image

    for split in ("train", "validation"):
        for name in "ab":
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                Image.new("L", (8, 8)).save(folder / split / name / f"{index}.png")
    return ["--dataset", "", "--data-dir", str(folder), "--num-classes", "2", "-b", "2", "-vb", "2"]


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """What two processes said, by the names of the cases: [(exit code, standard error) of rank 0, of rank 1]."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "fails.py").write_text(FAILS_ON_RANK_1)
    whole, incomplete, renamed = (images(folder / name, number) for name, number in SETS.items())
    for split in ("train", "validation"):
        (folder / "renamed" / split / "b").rename(folder / "renamed" / split / "c")
    (folder / "needs.py").write_text(NEEDS_OF_ITS_OWN)
    needs = ["--motivation-plugins", str(folder / "needs.py"), "--motivation-condition", "needs_of_its_own"]
    needs += ["--motivated-model", "resnet14_cifar"]
    (folder / "alone.py").write_text(DECIDES_ALONE)
    alone = ["--motivation-plugins", str(folder / "alone.py"), "--motivation-condition", "decides_alone"]
    alone += ["--motivated-model", "resnet14_cifar"]
    torch.save({"other": torch.zeros(1)}, folder / "other.pth")
    plugin = ["--motivation-plugins", str(folder / "fails.py"), "--motivation-condition", "fails_on_rank_1"]
    plugin += ["--motivated-model", "resnet14_cifar"]
    (folder / "locked").write_text("")
    (folder / "bug.py").write_text("import motivation.build.run as run\nrun.make_loaders = None\n")
    bug = ["--motivation-plugins", str(folder / "bug.py")]
    cases = {
        "batch": ([], ["-b", "200"]),
        "data": (whole, [*whole, "--data-dir", str(folder / "missing")]),
        "incomplete": (whole, incomplete),
        "renamed": (whole, renamed),
        "needs": (needs, needs),
        "all": (["--epochs", "0"], ["--epochs", "0"]),
        "words": ([], ["--no-such-flag"]),
        "folder": (["--output", str(folder / "locked"), "--resume", "auto"], ["--resume", "auto"]),
        "optimizer": (["--opt-kwargs", "foo=1"], ["--opt-kwargs", "foo=1"]),
        "weights": ([], ["--initial-checkpoint", str(folder / "other.pth")]),
        "plugin": (plugin, plugin),
        "alone": (alone, alone),
        "data on another node": (whole, [*whole, "--data-dir", str(folder / "missing")]),
        "optimizer of one": (
            [],
            ["--device-modules", "support.refuses_optimizers"],
        ),  # from here on changes stay in the process
        "bug": (bug, bug),
    }
    plan = []
    for name, flags in cases.items():
        common = [*DIGITS, "--output", str(folder / "out"), "--experiment", name.replace(" ", "_"), "--epochs", "1"]
        nodes = NODES if "node" in name else [{}, {}]
        plan.append({"port": free_port(), "environment": nodes, "flags": [[*common, *own] for own in flags]})
    (folder / "plan.json").write_text(json.dumps(plan))
    script, log = ROOT / "tests" / "support" / "ranks_worker.py", folder / "log"
    for process in [start(run_script, script, folder / "plan.json", rank, log=log) for rank in range(2)]:
        assert finish(process) == 0, log.read_text()[-4000:]
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    return {name: list(zip(*found))[index] for index, name in enumerate(cases)}


def lines(end, code):
    assert end[0] == code, end
    return [line for line in end[1].splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("batch", f"--batch-size must be the same on all ranks: 20 on rank 0 on {HOST}; 200 on rank 1 on {HOST}"),
        ("data", f"rank 1 on {HOST}: --data-dir: there is no folder"),
        ("incomplete", "the number of training images must be the same on all ranks: 16 on rank 0"),
        ("renamed", "the classes must be the same on all ranks: a, b (checksum "),
        ("needs", f"the signals that the condition needs must be the same on all ranks: nothing on rank 0 on {HOST}"),
        ("needs", f"the hooks of the plugins must be the same on all ranks: OfRank0 on rank 0 on {HOST}; nothing"),
        ("all", "--epochs: at least 1, not 0"),
        ("words", f"rank 1 on {HOST}: unknown: --no-such-flag"),
        ("weights", f"rank 1 on {HOST}: --initial-checkpoint"),
        ("folder", f"rank 0 on {HOST}: --output: "),
    ],
)
def test_what_cannot_start_is_said_once_and_ends_all_ranks(name, said, ends):
    first, second = (lines(end, 2) for end in ends[name])
    assert any(said in line for line in first), first
    assert second == []


def test_each_machine_of_torchrun_says_it_on_its_own_console(ends):
    for end in ends["data on another node"]:
        (line,) = lines(end, 2)
        assert f"rank 1 on {HOST}: --data-dir: there is no folder" in line


def test_what_is_found_only_later_is_said_by_one_of_the_ranks_that_found_it(ends):
    (line,) = [line for end in ends["optimizer"] for line in lines(end, 2)]
    assert "--opt" in line


def test_a_fault_of_one_rank_behind_the_last_comparison_leaves_no_rank_waiting(ends):
    first, second = ends["optimizer of one"]
    assert "another rank is gone" in first[1]
    assert first[0] == 1
    (line,) = lines(second, 2)
    assert line.startswith(f"error: rank 1 on {HOST}: --opt")


def test_a_plugin_that_fails_on_another_rank_is_said_there_and_the_other_rank_knows(ends):
    first, second = ends["plugin"]
    assert any("another rank is gone" in line for line in lines(first, 1))
    (line,) = lines(second, 1)
    assert line.startswith(f"error: rank 1 on {HOST}: ")
    assert "fails.py" in line
    assert "KeyError" in line


def test_ranks_that_decide_differently_end_by_the_name_of_the_condition(ends):
    (line,) = [line for end in ends["alone"] for line in lines(end, 1)]
    assert "the condition 'decides_alone' does not decide alike on all ranks" in line
    assert "on [1] of 2 ranks" in line


def test_a_bug_keeps_its_traceback_and_is_said_once(ends):
    said = "".join(end[1] for end in ends["bug"])
    assert said.count("Traceback") == 1
    assert "TypeError" in said
    assert [end[0] for end in ends["bug"]] == [1, 1]


def test_processes_that_cannot_meet_are_told_where(monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, str(value))
        assert main([*DIGITS]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"MASTER_ADDR:MASTER_PORT 127.0.0.1:{port}: the 2 processes cannot meet there: " in line


def test_restarts_on_several_machines_need_a_store_for_each(monkeypatch):
    for name, value in {"TORCHELASTIC_MAX_RESTARTS": "3", "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    (fault,) = restart_faults()
    assert str(fault).startswith("--max-restarts 3: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    assert restart_faults() == []
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    assert restart_faults() == []


@pytest.mark.parametrize(
    ("text", "is_lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4", True),
        ("NCCL error: ncclRemoteError: A call failed possibly due to a network error", True),
        ("NCCL error: ncclInvalidUsage ... Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000", False),
        ("[gloo] collective mismatch", False),
    ],
)
def test_only_a_closed_connection_counts_as_a_rank_that_is_gone(text, is_lost):
    assert is_lost_connection(torch.distributed.DistBackendError(text)) == is_lost


def test_paths_may_differ_between_ranks_and_what_decides_the_training_may_not():
    own = {name for name, flag in FLAGS.items() if flag.per_rank}
    assert {"data_dir", "output", "device", "workers"} <= own
    assert not {"batch_size", "seed", "lr", "validation_batch_size", "motivated_eval", "val_interval"} & own
