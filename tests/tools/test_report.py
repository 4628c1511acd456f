"""The report groups runs over seeds, compares them as the paper does, and shows the paper's figures beside them."""

import csv
import io
import json

import numpy as np
import pytest
import yaml
from scipy import stats

from motivation.method.records import Counts, Role
from motivation.options.parse import make_parser
from motivation.tools.report.groups import group_runs
from motivation.training.csv_files import append_rows
from motivation.training.loggers import summary_row
from motivation.training.records import EpochRecord
from motivation.training.result import RunResult
from motivation.training.run_folder import find_runs

SMALL, LARGE = "resnet20_cifar", "resnet32_cifar"
PAIR = f"{SMALL}-{LARGE}"
FLOPS = {Role.BASE: 82.82e6, Role.MOTIVATED: 140.13e6}
DEFAULTS = {name: value for name, value in vars(make_parser().parse_args([])).items() if name != "config"}
GAINED = "acc_per_flops (10^-2 % per MFLOP)"


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, model, top1, motivated, top1_of_it, **options)`` writes the folder of a run of two epochs."""

    def make(
        name,
        model,
        top1,
        motivated=None,
        larger=None,
        completed=True,
        timm=False,
        share=(83162, 16838),
        losses=(1.0, 1.0),
        **options,
    ):
        folder = tmp_path / name
        folder.mkdir()
        given = {**DEFAULTS, "dataset": "torch/cifar10", "model": model, "motivated_model": motivated, **options}
        if timm:
            ours = ("motivat", "fold", "train_pad", "val_input_size")
            given = {key: value for key, value in given.items() if not key.startswith(ours)}
        (folder / "args.yaml").write_text(yaml.safe_dump(given))
        counts, double = (
            Counts(updates, 7, {role: count * FLOPS[role] for role, count in updates.items()})
            for updates in (dict(zip(Role, share)), {role: 2 * count for role, count in zip(Role, share)})
        )
        records = []
        for epoch, (gain, seen) in enumerate([(1.0, counts), (0.0, double)]):  # the best epoch is not the last
            metrics, above = (
                {"loss": losses[epoch], "top1": a + gain, "top5": 99.0} if a else None for a in (top1, larger)
            )
            records.append(EpochRecord(epoch, 1.0, metrics, above, 0.1, counts, seen, 1.0))
        flops = FLOPS if motivated else None
        append_rows(folder / "summary.csv", [summary_row(record, flops) for record in records])
        if not timm:
            names = {Role.BASE: model, Role.MOTIVATED: motivated}
            RunResult(records, names, given["eval_metric"], flops, double, None, completed).write(folder)
        return folder

    return make


@pytest.fixture
def paper_runs(make_run):
    """One run each with the figures of Table 1, CIFAR-10."""
    make_run("x", SMALL, 92.62)
    make_run("pair", SMALL, 92.83, LARGE, 91.0)
    make_run("y", LARGE, 93.63)


@pytest.fixture
def report(tmp_path, command):
    """``report(*words)`` of all runs made: rows by label as ``--csv`` has them, and what was said on standard error."""

    def run(*words):
        out, err = command("report", tmp_path, "--csv", "-", *words)
        return {row["model"]: row for row in csv.DictReader(io.StringIO(out))}, err

    return run


# ---- groups


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (
            {"output": "here", "device": "cpu", "workers": 0},
            {"output": "there", "device": "cuda", "log_interval": 1},
            1,
        ),
        ({"folds": 5, "fold": 0}, {"folds": 5, "fold": 1}, 1),
        ({"folds": 5, "fold": 0}, {"folds": 3, "fold": 0}, 0),
        ({}, {"motivation_k": 3}, 0),
        ({}, {"lr": 0.2}, 0),
        ({}, {"epochs": 9}, 0),
        ({}, {"motivation_condition": "ema"}, 0),
        ({}, {"motivation_ema_decay": 0.8}, 1),  # only the condition ema reads it
        ({"motivation_condition": "ema"}, {"motivation_condition": "ema", "motivation_ema_decay": 0.8}, 0),
        ({"motivation_condition": "random"}, {"motivation_condition": "random", "motivation_k": 3}, 1),
        ({"motivated": None}, {"motivated": "", "motivation_k": 5, "motivation_bn": "separate"}, 1),
        ({"motivated": None}, {"motivated": None, "motivation_bn_recalibrate": 10}, 0),
    ],
)
def test_runs_are_one_configuration_if_all_options_that_are_measured_are_equal(one, other, alike, make_run, tmp_path):
    for seed, options in enumerate((one, other)):
        given = {"motivated": LARGE, "larger": 90.0, "seed": seed, **options}
        make_run(str(seed), SMALL, 90.0, **given)
    assert len(group_runs(find_runs([tmp_path]))) == 2 - alike


def test_the_label_names_the_options_in_which_configurations_differ(make_run, report):
    make_run("a", SMALL, 90.0, LARGE, 90.0)
    make_run("b", SMALL, 91.0, LARGE, 90.0, motivation_k=3)
    assert list(report()[0]) == [f"{PAIR}-{kind} [k = {k}]" for k in (2, 3) for kind in "BM"]


def test_labels_are_in_words_of_what_is_on_and_all_of_them_are_different(make_run, report):
    for name, options in {
        "a": {"motivation_bn_recalibrate": 50, "motivation_bn": "copy", "lr": 0.1, "amp": True},
        "b": {"lr": 0.1},
        "c": {"motivation_condition": "random", "lr": 0.1},
        "d": {"smoothing": 0.0, "lr": 0.2, "mean": [0.1, 0.2, 0.3]},
    }.items():
        make_run(name, SMALL, 90.0, LARGE, 90.0, **options)
    for name, options in {"x": {"drop_path": None}, "y": {"drop_path": 0.0}}.items():
        make_run(name, SMALL, 90.0, **options)
    labels = [label.partition(" ")[2] for label in report()[0] if "-M" not in label]
    assert sorted(labels) == [
        "[copy, re-estimated, amp, lr 0.1, smoothing 0.1]",
        "[drop_path=0.0]",
        "[drop_path=None]",
        "[random, separate, lr 0.1, smoothing 0.1]",
        "[separate, lr 0.1, smoothing 0.1]",
        "[separate, lr 0.2, mean 0.1 0.2 0.3]",
    ]


def test_never_is_the_base_trained_classically(make_run, report):
    make_run("a", SMALL, 90.0, seed=1)
    make_run("b", SMALL, 92.0, LARGE, 50.0, seed=2, motivation_condition="never", share=(10, 0))
    (row,) = report()[0].values()
    assert (row["model"], row["n"], float(row["top1_mean"])) == (f"{SMALL}-C", "2", 91.0)
    assert float(row["average_forward_flops"]) == FLOPS[Role.BASE]


# ---- figures


def test_rows_and_figures_are_the_papers_for_runs_with_its_accuracies_and_share(paper_runs, report):
    rows, said = report()
    assert list(rows) == [f"{SMALL}-C", f"{PAIR}-B", f"{PAIR}-M", f"{LARGE}-C"]
    _, b, m, _ = rows.values()
    assert [row[GAINED][:4] for row in rows.values()] == ["", "2.17", "", "1.76"]
    assert float(b[GAINED]) == pytest.approx(2.18, abs=0.005)
    assert float(b["acc_f_ratio"]) == pytest.approx(1.2348, abs=1e-3)
    assert float(b["average_forward_flops"]) == pytest.approx(92.47e6, abs=5e3)
    assert b["average_forward_flops"] == m["average_forward_flops"]
    assert (float(m["top1_mean"]), said) == (91.0, "")


def test_mean_and_sample_deviation_are_over_the_last_epochs_and_the_best_is_shown_on_request(make_run, report):
    for seed, top1 in enumerate((90.0, 91.0, 92.0)):
        make_run(str(seed), SMALL, top1, seed=seed)
    row, best = report()[0][f"{SMALL}-C"], report("--best")[0][f"{SMALL}-C"]
    assert (row["n"], float(row["top1_mean"]), float(row["top1_sd"])) == ("3", 91.0, 1.0)
    assert float(best["top1_best_epoch_selected_on_validation_data"]) == 92.0
    assert not [name for name in row if "best" in name]


def test_the_best_epoch_is_the_one_that_was_kept(make_run, report):
    make_run("a", SMALL, 90.0, eval_metric="loss")  # both epochs have the same loss, the first the higher top-1
    run = make_run("b", SMALL, 80.0, eval_metric="loss", lr=0.5, losses=(1.0, 0.5))
    for _ in range(2):
        best = [
            row["top1_best_epoch_selected_on_validation_data"] for row in report("--best", "--unfinished")[0].values()
        ]
        assert sorted(best) == ["80.0", "91.0"]
        (run / "result.json").unlink(missing_ok=True)  # of a run in progress summary.csv is read


def test_cells_are_missing_where_a_row_or_a_difference_is(make_run, report):
    make_run("pair", SMALL, 92.83, LARGE, 91.0)
    row = report()[0][f"{PAIR}-B"]
    assert [row[GAINED], row["acc_f_ratio"]] == ["", ""]
    make_run("x", SMALL, 92.62)
    row = report()[0][f"{PAIR}-B"]
    assert (float(row[GAINED]), row["acc_f_ratio"]) == (pytest.approx(2.18, abs=0.005), "")
    make_run("same", SMALL, 92.0, LARGE, 91.0, share=(1, 0), motivation_k=9)  # as many FLOPs as the base alone
    assert report()[0][f"{PAIR}-B [k = 9]"][GAINED] == ""


def test_of_classical_runs_the_most_alike_are_compared_and_a_footnote_names_what_differs(make_run, report):
    make_run("other", SMALL, 10.0, lr=0.5, epochs=9)
    make_run("pair", SMALL, 92.83, LARGE, 91.0)
    assert report()[0][f"{PAIR}-B"]["notes"].endswith("which differs in epochs (9, here 300), lr (0.5, here None)")
    make_run("x", SMALL, 92.62)
    row = report()[0][f"{PAIR}-B"]
    assert (row["against"], row["notes"]) == (f"{SMALL}-C [300 epochs]", "")


def test_the_larger_models_own_regularisation_is_expected_of_its_classical_runs(make_run, report):
    make_run("x", SMALL, 92.62, drop=0.2)
    make_run("pair", SMALL, 92.83, LARGE, 91.0, drop=0.2, motivated_drop=0.3)
    make_run("y", LARGE, 93.63, drop=0.3)
    assert report()[0][f"{PAIR}-B"]["notes"] == ""


def test_runs_on_another_data_set_are_never_compared(make_run, report):
    make_run("x", SMALL, 92.62, dataset="torch/cifar100")
    make_run("pair", SMALL, 92.83, LARGE, 91.0)
    assert report()[0][f"{PAIR}-B"]["against"] == ""


def test_a_larger_model_with_two_bases_is_compared_with_each(make_run, paper_runs, report):
    make_run("x2", "resnet14_cifar", 91.0)
    make_run("pair2", "resnet14_cifar", 92.0, LARGE, 91.0)
    assert {f"{LARGE}-C over {SMALL}-C", f"{LARGE}-C over resnet14_cifar-C"} <= set(report()[0])


def test_flops_of_plain_runs_are_counted_where_no_motivated_run_has_them(make_run, report):
    make_run("x", SMALL, 92.62, input_size=[3, 32, 32], num_classes=10)
    make_run("broken", "no_such_model", 92.62)
    rows, said = report()
    assert f"{float(rows[f'{SMALL}-C']['average_forward_flops']) / 1e6:.2f}" == "82.82"  # Table 8
    assert rows["no_such_model-C"]["average_forward_flops"] == ""
    assert "the FLOPs of no_such_model cannot be counted" in said


def test_average_flops_and_share_of_an_unfinished_run_come_from_its_epochs(make_run, paper_runs, report):
    (make_run("late", SMALL, 90.0, LARGE, 80.0, motivation_k=3, share=(3, 1)) / "result.json").unlink()
    row = report("--unfinished")[0][f"{PAIR}-B [k = 3]"]
    assert float(row["share"]) == 0.25
    assert float(row["average_forward_flops"]) == pytest.approx((3 * 82.82e6 + 140.13e6) / 4)


# ---- which runs


def test_runs_of_timms_own_script_join_ours(make_run, report):
    make_run("ours", SMALL, 90.0, seed=1)
    make_run("timm", SMALL, 92.0, seed=2, timm=True)
    rows, said = report()
    assert (rows[f"{SMALL}-C"]["n"], said) == ("2", "")


def test_unfinished_runs_are_left_out_and_said(make_run, report):
    make_run("a", SMALL, 90.0, seed=1)
    stopped, killed = make_run("b", SMALL, 10.0, seed=2, completed=False), make_run("c", SMALL, 10.0, seed=3)
    (killed / "result.json").unlink()
    rows, said = report()
    assert rows[f"{SMALL}-C"]["n"] == "1"
    assert said.splitlines() == [
        f"left out: {late} has not finished (--unfinished counts it)" for late in (stopped, killed)
    ]
    assert report("--unfinished")[0][f"{SMALL}-C"]["n"] == "3"


def test_one_measurement_counted_twice_is_said(make_run, report):
    make_run("a", SMALL, 90.0, seed=1)
    make_run("b", SMALL, 90.0, seed=1)
    assert "have the same options, seed and fold" in report()[1]


def test_bad_input_ends_in_one_line(make_run, tmp_path, command):
    def failure(*words):
        out, err = command("report", *words, code=2)
        assert out == ""
        assert err.splitlines()[-1].startswith("error: ")
        return err

    (tmp_path / "empty").mkdir()
    assert "there is no folder" in failure(tmp_path / "nowhere")
    assert "has none in it" in failure(tmp_path / "empty")
    run = make_run("a", SMALL, 90.0)
    assert "table1" in failure(run, "--paper", "table9")
    assert "two different names" in failure(run, "--csv", "-", "--markdown", "-")
    assert "cannot write" in failure(run, "--csv", tmp_path)
    (run / "result.json").write_text("[1]")
    assert "result.json is damaged" in failure(run)
    (run / "result.json").unlink()
    assert "--unfinished" in failure(run)


# ---- forms


def test_the_console_shows_an_aligned_table_with_units_and_convention(paper_runs, tmp_path, command):
    lines = command("report", tmp_path).out.splitlines()
    assert {len(line) for line in lines[2:6]} == {len(lines[0])}
    assert lines[1].split(")")[1:3] == ["          (torch flops", "  (10^-2 % per MFLOP"]
    assert lines[3].split() == [f"{PAIR}-B", "1", "92.83", "0.1684", "92.47M", "2.18", "1.23"]
    assert "model: C is trained alone; B and M are the base and the motivated model" in lines[7]


def test_runs_with_flops_of_another_convention_are_told_apart(make_run, report, tmp_path, command):
    make_run("old", SMALL, 92.83, LARGE, 91.0, seed=1)
    result = json.loads((tmp_path / "old/result.json").read_text())
    (tmp_path / "old/result.json").write_text(json.dumps(result | {"convention": "flops"}))
    assert report()[0][f"{PAIR}-B"]["convention"] == "thop flops"
    assert "thop flops: " in command("report", tmp_path).out
    make_run("new", SMALL, 92.83, LARGE, 91.0, seed=2)
    make_run("plain", SMALL, 92.62)
    rows = report()[0]
    assert rows[f"{PAIR}-B"]["convention"] == "thop flops and torch flops"
    assert rows[f"{SMALL}-C"]["convention"] == "torch flops"
    assert "F_avg counted in thop flops and torch flops" in rows[f"{PAIR}-B"]["notes"]


def test_markdown_and_csv_are_written_beside_the_table_or_alone_to_standard_output(paper_runs, tmp_path, command):
    files = [tmp_path / "t.md", tmp_path / "t.csv"]
    assert command("report", tmp_path, "--markdown", files[0], "--csv", files[1]).out.startswith("model")
    lines = files[0].read_text().splitlines()
    assert [line.count("|") for line in lines[:6]] == [8] * 6
    cells = [cell.strip() for cell in lines[3].split("|")]
    assert cells[1:-1] == [f"{PAIR}-B", "1", "92.83", "0.1684", "92.47M", "2.18", "1.23"]
    assert len(list(csv.DictReader(files[1].open()))) == 4
    assert command("report", tmp_path, "--markdown", "-").out == files[0].read_text()


# ---- the paper's figures beside ours


def test_the_papers_figures_stand_beside_rows_of_its_models_and_data_set(make_run, paper_runs, report):
    make_run("ema", SMALL, 90.0, LARGE, 80.0, motivation_condition="ema")
    rows, _ = report("--paper", "table1")
    pair = rows[f"{PAIR}-B"]
    assert pair["paper, CIFAR-10 (%)"] == "92.83 ± 0.20"
    assert pair["paper, CIFAR-10 (FLOPs)"] == "92.47M"
    assert pair["paper, CIFAR-10 (ACC/FLOPs and ratio)"] == "2.18 (1.24)"
    assert rows[f"{LARGE}-C"]["paper, CIFAR-10 (ACC/FLOPs and ratio)"] == "1.76"
    assert rows[f"{PAIR}-B [ema]"]["paper, CIFAR-10 (%)"] == ""
    assert not [name for name in pair if "CIFAR-100" in name]


@pytest.mark.parametrize(
    ("table", "model", "data", "there"),
    [
        ("table1", SMALL, "hfds/uoft-cs/cifar100", ["68.86 ± 0.23", "in 10^-2 % per MFLOP: resnet20_cifar\n"]),
        ("table1", "vit_tiny_patch16_224", "torch/cifar10", ["in 10^-2 % per GFLOP: vit_tiny_patch16_224\n"]),
        ("table1", SMALL, "torch/fashion_mnist", ["92.62 ± 0.17", "paper, CIFAR-10: another data set than that of"]),
        ("table5", SMALL, "torch/cifar100", ["Table 5 has none of these models"]),
    ],
)
def test_the_papers_columns_are_those_of_our_data_and_models(table, model, data, there, make_run, tmp_path, command):
    make_run("x", model, 60.0, LARGE, 50.0, dataset=data, motivation_condition="never", share=(1, 0))
    out = command("report", tmp_path, "--paper", table).out
    assert all(words in out for words in there)


def test_table5_shows_both_models_and_no_ratios(make_run, report):
    make_run("m", "efficientnet_b0", 60.0, "efficientnet_b1.ra_in1k", 70.0, dataset="torch/cifar100")
    row = report("--paper", "table5")[0]["efficientnet_b0-efficientnet_b1.ra_in1k-M"]
    assert (row["paper, CIFAR-100 (%)"], row["paper, CIFAR-100 (FLOPs)"]) == ("80.09 ± 0.27", "0.44G")
    assert not [name for name in row if "ratio" in name and "paper" in name]


def test_empty_and_damaged_runs_are_left_out_and_said(make_run, report, tmp_path):
    make_run("a", SMALL, 90.0, seed=1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "args.yaml").touch()
    (make_run("c", SMALL, 10.0, seed=2) / "result.json").write_text("")
    rows, said = report()
    assert rows[f"{SMALL}-C"]["n"] == "1"
    assert said.splitlines() == [
        f"left out: {tmp_path}/b/args.yaml does not name a model",
        f"left out: {tmp_path}/c/result.json is damaged: Expecting value: line 1 column 1 (char 0)",
    ]


def test_an_empty_folder_beside_runs_is_left_out_and_said(make_run, command, tmp_path):
    (tmp_path / "nothing").mkdir()
    said = command("report", make_run("a", SMALL, 90.0), tmp_path / "nothing")
    assert said.err == f"left out: {tmp_path}/nothing is no run and has none in it (a run has an args.yaml)\n"
    assert "is no run and has none in it" in command("report", tmp_path / "nothing", code=2).err


# paired differences


def paired(command, folder, *flags):
    """The comparisons of ``report --paired``, by the labels of both rows."""
    table = csv.DictReader(io.StringIO(command("report", folder, "--paired", "--csv", "-", *flags).out))
    return {(row["model"], row["against"]): row for row in table}


def test_paired_differences_are_those_of_equal_seeds_with_scipys_interval(make_run, tmp_path, command):
    accuracies = np.random.default_rng(0).normal(90, 1, (3, 2, 5)).round(2)
    for seed in range(5):
        (x, _), (b, m), (y, _) = accuracies[:, :, seed].tolist()
        make_run(f"x{seed}", SMALL, x, seed=seed)
        make_run(f"pair{seed}", SMALL, b, LARGE, m, seed=seed)
        if seed < 3:
            make_run(f"y{seed}", LARGE, y, seed=10 - seed)
            make_run(f"z{seed}", LARGE, y, seed=seed)
    found = paired(command, tmp_path)
    assert len(found) == 2
    for kind, twin, ours, theirs in (
        ("B", f"{SMALL}-C", accuracies[1, 0], accuracies[0, 0]),
        ("M", f"{LARGE}-C", accuracies[1, 1, :3], accuracies[2, 0, :3]),
    ):
        row = found[f"{PAIR}-{kind}", twin]
        interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        assert float(row["difference"]) == pytest.approx((interval.low + interval.high) / 2)
        assert float(row["half_width_95"]) == pytest.approx((interval.high - interval.low) / 2)
        assert int(row["n"]) == len(ours)
    assert [row["seeds"] for row in found.values()] == ["0-4", "0-2"]
    assert [row["unpaired"] for row in found.values()] == ["0", "5"]
    text = command("report", tmp_path, "--paired").out
    assert "runs without a partner of the same seed and fold are left out" in text
    assert "Student's t" in text


def test_the_rows_of_a_reproduction_are_compared_with_each_other_and_name_what_differs(make_run, tmp_path, command):
    for seed in (0, 1):
        make_run(f"x{seed}", SMALL, 90.0 + seed, seed=seed)
        make_run(f"longer{seed}", SMALL, 92.0 + 2 * seed, seed=seed, epochs=230)
        make_run(f"copy{seed}", SMALL, 91.0, LARGE, 80.0, seed=seed, motivation_bn="copy")
        make_run(f"separate{seed}", SMALL, 91.5, LARGE, 89.0, seed=seed)
    found = paired(command, tmp_path)
    short = f"{SMALL}-C [{DEFAULTS['epochs']} epochs]"
    copied, apart = (f"{PAIR}-{{}} [{name}]" for name in ("copy", "separate"))
    differences = {pair: float(row["difference"]) for pair, row in found.items()}
    assert differences == {
        (copied.format("B"), short): 0.5,
        (apart.format("B"), short): 1.0,
        (f"{SMALL}-C [230 epochs]", short): 2.5,
        (copied.format("B"), apart.format("B")): -0.5,
        (copied.format("M"), apart.format("M")): -9.0,
    }
    options = {row["options_that_differ"] for row in found.values()}
    assert options == {"", "epochs", "motivation_bn"}
    assert "besides what the labels say" not in command("report", tmp_path, "--paired").out


def test_options_that_differ_without_a_label_saying_so_are_named_once(make_run, tmp_path, command):
    for seed in (0, 1):
        make_run(f"x{seed}", SMALL, 90.0 + seed, seed=seed)
        make_run(f"y{seed}", LARGE, 92.0 + seed, seed=seed)
        make_run(f"pair{seed}", SMALL, 91.0, LARGE, 80.0, seed=seed, motivation_bn_recalibrate=50)
    out = " ".join(command("report", tmp_path, "--paired").out.split())
    assert f"(1) compared with {SMALL}-C and {LARGE}-C, which differ in motivation_bn_recalibrate (0, here 50)" in out
    assert (
        f"besides what the labels say, motivation_bn_recalibrate differ between {PAIR}-B and {SMALL}-C, and in 1 more "
        "comparisons"
    ) in out


@pytest.mark.parametrize("flags", [[], ["--paired"], ["--best"]])
def test_many_long_labels_fit_a_terminal(flags, make_run, tmp_path, command):
    make_run("x", SMALL, 90.0)
    for number, options in enumerate([{}, {"motivation_bn": "copy", "warmup_epochs": 20, "opt": "momentum"}]):
        for k in (2, 3):
            make_run(f"{number}{k}", SMALL, 91.0, LARGE, 80.0, motivation_k=k, motivation_bn_recalibrate=50, **options)
    out = command("report", tmp_path, *flags).out
    assert max(map(len, out.splitlines())) <= 120
    assert "resnet20-resnet32-B [k = 2, separate," in out
    assert "model names without their common ending _cifar" in out


def test_folds_of_a_seed_are_paired_and_runs_that_cannot_be_compared_are_refused(make_run, tmp_path, command):
    for fold in (0, 1):
        make_run(f"x{fold}", SMALL, 90.0, folds=5, fold=fold)
    assert "--paired: no two rows can be compared" in command("report", tmp_path, "--paired", code=2).err
    make_run("pair", SMALL, 91.0, LARGE, 80.0, folds=5, fold=1)
    (row,) = paired(command, tmp_path).values()
    assert (row["seeds"], row["n"], row["difference"], row["half_width_95"]) == ("42 (folds 1)", "1", "1.0", "")
