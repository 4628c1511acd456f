"""A resumed motivated run is the run it goes on with: both models, one clock, what is not said stays as it was."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from support.program import MOTIVATED, assert_equal, assert_same_run, built, load, part_and_whole, rows
from support.toys import Toy, learner
from timm.optim import Lookahead

from motivation.build.resume_checks import tell_lost_trace

FLAGS = {
    "lamb_ema_erasing": ("--opt", "lamb", "--model-ema", "--reprob", "0.2", "--drop", "0.1", "-b", "10"),
    "separate_recalibrated": ("--motivation-bn", "separate", "--motivation-bn-recalibrate", "2"),
    "recalibrated_ema": ("--motivation-bn-recalibrate", "2", "--model-ema", "--model-ema-decay", "0.8"),
    "plateau": ("--sched", "plateau", "--patience-epochs", "0", "--decay-rate", "0.1", "--eval-metric", "loss"),
    "updates_schedule": ("--sched-on-updates", "--sched", "step", "--decay-epochs", "1"),
}


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_a_resumed_run_is_the_run_that_was_not_interrupted(flags, train):
    # a cosine over another number of epochs would be another schedule
    schedule = () if "--sched" in flags else ("--sched", "multistep", "--decay-milestones", "1", "3")
    assert_same_run(*part_and_whole(train, *MOTIVATED, *schedule, *flags))


def test_both_models_have_the_learning_rate_of_the_resumed_base(train):
    first = train(*MOTIVATED, "--lr", "0.05", "--epochs", "1", "--sched", "step", "--decay-epochs", "1", name="run")
    again = train(
        *MOTIVATED, "--lr", "0.01", "--epochs", "3", "--sched", "step", "--decay-epochs", "1",
        "--resume", first / "last.pth.tar", name="run",
    )  # fmt: skip
    for epoch, expected in (("1", 0.005), ("2", 0.0005)):
        updates = [row for row in rows(again / "updates.csv") if row["epoch"] == epoch]
        assert {row["active"] for row in updates} == {"base", "motivated"}
        assert {round(float(row["lr"]), 9) for row in updates} == {expected}


def test_without_the_optimizer_both_models_keep_their_weights(train):
    first = train(*MOTIVATED, "--epochs", "1", name="first")
    again = train(
        *MOTIVATED, "--epochs", "2", "--lr", "0", "--lr-base", "0", "--weight-decay", "0",
        "--motivation-bn", "separate", "--no-resume-opt", "--opt", "adamw",
        "--resume", first / "last.pth.tar", name="again",
    )  # fmt: skip
    for place in (".", "motivated"):
        old, new = (load(run / place / "last.pth.tar")["state_dict"] for run in (first, again))
        names = [name for name in old if "running" not in name and "num_batches" not in name]
        assert_equal({name: new[name] for name in names}, {name: old[name] for name in names}, place)


def test_a_recovery_file_holds_the_present_base_in_a_motivated_stretch(train):
    folder = train(*MOTIVATED, "--motivation-condition", "always", "--recovery-interval", "1", "--epochs", "1")
    newest = load(folder / "recovery-0-4.pth.tar")["state_dict"]
    older = load(folder / "recovery-0-3.pth.tar")["state_dict"]
    assert not torch.equal(newest["conv1.weight"], older["conv1.weight"])
    motivated = load(folder / "motivated" / "recovery-0-4.pth.tar")["state_dict"]
    assert torch.equal(newest["conv1.weight"], motivated["conv1.weight"])
    assert torch.equal(newest["conv1.weight"], load(folder / "last.pth.tar")["state_dict"]["conv1.weight"])


INSIDE = {
    "ema_erasing": ("--model-ema", "--reprob", "0.2"),
    "ema_rounded_at_random": ("--model-ema", "--model-ema-decay", "0.9", "--model-dtype", "bfloat16"),
    # before 1.0.31, timm's Lookahead does not say that what it wraps is of second order
    "generator_under_lookahead": ("--opt", "lookahead_adahessian" if hasattr(Lookahead, "is_second_order") else "lion"),
}


@pytest.mark.parametrize("flags", INSIDE.values(), ids=INSIDE)
def test_a_recovery_file_goes_on_inside_its_epoch(flags, train, caplog):
    whole = train(*MOTIVATED, "--recovery-interval", "2", *flags, name="whole")
    recovery = whole / "recovery-1-1.pth.tar"
    again = train(*MOTIVATED, "--recovery-interval", "2", *flags, "--resume", recovery)
    assert "trained again" not in caplog.text
    assert [row["update"] for row in rows(again / "updates.csv")] == ["2", "3", "4"]
    assert rows(again / "updates.csv") == rows(whole / "updates.csv")[-3:]
    for file in ("last.pth.tar", "motivated/last.pth.tar"):
        a, b = load(whole / file), load(again / file)
        for key in a.keys() - {"args", "motivation"}:
            assert_equal(b[key], a[key], f"{file}/{key}")
    a, b = (load(run / "last.pth.tar")["motivation"] for run in (whole, again))
    for key in ("pair", "ranks"):
        assert_equal(b[key], a[key], key)


def test_an_epoch_of_other_updates_is_trained_again_and_the_updates_before_it_count_too(train, caplog):
    first = train(*MOTIVATED, "--recovery-interval", "3", "--epochs", "1", name="run")
    again = train(*MOTIVATED, "--epochs", "1", "-b", "10", "--resume", first / "recovery-0-2.pth.tar", name="run")
    assert "trained again from its start" in caplog.text
    assert len(rows(again / "updates.csv")) == 11
    counts = load(again / "last.pth.tar")["motivation"]["pair"]["counts"]
    assert counts["base"] + counts["motivated"] == 3 + 11  # the weights are those of the file


def test_an_epoch_of_as_many_updates_of_other_batches_is_trained_again(train, caplog):
    first = train("--recovery-interval", "3", "--epochs", "1")
    flags = ["--epochs", "1", "-b", "12", "--grad-accum-steps", "2"]
    again = train(*flags, "--resume", first / "recovery-0-2.pth.tar")
    assert "5 updates in an epoch, 1 batch(es) of 20 in each, and 1 process(es), now 5, 2 of 12 and 1" in caplog.text
    assert [row["update"] for row in rows(again / "updates.csv")] == ["0", "1", "2", "3", "4"]


def interrupted(*_):
    raise KeyboardInterrupt


def test_going_back_to_an_older_file_is_not_undone_by_resume_auto(train, monkeypatch):
    """A run goes back to the file of its first epoch and is killed before it has written another."""
    whole = train(*MOTIVATED, "--epochs", "3", name="whole")
    run = train(*MOTIVATED, "--epochs", "3")
    with monkeypatch.context() as patched:
        patched.setattr("motivation.training.loop.evaluate_and_save", interrupted)
        train(*MOTIVATED, "--epochs", "3", "--resume", run / "checkpoint-0.pth.tar", code=130)
    assert len(rows(run / "updates.csv")) < 15
    assert_same_run(whole, train(*MOTIVATED, "--epochs", "3", "--resume", "auto"))


def test_resume_auto_does_not_take_the_run_before_for_one_that_has_saved_nothing(train, tmp_path, capsys, command):
    old = train("--epochs", "1") / "last.pth.tar"
    built(tmp_path, "--epochs", "1", "--seed", "1").lock.release()  # it ends before its first checkpoint
    train("--epochs", "1", "--seed", "1", "--resume", "auto", code=2)
    assert f"--resume {old} goes on with the earlier run; without --resume the new one" in capsys.readouterr().err
    assert "is of an earlier run" in command("export", old.parent, tmp_path / "out", code=2).err
    train("--epochs", "2", "--resume", old)
    train("--epochs", "3", "--resume", "auto")
    assert load(old)["epoch"] == 2


def test_an_ema_that_is_new_starts_from_the_resumed_weights(train):
    first = train(*MOTIVATED, "--epochs", "1", name="first")
    flags = ("--model-ema", "--model-ema-decay", "1.0", "--epochs", "2", "--motivation-condition", "never")
    again = train(*MOTIVATED, *flags, "--resume", first / "last.pth.tar", name="again")
    kept = load(first / "motivated" / "last.pth.tar")["state_dict"]["layer1.1.conv1.weight"]
    assert torch.equal(load(again / "motivated" / "last.pth.tar")["state_dict_ema"]["layer1.1.conv1.weight"], kept)


def test_a_motivated_file_of_the_next_epoch_is_not_taken_for_one_of_the_last(train):
    """The run was killed after the motivated model's file was written, and before the base's."""
    whole = train(*MOTIVATED, "--epochs", "2", name="whole")
    run = train(*MOTIVATED, "--epochs", "1")
    (run / "motivated" / "last.pth.tar").unlink()
    shutil.copy(whole / "motivated" / "last.pth.tar", run / "motivated")
    train(*MOTIVATED, "--epochs", "1", "--resume", "auto")
    for name in ("checkpoint-0", "model_best"):
        assert load(run / "motivated" / f"{name}.pth.tar")["epoch"] == 0
    assert load(run / "motivated" / "last.pth.tar")["epoch"] == 1


def test_a_resume_reads_its_file_once(train, monkeypatch):
    flags = [*MOTIVATED, "--model-ema", "--sched", "none"]
    run = train(*flags, "--epochs", "1")
    read = []

    def load(path, *args, real=torch.load, **kwargs):
        read.append((str(path.relative_to(run)), kwargs["mmap"]))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(torch, "load", load)
    train(*flags, "--epochs", "2", "--resume", "auto")
    whole = [name for name, mmap in read if not mmap]
    assert whole == ["last.pth.tar"]  # of all others only what says how old they are


def test_the_file_of_the_motivated_model_is_for_use_and_says_what_to_resume(train, capsys):
    run = train(*MOTIVATED, "--model-ema", "--epochs", "1")
    file, entries = run / "motivated" / "last.pth.tar", {"epoch", "arch", "args", "version", "metric", "motivation"}
    assert load(file).keys() == entries | {"state_dict", "state_dict_ema"}
    train(*MOTIVATED, "--model-ema", "--resume", file, code=2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"it holds the motivated model for use, not the state of the training; resume {run}/last.pth.tar" in line


def test_another_condition_goes_on_with_a_warning(train, caplog):
    first = train(*MOTIVATED, "--epochs", "1", "--motivation-condition", "never", name="first")
    again = train(*MOTIVATED, "--epochs", "2", "--resume", first / "last.pth.tar", name="again")
    assert "condition was never; from here it is loss" in caplog.text
    assert {row["active"] for row in rows(again / "updates.csv")} == {"base", "motivated"}


def test_another_optimizer_is_refused_with_the_way_out(train, capsys):
    first = train(*MOTIVATED, "--epochs", "1", name="first")
    train(*MOTIVATED, "--opt", "adamw", "--resume", first / "last.pth.tar", name="again", code=2)
    assert "trained with --opt sgd, this run has --opt adamw; give that, or --no-resume-opt" in capsys.readouterr().err


def test_another_motivated_model_is_refused(train, capsys):
    first = train(*MOTIVATED, "--epochs", "1", name="first")
    other = ["--motivated-model", "resnet20_cifar"]
    train(*MOTIVATED, *other, "--resume", first / "last.pth.tar", name="again", code=2)
    assert "its motivated model is resnet14_cifar, --motivated-model is resnet20_cifar" in capsys.readouterr().err


def test_a_plain_runs_file_starts_a_motivated_run(train, caplog):
    first = train("--epochs", "1", name="first")
    again = train(*MOTIVATED, "--epochs", "2", "--resume", first / "last.pth.tar", name="again")
    assert "is of a plain run" in caplog.text
    assert [row["epoch"] for row in rows(again / "summary.csv")] == ["1"]


def test_a_motivated_runs_file_starts_a_plain_run(train):
    first = train(*MOTIVATED, "--epochs", "1", name="first")
    again = train("--epochs", "2", "--resume", first / "last.pth.tar", name="again")
    assert [row["epoch"] for row in rows(again / "summary.csv")] == ["1"]


def test_statistics_of_a_distilled_student_are_restored(train, monkeypatch):
    import timm

    monkeypatch.setattr(
        "timm.task.distillation.create_model", lambda **kwargs: timm.create_model("resnet8_cifar", num_classes=10)
    )
    flags = ["--input-size", "3", "8", "8", "--mean", "0.3", "0.3", "0.3", "--kd-model-name", "resnet8_cifar"]
    flags += ["--kd-distill-type", "feature", "--motivation-bn-recalibrate", "1"]
    first = train(*MOTIVATED, *flags, "--epochs", "1", name="first")
    train(*MOTIVATED, *flags, "--epochs", "2", "--resume", first / "last.pth.tar", name="again")


def test_nothing_left_to_train_is_said(train, caplog):
    first = train(*MOTIVATED, "--epochs", "1", name="first")
    train(*MOTIVATED, "--epochs", "1", "--resume", first / "last.pth.tar", name="again")
    assert "Nothing to train" in caplog.text


def test_another_place_for_the_blocks_is_refused_on_resume(train, capsys):
    first = train(*MOTIVATED, "--epochs", "1", name="first")
    flags = [*MOTIVATED, "--epochs", "2", "--resume", first / "last.pth.tar"]
    train(*flags, "--motivation-placement", "first", name="other", code=2)
    assert "it was trained with --motivation-placement paper, this run has first" in capsys.readouterr().err
    train(*flags, "--motivation-map", "slices", name="other", code=2)
    assert "it was trained with no --motivation-map, this run has slices" in capsys.readouterr().err
    train(*flags, name="same")


def test_a_run_resumed_after_its_last_epoch_has_its_result_again(train):
    folder = train(*MOTIVATED)
    result = (folder / "result.json").read_bytes()
    (folder / "result.json").unlink()
    train(*MOTIVATED, "--resume", folder / "last.pth.tar")
    assert (folder / "result.json").read_bytes() == result


def test_the_result_of_a_resumed_run_is_that_of_all_its_epochs(train):
    whole, part = part_and_whole(train, *MOTIVATED, "--sched", "none", "--lr", "0.2", epochs=5, half=4)
    assert (whole / "result.json").read_bytes() == (part / "result.json").read_bytes()


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (("--folds", "4", "--fold", "0"), ("--folds", "4", "--fold", "1"), "--fold 0, this run has 1"),
        ((), ("--folds", "4", "--fold", "1"), "no --folds, this run has 4"),
        (("--folds", "4", "--fold", "0"), ("--folds", "4", "--fold", "0", "--seed", "1"), "--seed 42, this run has 1"),
        (
            ("--motivation-condition", "valloss"),
            ("--motivation-condition", "valloss", "--motivation-valloss-images", "9"),
            "no --motivation-valloss-images, this run has 9",
        ),
        (
            ("--motivation-condition", "valloss"),
            ("--motivation-condition", "valloss", "-b", "10"),
            "--batch-size 20, this run has 10",
        ),
    ],
)
def test_images_that_were_trained_on_do_not_come_to_judge(before, now, message, train, capsys):
    first = train(*MOTIVATED, *before, "--epochs", "1")
    train(*MOTIVATED, *now, "--resume", first / "last.pth.tar", name="again", code=2)
    assert message in capsys.readouterr().err


def test_another_k_from_a_resume_on_is_said(train, caplog):
    first = train(*MOTIVATED, "--epochs", "1")
    train(*MOTIVATED, "--motivation-k", "3", "--resume", first / "last.pth.tar", name="again")
    assert "--motivation-k was 1 in" in caplog.text


def test_another_schedule_begins_at_the_epoch_and_knows_nothing_of_a_plateau(train):
    first = train("--sched", "plateau", "--epochs", "2")
    flags = ["--sched", "multistep", "--decay-milestones", "1", "--decay-rate", "0.1", "--epochs", "3"]
    again = train(*flags, "--resume", first / "last.pth.tar", name="again")
    assert {round(float(row["lr"]), 9) for row in rows(again / "updates.csv")} == {0.005}


def test_a_plateau_schedule_forgets_the_best_of_another_metric(train):
    plateau = ("--sched", "plateau", "--patience-epochs", "0", "--decay-rate", "0.1")
    first = train(*plateau, "--eval-metric", "loss", "--epochs", "2")
    again = train(
        *plateau, "--eval-metric", "top1", "--patience-epochs", "7", "--epochs", "4",
        "--resume", first / "last.pth.tar", name="again",
    )  # fmt: skip
    state = load(again / "last.pth.tar")["motivation"]["clock"][0]["scheduler"]
    assert (state["mode"], state["patience"]) == ("max", 7)
    assert state["best"] > 5  # an accuracy in percent, not a loss


@pytest.mark.parametrize(("updates", "is_said"), [(2, False), (3, True)])
def test_a_trace_that_checkpoints_do_not_hold_is_said_where_it_would_have_been_used(updates, is_said, caplog):
    model = Toy()
    optimizer = learner(model, opt="adahessian", update_each=2).optimizer
    for parameter in model.parameters():
        optimizer.state[parameter]["hessian step"] = updates
    tell_lost_trace(optimizer, SimpleNamespace(primary=True))
    assert ("AdaHessian's trace" in caplog.text) == is_said
