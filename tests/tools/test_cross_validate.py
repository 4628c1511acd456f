"""``python -m motivation cross-validate``: its plan, its processes (a fake program stands in), and what it chooses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.program import DIGITS

from motivation.tools.cross_validate import command
from motivation.tools.cross_validate.plan import (
    Plan,
    PlanError,
    RunSpec,
    State,
    recall,
    remember,
    run_arguments,
    run_state,
    training_options,
)
from motivation.tools.cross_validate.plot import draw
from motivation.tools.cross_validate.report import Figures, choose, csv_text, markdown, rows_of
from motivation.tools.cross_validate.runner import Resources, Runner, last_lines, runs_now, threads_per_run, try_lock

OPTIONS = {"model": "small", "motivated_model": "large", "motivation_condition": "loss", "lr": 0.1}

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
root = Path(words["--output"])
folder = root / words["--experiment"]
with open(root / "starts.txt", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
def exists(name):
    return (root / (name + "-" + folder.name)).exists()
if exists("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
(root / ("started-" + folder.name)).touch()
while exists("hold"):
    time.sleep(0.02)
while len(list(root.glob("started-*"))) < int(os.environ.get("TOGETHER", "0")):
    time.sleep(0.02)
print("a line of the log", flush=True)
if exists("fail"):
    sys.exit("no such thing as luck")
options = {"model": "small", "motivated_model": "large", "motivation_condition": "loss", "lr": 0.1}
options |= {name: int(words["--" + name]) for name in ("folds", "fold", "seed")}
options["motivation_k"] = int(words.get("--motivation-k", 2))
options["motivation_condition"] = words.get("--motivation-condition", "loss")
(folder / "args.yaml").write_text(json.dumps(options))
result = {"completed": True, "share": 0.1, "expected_share": 0.1, "average_flops": 11.0, "flops": {"base": 10.0}}
result["last"] = {"base": {"top1": 90.0, "loss": 0.5}, "motivated": None}
(folder / "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return Plan(tmp_path / "runs", ("--lr", "0.1"), OPTIONS, (1, 2), 2, (42,))


def a_folder(plan, run, result=None, checkpoint=False, **options):
    folder = plan.place(run)
    folder.mkdir(parents=True, exist_ok=True)
    own = {"folds": plan.folds, "fold": run.fold, "seed": run.seed, "motivation_k": run.k or 2}
    (folder / "args.yaml").write_text(json.dumps({**OPTIONS, **own, **options}))
    if result is not None:
        (folder / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    if checkpoint:
        (folder / "last.pth.tar").touch()
    return folder


def started(plan):
    """The arguments of every process so far."""
    file = plan.folder / "starts.txt"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def names(plan):
    return sorted(words[words.index("--experiment") + 1] for words in started(plan))


def make_all(plan, jobs=1, **options):
    """Run a plan with the fake program; returns the runner and the lines it has said."""
    remember(plan)
    said = []
    script = plan.folder.parent / "program.py"
    devices = options.pop("devices", (None,))
    environment = options.pop("environment", {})
    options = {"say": said.append, "poll_s": 0.02, "grace_s": 0.3, **options}
    runner = Runner(plan, Resources(jobs, devices, environment), script=script, **options)
    runner.run()
    return runner, said


def wait_until(true):
    for _ in range(1500):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("nothing happened")


DONE = {"completed": True, "last": {"base": {"top1": 90.0}}, "share": 0.1}
FIRST = RunSpec(1, 0, 42)


def test_every_k_meets_every_fold_with_every_seed_in_a_folder_of_its_own(plan):
    runs = replace(plan, seeds=(42, 43), baseline=True).runs()
    assert len({run.name for run in runs}) == len(runs) == 3 * 2 * 2
    assert [run.name for run in runs[:3]] == ["baseline-fold0-seed42", "k1-fold0-seed42", "k2-fold0-seed42"]


def test_what_makes_a_run_comes_after_the_users_arguments(plan):
    words = run_arguments(plan, RunSpec(2, 1, 42), State.NEW, "cuda:1")
    assert words[:2] == ["--lr", "0.1"]
    given = dict(zip(words[2::2], words[3::2]))
    assert given == {
        "--folds": "2", "--fold": "1", "--seed": "42", "--output": str(plan.folder),
        "--experiment": "k2-fold1-seed42", "--motivation-k": "2", "--device": "cuda:1",
    }  # fmt: skip


def test_the_baseline_is_the_condition_never(plan):
    words = run_arguments(plan, RunSpec(None, 1, 42), State.NEW)
    assert words[words.index("--motivation-condition") + 1] == "never"
    assert "--motivation-k" not in words


@pytest.mark.parametrize(
    ("result", "checkpoint", "state"),
    [
        (DONE, True, State.DONE),
        (None, True, State.RESUME),
        ({**DONE, "completed": False}, True, State.RESUME),
        ('{"completed": tr', True, State.RESUME),
        (None, False, State.NEW),
    ],
)
def test_the_state_of_a_run_is_read_from_its_folder(plan, result, checkpoint, state):
    a_folder(plan, FIRST, result, checkpoint)
    assert run_state(plan, FIRST) is state


def test_a_run_killed_while_it_wrote_its_options_goes_on_from_its_checkpoint(plan):
    folder = a_folder(plan, FIRST, checkpoint=True)
    (folder / "args.yaml").write_text("")
    assert run_state(plan, FIRST) is State.RESUME


def test_a_run_with_other_options_is_refused(plan):
    a_folder(plan, FIRST, DONE, lr=0.2)
    with pytest.raises(PlanError, match=r"lr 0.2 there, 0.1 here.*delete it"):
        run_state(plan, FIRST)


def test_a_baseline_run_may_have_any_k(plan):
    run = RunSpec(None, 0, 42)
    a_folder(plan, run, DONE, motivation_condition="never", motivation_k=7)
    assert run_state(plan, run) is State.DONE


@pytest.mark.parametrize("other", [{"folds": 3}, {"options": {**OPTIONS, "lr": 0.2}}])
def test_another_plan_in_the_same_folder_is_refused(plan, other):
    remember(plan)
    before = (plan.folder / "plan.json").read_text()
    with pytest.raises(PlanError, match="another cross-validation"):
        remember(replace(plan, **other))
    assert (plan.folder / "plan.json").read_text() == before


def test_ks_seeds_and_a_baseline_may_join_a_plan(plan):
    remember(plan)
    remember(replace(plan, ks=(3,), seeds=(43,), baseline=True))
    contents = recall(plan)
    assert (contents["ks"], contents["seeds"], contents["baseline"]) == ([1, 2, 3], [42, 43], True)


def test_a_damaged_plan_is_said(plan):
    remember(plan)
    (plan.folder / "plan.json").write_text("{")
    with pytest.raises(PlanError, match="damaged"):
        remember(plan)


def test_the_device_is_no_part_of_the_plan():
    assert training_options({"lr": 1, "device": "cuda", "seed": 3, "fold": 1}) == {"lr": 1}


def test_all_runs_are_made_once(plan):
    plan = replace(plan, baseline=True)
    runner, said = make_all(plan, jobs=2)
    assert names(plan) == sorted(run.name for run in plan.runs())
    assert not runner.failed
    assert said[0].startswith("[1/6] ")
    assert said[-1].startswith("[6/6] ")
    assert any("k=2 fold 1 seed 42: top-1 90.00, share 0.100" in line for line in said)
    assert (plan.place(FIRST) / "log.txt").read_text() == "a line of the log\n"
    make_all(plan)
    assert len(started(plan)) == 6


def test_a_begun_run_is_resumed_and_its_log_goes_on(plan):
    folder = a_folder(plan, FIRST, checkpoint=True)
    (folder / "log.txt").write_text("before\n")
    make_all(plan)
    resumed = [words for words in started(plan) if "--resume" in words]
    assert [words[words.index("--resume") + 1] for words in resumed] == ["auto"]
    assert (folder / "log.txt").read_text() == "before\na line of the log\n"


def test_a_failing_run_is_shown_and_the_others_go_on(plan):
    remember(plan)
    (plan.folder / f"fail-{FIRST.name}").touch()
    runner, said = make_all(plan)
    assert runner.failed == [FIRST]
    assert len(started(plan)) == 4
    assert "failed with exit code 1" in said[0]
    assert said[2] == "    no such thing as luck"
    (plan.folder / f"fail-{FIRST.name}").unlink()
    assert not make_all(plan)[0].failed
    assert len(started(plan)) == 5


def test_devices_are_shared_out_evenly(plan):
    # no run ends before four have started
    make_all(plan, jobs=4, devices=("cuda:0", "cuda:1"), environment={"TOGETHER": "4"})
    used = Counter(words[words.index("--device") + 1] for words in started(plan))
    assert used == {"cuda:0": 2, "cuda:1": 2}


def test_a_locked_run_is_waited_for_and_then_skipped(plan):
    remember(plan)
    folder = a_folder(plan, FIRST)
    lock = try_lock(folder)
    assert runs_now(folder)

    def elsewhere(line):
        said.append(line)
        if sum(words.startswith("[") for words in said) == 3:  # all others are done
            (folder / "result.json").write_text(json.dumps(DONE))
            os.close(lock)

    said = []
    make_all(plan, say=elsewhere)
    assert "waited for" in said[0]
    assert "made by another process" in said[-1]
    assert FIRST.name not in names(plan)
    assert not runs_now(folder)


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from motivation.tools.cross_validate.plan import Plan, remember
from motivation.tools.cross_validate.runner import Resources, Runner
root = Path(sys.argv[1])
plan = Plan(root / "runs", ("--lr", "0.1"), {options}, (1, 2), 2, (42,))
remember(plan)
Runner(plan, Resources(), script=root / "program.py").run()
"""


def test_a_run_that_outlives_its_killed_parent_is_not_started_twice(plan):
    remember(plan)
    hold = plan.folder / f"hold-{FIRST.name}"
    hold.touch()
    root = str(Path(command.__file__).parents[3])
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(options=OPTIONS), str(plan.folder.parent), root])
    wait_until((plan.folder / f"started-{FIRST.name}").exists)
    parent.kill()
    parent.wait()
    assert runs_now(plan.place(FIRST))

    said = []

    def say(line):
        said.append(line)
        if len(said) == 2:  # the second parent has noticed, and made another run meanwhile
            hold.unlink()

    runner, _ = make_all(plan, say=say)
    assert "waited for" in said[0]
    assert not runner.failed
    assert names(plan) == sorted(run.name for run in plan.runs())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_runs_even_deaf_ones(plan, number):
    remember(plan)
    for word in ("hold", "deaf"):
        (plan.folder / f"{word}-{FIRST.name}").touch()
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

    def say(line):
        wait_until((plan.folder / f"started-{FIRST.name}").exists)
        signal.raise_signal(number)

    runner, _ = make_all(plan, jobs=2, say=say)
    assert runner.interrupted
    assert not runs_now(plan.place(FIRST))
    assert run_state(plan, FIRST) is State.NEW
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_the_cores_are_shared_only_among_several_runs_on_a_cpu():
    assert int(threads_per_run(2, True, {})["OMP_NUM_THREADS"]) >= 1
    assert threads_per_run(2, False, {}) == threads_per_run(1, True, {}) == {}
    assert threads_per_run(2, True, {"OMP_NUM_THREADS": "1"}) == {}


def test_the_end_of_a_log_leaves_empty_lines_out(tmp_path):
    (tmp_path / "log").write_text("a\n\nb\n\n")
    assert last_lines(tmp_path / "log", 2) == ["a", "b"]
    assert last_lines(tmp_path / "none") == []


def figures(**top1_of_k):
    """``figures(k1=[90, 91])``: made-up runs; a larger k costs less."""
    made = []
    for name, values in top1_of_k.items():
        k = None if name == "baseline" else int(name[1:])
        share = 0.0 if k is None else 1 / (k + 1)
        for fold, top1 in enumerate(values):
            metrics = {"top1": top1, "loss": top1 / 100}
            made.append(Figures(RunSpec(k, fold, 42), metrics, metrics, share, share, 10 * (1 + share), 10.0))
    return made


def chosen(metric="top1", **top1_of_k):
    return choose(rows_of(figures(**top1_of_k)), metric)


def test_the_best_mean_is_chosen():
    choice = chosen(k1=[90.0, 92.0], k2=[95.0, 96.0], k3=[80.0, 99.0])
    assert choice.k == 2
    assert chosen("loss", k1=[90.0, 92.0], k2=[95.0, 96.0]).k == 1


def test_of_equal_means_the_cheapest_is_chosen():
    assert chosen(k1=[90.0, 92.0], k2=[92.0, 90.0], k3=[80.0, 80.0]).k == 2


def test_ks_within_one_paired_standard_error_are_named():
    # fold by fold k = 2 leads by 1 and 1.2 points, although the folds differ by 20: that is clear
    clear = " ".join(chosen(k1=[70.0, 90.0], k2=[71.0, 91.2]).remarks)
    assert "Every other k is more than one standard error" in clear
    # a lead of 3 and -2: mean 0.5, standard error 2.5
    close = " ".join(chosen(k1=[70.0, 90.0], k2=[73.0, 88.0]).remarks)
    assert "hardly told apart" in close
    assert "k = 1 (chosen is 0.50 better, error 2.50)" in close
    assert "The cheapest of these and the chosen one is k = 2" in close


def test_the_base_alone_is_compared_and_never_chosen():
    choice = chosen(baseline=[99.0, 99.0], k1=[90.0, 91.0])
    assert choice.k == 1
    assert any("Against the base alone, k = 1 is 8.50 worse, error 0.50" in remark for remark in choice.remarks)


def test_the_report_has_a_line_per_k_with_mean_and_deviation(plan):
    made = figures(baseline=[90.0, 92.0], k1=[91.0, 93.0], k2=[80.0, 81.0])
    text = markdown(plan, made, choose(rows_of(made), "top1"), "top1")
    assert (
        "|          1 |    2 | 92.00 ± 1.41 |    92.00 ± 1.41 | 0.5000 ± 0.0000 |   0.5000 |    15 |  1.500 |" in text
    )
    assert "| base alone |    2 | 91.00 ± 1.41 |               - |" in text
    assert "|    1 |   42 |      92.00 | 93.00 | 81.00 |" in text
    lines = csv_text(made).splitlines()
    assert lines[1].startswith("baseline,2,91.0,1.414")
    assert lines[2].startswith("1,2,92.0,1.414")


def test_a_motivated_model_that_was_not_evaluated_leaves_a_dash(plan):
    made = [replace(one, motivated=None) for one in figures(k1=[91.0, 93.0])]
    assert "|    92.00 ± 1.41 |" not in markdown(plan, made, choose(rows_of(made), "top1"), "top1")


def test_the_picture_is_drawn_with_and_without_a_law(tmp_path):
    made = figures(baseline=[90.0, 92.0], k1=[91.0, 93.0])
    draw(made, 1, "top1", "title", tmp_path / "a.png")
    draw([replace(one, expected_share=None) for one in made], 1, "loss", "title", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"


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
    assert command.main(["--k", "1", "--output", str(folder), *before, "--", *after]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert "Traceback" not in said
    assert not folder.exists()


def test_the_programs_arguments_are_needed(capsys):
    assert command.main(["--k", "1"]) == 2
    assert "after --" in capsys.readouterr().err


def test_a_configuration_file_gives_the_seed(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("seed: 7\nmotivation_k: 3\nexperiment: x\n")
    args = command.make_parser().parse_args(["--k", "3", "1", "3"])
    plan = command.make_plan(args, [*USER, "-c", str(file)])
    assert (plan.seeds, plan.ks, plan.folds) == ((7,), (1, 3), 5)


def test_a_dry_run_prints_the_commands_and_writes_nothing(tmp_path, capsys):
    folder = tmp_path / "some runs"
    assert command.main(["--k", "1", "2", "--folds", "2", "--output", str(folder), "--dry-run", "--", *USER]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "# 4 runs: 4 new"
    assert f"--output '{folder}' --experiment k1-fold0-seed42" in lines[0]
    assert not folder.exists()


def test_real_runs_end_in_a_table_and_are_not_made_again(tmp_path, capsys):
    folder = tmp_path / "runs"
    argv = ["--k", "1", "--folds", "2", "--jobs", "2", "--output", str(folder), "--", *USER, "--epochs", "1"]
    assert command.main(argv) == 0
    out = capsys.readouterr().out
    assert "Chosen: k = 1" in out
    assert {file.suffix for file in folder.glob("cross_validation.*")} == {".md", ".csv", ".png"}
    made = (folder / "k1-fold1-seed42" / "result.json").stat().st_mtime_ns
    assert command.main(argv) == 0
    assert "of which 2 are done" in capsys.readouterr().out
    assert (folder / "k1-fold1-seed42" / "result.json").stat().st_mtime_ns == made
    other = [word if word != "0.05" else "0.06" for word in argv]
    assert command.main(other) == 2
    assert "lr 0.05 there, 0.06 here" in capsys.readouterr().err
