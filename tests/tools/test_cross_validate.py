"""``python -m motivation cross-validate``: its runs, what it refuses, and what it chooses."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.program import DIGITS

from motivation.__main__ import run_command
from motivation.tools.cross_validate import command
from motivation.tools.cross_validate.plan import Cell, Plan
from motivation.tools.cross_validate.report import METRICS, choose, draw, markdown

OPTIONS = {"model": "small", "motivated_model": "large", "motivation_condition": "loss", "lr": 0.1}
TOP1, LOSS = METRICS["top1"], METRICS["loss"]


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path / "runs", ("--lr", "0.1"), OPTIONS, (1, 2), 2, (42,))


def test_every_k_meets_every_fold_with_every_seed_in_a_folder_of_its_own(plan):
    cells = replace(plan, seeds=(42, 43), baseline=True).cells()
    assert len({cell.name for cell in cells}) == len(cells) == 3 * 2 * 2
    assert [cell.name for cell in cells[:3]] == ["baseline-fold0-seed42", "k1-fold0-seed42", "k2-fold0-seed42"]


def test_what_makes_a_run_comes_after_the_users_arguments(plan):
    for cell, own in (
        (Cell(2, 1, 42), ("--motivation-k", "2")),
        (Cell(None, 1, 42), ("--motivation-condition", "never")),
    ):
        assert plan.run(cell).arguments == ("--lr", "0.1", "--folds", "2", "--fold", "1", "--seed", "42", *own)


def rows(**top1_of_k):
    """``rows(k1=[90, 91])``: made-up runs, one per fold; a larger k costs less."""
    made = {}
    for name, values in top1_of_k.items():
        k = None if name == "baseline" else int(name[1:])
        top1, share = np.array(values), np.full(len(values), 0.0 if k is None else 1 / (k + 1))
        made[k] = {
            "base_top1": top1, "base_loss": top1 / 100, "share": share, "average_flops": 10 * (1 + share),
            "flops_ratio": 1 + share, "motivated_top1": top1 + (math.nan if k is None else 0), "expected_share": share,
        }  # fmt: skip
    return made


def chosen(metric=TOP1, **top1_of_k):
    return choose(rows(**top1_of_k), metric)


def test_the_best_mean_is_chosen():
    assert chosen(k1=[90.0, 92.0], k2=[95.0, 96.0], k3=[80.0, 99.0])[0] == 2
    assert chosen(LOSS, k1=[90.0, 92.0], k2=[95.0, 96.0])[0] == 1


def test_of_equal_means_the_cheapest_is_chosen():
    assert chosen(k1=[90.0, 92.0], k2=[92.0, 90.0], k3=[80.0, 80.0])[0] == 2


def test_a_k_with_a_run_that_diverged_is_not_chosen():
    k, remarks = chosen(LOSS, k1=[math.nan, 1.0], k2=[95.0, 96.0])
    assert k == 2
    assert "Every other k is more than one standard error" in " ".join(remarks)


def test_ks_within_one_paired_standard_error_are_named():
    # fold by fold k = 2 leads by 1 and 1.2 points, although the folds differ by 20: that is clear
    clear = " ".join(chosen(k1=[70.0, 90.0], k2=[71.0, 91.2])[1])
    assert "Every other k is more than one standard error" in clear
    # a lead of 3 and -2: mean 0.5, standard error 2.5
    close = " ".join(chosen(k1=[70.0, 90.0], k2=[73.0, 88.0])[1])
    assert "hardly told apart" in close
    assert "k = 1 (chosen is 0.50 better, error 2.50)" in close
    assert "The cheapest of these and the chosen one is k = 2" in close


def test_the_base_alone_is_compared_and_never_chosen():
    k, remarks = chosen(baseline=[99.0, 99.0], k1=[90.0, 91.0])
    assert k == 1
    assert any("Against the base alone, k = 1 is 8.50 worse, error 0.50" in remark for remark in remarks)


def test_the_report_has_a_line_per_k_with_mean_and_deviation(plan):
    made = rows(baseline=[90.0, 92.0], k1=[91.0, 93.0], k2=[80.0, 81.0])
    text = markdown(plan, made, choose(made, TOP1)[1], TOP1)
    assert (
        "|          1 |    2 | 92.00 ± 1.41 |    92.00 ± 1.41 | 0.5000 ± 0.0000 |   0.5000 |    15 |  1.500 |" in text
    )
    assert "| base alone |    2 | 91.00 ± 1.41 |               - |" in text


def test_the_picture_is_drawn_with_and_without_a_law(tmp_path):
    made = rows(baseline=[90.0, 92.0], k1=[91.0, 93.0])
    draw(made, 1, TOP1, "title", tmp_path / "a.png")
    made[1]["expected_share"] = np.array([math.nan, math.nan])
    draw(made, 1, LOSS, "title", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"


def cross_validate(*words):
    return run_command(command.main, list(map(str, words)))


USER = [*DIGITS, "--motivated-model", "resnet14_cifar"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([], [*USER, "--motivation-k", "2"], "each run is given its own: --motivation-k;"),
        ([], [*USER, "--exp", "x", "--seed=1"], "--seed, --experiment"),
        ([], [*USER, "--resume", "x"], "each run is given its own: --resume"),
        ([], DIGITS, "--motivated-model"),
        ([], [*USER, "--motivation-condition", "never"], "never has no k"),
        ([], [*USER, "--motivated-model", "resnet50"], "--motivated-model"),
        ([], [*USER, "--opt", "nonesuch"], "--opt"),
        ([], [*USER, "-b", "2000"], "--batch-size"),
        (["--folds", "1"], USER, "--folds: at least 2"),
        (["--jobs", "0"], USER, "--jobs: at least 1"),
        (["--folds", "500"], USER, "--folds 500: class"),
        (["--k", "0", "1"], USER, "--k: at least 1"),
    ],
)
def test_a_wrong_command_is_one_line_and_starts_nothing(tmp_path, capsys, before, after, message):
    folder = tmp_path / "runs"
    assert cross_validate("--k", 1, "--output", folder, *before, "--", *after) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert "Traceback" not in said
    assert not folder.exists()


def test_the_programs_arguments_are_needed(capsys):
    assert cross_validate("--k", 1) == 2
    assert "after --" in capsys.readouterr().err


def test_a_configuration_file_gives_the_seed(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("seed: 7\nmotivation_k: 3\nexperiment: x\n")
    args = command.make_parser().parse_args(["--k", "3", "1", "3"])
    plan = command.make_plan(args, [*USER, "-c", str(file)])
    assert (plan.seeds, plan.ks, plan.folds) == ((7,), (1, 3), 5)


def test_a_dry_run_prints_the_commands_and_writes_nothing(tmp_path, capsys):
    folder = tmp_path / "some runs"
    assert cross_validate("--k", 1, 2, "--folds", 2, "--output", folder, "--dry-run", "--", *USER) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "# 4 runs: 0 done, 0 to resume, 4 new"
    assert f"--output '{folder}' --experiment k1-fold0-seed42" in lines[0]
    assert not folder.exists()


def test_real_runs_end_in_a_table_and_are_not_made_again(tmp_path, capsys, forked_runs):
    folder = tmp_path / "runs"
    argv = ["--k", "1", "--folds", "2", "--jobs", "2", "--output", str(folder), "--", *USER, "--epochs", "1"]
    assert cross_validate(*argv) == 0
    out = capsys.readouterr().out
    assert "Chosen: k = 1" in out
    assert {file.suffix for file in folder.glob("cross_validation.*")} == {".md", ".png"}
    made = (folder / "k1-fold1-seed42" / "result.json").stat().st_mtime_ns
    assert cross_validate(*argv) == 0
    assert "2 runs: 2 done" in capsys.readouterr().out
    assert (folder / "k1-fold1-seed42" / "result.json").stat().st_mtime_ns == made
    other = [word if word != "0.05" else "0.06" for word in argv]
    assert cross_validate(*other) == 2
    assert "lr 0.05 there, 0.06 here" in capsys.readouterr().err
