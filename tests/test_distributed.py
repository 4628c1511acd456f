"""Two processes on the CPU: ranks agree on the active model and end with equal weights."""

import csv
import itertools
import json

import pytest
import torch
from support.processes import finish, free_port, start, torchrun
from support.program import DIGITS, ROOT, assert_equal, load

WORKER = ROOT / "tests" / "support" / "distributed_worker.py"


FLAGS = [*DIGITS, "-b", "10", "--dist-bn", "reduce"]
MOTIVATED = ["--motivated-model", "resnet14_cifar", "--motivation-k", "1"]
ALL_TOGETHER = [
    *MOTIVATED, "--motivation-bn", "separate", "--motivation-bn-recalibrate", "2", "--model-ema",
    "--grad-accum-steps", "2", "--opt", "lamb", "-b", "5", "--clip-grad", "1", "-j", "1",
]  # fmt: skip
STOP_HOOK = """
from motivation.training.hooks import Hook, register_hook

@register_hook("stop_at_once")
class StopAtOnce(Hook):
    def update_end(self, record):
        self.request_stop("enough")
"""
RUNS = {
    "plain": [],
    "motivated": MOTIVATED,
    "all_together": ALL_TOGETHER,
    "not_shared": ["--dist-bn", "", "--no-ddp-bb", "--epochs", "1"],
    "first_part": [*MOTIVATED, "--model-ema", "--epochs", "1"],
    "later": [*MOTIVATED, "--model-ema", "--start-epoch", "1", "--epochs", "2"],
    "plain_ema": ["--model-ema", "--epochs", "1"],
    **{
        name: [*MOTIVATED, "--motivation-condition", name, "--grad-accum-steps", "2", "-b", "5", "--clip-grad", "0.1"]
        for name in ("ema", "valloss", "slope", "random")
    },
}


def planned(folder, runs):
    """A plan for the worker, and the runs' folders."""
    plan, folders = [], {}
    for name, flags in runs.items():
        folders[name] = folder / name
        folders[name].mkdir()
        plan.append([str(folders[name]), [*FLAGS, "--output", str(folders[name]), "--experiment", "run", *flags]])
    file = folder / "plan.json"
    file.write_text(json.dumps(plan))
    return file, folders


def launched(*script, log):
    """Run a script on two ranks of one machine; return torchrun's exit code and what was said."""
    words = ["--nproc_per_node=2", f"--master_port={free_port()}"]
    return finish(start(torchrun, *words, *script, log=log)), log.read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All runs of two processes, made by one torchrun: starting it takes time."""
    folder = tmp_path_factory.mktemp("distributed")
    resumed = [
        *MOTIVATED,
        "--model-ema",
        "--epochs",
        "3",
        "--resume",
        str(folder / "first_part" / "run" / "last.pth.tar"),
    ]
    (folder / "stop.py").write_text(STOP_HOOK)
    stopped = [*MOTIVATED, "--epochs", "5", "--val-interval", "9", "--motivation-plugins", str(folder / "stop.py")]
    scheduled = [*MOTIVATED, "--motivation-condition", "scheduled", "--epochs", "1"]
    scheduled += ["--motivation-scheduled-runs", str(folder / "first_part" / "run")]
    plain = str(folder / "plain_ema" / "run" / "last.pth.tar")
    from_plain = [*MOTIVATED, "--model-ema", "--epochs", "2", "--resume", plain]
    limited = [*resumed[:-1], "auto", "--limit-batches", "2"]
    later = {"resumed": resumed, "stopped": stopped, "scheduled": scheduled, "from_plain": from_plain}
    later["limited"] = limited
    plan, folders = planned(folder, {**RUNS, **later})
    code, said = launched(WORKER, plan, log=folder / "log")
    assert code == 0, said[-4000:]
    return folders


def check_ranks(folder):
    """Equal weights, buffers, signals and decisions on both ranks, though each saw other losses."""
    a, b = (torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in range(2))
    assert a["roles"] == b["roles"]
    assert a["signals"] == b["signals"]
    assert a["losses"] == b["losses"]
    assert a["local_losses"] != b["local_losses"]
    for name in a["models"]:
        for key, value in a["models"][name].items():
            assert torch.equal(value, b["models"][name][key]), (name, key)
    return a


@pytest.mark.parametrize("name", ["first_part", "later", "from_plain", "resumed"])
def test_both_averages_are_alike_on_all_ranks_however_a_run_begins(name, runs):
    """Though ranks make random weights of their own; the first update of all takes the average to the live weights."""
    seen = check_ranks(runs[name])
    assert {"base ema", "motivated ema"} <= seen["models"].keys()


@pytest.mark.parametrize("name", ["plain", "motivated", "all_together"])
def test_two_processes_agree_and_end_with_equal_weights(name, runs):
    folder = runs[name]
    seen = check_ranks(folder)
    assert ("motivated" in seen["roles"]) == (name != "plain")
    with open(folder / "run" / "updates.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == seen["losses"]
    assert load(folder / "run" / "last.pth.tar")["epoch"] == 1


@pytest.mark.parametrize(
    ("name", "signal"),
    [
        ("ema", "loss"),
        ("valloss", "validation_loss"),
        ("slope", "gradient_norm"),
        ("random", "loss"),
        ("scheduled", "loss"),
    ],
)
def test_every_condition_decides_alike_on_all_ranks(name, signal, runs):
    seen = check_ranks(runs[name])
    assert set(seen["roles"]) == {"base", "motivated"}
    assert all(signal in signals for signals in seen["signals"])


@pytest.mark.parametrize(("name", "expected"), [("plain", 1), ("motivated", 1), ("slope", 1), ("valloss", 2)])
def test_an_update_sends_one_message_for_loss_signal_and_votes(name, expected, runs):
    counts = check_ranks(runs[name])["messages"]
    sent = [after - before for (_, before), (update, after) in itertools.pairwise(counts) if update]
    assert set(sent) == {expected}, "the held-out loss is a second one"


def test_no_rank_reads_from_its_device_before_the_decision(runs):
    """With EMA, LAMB, clipping, accumulation and data workers; without workers images are made in between."""
    assert check_ranks(runs["all_together"])["reads"] == []


def test_the_first_rank_alone_counts_flops(runs):
    folder = runs["motivated"]
    seen = [torch.load(folder / f"rank{rank}.pth", weights_only=True)["counts_flops"] for rank in range(2)]
    assert seen == [True, False]
    assert json.loads((folder / "run" / "result.json").read_text())["average_flops"] > 0


def test_a_stop_that_the_first_rank_asks_for_ends_all_ranks(runs):
    seen = check_ranks(runs["stopped"])
    assert len(seen["losses"]) == 6  # the whole first epoch of five
    result = json.loads((runs["stopped"] / "run" / "result.json").read_text())
    assert seen["stopped_by"] == result["stopped_by"] == "enough"
    assert load(runs["stopped"] / "run" / "last.pth.tar")["epoch"] == 0  # though no evaluation was due


def test_evaluation_leaves_each_ranks_statistics_alone(runs):
    """Without sharing them, ranks keep running statistics of their own, also after a forward pass for validation."""
    models = [torch.load(runs["not_shared"] / f"rank{r}.pth", weights_only=True)["models"]["base"] for r in range(2)]
    for key, value in models[0].items():
        own = "running" in key
        assert torch.equal(value, models[1][key]) != own, key


def test_a_resumed_run_of_two_processes_goes_on(runs):
    with open(runs["resumed"] / "run" / "summary.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_a_try_on_two_processes_trains_both_models_and_leaves_no_files(runs):
    ranks = [torch.load(runs["limited"] / f"rank{rank}.pth", weights_only=True)["models"] for rank in range(2)]
    assert ranks[0].keys() == {"base", "base ema", "motivated", "motivated ema"}
    assert_equal(*ranks)
    assert not (runs["limited"] / "run").exists()


def test_two_nodes_of_one_process(tmp_path):
    plan, folders = planned(tmp_path, {"nodes": [*MOTIVATED, "--epochs", "1"]})
    words = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    log = tmp_path / "log"
    nodes = [start(torchrun, *words, f"--node_rank={rank}", WORKER, plan, log=log) for rank in range(2)]
    assert [finish(node) for node in nodes] == [0, 0], log.read_text()[-4000:]
    check_ranks(folders["nodes"])


def test_bad_input_is_said_once_by_all_ranks_together(tmp_path):
    words = [*FLAGS, "-b", "1000", "--resume", tmp_path / "nothing", "--output", tmp_path]
    code, output = launched(ROOT / "train_motivated.py", *words, log=tmp_path / "log")
    assert code != 0
    assert output.count("error: --resume") == 1
    assert "has 1437 images for 2 processes" in output
