"""The report groups runs over seeds, compares as the paper does, and knows the paper's own figures."""

import csv
import io

import pytest
import yaml

from motivation.method.records import Counts, Role
from motivation.options.parse import make_parser
from motivation.tools.report import paper
from motivation.tools.report.command import main
from motivation.tools.report.derived import Origin, derive
from motivation.tools.report.grouping import NOT_MEASURED, group_runs
from motivation.tools.report.metrics import acc_f_ratio, acc_per_flops, sample_sd, unit_for
from motivation.training.csv_files import append_rows
from motivation.training.loggers import summary_row
from motivation.training.records import EpochRecord
from motivation.training.result import RunResult
from motivation.training.run_folder import find_runs

SMALL, LARGE = "resnet20_cifar", "resnet32_cifar"
FLOPS = {Role.BASE: 82.82e6, Role.MOTIVATED: 140.13e6}
DEFAULTS = {name: value for name, value in vars(make_parser().parse_args([])).items() if name != "config"}
TABLE_ROWS = [d for name in ("table1", "table2", "table4") for d in derive(paper.TABLES[name])]


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, model, top1, motivated, top1_of_it, **options)`` writes the folder of a run of two epochs."""

    def make(
        name, model, top1, motivated=None, larger=None, completed=True, timm=False, share=(83162, 16838), **options
    ):
        folder = tmp_path / name
        folder.mkdir()
        given = {**DEFAULTS, "dataset": "torch/cifar10", "model": model, "motivated_model": motivated, **options}
        if timm:
            ours = ("motivat", "fold", "train_pad", "val_input_size")
            given = {key: value for key, value in given.items() if not key.startswith(ours)}
        (folder / "args.yaml").write_text(yaml.safe_dump(given))
        counts = Counts(dict(zip(Role, share)), 7)
        records = []
        for epoch, gain in enumerate((1.0, 0.0)):  # the best epoch is not the last
            metrics, above = ({"loss": 1.0, "top1": a + gain, "top5": 99.0} if a else None for a in (top1, larger))
            seen = Counts({role: count * (epoch + 1) for role, count in counts.updates.items()}, 7)
            records.append(EpochRecord(epoch, 1.0, metrics, above, 0.1, counts, seen, 1.0))
        flops = FLOPS if motivated else None
        append_rows(folder / "summary.csv", [summary_row(record, flops) for record in records])
        if not timm:
            names = {Role.BASE: model, Role.MOTIVATED: motivated}
            RunResult(records, names, "top1", flops, None, completed).write(folder)
        return folder

    return make


@pytest.fixture
def report(tmp_path, capsys):
    """``report(*words)`` of all runs made: rows by label as ``--csv`` has them, and what was said on standard error."""

    def run(*words):
        assert main([str(tmp_path), "--csv", "-", *words]) == 0
        said = capsys.readouterr()
        return {row["model"]: row for row in csv.DictReader(io.StringIO(said.out))}, said.err

    return run


def paper_runs(make_run):
    """One run each with the figures of Table 1, CIFAR-10."""
    make_run("x", SMALL, 92.62)
    make_run("pair", SMALL, 92.83, LARGE, 91.0)
    make_run("y", LARGE, 93.63)


def groups_of(tmp_path):
    return group_runs(find_runs([tmp_path]))


# ---- groups


def test_runs_that_differ_in_seed_and_place_only_are_one_configuration(make_run, tmp_path):
    make_run("a", SMALL, 90.0, seed=1, output="here", device="cpu", workers=0)
    make_run("b", SMALL, 91.0, seed=2, output="there", device="cuda", workers=8, log_interval=1)
    assert [len(group.runs) for group in groups_of(tmp_path)] == [2]


@pytest.mark.parametrize("change", [{"motivation_k": 3}, {"lr": 0.2}, {"motivation_condition": "ema"}, {"epochs": 9}])
def test_an_option_that_changes_what_is_measured_makes_another_configuration(make_run, tmp_path, change):
    make_run("a", SMALL, 90.0, LARGE, 90.0, seed=1)
    make_run("b", SMALL, 91.0, LARGE, 90.0, seed=2, **change)
    assert len(groups_of(tmp_path)) == 2


def test_the_label_names_the_options_in_which_configurations_differ(make_run, report):
    make_run("a", SMALL, 90.0, LARGE, 90.0)
    make_run("b", SMALL, 91.0, LARGE, 90.0, motivation_k=3)
    pair = f"{SMALL}-{LARGE}"
    assert list(report()[0]) == [f"{pair}-{kind} [motivation_k={k}]" for k in (2, 3) for kind in "BM"]


def test_folds_are_averaged_as_seeds_are_but_not_with_another_number_of_folds(make_run, tmp_path):
    make_run("a", SMALL, 90.0, folds=5, fold=0)
    make_run("b", SMALL, 90.0, folds=5, fold=1)
    make_run("c", SMALL, 90.0, folds=3, fold=1)
    assert [len(group.runs) for group in groups_of(tmp_path)] == [2, 1]


def test_options_of_motivated_runs_do_not_count_in_plain_ones_but_reestimation_does(make_run, tmp_path):
    make_run("a", SMALL, 90.0, seed=1)
    make_run("b", SMALL, 90.0, seed=2, motivation_k=5, motivation_bn="separate", motivated_model="")
    make_run("c", SMALL, 90.0, seed=3, motivation_bn_recalibrate=10)
    assert [len(group.runs) for group in groups_of(tmp_path)] == [2, 1]


def test_an_option_counts_only_under_the_condition_that_reads_it(make_run, tmp_path):
    for seed, (condition, k, decay) in enumerate(
        [("loss", 2, 0.9), ("loss", 2, 0.8), ("random", 2, 0.9), ("random", 3, 0.9)]
    ):
        options = {"motivation_condition": condition, "motivation_k": k, "motivation_ema_decay": decay}
        make_run(str(seed), SMALL, 90.0, LARGE, 90.0, seed=seed, **options)
    assert [len(group.runs) for group in groups_of(tmp_path)] == [2, 2]


def test_never_is_the_base_trained_classically(make_run, report):
    make_run("a", SMALL, 90.0, seed=1)
    make_run("b", SMALL, 92.0, LARGE, 50.0, seed=2, motivation_condition="never", share=(10, 0))
    rows, _ = report()
    assert list(rows) == [f"{SMALL}-C"]
    assert rows[f"{SMALL}-C"]["n"] == "2"
    assert float(rows[f"{SMALL}-C"]["top1_mean"]) == 91.0
    assert float(rows[f"{SMALL}-C"]["average_forward_flops"]) == FLOPS[Role.BASE]


def test_always_is_shown_as_a_configuration_of_its_own(make_run, report):
    paper_runs(make_run)
    make_run("always", SMALL, 80.0, LARGE, 93.0, motivation_condition="always", share=(0, 10))
    rows, _ = report()
    row = rows[f"{SMALL}-{LARGE}-M [condition=always]"]
    assert (float(row["share"]), float(row["average_forward_flops"])) == (1.0, FLOPS[Role.MOTIVATED])
    assert f"{SMALL}-{LARGE}-M" in rows


def test_every_option_that_does_not_count_exists():
    assert NOT_MEASURED - {"config"} <= set(DEFAULTS)


# ---- figures


def test_rows_and_figures_are_the_papers_for_runs_with_its_accuracies_and_share(make_run, report):
    paper_runs(make_run)
    rows, said = report()
    assert list(rows) == [f"{SMALL}-C", f"{SMALL}-{LARGE}-B", f"{SMALL}-{LARGE}-M", f"{LARGE}-C"]
    x, b, m, y = rows.values()
    gained = "acc_per_flops (10^-2 % per MFLOP)"
    assert [row[gained][:4] for row in (x, b, m, y)] == ["", "2.17", "", "1.76"]
    assert float(b[gained]) == pytest.approx(2.18, abs=0.005)
    assert float(b["acc_f_ratio"]) == pytest.approx(1.2348, abs=1e-3)
    assert float(b["average_forward_flops"]) == pytest.approx(92.47e6, abs=5e3)
    assert b["average_forward_flops"] == m["average_forward_flops"]
    assert float(m["top1_mean"]) == 91.0
    assert said == ""


def test_mean_and_sample_deviation_are_over_runs(make_run, report):
    for seed, top1 in enumerate((90.0, 91.0, 92.0)):
        make_run(str(seed), SMALL, top1, seed=seed)
    row = report()[0][f"{SMALL}-C"]
    assert (row["n"], float(row["top1_mean"]), float(row["top1_sd"])) == ("3", 91.0, 1.0)
    assert sample_sd([1.0]) is None


def test_the_last_epoch_counts_and_the_best_only_on_request_and_labelled(make_run, report):
    make_run("a", SMALL, 90.0)
    plain, best = report()[0][f"{SMALL}-C"], report("--best")[0][f"{SMALL}-C"]
    assert float(plain["top1_mean"]) == 90.0
    assert float(best["top1_best_epoch_selected_on_validation_data"]) == 91.0
    assert not [name for name in plain if "best" in name]


def test_cells_are_missing_where_a_row_or_a_difference_is(make_run, report):
    make_run("pair", SMALL, 92.83, LARGE, 91.0)
    row = report()[0][f"{SMALL}-{LARGE}-B"]
    assert [row["acc_per_flops (10^-2 % per MFLOP)"], row["acc_f_ratio"]] == ["", ""]
    assert acc_per_flops(90.0, 1e6, 89.0, 1e6) is None
    assert acc_f_ratio(1.0, 0.0) is None
    assert acc_f_ratio(None, 1.0) is None


def test_without_the_larger_models_run_there_is_no_ratio(make_run, report):
    make_run("x", SMALL, 92.62)
    make_run("pair", SMALL, 92.83, LARGE, 91.0)
    row = report()[0][f"{SMALL}-{LARGE}-B"]
    assert float(row["acc_per_flops (10^-2 % per MFLOP)"]) == pytest.approx(2.18, abs=0.005)
    assert row["acc_f_ratio"] == ""


def test_classical_runs_with_other_options_are_compared_under_a_footnote(make_run, report):
    paper_runs(make_run)
    make_run("other", SMALL, 10.0, lr=9.0)
    row = report()[0][f"{SMALL}-{LARGE}-B"]
    assert (row["against"], row["notes"]) == (f"{SMALL}-C [lr=None]", "")  # the one that is equal


def test_a_footnote_names_the_differing_options(make_run, report):
    make_run("x", SMALL, 92.62, epochs=9, lr=0.5)
    make_run("pair", SMALL, 92.83, LARGE, 91.0)
    row = report()[0][f"{SMALL}-{LARGE}-B"]
    assert row["notes"].endswith("which differs in epochs (9, here 300), lr (0.5, here None)")


def test_the_larger_models_own_regularisation_is_expected_of_its_classical_runs(make_run, report):
    make_run("x", SMALL, 92.62, drop=0.2)
    make_run("pair", SMALL, 92.83, LARGE, 91.0, drop=0.2, motivated_drop=0.3)
    make_run("y", LARGE, 93.63, drop=0.3)
    assert report()[0][f"{SMALL}-{LARGE}-B"]["notes"] == ""


def test_runs_on_another_data_set_are_never_compared(make_run, report):
    make_run("x", SMALL, 92.62, dataset="torch/cifar100")
    make_run("pair", SMALL, 92.83, LARGE, 91.0)
    assert report()[0][f"{SMALL}-{LARGE}-B"]["against"] == ""


def test_a_larger_model_with_two_bases_is_compared_with_each(make_run, report):
    paper_runs(make_run)
    make_run("x2", "resnet14_cifar", 91.0)
    make_run("pair2", "resnet14_cifar", 92.0, LARGE, 91.0)
    rows, _ = report()
    assert {f"{LARGE}-C over {SMALL}-C", f"{LARGE}-C over resnet14_cifar-C"} <= set(rows)


def test_flops_of_plain_runs_are_counted_where_no_motivated_run_has_them(make_run, report):
    make_run("x", SMALL, 92.62, input_size=[3, 32, 32], num_classes=10)
    make_run("broken", "no_such_model", 92.62)
    rows, said = report()
    assert f"{float(rows[f'{SMALL}-C']['average_forward_flops']) / 1e6:.2f}" == "82.82"  # Table 8
    assert rows["no_such_model-C"]["average_forward_flops"] == ""
    assert "the FLOPs of no_such_model cannot be counted" in said


def test_average_flops_and_share_of_an_unfinished_run_come_from_its_epochs(make_run, report):
    paper_runs(make_run)
    (make_run("late", SMALL, 90.0, LARGE, 80.0, motivation_k=3, share=(3, 1)) / "result.json").unlink()
    row = report("--unfinished")[0][f"{SMALL}-{LARGE}-B [motivation_k=3]"]
    assert float(row["share"]) == 0.25
    assert float(row["average_forward_flops"]) == pytest.approx((3 * 82.82e6 + 140.13e6) / 4)


def test_the_unit_follows_the_size_of_the_base():
    assert unit_for(0.99e9).name == "10^-2 % per MFLOP"
    assert unit_for(1e9).name == "% per GFLOP"


# ---- which runs


def test_runs_of_timms_own_script_join_ours(make_run, report):
    make_run("ours", SMALL, 90.0, seed=1)
    make_run("timm", SMALL, 92.0, seed=2, timm=True)
    rows, said = report()
    assert (rows[f"{SMALL}-C"]["n"], said) == ("2", "")


@pytest.mark.parametrize("how", ["no result", "not completed"])
def test_unfinished_runs_are_left_out_and_said(make_run, report, how):
    make_run("a", SMALL, 90.0, seed=1)
    late = make_run("late", SMALL, 10.0, seed=2, completed=how == "no result")
    if how == "no result":
        (late / "result.json").unlink()
    rows, said = report()
    assert rows[f"{SMALL}-C"]["n"] == "1"
    assert said.splitlines() == [f"left out: {late} has not finished (--unfinished counts it)"]
    assert report("--unfinished")[0][f"{SMALL}-C"]["n"] == "2"


def test_one_measurement_counted_twice_is_said(make_run, report):
    make_run("a", SMALL, 90.0, seed=1)
    make_run("b", SMALL, 90.0, seed=1)
    assert "have the same options, seed and fold" in report()[1]


# ---- bad input


def failure(capsys, *words):
    try:
        code = main(list(map(str, words)))
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.splitlines()[-1].startswith("error: ")
    return said.err


def test_bad_input_ends_in_one_line(make_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "there is no folder" in failure(capsys, tmp_path / "nowhere")
    assert "has none in it" in failure(capsys, tmp_path / "empty")
    run = make_run("a", SMALL, 90.0)
    assert "table1" in failure(capsys, run, "--paper", "table9")
    assert "two different names" in failure(capsys, run, "--csv", "-", "--markdown", "-")
    assert "cannot write" in failure(capsys, run, "--csv", tmp_path)
    (run / "result.json").write_text("[1]")
    assert "result.json is damaged" in failure(capsys, run)
    (run / "result.json").unlink()
    assert "--unfinished" in failure(capsys, run)


# ---- forms


def test_the_console_shows_an_aligned_table_with_units_and_convention(make_run, tmp_path, capsys):
    paper_runs(make_run)
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {len(line) for line in lines[2:6]} == {len(lines[0])}
    assert "(10^-2 % per MFLOP)" in lines[1]
    assert "(flops)" in lines[1]
    assert lines[3].split() == [f"{SMALL}-{LARGE}-B", "1", "92.83", "±", "-", "0.1684", "92.47M", "2.18", "1.23"]


def test_markdown_and_csv_are_written_beside_the_table(make_run, tmp_path, capsys):
    paper_runs(make_run)
    files = [tmp_path / "t.md", tmp_path / "t.csv"]
    assert main([str(tmp_path), "--markdown", str(files[0]), "--csv", str(files[1])]) == 0
    assert capsys.readouterr().out.startswith("model")
    lines = files[0].read_text().splitlines()
    assert [line.count("|") for line in lines[:6]] == [8] * 6
    assert lines[3].startswith(f"| {SMALL}-{LARGE}-B | 1 | 92.83 ± - | 0.1684 | 92.47M | 2.18 | 1.23 |")
    assert len(list(csv.DictReader(files[1].open()))) == 4


def test_a_dash_writes_to_standard_output_alone(make_run, tmp_path, capsys):
    paper_runs(make_run)
    assert main([str(tmp_path), "--markdown", "-"]) == 0
    assert capsys.readouterr().out.startswith("| model |")


# ---- the paper's figures


def test_the_papers_figures_stand_beside_rows_of_its_models_and_data_set(make_run, report):
    paper_runs(make_run)
    make_run("ema", SMALL, 90.0, LARGE, 80.0, motivation_condition="ema")
    rows, _ = report("--paper", "table1")
    pair = rows[f"{SMALL}-{LARGE}-B"]
    assert pair["paper, CIFAR-10 (%)"] == "92.83 ± 0.20"
    assert pair["paper, CIFAR-10 (FLOPs)"] == "92.47M"
    assert pair["paper, CIFAR-10 (ACC/FLOPs and ratio)"] == "2.18 (1.24)"
    assert rows[f"{LARGE}-C"]["paper, CIFAR-10 (ACC/FLOPs and ratio)"] == "1.76"
    assert rows[f"{SMALL}-{LARGE}-B [condition=ema]"]["paper, CIFAR-10 (%)"] == ""
    assert not [name for name in pair if "CIFAR-100" in name]


def test_runs_on_a_data_set_of_the_second_column_stand_beside_that(make_run, report):
    make_run("x", SMALL, 60.0, dataset="hfds/uoft-cs/cifar100")
    assert report("--paper", "table1")[0][f"{SMALL}-C"]["paper, CIFAR-100 (%)"] == "68.86 ± 0.23"


def test_a_column_of_another_data_set_is_said_to_be_one(make_run, tmp_path, capsys):
    make_run("x", SMALL, 60.0, dataset="torch/fashion_mnist")
    assert main([str(tmp_path), "--paper", "table1"]) == 0
    said = capsys.readouterr().out
    assert "92.62 ± 0.17" in said
    assert "paper, CIFAR-10: another data set than that of the runs" in said


def test_models_that_the_table_has_not_give_a_remark_and_no_columns(make_run, tmp_path, capsys):
    make_run("x", SMALL, 60.0)
    assert main([str(tmp_path), "--paper", "table5"]) == 0
    said = capsys.readouterr().out
    assert "Table 5 has none of these models" in said
    assert "paper, CIFAR" not in said


def test_the_papers_units_are_named_with_the_models_that_have_them(make_run, tmp_path, capsys):
    make_run("x", SMALL, 60.0)
    make_run("v", "vit_tiny_patch16_224", 60.0, "vit_small_patch16_224", 50.0)
    assert main([str(tmp_path), "--paper", "table1"]) == 0
    said = capsys.readouterr().out
    assert f"paper: ACC/FLOPs in 10^-2 % per MFLOP: {SMALL}\n" in said
    assert "paper: ACC/FLOPs in 10^-2 % per GFLOP: vit_tiny_patch16_224\n" in said


def test_table5_shows_both_models_and_no_ratios(make_run, report):
    make_run("m", "efficientnet_b0", 60.0, "efficientnet_b1.ra_in1k", 70.0, dataset="torch/cifar100")
    row = report("--paper", "table5")[0]["efficientnet_b0-efficientnet_b1.ra_in1k-M"]
    assert (row["paper, CIFAR-100 (%)"], row["paper, CIFAR-100 (FLOPs)"]) == ("80.09 ± 0.27", "0.44G")
    assert not [name for name in row if "ratio" in name and "paper" in name]


def test_every_printed_figure_of_tables_1_2_and_4_is_computed():
    printed = [
        figure
        for name in ("table1", "table2", "table4")
        for cell in paper.TABLES[name].cells.values()
        for figure in (cell.acc_per_flops, cell.acc_f_ratio)
        if figure is not None
    ]
    assert len(TABLE_ROWS) == len(printed) == 42
    assert sorted(d.printed for d in TABLE_ROWS) == sorted(printed)


def key_of(derived):
    return (derived.table, derived.label, derived.data_set)


def test_the_figures_that_do_not_follow_are_exactly_those_listed():
    found = {(*key_of(d), d.what): (d.printed, f"{d.computed:.2f}") for d in TABLE_ROWS if d.origin is Origin.NOTHING}
    assert found == paper.DEVIATING


def test_the_ratios_of_rounded_cells_are_exactly_those_listed():
    found = {key_of(d): d.printed for d in TABLE_ROWS if d.origin is Origin.ROUNDED_CELLS}
    assert found == paper.QUOTIENTS_OF_CELLS


def test_only_the_listed_figure_needs_the_rounding_of_the_flops():
    found = {
        (*key_of(d), d.what): (d.printed, f"{d.computed:.2f}") for d in TABLE_ROWS if d.origin is Origin.ROUNDED_FLOPS
    }
    assert found == paper.WITHIN_ROUNDED_FLOPS


def test_every_other_figure_is_the_computed_one_to_its_printed_digits():
    ratios, figures = set(paper.QUOTIENTS_OF_CELLS), {*paper.DEVIATING, *paper.WITHIN_ROUNDED_FLOPS}
    others = [
        d
        for d in TABLE_ROWS
        if (*key_of(d), d.what) not in figures and not (d.what == paper.RATIO and key_of(d) in ratios)
    ]
    assert len(others) == 42 - 8 - 8
    for d in others:
        digits = len(d.printed.partition(".")[2])
        assert f"{d.computed:.{digits}f}" == d.printed, d


def test_accuracies_that_two_tables_give_are_equal_but_where_table_5_has_other_runs():
    first, second = paper.TABLES["table4"], paper.TABLES["table5"]
    other = {
        first.labels[key[0]]
        for key in first.cells
        if (first.cells[key].accuracy, first.cells[key].accuracy_sd)
        != (second.cells[key].accuracy, second.cells[key].accuracy_sd)
    }
    assert other == {"Eff-2-3B", "Eff-3-4B", "Eff-4-5B"}


@pytest.mark.parametrize(("label", "share"), [("Res-20-32B", 0.168), ("Res-32-44B", 0.167), ("Res-44-56B", 0.0073)])
def test_average_flops_of_table_8_have_the_share_of_a_streak(label, share):
    table = paper.TABLES["table1"]
    kind, base, motivated = paper.models_of(label)
    rows = ((kind, base, motivated), ("C", base, None), ("C", motivated, None))
    average, small, large = (paper.flops_number(table.cells[row, "CIFAR-10"].flops) for row in rows)
    assert (average - small) / (large - small) == pytest.approx(share, rel=0.01)
