"""Folders of runs that are damaged or a stranger's: one line that names the file, and nothing of theirs is run."""

import json

import pytest
import torch
import yaml

from motivation.build.models import own_kwargs
from motivation.errors import InputError
from motivation.method.records import Role
from motivation.options import config_files
from motivation.options.config_files import read_yaml
from motivation.options.parse import check_options, make_parser
from motivation.tools.export import _arguments
from motivation.tools.saved_models import weights_of
from motivation.training.csv_files import _is_before
from motivation.training.run_files import RunError
from motivation.training.run_folder import read_run

OPTIONS = {"model": "resnet8_cifar", "motivated_model": "resnet14_cifar", "dataset": "sklearn/digits", "seed": 1}
SUMMARY = "epoch,train_loss,eval_loss,eval_top1,eval_top5,base_updates,motivated_updates,average_flops\n"
METRICS = {"loss": 1.0, "top1": 50.0, "top5": 90.0}
RESULT = {
    "completed": True,
    "last": {"epoch": 0, "base": METRICS, "motivated": METRICS},
    "best": {"epoch": 0, "base": METRICS, "motivated": METRICS},
    "flops": {"base": 1e6, "motivated": 2e6},
    "updates": {"base": 3, "motivated": 1},
    "share": 0.25,
    "average_flops": 1.25e6,
}


@pytest.fixture
def make_run(tmp_path):
    """``make_run(options, result, summary, updates)`` writes the folder of a run of one epoch, changed so."""

    def make(options=None, result=None, summary="0,1.0,1.0,50.0,90.0,3,1,1250000\n", updates="0,0,base,1.0,0,0.1\n"):
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "args.yaml").write_text(yaml.safe_dump({**OPTIONS, **(options or {})}))
        (folder / "result.json").write_text(json.dumps({**RESULT, **(result or {})}))
        (folder / "summary.csv").write_text(SUMMARY + summary)
        (folder / "updates.csv").write_text("epoch,update,active,loss,streak,lr\n" + updates)
        return folder

    return make


def read_all(folder):
    run = read_run(folder)
    return run.result, run.epochs, run.updates


HOSTILE = {
    "args.yaml": [
        {"options": {"seed": [1]}},
        {"options": {"seed": None}},
        {"options": {"model": ["a"]}},
        {"options": {"model_kwargs": "hostile"}},
        {"options": {"model_kwargs": [1]}},
        {"options": {"motivation_k": -1}},
        {"options": {"motivation_plugins": "os"}},
        {"options": {"dataset": "a\x1b[31m"}},
        {"options": {1: 2}},
    ],
    "result.json": [
        {"result": {"completed": "yes"}},
        {"result": {"completed": None}},
        {"result": {"share": "much"}},
        {"result": {"share": 7}},
        {"result": {"flops": {"base": 0}}},
        {"result": {"flops": [1, 2]}},
        {"result": {"average_flops": "1"}},
        {"result": {"updates": {"base": -1}}},
        {"result": {"last": 3}},
        {"result": {"best": {"epoch": 0, "base": {"top1": "50"}}}},
        {"result": {"convention": "\x1b[31m"}},
    ],
    "summary.csv": [
        {"summary": "-1,1,1,50,90,3,1,1\n"},
        {"summary": "0,1,1,fifty,90,3,1,1\n"},
        {"summary": "0,1,1e300,50,90,3,1,1\n"},
        {"summary": f"0,1,1,50,{'9' * 200_000},3,1,1\n"},
    ],
    "updates.csv": [
        {"updates": "0,0,base,big,0,0.1\n"},
        {"updates": f"0,{10**30},base,1.0,0,0.1\n"},
        {"updates": "0,-1,base,1.0,0,0.1\n"},
    ],
}


@pytest.mark.parametrize(
    ("file", "change"), [(file, change) for file, changes in HOSTILE.items() for change in changes], ids=str
)
def test_a_hostile_file_is_one_error_that_names_it(file, change, make_run):
    folder = make_run(**change)
    with pytest.raises(RunError) as caught:
        read_all(folder)
    assert f"{file} " in f"{caught.value} "
    assert len(caught.value.faults) == 1
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_run_of_another_version_of_timm_is_read_whatever_its_other_options_are(make_run, command):
    others = {"amp_impl": "native", "warmup_epochs": 2.5, "lr_noise": 0.5, "aa": None, "smoothing": None, "pin_mem": 3,
              "aug_repeats": [1], "lr": "fast", "wandb_tags": {"a": [1]}, "clip_grad": False}  # fmt: skip
    folder = make_run({**others, "motivated_model": None}, {"share": None, "flops": None, "average_flops": None})
    assert read_run(folder).options.items() >= others.items()
    assert "resnet8_cifar" in command("report", folder, folder.parent).out
    assert "epochs.png" in command("plot", folder).out


@pytest.mark.parametrize("missing", [*(name for name in RESULT if name != "completed"), "top1"])
def test_report_and_plot_need_nothing_in_result_json_but_that_the_run_has_ended(missing, make_run, command):
    change = {"last": {"base": {"loss": 1.0}}, "best": {"base": {"loss": 1.0}}} if missing == "top1" else {}
    folder = make_run(result=change or {missing: None})
    assert "resnet8_cifar" in command("report", folder).out
    assert "epochs.png" in command("plot", folder).out


def test_a_dollar_sign_is_no_formula_and_control_characters_are_escaped(make_run, command, tmp_path):
    folder = make_run({"model": "$\\frac{$a", "kd_model_name": None}).rename(tmp_path / "a\x1b[31m$b")
    said = command("plot", folder)
    assert "\x1b" not in said.out
    assert "\\x1b[31m" in said.out


def test_aliases_that_grow_are_refused_before_they_are_made(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    (tmp_path / "circle.yaml").write_text("a: &a [*a]")
    (tmp_path / "shared.yaml").write_text("a: &a [1, 2]\nb: *a\n")
    for name, words in (("laughs", "more than 20,000 values"), ("circle", "an alias inside")):
        with pytest.raises(InputError, match=words):
            read_yaml(tmp_path / f"{name}.yaml")
    assert read_yaml(tmp_path / "shared.yaml") == {"a": [1, 2], "b": [1, 2]}


def test_large_files_and_values_are_refused(tmp_path):
    for text, words in (("a: " + "x" * 20_000, "10,000 characters"), ("#" * (2**20 + 1), "more than 1,048,576")):
        (tmp_path / "large.yaml").write_text(text)
        with pytest.raises(InputError, match=words):
            read_yaml(tmp_path / "large.yaml")


def test_of_many_unknown_options_a_few_are_looked_up(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(config_files.difflib, "get_close_matches", lambda name, *_, **__: asked.append(name) or [])
    options = {f"unknown{number}" + "x" * 1000: 1 for number in range(5000)}
    with pytest.raises(InputError, match="and 4995 more"):
        check_options(make_parser(), tmp_path, options)
    assert len(asked) == 5
    assert max(map(len, asked)) <= 80


def test_export_imports_nothing_and_reads_nothing_outside_unless_trusted(make_run, command, tmp_path):
    plugin = tmp_path / "own.py"
    plugin.write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    folder = make_run({"model": "local-dir:/etc", "motivation_plugins": [str(plugin)]})
    assert "--trust" in command("export", folder, tmp_path / "out", code=2).err
    (folder / "args.yaml").write_text(yaml.safe_dump({**OPTIONS, "motivation_plugins": [str(plugin)]}))
    command("export", folder, tmp_path / "out", code=2)  # it has no checkpoint
    assert not (tmp_path / "imported").exists()
    command("export", folder, tmp_path / "out", "--trust", code=2)
    assert (tmp_path / "imported").exists()


def test_an_exported_model_has_no_arguments_that_read_files_or_describe_other_weights():
    hostile = {"checkpoint_path": "/etc/passwd", "pretrained_cfg_overlay": {"file": "/etc/passwd"}, "depth": 8}
    args = make_parser().parse_args([])
    args.model_kwargs = hostile
    assert _arguments(args, Role.BASE) == {"in_chans": 3, "depth": 8}


@pytest.mark.parametrize("weights", ["text", [1], None, {1: torch.zeros(1)}, {"a": 1}])
def test_a_checkpoint_without_weights_is_not_exported(weights, tmp_path):
    with pytest.raises(RunError, match="has no weights"):
        weights_of({"state_dict": weights}, "state_dict", tmp_path)


def test_arguments_that_read_files_are_not_taken_from_a_run():
    assert own_kwargs({"pretrained": True, "checkpoint_path": "/etc/passwd", "depth": 8}) == {"depth": 8}


@pytest.mark.parametrize("line", ["²,1\n", "9" * 5000 + "\n", "x" * 200_000 + "\n", "\n"])
def test_a_resumed_run_drops_lines_that_are_no_numbers(line):
    assert not _is_before(line, ["epoch", "update"], (5, 0))


@pytest.mark.parametrize(
    "words",
    [
        ("report", "{run}", "--csv", "{run}/summary.csv"),
        ("report", "{run}", "--html", "{run}/args.yaml"),
        ("validate", "{run}", "--json", "{run}/last.pth.tar"),
        ("predict", "{run}", "{run}", "--out", "{run}/motivated/last.pth.tar"),
    ],
)
def test_no_file_of_a_run_is_written_over(words, command, make_run):
    run = make_run()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said = command(*(word.replace("{run}", str(run)) for word in words), code=2)
    assert "is a file of the run itself; give another name" in said.err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
