"""Runs that are killed, told to stop, or hit by what nobody can foresee lose nothing."""

import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from support.processes import finish, on_few_digits, run_module, run_script, run_unheard, start, torchrun
from support.program import DIGITS, MOTIVATED, ROOT, assert_same_run, load, rows
from timm.data import ImageDataset

from motivation.tools.train import main
from motivation.training.signals import Interrupt


def test_a_run_killed_anywhere_and_resumed_is_the_run_that_nobody_killed(tmp_path):
    words, log = ["--kills", 7, "--epochs", 2, "--checkpoint-hist", 1], tmp_path / "log"  # each scenario is killed once
    code = finish(start(run_script, ROOT / "tests" / "kill_runs.py", *words, log=log), timeout=900)
    summary = json.loads(log.read_text().splitlines()[-1])
    assert summary["mismatches"] == []
    assert summary["kills"] == 7
    assert summary["stops"] >= 1
    assert len(summary["points"]) >= 7
    assert code == 0


STOPS = """
import os, signal
from motivation.training.hooks import Hook, register_hook

@register_hook("stops_{name}")
class StopsItself(Hook):
    def __init__(self, number=int(signal.SIGTERM), times=1):
        self._number, self._times = number, times

    def update_end(self, record):
        if record.step == 7:
            for _ in range(self._times):
                os.kill(os.getpid(), self._number)
"""


def stopping(tmp_path, number, times=1):
    (tmp_path / "stops.py").write_text(STOPS.replace("{name}", f"{number}_{times}"))
    kwargs = ["--motivation-plugin-kwargs", f"number={int(number)}", f"times={times}"]
    return ["--motivation-plugins", str(tmp_path / "stops.py"), *kwargs]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a motivated run that nobody has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert main([*DIGITS, *MOTIVATED, "--recovery-interval", "2", "--output", str(folder), "--experiment", "run"]) == 0
    return folder / "run"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_and_stops_after_the_update(number, whole, train, tmp_path, caplog):
    before = signal.signal(number, signal.default_int_handler)  # a suite in the background ignores some
    run = train(*MOTIVATED, *stopping(tmp_path, number), code=128 + number)
    assert signal.signal(number, before) is signal.default_int_handler
    assert len(rows(run / "updates.csv")) == 7
    assert load(run / "recovery-1-1.pth.tar")["motivation"]["pair"]["position"][:3] == [1, 2, 7]
    assert not json.loads((run / "result.json").read_text())["completed"]
    assert f"Stopped by {signal.Signals(number).name}; the last good checkpoint is {run}/recovery-1-1" in caplog.text
    assert_same_run(whole, train(*MOTIVATED, "--resume", "auto"))


def test_a_signal_that_comes_while_a_stream_is_written_is_kept():
    class Busy:
        def write(self, text):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

        flush = close = lambda self: None

    handler = logging.StreamHandler(Busy())
    logging.getLogger("train").addHandler(handler)
    stderr, sys.stderr = sys.stderr, Busy()
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.requested == signal.SIGTERM
    finally:
        sys.stderr = stderr
        logging.getLogger("train").removeHandler(handler)


def test_a_schedulers_second_signal_leaves_the_run_its_time_to_save(monkeypatch):
    ended = []
    monkeypatch.setattr("motivation.training.signals.os._exit", ended.append)
    with Interrupt() as interrupt:
        for number in (signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert (interrupt.requested, ended) == (signal.SIGUSR1, [])
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [130]


def test_a_hangup_that_nohup_has_switched_off_stays_so(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.requested == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_under_torchrun_the_same_signal_again_is_the_first_passed_on(number, monkeypatch):
    ended = []
    monkeypatch.setattr("motivation.training.signals.os._exit", ended.append)
    with Interrupt() as interrupt:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        for _ in range(2):
            os.kill(os.getpid(), number)
        assert (interrupt.requested, ended) == (number, [])
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [130]


@pytest.mark.parametrize("event", ["update_end", "epoch_end"])
def test_a_run_that_a_hook_has_stopped_stays_so_when_it_is_resumed(event, train, tmp_path):
    (tmp_path / "stop.py").write_text(
        "from motivation.training.hooks import Hook, register_hook\n"
        f"@register_hook('stop_in_{event}')\n"
        "class Stop(Hook):\n"
        f"    def {event}(self, record):\n"
        "        if record.epoch == 1 and getattr(record, 'update', 1) == 1:\n"
        "            self.request_stop('enough')\n"
    )
    flags = [*MOTIVATED, "--epochs", "4", "--recovery-interval", "2", "--motivation-plugins", str(tmp_path / "stop.py")]
    run = train(*flags)
    whole = shutil.copytree(run, tmp_path / "whole")
    result = (whole / "result.json").read_text()
    assert json.loads(result)["stopped_by"] == "enough"
    assert_same_run(whole, train(*flags, "--resume", "auto"))
    assert (run / "result.json").read_text() == result
    if event == "update_end":  # the checkpoint after the update that was stopped at, none after the epoch
        assert_same_run(whole, train(*flags, "--resume", run / "recovery-1-1.pth.tar"))
        assert (run / "result.json").read_text() == result


@pytest.mark.parametrize("flag", [("--start-epoch", "1"), ("--no-resume-opt",)])
def test_resume_auto_with_what_would_not_be_the_same_run_is_refused(flag, train, capsys):
    train("--resume", "auto", *flag, code=2)
    assert f"error: {flag[0]}: not with --resume auto" in capsys.readouterr().err


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    flags = [*DIGITS, "--output", str(tmp_path), "--experiment", "run", *stopping(tmp_path, signal.SIGTERM, 2)]
    log = tmp_path / "log"
    assert finish(start(on_few_digits, run_script, ROOT / "train_motivated.py", *flags, log=log)) == 143
    assert "SIGTERM again: stopped at once." in log.read_text()
    assert not list(tmp_path.glob("run/recovery*"))


def test_resume_auto_passes_over_what_is_damaged(whole, train, tmp_path, caplog):
    run = shutil.copytree(whole, tmp_path / "run")
    for name in ("last.pth.tar", "checkpoint-1.pth.tar"):
        os.truncate(run / name, 5000)
    assert_same_run(whole, train(*MOTIVATED, "--recovery-interval", "2", "--resume", "auto"))
    assert f"Passed over: {run}/last.pth.tar is damaged" in caplog.text
    assert f"Resumed from {run}/recovery-1-3.pth.tar" in caplog.text


def test_resume_auto_begins_where_there_is_nothing(train, caplog, capsys):
    run = train("--epochs", "1", "--resume", "auto")
    assert "No checkpoint in" in caplog.text
    assert len(rows(run / "summary.csv")) == 1
    assert main([*DIGITS, "--resume", "auto"]) == 2
    assert "--resume auto: give --experiment" in capsys.readouterr().err


def test_resume_auto_does_not_begin_anew_over_checkpoints_that_are_all_damaged(train, capsys):
    run = train("--epochs", "1")
    for path in run.glob("*.pth.tar"):
        os.truncate(path, 5000)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    train("--epochs", "1", "--resume", "auto", code=2)
    assert "--resume auto: none of the 2 checkpoints in" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["updates.csv", "summary.csv", "result.json"])
def test_a_disk_that_is_full_for_a_log_is_one_line(name, train, monkeypatch, capsys):
    opened, written = open, Path.write_text

    def full(path, mode="r", *args, **kwargs):
        if str(path).endswith(f"run/{name}") and "a" in mode:
            raise OSError(28, "No space left on device")
        return opened(path, mode, *args, **kwargs)

    def write_text(self, text, **options):
        if name in self.name:
            raise OSError(28, "No space left on device")
        return written(self, text, **options)

    monkeypatch.setattr("builtins.open", full)
    monkeypatch.setattr(Path, "write_text", write_text)
    train("--epochs", "1", code=1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"run/{name} cannot be written: No space left on device" in line


def test_losses_that_are_not_finite_end_the_run_and_overwrite_nothing(train, capsys, caplog):
    run = train("--epochs", "1")
    kept = {path.name: path.read_bytes() for path in run.glob("*.pth.tar")}
    flags = ["--lr", "1e30", "--no-resume-opt", "--resume", str(run / "last.pth.tar"), "--recovery-interval", "1"]
    train(*flags, "--epochs", "6", "--max-nonfinite", "7", code=3)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "7 losses in a row were not finite (--max-nonfinite 7)" in line
    assert "the last good checkpoint is" in line
    unsaved = "No checkpoint is written: the loss of update 4 of epoch 1 was not finite"
    assert caplog.text.count(unsaved) == 2  # the recovery file, and the epoch's
    assert caplog.text.count("in a row, at most 7") == 7
    assert {name: (run / name).read_bytes() for name in kept} == kept


def test_a_run_that_ends_on_a_loss_that_is_not_finite_fails(train, capsys):
    train("--lr", "1e30", "--epochs", "1", code=3)
    assert "the last 4 losses of the run were not finite" in capsys.readouterr().err


@pytest.mark.parametrize("raises", ["condition", "hook"])
def test_a_plugin_that_raises_in_mid_run_is_one_line(raises, train, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from motivation.training.hooks import Hook, register_hook\n"
        "from motivation import register_condition\nfrom motivation.method.conditions import FallingLoss as Base\n"
        f"@register_condition('{raises}s')\n"
        "class Mine(Base):\n"
        "    def observe(self, record):\n"
        f"        if {raises == 'condition'} and record.step == 8:\n"
        "            raise KeyError('gone')\n"
        "        super().observe(record)\n"
        f"@register_hook('{raises}s')\n"
        "class Watch(Hook):\n"
        "    def update_end(self, record):\n"
        f"        if {raises == 'hook'} and record.step == 8:\n"
        "            raise KeyError('gone')\n"
    )
    flags = ["--motivation-condition", f"{raises}s", "--motivation-plugins", str(tmp_path / "mine.py")]
    run = train(*MOTIVATED, *flags, "--recovery-interval", "2", code=1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    name, number = ("Mine.observe", 8) if raises == "condition" else ("Watch.update_end", 14)
    assert f"{name} failed: KeyError: 'gone' ({tmp_path}/mine.py, line {number})" in line
    assert f"the last good checkpoint is {run}/recovery-1-1.pth.tar" in line


def test_a_signal_after_an_epoch_that_is_not_evaluated_still_leaves_a_checkpoint(train, tmp_path, monkeypatch):
    from motivation.training.evaluate import Evaluator

    flags = [*MOTIVATED, "--epochs", "3", "--val-interval", "3"]
    whole = train(*flags, name="whole")

    epochs = []

    def share(self):
        epochs.append(1)
        if len(epochs) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "sync_statistics", share)
        run = train(*flags, code=143)
    assert (run / "recovery-1-0.pth.tar").exists()
    assert_same_run(whole, train(*flags, "--resume", "auto"))


def test_two_runs_of_one_name_are_one_too_many(train, tmp_path, capsys):
    from motivation.training.folder_lock import FolderLock

    run = train("--epochs", "1")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    lock = FolderLock(run)
    train("--epochs", "1", code=2)
    assert f"--experiment: another run writes to {run} now" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    lock.release()
    train("--epochs", "1")


def image_folder(root):
    from PIL import Image

    for split in ("train", "validation"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(16):
                Image.new("L", (8, 8), number).save(root / split / name / f"{number}.png")
    flags = ["--dataset", "", "--data-dir", str(root), "--num-classes", "2", "--input-img-mode", "L"]
    return [*flags, "-b", "8", "-vb", "8"]


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_that_cannot_be_read_is_named(split, workers, train, tmp_path, capsys, monkeypatch):
    flags = image_folder(tmp_path / "images")

    def damaged(self, index, real=ImageDataset.__getitem__):
        item = real(self, index)
        if index == 11 and split in str(self.reader.filename(0, absolute=True)):
            raise SyntaxError("broken PNG file")
        return item

    monkeypatch.setattr("timm.data.ImageDataset.__getitem__", damaged)
    train(*flags, "-j", workers, code=1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"image 11 of the split '{split}' (" in line
    assert "cannot be read: SyntaxError: broken PNG file" in line


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_label_out_of_range_is_named(workers, train, capsys, monkeypatch):
    from motivation.data.datasets import SklearnDigits

    def labelled(self, index, real=SklearnDigits.__getitem__):
        image, label = real(self, index)
        return image, 12 if index == 100 else label

    monkeypatch.setattr(SklearnDigits, "__getitem__", labelled)
    train("-j", workers, code=1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "image 100 of the split 'train' has the label 12, but the model has 10 classes, 0 to 9" in line


FAILURES = """
import os, pathlib, signal
from motivation import register_condition
from motivation.method.conditions import FallingLoss

def first_time(name):
    marker = pathlib.Path(__file__).with_name(name)
    if marker.exists():
        return False
    marker.touch()
    return True

@register_condition("fails")
class Fails(FallingLoss):
    def observe(self, record):
        if os.environ["RANK"] == "0" and record.step == 8 and first_time("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ["RANK"] == "1" and record.step == 9 and first_time("raised"):
            raise ValueError("on one rank only")
        super().observe(record)
"""


def test_torchrun_restarts_a_run_after_a_kill_and_after_a_rank_that_raises(tmp_path):
    (tmp_path / "fails.py").write_text(FAILURES)
    flags = [*DIGITS, *MOTIVATED, "-b", "12", "--recovery-interval", "3", "--resume", "auto"]
    flags += ["--motivation-condition", "fails", "--motivation-plugins", tmp_path / "fails.py"]
    flags += ["--output", tmp_path, "--experiment", "run"]
    log, words = tmp_path / "log", ["--standalone", "--nproc_per_node=2", "--max_restarts=2"]
    code = finish(start(on_few_digits, torchrun, *words, ROOT / "train_motivated.py", *flags, log=log), timeout=200)
    said = log.read_text()
    assert code == 0, said[-3000:]
    assert (tmp_path / "killed").exists()
    assert said.count("Resumed from") == 2
    assert "Traceback" not in said  # of a rank that has lost another; torchrun may end it before it says so
    causes = [line for line in said.splitlines() if line.startswith("error: ")]
    (line,) = [line for line in causes if "is gone" not in line and "the last good checkpoint is" not in line]
    assert "Fails.observe failed: ValueError: on one rank only" in line
    found = [(row["epoch"], row["update"]) for row in rows(tmp_path / "run" / "updates.csv")]
    assert found == [(str(epoch), str(update)) for epoch in range(2) for update in range(5)]


@pytest.mark.parametrize("output", ["full disk", "closed pipe"])
def test_an_output_that_cannot_be_written_costs_nothing(output, tmp_path):
    flags = [*DIGITS, *MOTIVATED, "--epochs", "1", "--output", str(tmp_path), "--experiment", "run"]
    run, log = (run_script, "/dev/full") if output == "full disk" else (run_unheard, tmp_path / "log")
    assert finish(start(on_few_digits, run, ROOT / "train_motivated.py", *flags, log=log)) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["completed"]
    assert (tmp_path / "run" / "last.pth.tar").exists()


@pytest.mark.parametrize("words", [("--help",), ("cost", "quickstart")])
def test_a_command_whose_output_has_no_room_ends_with_exit_code_1(words):
    assert finish(start(run_module, "motivation", *words, log="/dev/full")) == 1
