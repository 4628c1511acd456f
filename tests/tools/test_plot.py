"""`motivation.tools.plot`: numbers behind the pictures, figures, command. Figures are asked, not pixels."""

import csv
import json

import numpy as np
import pytest
import yaml

from motivation.tools.plot.data import (
    axis_limits,
    columns,
    expected_share,
    running_mean,
    share_per_epoch,
    suits_log_scale,
    title,
)
from motivation.tools.plot.figures import MOST_EXACT, Panel, epochs_figure, loss_figure
from motivation.training.run_files import RunError
from motivation.training.run_folder import read_run

PAIR = {"model": "small", "motivated_model": "large", "motivation_condition": "loss", "motivation_k": 2, "seed": 7}
PLAIN = {"model": "small", "motivated_model": None, "seed": 7}
EPOCHS, UPDATES = 3, 6
ACTIVE = [False, False, False, True, True, False]


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, options, losses, motivated, ...)`` writes a run's files and opens it; None leaves a file out."""

    def make(name="run", options=PAIR, losses=None, motivated=None, evaluated=range(EPOCHS), per_epoch=UPDATES):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "args.yaml").write_text(yaml.safe_dump(options))
        pair = bool(options.get("motivated_model"))
        losses = [2.0 - 0.1 * i for i in range(EPOCHS * per_epoch)] if losses is None else losses
        motivated = (ACTIVE * len(losses) if pair else [False] * len(losses)) if motivated is None else motivated
        if len(losses):
            lines = [
                (i // per_epoch, i % per_epoch, "motivated" if motivated[i] else "base", repr(loss), 0, 0.1)
                for i, loss in enumerate(losses)
            ]
            write(folder / "updates.csv", [("epoch", "update", "active", "loss", "streak", "lr"), *lines])
        header = ["epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr"]
        rows = [[e, 1.0 / (e + 1), 1.5 / (e + 1), 60 + 10 * e, 99, 0.1] for e in evaluated]
        if pair:
            header += ["motivated_eval_top1", "base_updates", "motivated_updates", "average_flops"]
            rows = [[*row, 55 + 10 * row[0], 4, 2, 3e6] for row in rows]
        if rows:
            write(folder / "summary.csv", [header, *rows])
        return read_run(folder)

    return make


def write(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def panel(run):
    return Panel(title(run), run, run.updates)


def shading(axes):
    """The shaded stretches of a panel, as pairs of x; None where there is no shading."""
    found = [artist for artist in axes.collections if artist.get_gid() == "motivated"]
    if not found:
        return None
    boxes = [path.get_extents() for path in found[0].get_paths()]
    return [(round(box.x0, 9), round(box.x1, 9)) for box in boxes]


def legend(axes):
    return " | ".join(text.get_text() for text in axes.get_legend().get_texts())


# numbers


def test_a_running_mean_leaves_out_what_is_not_finite_and_is_exact_behind_a_huge_loss():
    values = np.array([1.0, np.nan, 3.0, np.inf])
    np.testing.assert_array_equal(running_mean(values, 1), [1, np.nan, 3, np.nan])
    np.testing.assert_array_equal(running_mean([1e25, *[0.5] * 20], 3)[5:], 0.5)


def test_an_axis_shows_a_steady_fall_whole_and_leaves_out_what_is_far_off():
    losses = 2.3 * np.exp(-np.arange(600) / 100)
    bottom, top = axis_limits(losses)
    assert bottom <= losses.min() < losses.max() <= top
    bottom, top = axis_limits(np.array([500.0, *np.linspace(2.3, 1.8, 30)]))
    assert bottom < 1.8 < 2.3 < top < 3


@pytest.mark.parametrize("losses", [[], [np.nan, np.inf], [2.0, 2.0], [1e-9, 1e30]])
@pytest.mark.parametrize("log", [False, True])
def test_limits_are_finite_and_apart_whatever_the_losses(losses, log):
    bottom, top = axis_limits(np.array(losses), log)
    assert np.isfinite([bottom, top]).all()
    assert bottom < top


@pytest.mark.parametrize(
    ("losses", "suits"),
    [
        (np.geomspace(2.3, 0.01, 100), True),
        (np.linspace(2.3, 1.5, 100), False),
        (np.append(np.geomspace(2.3, 0.01, 100), 0.0), False),
        (np.array([np.nan]), False),
    ],
)
def test_a_log_scale_is_for_positive_losses_over_more_than_a_decade(losses, suits):
    assert suits_log_scale(losses) == suits


def test_a_last_line_that_is_half_written_is_left_out_and_a_damaged_one_inside_is_named(make_run):
    run = make_run()
    with open(run.path / "updates.csv", "a") as file:
        file.write("3,0,ba")
    assert len(run.updates) == EPOCHS * UPDATES
    with open(run.path / "updates.csv", "a") as file:
        file.write("\n3,1,base,0.5,0,0.1\n")
    with pytest.raises(RunError, match=f"line {EPOCHS * UPDATES + 2} is no update"):
        len(read_run(run.path).updates)


def test_shares_are_of_every_epoch_but_one_in_progress(make_run):
    run = make_run(losses=[1.0] * (2 * UPDATES + 4), evaluated=[1])
    epochs, shares = share_per_epoch(run, run.updates)
    assert epochs.tolist() == [0, 1]
    assert shares == pytest.approx(2 / 6)
    epochs, shares = share_per_epoch(run, run.updates[:0])
    assert epochs.tolist() == [1]
    assert shares == pytest.approx(2 / 6)


def test_the_expected_share_is_that_of_the_streak_and_of_no_other_condition(make_run):
    run = make_run()
    law = pytest.approx(1 / 6 * (UPDATES - 3) / UPDATES)  # an epoch begins with k + 1 updates of the base
    assert expected_share(run) == law
    for name, expected in (("slope", law), ("random", None), ("ema", None), ("always", None)):
        run.options["motivation_condition"] = name
        assert expected_share(run) == expected
    assert expected_share(make_run("plain", PLAIN)) is None
    assert expected_share(make_run("new", losses=[], evaluated=[])) is None
    assert expected_share(make_run("no updates", losses=[])) == law


# the picture of the losses


def test_an_epoch_is_drawn_update_by_update_and_shaded_where_motivated(make_run):
    run = make_run(losses=[float(x) for x in np.linspace(1, 2, EPOCHS * UPDATES)])
    axes = loss_figure([panel(run)], epoch=1).axes[0]
    assert shading(axes) == [(2.5, 4.5)]
    assert axes.get_xlim() == (-0.5, UPDATES - 0.5)
    assert axes.get_xlabel() == "update of epoch 1"
    assert "motivated: 2 of 6 updates (33.3 %)" in legend(axes)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), np.arange(UPDATES))
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), run.updates.loss[UPDATES : 2 * UPDATES])


def test_a_run_is_drawn_over_its_epochs_and_shaded_where_motivated(make_run):
    axes = loss_figure([panel(make_run())]).axes[0]
    assert shading(axes) == [(pytest.approx(e + 3 / 6), pytest.approx(e + 5 / 6)) for e in range(EPOCHS)]
    assert axes.get_xlim() == (0, EPOCHS)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch (of 6 updates)", "training loss: cross-entropy (nats)")
    assert "motivated: 6 of 18 updates (33.3 %)" in legend(axes)


def test_panels_have_identical_axes(make_run):
    high = make_run("high", PLAIN, losses=[9.0 - 0.1 * i for i in range(4 * UPDATES)])
    for epoch in (None, 0, 2):
        ours, beside = loss_figure([panel(make_run(f"run{epoch}")), panel(high)], epoch).axes
        assert ours.get_ylim() == beside.get_ylim()
        assert ours.get_xlim() == beside.get_xlim()
        assert ours.get_yscale() == beside.get_yscale()
        assert ours.get_ylim()[1] > (9 if epoch != 2 else 7.8)
    assert ours.get_legend().get_title().get_text() == "small in large, condition loss, k = 2, seed 7, epoch 2"
    assert beside.get_legend().get_title().get_text() == "small alone, seed 7, epoch 2"
    assert shading(beside) is None
    assert "motivated" not in legend(beside)


def test_smoothing_is_as_asked_and_said(make_run):
    run = make_run()
    axes = loss_figure([panel(run)], smooth=4).axes[0]
    assert "running mean over 4 updates" in legend(axes)
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), running_mean(run.updates.loss, 4))
    assert "running mean" not in legend(loss_figure([panel(run)], smooth=1).axes[0])


def test_losses_that_are_not_finite_or_far_off_are_marked_and_do_not_set_the_axis(make_run, tmp_path):
    losses = [2.0 - 0.01 * i for i in range(60)]
    losses[0], losses[20], losses[21] = 900.0, float("nan"), float("inf")
    axes = loss_figure([panel(make_run(losses=losses, per_epoch=20))]).axes[0]
    assert axes.get_ylim()[1] < 3
    assert "1 update above the axis (up to 900)" in legend(axes)
    assert "2 updates not finite" in legend(axes)
    marks = [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "x"]
    assert marks == [[pytest.approx(1 + 0.5 / 20), pytest.approx(1 + 1.5 / 20)]]
    loss_figure([panel(make_run("nan", losses=[float("nan")] * 12))]).savefig(tmp_path / "nan.png")


def test_a_long_run_is_shaded_by_columns_with_as_many_artists_as_a_short_one(make_run, tmp_path):
    length = 2 * MOST_EXACT + 100
    motivated = [i >= MOST_EXACT for i in range(length)]
    run = make_run(losses=[1.0 + i % 7 for i in range(length)], motivated=motivated, per_epoch=100)
    figure = loss_figure([panel(run)])
    axes = figure.axes[0]
    shares = next(artist for artist in axes.collections if artist.get_gid() == "motivated").get_array().ravel()
    assert shares[0] == 0
    assert shares[-1] == 1
    sizes = np.diff(columns(length, 400))
    assert (shares * sizes).sum() == pytest.approx(sum(motivated))
    assert f"motivated: {sum(motivated):,} of {length:,} updates" in legend(axes)
    assert len(axes.collections) + len(axes.lines) <= 4  # as in a short run
    figure.savefig(tmp_path / "long.png")


# the picture of the epochs


def test_epochs_show_accuracies_share_with_its_law_and_cost(make_run):
    run = make_run()
    (run.path / "result.json").write_text(json.dumps({"completed": True, "flops": {"base": 2e6, "motivated": 5e6}}))
    accuracy, share, cost = epochs_figure(run, run.updates, make_run("beside", PLAIN)).axes
    assert "small, base (last 80.00 %) | large, motivated (last 75.00 %) | beside: small alone" in legend(accuracy)
    assert "8.3 % expected, if losses were independent" in legend(share)
    np.testing.assert_allclose(share.lines[0].get_ydata(), 100 / 3)
    np.testing.assert_allclose(share.lines[1].get_ydata(), 100 / 12)
    np.testing.assert_allclose(cost.lines[0].get_ydata(), 3.0)  # (4 * 2M + 2 * 5M) / 6
    assert "small: 2.00M torch flops | large: 5.00M torch flops" in legend(cost)
    assert [axes.get_ylabel().split("(")[1] for axes in (accuracy, share, cost)] == ["%)", "%)", "M torch flops)"]


def test_what_is_not_known_has_no_line(make_run):
    run = make_run()  # in progress
    cost = epochs_figure(run, run.updates).axes[2]
    np.testing.assert_allclose(cost.lines[0].get_ydata(), 3.0)
    assert legend(cost) == "F_avg, average since the point before"
    random = make_run("random", {**PAIR, "motivation_condition": "random"})
    accuracy, share, _ = epochs_figure(random, random.updates).axes
    assert len(share.lines) == 1
    assert "k = " not in accuracy.get_legend().get_title().get_text()


def test_epochs_without_a_value_are_gaps_with_a_mark_on_each_that_has_one(make_run):
    run = make_run(losses=[1.0] * (80 * UPDATES), evaluated=range(4, 80, 5))
    run.epochs[0]["motivated_eval_top1"], run.epochs[1]["motivated_eval_top1"] = None, float("nan")
    accuracy, share, _ = epochs_figure(run, run.updates).axes
    assert [line.get_xdata().tolist() for line in accuracy.lines[:2]] == [[*range(4, 80, 5)], [*range(14, 80, 5)]]
    assert accuracy.lines[0].get_markersize() > 0
    assert len(share.lines[0].get_xdata()) == 80


def test_a_plain_run_has_accuracy_and_loss_only(make_run):
    run = make_run(options=PLAIN)
    accuracy, loss = epochs_figure(run, run.updates).axes
    assert legend(accuracy) == "small alone (last 80.00 %)"
    assert legend(loss) == "training | validation"
    assert "nats" in loss.get_ylabel()


# the command


def test_the_command_writes_both_pictures_into_the_run_or_elsewhere_and_prints_their_paths(make_run, tmp_path, command):
    run, beside = make_run(), make_run("beside", PLAIN)
    before, there = set(run.path.iterdir()), tmp_path / "new" / "folder"
    out, err = command("plot", run.path, "--beside", beside.path, "--epoch", -1, "--output", there)
    assert (out.split(), err) == ([str(there / "loss_epoch2.png"), str(there / "epochs.png")], "")
    assert set(run.path.iterdir()) == before
    assert command("plot", run.path).out.split() == [str(run.path / "loss.png"), str(run.path / "epochs.png")]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in [*there.iterdir(), *run.path.glob("*.png")])


def test_runs_with_the_same_title_are_told_apart_by_their_folders(make_run, command, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "motivation.tools.plot.command.loss_figure", lambda panels, *_: drawn.extend(panels) or loss_figure(panels)
    )
    one, two = make_run("one"), make_run("two")
    command("plot", one.path, "--beside", two.path)
    assert [panel.title for panel in drawn] == [f"one: {title(one)}", f"two: {title(two)}"]


@pytest.mark.parametrize(
    ("given", "picture", "note"),
    [
        ({"options": PLAIN, "losses": []}, "epochs.png", "no updates.csv, so there is no loss.png"),  # timm's own
        ({"losses": [1.0, 0.9], "evaluated": []}, "loss.png", "no epoch in summary.csv yet, so there is no epochs.png"),
    ],
)
def test_a_run_without_one_of_its_files_gets_the_other_picture_and_a_note(given, picture, note, make_run, command):
    run = make_run(**given)
    out, err = command("plot", run.path)
    assert out.split() == [str(run.path / picture)]
    assert err == f"note: {run.path} has {note}\n"


def test_what_cannot_be_drawn_is_one_line(make_run, tmp_path, command):
    def failure(*words):
        out, err = command("plot", *words, code=2)
        assert (out, err[:7], err.count("\n")) == ("", "error: ", 1)
        return err

    run, timm, empty = make_run(), make_run("timm", PLAIN, losses=[]), make_run("empty", losses=[], evaluated=[])
    short = make_run("short", PLAIN, losses=[1.0] * UPDATES, evaluated=[0])
    (tmp_path / "file").write_text("")
    for words, message in (
        ([tmp_path / "nowhere"], "there is no folder"),
        ([tmp_path], "no args.yaml"),
        ([run.path, "--beside", tmp_path / "nowhere"], "there is no folder"),
        ([timm.path, "--epoch", 0], "has no updates.csv"),
        ([empty.path], "has no updates.csv"),
        ([run.path, "--smooth", 0], "--smooth: at least 1, not 0"),
        ([run.path, "--epoch", 3], "epochs 0 to 2"),
        ([run.path, "--epoch", -4], "epochs 0 to 2"),
        ([run.path, "--epoch", -1, "--beside", short.path], f"is epoch 2, but {short.path} has epochs 0 to 0"),
        ([run.path, "--epochs", 3], "unknown: --epochs"),
        ([run.path, "--output", tmp_path / "file"], "choose a folder with --output"),
    ):
        assert message in failure(*words), words
    (run.path / "summary.csv").write_text("time\n3\n")
    assert "line 2 is no epoch" in failure(run.path)
    (run.path / "updates.csv").write_bytes(b"epoch,update\n\xff\xfe\n")
    assert "damaged" in failure(run.path)
