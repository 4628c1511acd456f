"""The runs behind the paper's tables: every row, in an order in which each finds what it follows."""

import json

import pytest
from support.program import load

from motivation.__main__ import run_command
from motivation.options.parse import make_parser, parse
from motivation.tools import experiments, finetune
from motivation.tools.experiments import TABLES, Experiment, main, plan
from motivation.tools.report.paper import TABLES as PRINTED
from motivation.tools.report.paper import paper_label


def planned(table, tmp_path, *flags, further=()):
    args = experiments.make_parser().parse_args([table, "--output", str(tmp_path), *flags])
    return plan(args, further)


def options_of(run):
    """The options that the run's program makes of its command."""
    make = finetune.make_parser if run.launcher[-1] == "finetune" else make_parser
    return parse(run.command()[len(run.launcher) :], make())[0]


def experiments_command(*words):
    return run_command(main, list(map(str, words)))


@pytest.mark.parametrize("table", TABLES)
def test_every_command_is_one_its_program_takes(table, tmp_path):
    runs = planned(table, tmp_path, "--seeds", "5", further=("--data-dir", "D"))
    folders = [run.folder for run in runs]
    assert len(set(folders)) == len(folders)
    for run in runs:
        args = options_of(run)
        assert (args.data_dir, args.output, args.experiment) == ("D", str(tmp_path), run.folder.name)


@pytest.mark.parametrize("table", PRINTED)
def test_every_row_that_the_paper_prints_is_run(table, tmp_path):
    runs = map(options_of, planned(table, tmp_path, "--seeds", "0"))
    found = {paper_label(args.model, args.motivated_model, "") for args in runs}
    assert found >= {label[:-1] for label in PRINTED[table].rows}


@pytest.mark.parametrize("table", ["table3", "table6"])
def test_what_a_run_follows_comes_before_it(table, tmp_path):
    seen = set()
    for run in planned(table, tmp_path, "--seeds", "3", "4"):
        args = options_of(run)
        needed = list(args.motivation_scheduled_runs) + ([args.checkpoint] if hasattr(args, "checkpoint") else [])
        assert seen >= set(needed), run.folder
        assert list(map(str, run.needs)) == needed
        seen.add(str(run.folder))


def test_three_runs_of_each_but_one_on_imagenet(tmp_path):
    assert len(planned("table1", tmp_path)) == 3 * 20
    assert len(planned("table2", tmp_path)) == 3
    assert len(planned("table1", tmp_path, "--seeds", "7", "--only", "resnet20")) == 4


def test_done_runs_are_left_out_and_begun_ones_resumed(tmp_path, capsys):
    first, second, *_ = planned("table7", tmp_path)
    for run in (first, second):
        run.folder.mkdir()
        (run.folder / "args.yaml").write_text("model: resnet20_cifar\n")
        (run.folder / "last.pth.tar").touch()
    (first.folder / "result.json").write_text(json.dumps({"completed": True}))
    assert main(["table7", "--output", str(tmp_path), "--dry-run"]) == 0
    *commands, summary, report = capsys.readouterr().out.splitlines()
    assert (summary, report) == ("# 15 runs: 1 done, 1 to resume, 13 new", "# then the report beside table7")
    assert len(commands) == 14
    assert f"--experiment {second.folder.name} --resume auto" in commands[0]
    assert not any("--resume" in command for command in commands[1:])


def test_runs_of_several_processes_are_launched_by_torchrun(tmp_path):
    (run,) = planned("table2", tmp_path, "--only", "resnet101_a3", "--seeds", "1", "--processes", "8")[1:]
    assert "--nproc_per_node=8" in run.launcher


def test_a_table_is_run_and_reported(tmp_path, monkeypatch, capfd, forked_runs):
    monkeypatch.setitem(TABLES, "table7", (Experiment("quickstart", 1),))
    argv = ["table7", "--output", str(tmp_path), "--", "--epochs", "1", "--device", "cpu"]
    assert main(argv) == 0
    out = capfd.readouterr().out
    assert "[1/1] quickstart-seed0: top-1 " in out
    assert "resnet8_cifar-resnet14_cifar-B" in out
    assert load(tmp_path / "quickstart-seed0" / "last.pth.tar")["epoch"] == 0
    made = (tmp_path / "quickstart-seed0" / "result.json").stat().st_mtime_ns
    assert main(argv) == 0
    assert (tmp_path / "quickstart-seed0" / "result.json").stat().st_mtime_ns == made


def test_a_run_that_fails_ends_the_table(tmp_path, capfd, forked_runs):
    assert main(["table2", "--output", str(tmp_path), "--", "--data-dir", str(tmp_path / "nowhere")]) == 1
    out, err = capfd.readouterr()
    assert "[1/3] imagenet-resnet50_a3-seed0 failed with exit code 2" in out
    assert "    error: --data-dir: there is no folder" in out
    assert "Failed or left out: imagenet-resnet50_a3-seed0. To go on: python -m motivation experiments table2" in err


def test_a_row_that_is_not_there_is_one_line(tmp_path, capsys):
    assert experiments_command("table2", "--only", "resnet18", "--output", tmp_path) == 2
    assert "error: --only: table2 has no such row; it has imagenet-resnet50_a3" in capsys.readouterr().err


def test_devices_are_for_runs_of_one_process(tmp_path, capsys):
    words = ["table1", "--output", tmp_path, "--dry-run", "--devices", "cuda:0", "cuda:1"]
    assert experiments_command(*words) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith("--device cuda:0")
    assert second.endswith("--device cuda:1")
    assert experiments_command(*words, "--processes", 2) == 2
    assert "--devices: not with --processes" in capsys.readouterr().err


def test_another_number_of_processes_than_the_recipes_is_said(tmp_path, capsys):
    assert main(["table2", "--output", str(tmp_path), "--dry-run"]) == 0
    assert "mind the batch: the recipes are for 8 process(es)" in capsys.readouterr().err
    assert main(["table2", "--output", str(tmp_path), "--dry-run", "--processes", "8"]) == 0
    assert capsys.readouterr().err == ""
