"""Checkpoints: timm's names and order, never half a file."""

import argparse
import math
import os
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch

from motivation.training import checkpoint
from motivation.training.checkpoint import (
    CheckpointError,
    make_latest,
    newest_whole,
    next_generation,
    read_checkpoint,
    trained_epoch,
    write_whole,
)
from motivation.training.saver import Saver, link_or_copy


def saver(folder, **options):
    return Saver(folder, {"arch": "toy"}, **options)


def save(one, epoch, metric):
    one.rank_epoch(epoch, metric)
    one.write_last({}, epoch, metric)
    one.update_links(epoch)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_best_are_kept_and_the_rest_is_dropped(tmp_path):
    one = saver(tmp_path, history=2)
    for epoch, metric in enumerate([50.0, 70.0, 60.0, 10.0]):
        save(one, epoch, metric)
    assert names(tmp_path) == ["checkpoint-1.pth.tar", "checkpoint-2.pth.tar", "last.pth.tar", "model_best.pth.tar"]
    assert read_checkpoint(tmp_path / "model_best.pth.tar")["epoch"] == 1
    assert read_checkpoint(tmp_path / "last.pth.tar")["epoch"] == 3
    assert (one.best_metric, one.best_epoch) == (70.0, 1)


def test_lower_is_better_for_a_loss_and_ties_keep_the_earlier(tmp_path):
    one = saver(tmp_path, decreasing=True, history=1)
    for epoch, metric in enumerate([3.0, 1.0, 1.0, 2.0]):
        save(one, epoch, metric)
    assert (one.best_metric, one.best_epoch) == (1.0, 1)
    assert "checkpoint-1.pth.tar" in names(tmp_path)


def test_without_a_metric_the_newest_are_kept(tmp_path):
    one = saver(tmp_path, history=2)
    for epoch in range(4):
        save(one, epoch, None)
    assert names(tmp_path) == ["checkpoint-2.pth.tar", "checkpoint-3.pth.tar", "last.pth.tar"]


def test_history_is_resumed(tmp_path):
    one = saver(tmp_path, history=2)
    save(one, 0, 50.0)
    save(one, 1, 40.0)
    other = saver(tmp_path, history=2)
    other.load_state_dict(one.state_dict())
    other.reconcile(None)
    save(other, 2, 45.0)
    assert "checkpoint-0.pth.tar" in names(tmp_path)
    assert "checkpoint-1.pth.tar" not in names(tmp_path)
    assert other.best_epoch == 0


def test_a_file_says_which_epoch_it_is_of(tmp_path):
    write_whole({"epoch": 1, "weights": torch.zeros(1000)}, tmp_path / "whole")
    (tmp_path / "half").write_bytes((tmp_path / "whole").read_bytes()[:2000])
    assert [trained_epoch(tmp_path / name) for name in ("whole", "half", "none")] == [1, None, None]


def test_what_was_dropped_is_remembered_until_it_is_gone(tmp_path):
    one = saver(tmp_path, history=1)
    save(one, 0, 50.0)
    one.rank_epoch(1, 60.0)
    assert one.state_dict()["dropped"] == ["checkpoint-0.pth.tar"]
    one.write_last({}, 1, 60.0)
    one.update_links(1)
    assert one.state_dict()["dropped"] == []  # as in a run that is resumed inside the next epoch


def test_two_recovery_files_are_kept(tmp_path):
    one = saver(tmp_path)
    for update in (4, 9, 14):
        one.write_recovery({"update": update}, 0, update)
    assert names(tmp_path) == ["recovery-0-14.pth.tar", "recovery-0-9.pth.tar"]
    assert read_checkpoint(tmp_path / "recovery-0-14.pth.tar")["update"] == 14


def test_a_recovery_file_that_a_crash_has_left_goes_with_the_next_checkpoint(tmp_path):
    one = saver(tmp_path)
    for update in (4, 9):
        one.write_recovery({}, 0, update)
    left = (tmp_path / "recovery-0-4.pth.tar").read_bytes()
    state = one.state_dict()
    one.write_recovery({}, 0, 14)
    (tmp_path / "recovery-0-4.pth.tar").write_bytes(left)
    os.utime(tmp_path / "recovery-0-4.pth.tar", (0, 0))
    resumed = saver(tmp_path)
    resumed.load_state_dict(state)
    resumed.reconcile(None)
    assert len(names(tmp_path)) == 3  # it goes on with one of them, and the newer ones might be damaged
    save(resumed, 0, 50.0)
    assert [name for name in names(tmp_path) if "recovery" in name] == ["recovery-0-14.pth.tar", "recovery-0-9.pth.tar"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "last.pth.tar"
    write_whole({"epoch": 1}, path)

    def full_disk(contents, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full_disk)
    with pytest.raises(CheckpointError, match=r"last.pth.tar cannot be written: No space left on device; .* as it was"):
        write_whole({"epoch": 2}, path)
    monkeypatch.undo()
    assert read_checkpoint(path)["epoch"] == 1
    assert os.listdir(tmp_path) == ["last.pth.tar"]


def test_where_there_are_no_links_a_copy_is_made(tmp_path, monkeypatch):
    write_whole({"epoch": 1}, tmp_path / "a")

    def no_links(source, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert read_checkpoint(tmp_path / "b")["epoch"] == 1
    assert names(tmp_path) == ["a", "b"]


def test_a_damaged_file_is_said_to_be_one(tmp_path):
    write_whole({"weights": torch.zeros(1000)}, tmp_path / "whole")
    (tmp_path / "half").write_bytes((tmp_path / "whole").read_bytes()[:2000])
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        read_checkpoint(tmp_path / "half")
    with pytest.raises(ValueError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("decreasing", [True, False])
def test_a_metric_that_is_not_a_number_is_the_worst(decreasing, tmp_path):
    one = saver(tmp_path, decreasing=decreasing, history=2)
    for epoch, metric in enumerate([math.nan, 1.0, 0.5, math.nan, 0.7]):
        save(one, epoch, metric)
    assert one.best_epoch == (2 if decreasing else 1)
    assert [entry[0] for entry in one.kept] == [f"checkpoint-{n}.pth.tar" for n in ((2, 4) if decreasing else (1, 4))]


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_and_arrays_of_numpy_are_read_and_numbers_become_pythons(zipped, tmp_path):
    options = argparse.Namespace(lr=np.float64(0.1), sizes=[np.int32(3)])
    contents = {"metric": np.float32(0.5), "epoch": np.int64(2), "args": options, "array": np.arange(3)}
    torch.save(contents, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "a.pth")
    assert (found["metric"], found["epoch"], found["args"].lr, found["args"].sizes) == (0.5, 2, 0.1, [3])
    assert {type(found["metric"]), type(found["epoch"]), type(found["args"].lr)} == {float, int}
    assert (found["array"] == np.arange(3)).all()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_file_would_run_is_named(zipped, tmp_path):
    torch.save({"folder": PurePosixPath("x")}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"never run \(it names pathlib.PurePosixPath\)"):
        read_checkpoint(tmp_path / "a.pth")


def state(generation, epoch, update, between=False):
    return {"generation": generation, "pair": {"position": (epoch, update, 0, between)}}


def test_the_latest_file_is_what_the_files_say_and_not_what_the_clock_says(tmp_path):
    files = {
        "checkpoint-0": (0, state(0, 0, 5, True)),
        "recovery-1-2": (1, state(0, 1, 3)),
        "recovery-1-4": (1, state(0, 1, 5)),
        "checkpoint-1": (1, state(0, 1, 5, True)),
        "recovery-0-3": (0, state(1, 0, 4)),  # the run went back
    }
    for name, (epoch, entry) in files.items():
        write_whole({"epoch": epoch, "motivation": entry}, tmp_path / f"{name}.pth.tar")
    for age, name in enumerate(files):
        os.utime(tmp_path / f"{name}.pth.tar", (age, age))
    for name in ("recovery-0-3", "checkpoint-1", "recovery-1-4", "recovery-1-2", "checkpoint-0"):
        path, _ = newest_whole(tmp_path)
        assert path.name == f"{name}.pth.tar"
        path.unlink()


def test_files_of_timm_are_ordered_by_their_epochs(tmp_path):
    for epoch in (9, 10, 8):
        write_whole({"epoch": epoch}, tmp_path / f"checkpoint-{epoch}.pth.tar")
    write_whole({"epoch": 10}, tmp_path / "last.pth.tar")
    assert newest_whole(tmp_path)[0].name == "last.pth.tar"


def test_going_back_makes_a_file_the_latest_and_says_what_no_longer_counts(tmp_path, caplog):
    for epoch in range(3):
        write_whole({"epoch": epoch, "motivation": state(0, epoch, 5, True)}, tmp_path / f"checkpoint-{epoch}.pth.tar")
    assert make_latest(tmp_path / "checkpoint-2.pth.tar") == 0
    assert caplog.text == ""
    assert make_latest(tmp_path / "checkpoint-0.pth.tar") == 1
    assert "goes back to checkpoint-0.pth.tar; checkpoint-1.pth.tar, checkpoint-2.pth.tar are of later" in caplog.text
    path, contents = newest_whole(tmp_path)
    assert (path.name, contents["epoch"]) == ("checkpoint-0.pth.tar", 0)
    assert next_generation(tmp_path) == 2


@pytest.mark.parametrize("place", ["weights", "optimizer", "motivated"])
def test_a_file_that_is_not_finite_is_passed_over(place, tmp_path, caplog):
    good, bad = torch.ones(3), torch.tensor([1.0, float("nan")])
    write_whole({"epoch": 0, "state_dict": {"w": good}}, tmp_path / "checkpoint-0.pth.tar")
    contents = {"weights": {"state_dict": {"w": bad}}, "optimizer": {"optimizer": {"state": {0: {"m": bad}}}}}
    motivated = {"motivation": {"pair": {"position": (1, 0, 0, True), "motivated": {"state_dict": {"w": bad}}}}}
    write_whole({"epoch": 1, **(contents | {"motivated": motivated})[place]}, tmp_path / "last.pth.tar")
    assert newest_whole(tmp_path)[0].name == "checkpoint-0.pth.tar"
    assert "Passed over: " in caplog.text
    assert "last.pth.tar has numbers that are not finite" in caplog.text


def test_random_bytes_in_a_tensor_are_damage(tmp_path):
    path = tmp_path / "last.pth.tar"
    write_whole({"epoch": 0, "state_dict": {"w": torch.zeros(10_000)}}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:20_000] + os.urandom(64) + whole[20_064:])
    with pytest.raises(ValueError, match=r"last.pth.tar is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["../../victim.txt", "last.pth.tar", "checkpoint-1.pth.tar/../x", "checkpoint-a.pth.tar"]
)
@pytest.mark.parametrize("list_of", ["dropped", "kept"])
def test_no_name_out_of_a_file_reaches_the_disk_unless_the_program_gives_such_names(name, list_of, tmp_path):
    foreign = saver(tmp_path).state_dict()
    foreign[list_of] = [(name, 1.0)] if list_of == "kept" else [name]
    with pytest.raises(ValueError, match="is no name of a checkpoint"):
        saver(tmp_path).load_state_dict(foreign)


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_folder_that_cannot_be_synced_is_one_warning(call, tmp_path, monkeypatch, caplog):
    real = getattr(os, call)

    def refuse(target, *arguments):
        if call == "open" or os.path.isdir(f"/proc/self/fd/{target}"):
            raise OSError(22, "Invalid argument")
        return real(target, *arguments)

    monkeypatch.setattr(checkpoint.os, call, refuse)
    for epoch in range(3):
        write_whole({"epoch": epoch}, tmp_path / "last.pth.tar")
    assert caplog.text.count("cannot be forced to the disk (Invalid argument)") == 1
    assert read_checkpoint(tmp_path / "last.pth.tar")["epoch"] == 2
