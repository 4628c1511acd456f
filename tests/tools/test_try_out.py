"""``--limit-batches``: all that a run does is done with a few batches, faults show at once, and no files are left."""

import re
from types import SimpleNamespace

import pytest
import torch
import yaml
from support.program import FINETUNE_DIGITS, MOTIVATED

from motivation.errors import InputError
from motivation.method.records import Role
from motivation.tools import finetune, try_out
from motivation.tools.sweep import split_words
from motivation.tools.train import main
from motivation.training.run_folder import find_runs

pytestmark = pytest.mark.usefixtures("forgotten_plugins")


@pytest.fixture
def tried(train, tmp_path, capsys):
    """The lines of the summary of a try with these flags, by their first words."""

    def summary(*flags, name="run"):
        before = contents(tmp_path)
        train(*flags, name=name)
        assert contents(tmp_path) == before
        said = capsys.readouterr().out
        assert "and nothing has failed:" in said
        return dict(re.findall(r"^(\w+) {2,}(.*)$", said, re.MULTILINE))

    return summary


def contents(folder):
    return {path: path.is_file() and (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*")}


ONCE = "1 switch to the motivated model and as many back"
TWICE = "2 switches to the motivated model and as many back"
BOTH = "base and motivated, on 2 batches"


@pytest.mark.parametrize(
    ("batches", "flags", "trained", "evaluated"),
    [
        (4, MOTIVATED, f"base 4 updates, motivated 4 updates, {TWICE}", BOTH),
        (99, MOTIVATED, f"base 4 updates, motivated 6 updates, {TWICE}", BOTH),
        (1, [*MOTIVATED, "--grad-accum-steps", "3", "--epochs", "1"],
         f"base 1 update, motivated 1 update, {ONCE}", "base and motivated, on 1 batch"),
        (2, [*MOTIVATED, "--motivation-condition", "always"], f"motivated 4 updates, {TWICE}", BOTH),
        (2, [*MOTIVATED, "--motivation-condition", "never"], "base 4 updates", BOTH),
        (1, ["--data-on-device"], "base 2 updates", "base, on 1 batch"),
        (1, ["--val-split="], "base 2 updates", "nothing: there are no validation data"),
    ],
    ids=["some", "all", "accumulated", "always", "never", "plain_on_device", "no_validation"],
)  # fmt: skip
def test_both_models_and_both_switches_are_tried_whatever_the_condition_says(batches, flags, trained, evaluated, tried):
    summary = tried(*flags, "--limit-batches", batches)
    assert summary["trained"] == trained
    assert summary["evaluated"] == evaluated
    assert summary["checkpoint"].endswith("loaded again with equal weights and optimizer, and trained on")


def test_data_workers_averages_and_reestimated_statistics_are_tried_too(tried):
    flags = ("-j", "1", "--model-ema", "--motivation-bn-recalibrate", "50", "--opt", "lookahead_adamw", "--lr", "1e-3")
    summary = tried(*MOTIVATED, *flags, "--limit-batches", "3", "--log-tensorboard", "--log-wandb")
    assert re.fullmatch(r"of an update: base [\d.e-]+ s, motivated [\d.e-]+ s \(.*\)", summary["time"])
    assert re.fullmatch(r"at most: base [\d.]+ GB, motivated [\d.]+ GB \(resident .*\)", summary["memory"])


def test_a_real_run_is_tried_from_its_checkpoint_and_stays_as_it_is(train, tried, tmp_path, capsys):
    folder = train(*MOTIVATED, "--recovery-interval", "4")
    longer = (*MOTIVATED, "--epochs", "4", "--resume")
    assert tried(*longer, "auto", "--limit-batches", "3")["trained"].startswith("base 4 updates, motivated 2")
    rest = tried(*longer, folder / "recovery-1-3.pth.tar", "--limit-batches", "3")  # one update is left of that epoch
    assert rest["trained"].startswith("base 2 updates, motivated 2")
    train(*MOTIVATED, "--resume", "auto", "--limit-batches", "3", code=2)
    assert "--limit-batches: nothing is left to train: epoch 2 would be the next of 2" in capsys.readouterr().err
    argv = [*FINETUNE_DIGITS, "--checkpoint", str(folder), "--output", str(tmp_path), "--limit-batches", "2"]
    assert main(argv, parse=finetune.parse) == 0
    assert "base 4 updates" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


PLUGIN = """
from motivation import Condition, Hook, register_condition, register_hook

@register_condition("rare")
class Rare(Condition):
    motivated = False

    def observe(self, record):
        {observe}

@register_hook("keeps")
class Keeps(Hook):
    def __init__(self):
        self._file = open(__file__)

    def update_end(self, record):
        self._file.read()

    def run_end(self):
        self._file.close()

    def state_dict(self):
        return {{"step": 1}}

    def load_state_dict(self, state):
        {load}
"""


@pytest.mark.parametrize(
    ("observe", "load", "error"),
    [
        ("1 / (record.role.value == 'base')", "pass", "Rare.observe failed: ZeroDivisionError"),
        ("pass", "state['steps']", "Keeps.load_state_dict failed: KeyError"),
        ("pass", "pass", None),
    ],
)
def test_faults_of_plugins_that_a_run_would_show_late_show_at_once(observe, load, error, train, tmp_path, capsys):
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.format(observe=observe, load=load))
    flags = ("--motivation-plugins", plugin, "--motivation-condition", "rare", "--limit-batches", "3")
    train(*MOTIVATED, *flags, code=1 if error else 0)
    assert (error or "") in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_does_not_bring_everything_back_is_a_fault(train, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(try_out, "load_ema", lambda *_: None)
    train("--model-ema", "--limit-batches", "1", code=1)
    assert re.search("base.state_dict_ema.* is not what was saved", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_losses_that_are_not_finite_are_a_fault(train, capsys, tmp_path):
    train("--lr", "1e30", "--limit-batches", "3", code=3)
    assert "no checkpoint was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_interrupted_try_leaves_no_files(train, tmp_path):
    plugin = tmp_path / "interrupts.py"
    plugin.write_text(
        "import os, signal\nfrom motivation import Hook, register_hook\n\n@register_hook('interrupts')\n"
        "class Interrupts(Hook):\n    def update_end(self, record):\n        os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    train("--motivation-plugins", plugin, "--limit-batches", "3", code=143)
    assert list(tmp_path.iterdir()) == [plugin]


@pytest.mark.parametrize("number", ["0", "-3", "x"])
def test_a_number_of_batches_is_at_least_one(number, train, capsys):
    train("--limit-batches", number, code=2)
    assert capsys.readouterr().err.count("error: --limit-batches:") == 1


def test_what_a_killed_try_has_left_is_no_run(tmp_path):
    (tmp_path / "args.yaml").write_text(yaml.safe_dump({"model": "resnet8_cifar", "limit_batches": 3}))
    with pytest.raises(InputError, match="--limit-batches was killed there"):
        find_runs([tmp_path])


@pytest.mark.parametrize("words", [["--limit-batches", "2"], ["--limit-batches=2"]])
def test_a_sweep_is_not_made_of_tries(words):
    with pytest.raises(InputError, match="leaves no run to report on"):
        split_words(["table1", "--", *words])


def test_memory_of_a_device_is_the_peak_of_each_models_own_updates(monkeypatch):
    in_use = []
    module = SimpleNamespace(
        synchronize=lambda: None,
        reset_peak_memory_stats=lambda device: in_use.clear(),
        max_memory_allocated=lambda device: max(in_use),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    costs = try_out.UpdateCosts(torch.device("cuda"))
    for _ in range(2):
        in_use.append(9)  # of the evaluation before
        costs.epoch_start(0)
        for role, memory in ((Role.BASE, 2), (Role.BASE, 3), (Role.MOTIVATED, 5), (Role.BASE, 1)):
            in_use.append(memory)
            costs.update_end(SimpleNamespace(role=role))
    assert costs.is_of_device
    assert costs.peak_bytes == {Role.BASE: 3, Role.MOTIVATED: 5}
    assert costs.stretches == 2
