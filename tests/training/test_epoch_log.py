"""The console says how long a run will take, what memory its models need, where it goes on, and what it left undone."""

import signal
from types import SimpleNamespace

import pytest
import torch
from support.program import MOTIVATED, built

from motivation.method.records import Counts, Role
from motivation.training.epoch_log import EpochLog
from motivation.training.hooks import Hook, RunView
from motivation.training.records import EpochRecord

BASE, MOTIVATED_ROLE = Role
CPU = torch.device("cpu")
FLOPS = {BASE: 1.0, MOTIVATED_ROLE: 3.0}
SECONDS = {BASE: 2, MOTIVATED_ROLE: 10}


class Epochs:
    """Tell a hook of epochs of a run of ten, in seconds that pass as they are told to."""

    def __init__(self, caplog, device=CPU, updates=6, start=(0, 0), motivated=True, **settings):
        caplog.set_level("INFO")
        self.caplog, self.now, self.counts = caplog, 0.0, Counts()
        self.hook = EpochLog(device, clock=lambda: self.now, **settings)
        self.hook.run_start(RunView(10, start[0], updates, motivated, start[1]))
        self.epoch = start[0]

    def train(self, roles, extra=0.0):
        """Train updates of these models; the first of each takes some seconds more."""
        self.hook.epoch_start(self.epoch)
        for role in roles:
            first = extra if not self.counts.updates[role] else 0
            self.now += SECONDS[role] + first
            self.counts.add(role)
            self.hook.update_end(SimpleNamespace(role=role))

    def evaluate(self, took=3.0, base=90.0, motivated=85.0):
        """Evaluate the epoch; return the line that is logged of it."""
        self.now += took
        metrics = [None if value is None else {"top1": value} for value in (base, motivated)]
        record = EpochRecord(self.epoch, 1.0, *metrics, 0.1, self.counts.copy(), self.counts.copy(), 1.0)
        self.caplog.clear()
        self.hook.epoch_end(record)
        self.epoch += 1
        return [entry.message for entry in self.caplog.records]


def test_the_time_left_is_of_both_models_times_at_the_expected_share_and_of_evaluations(caplog):
    epochs = Epochs(caplog, expected_share=0.25)
    epochs.train([BASE] * 4 + [MOTIVATED_ROLE] * 2, extra=100)  # compiling is done once
    # nine epochs of 6 updates of 0.75 * 2 s + 0.25 * 10 s, and 3 s of evaluation
    assert epochs.evaluate() == ["Epoch 0 took 4 min; 9 more, about 4 min left; an update: base 2 s, motivated 10 s."]


@pytest.mark.parametrize(
    ("settings", "roles", "left"),
    [
        ({"expected_share": 0.5, "flops": FLOPS}, [BASE] * 6, "4 min"),  # 9 (6 (0.5 * 2 + 0.5 * 2 * 3) + 3) s
        ({"expected_share": None}, [BASE] * 3 + [MOTIVATED_ROLE] * 3, "6 min"),  # 9 (6 (0.5 * 2 + 0.5 * 10) + 3) s
        ({"motivated": False}, [BASE] * 6, "2 min"),  # 9 (6 * 2 + 3) s
        ({"expected_share": 1.0}, [MOTIVATED_ROLE] * 6, "9 min"),  # 9 (6 * 10 + 3) s
    ],
)
def test_what_is_not_known_is_taken_from_the_other_model_or_the_run_so_far(settings, roles, left, caplog):
    epochs = Epochs(caplog, **settings)
    epochs.train(roles)
    assert f"9 more, about {left} left" in epochs.evaluate()[0]


def test_the_last_epoch_has_nothing_left(caplog):
    epochs = Epochs(caplog, start=(9, 0))
    epochs.train([BASE] * 6)
    assert epochs.evaluate() == ["Epoch 9 took 15 s; an update: base 2 s."]


def test_the_memory_of_each_model_is_that_of_its_own_updates(caplog, monkeypatch):
    asked, role = [], BASE
    peaks = {BASE: 1.5e9, MOTIVATED_ROLE: 4e9}
    module = SimpleNamespace(
        reset_peak_memory_stats=lambda device: asked.append("reset"),
        max_memory_allocated=lambda device: asked.append("read") or peaks[role],
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    epochs = Epochs(caplog, updates=20)
    real = epochs.hook.update_end

    def update_end(record):
        nonlocal role
        role = record.role
        assert asked[-1] == "reset"  # nothing of the other model is in it
        real(record)

    epochs.hook.update_end = update_end
    epochs.train([BASE] * 17 + [MOTIVATED_ROLE] * 3)
    assert "base 2 s and 1.50 GB, motivated 10 s and 4.00 GB" in epochs.evaluate()[0]
    assert asked.count("read") == 5 + 3  # reading costs time


def test_a_motivated_model_that_looks_broken_is_explained_once(caplog):
    epochs = Epochs(caplog, statistics_are_young=True)
    said = []
    for motivated in (60.0, 10.0, 10.0):
        epochs.train([BASE] * 5 + [MOTIVATED_ROLE])
        said.append(epochs.evaluate(base=94.0, motivated=motivated)[1:])
    assert said[0] == said[2] == []
    (line,) = said[1]
    assert line.startswith("The motivated model has 10.0 % beside the base's 94.0 %, which is usual at first: it was ")
    assert "trained in 2 updates (the base in 10)" in line
    assert "its differential part and its BatchNorm statistics are young; --motivation-bn-recalibrate 50" in line


def test_a_model_without_batchnorm_is_not_advised_to_re_estimate_it(caplog):
    epochs = Epochs(caplog)
    epochs.train([BASE] * 6)
    line = epochs.evaluate(base=94.0, motivated=10.0)[1]
    assert line.endswith("so its differential part is young.")


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ((0, 0), "Epoch 0 is not finished: 3 of its 6 updates are done (2 base, 1 motivated)."),
        ((4, 2), "Epoch 4 is not finished: 5 of its 6 updates are done, 3 of them since the resume (2 base, 1 "
         "motivated)."),
    ],
)  # fmt: skip
def test_the_end_says_what_was_done_in_an_epoch_that_is_not_finished(start, text, caplog):
    epochs = Epochs(caplog, start=start)
    epochs.train([BASE, BASE, MOTIVATED_ROLE])
    epochs.hook.run_end()
    assert caplog.messages == [text]


def test_the_end_of_a_finished_epoch_says_nothing(caplog):
    epochs = Epochs(caplog)
    epochs.train([BASE] * 6)
    epochs.evaluate()
    epochs.hook.run_end()
    assert len(caplog.messages) == 1


class StopsInside(Hook):
    """Send the signal of a scheduler in the third update of epoch 1."""

    def update_end(self, record):
        if (record.epoch, record.update) == (1, 2):
            signal.raise_signal(signal.SIGTERM)


def test_a_run_that_is_stopped_says_what_was_done_and_its_resume_where_it_goes_on(train, monkeypatch, caplog, tmp_path):
    caplog.set_level("INFO")
    monkeypatch.setattr("motivation.build.run.build_hooks", lambda *_: [StopsInside()])
    train(*MOTIVATED, "--motivated-eval", "none", code=143)
    assert "Epoch 0 took" in caplog.text
    assert "1 more, about" in caplog.text
    assert "Epoch 1 is not finished: 3 of its 5 updates are done (" in caplog.text
    built(tmp_path, *MOTIVATED, "--resume", "auto")
    assert "Training goes on with update 3 of epoch 1, both counted from 0." in caplog.text
