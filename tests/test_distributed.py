"""Two processes on the CPU: ranks agree on the active model and end with equal weights."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import DIGITS, load

ROOT = Path(__file__).parent.parent
WORKER = Path(__file__).parent / "distributed_worker.py"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment():
    inherited = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def launch(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*processes):
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output[-4000:]
    return outputs


FLAGS = [*DIGITS, "-b", "60", "--dist-bn", "reduce"]
MOTIVATED = ["--motivated-model", "resnet14_cifar", "--motivation-k", "1"]

ALL_TOGETHER = [
    *MOTIVATED, "--motivation-bn", "separate", "--motivation-bn-recalibrate", "2", "--model-ema",
    "--grad-accum-steps", "2", "--opt", "lamb", "-b", "30",
]  # fmt: skip


def check_ranks(folder):
    """Equal weights, buffers and decisions on both ranks, though each saw other losses."""
    a, b = (torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in range(2))
    assert a["roles"] == b["roles"]
    assert a["losses"] == b["losses"]
    assert a["own_losses"] != b["own_losses"]
    for name in a["models"]:
        for key, value in a["models"][name].items():
            assert torch.equal(value, b["models"][name][key]), (name, key)
    return a


@pytest.mark.parametrize(
    "flags",
    [[], MOTIVATED, ALL_TOGETHER],
    ids=["plain", "motivated", "motivated_all_together"],
)
def test_two_processes(flags, tmp_path):
    argv = [*FLAGS, "--output", tmp_path, "--experiment", "run", *flags]
    finish(launch("--nproc_per_node=2", f"--master_port={free_port()}", WORKER, tmp_path, *argv))
    seen = check_ranks(tmp_path)
    assert ("motivated" in seen["roles"]) == bool(flags)
    with open(tmp_path / "run" / "updates.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == seen["losses"]
    assert load(tmp_path / "run" / "last.pth.tar")["epoch"] == 1


def test_evaluation_leaves_each_ranks_statistics_alone(tmp_path):
    """Without sharing them, ranks keep running statistics of their own, also after a forward pass for validation."""
    argv = [*FLAGS, "--dist-bn", "", "--no-ddp-bb", "--epochs", "1", "--output", tmp_path, "--experiment", "run"]
    finish(launch("--nproc_per_node=2", f"--master_port={free_port()}", WORKER, tmp_path, *argv))
    models = [torch.load(tmp_path / f"rank{rank}.pth", weights_only=True)["models"]["base"] for rank in range(2)]
    for key, value in models[0].items():
        own = "running" in key
        assert torch.equal(value, models[1][key]) != own, key


def test_a_resumed_run_of_two_processes_goes_on(tmp_path):
    argv = [*FLAGS, *MOTIVATED, "--output", tmp_path, "--experiment", "run"]
    port = f"--master_port={free_port()}"
    finish(launch("--nproc_per_node=2", port, WORKER, tmp_path, *argv, "--epochs", "1"))
    last = tmp_path / "run" / "last.pth.tar"
    finish(launch("--nproc_per_node=2", port, WORKER, tmp_path, *argv, "--epochs", "3", "--resume", last))
    check_ranks(tmp_path)
    with open(tmp_path / "run" / "summary.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]


def test_two_nodes_of_one_process(tmp_path):
    port = free_port()
    argv = [WORKER, tmp_path, *FLAGS, "--epochs", "1", "--output", tmp_path, "--experiment", "run", *MOTIVATED]
    nodes = [
        launch("--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1", "--master_addr=127.0.0.1",
               f"--master_port={port}", *argv)
        for rank in range(2)
    ]  # fmt: skip
    finish(*nodes)
    check_ranks(tmp_path)


def test_bad_input_is_said_once_by_all_ranks_together(tmp_path):
    process = launch(
        "--nproc_per_node=2", f"--master_port={free_port()}", ROOT / "train_motivated.py", *FLAGS, "--motivation-k", "0"
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert output.count("error: --motivation-k") == 1


def test_too_few_images_for_all_ranks_are_named(tmp_path):
    process = launch(
        "--nproc_per_node=2", f"--master_port={free_port()}", ROOT / "train_motivated.py", *FLAGS, "-b", "1000",
        "--output", tmp_path,
    )  # fmt: skip
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "has 1437 images for 2 processes" in output
