"""Train once, deploy twice: timm reads what is exported, with the accuracy that the run had."""

import json
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HTTPError
from support.program import DIGITS, MOTIVATED, FewDigits, rows

from motivation.tools.export import _registration
from motivation.tools.train import main as train_main
from motivation.training.loggers import UpdatesCsv


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Short runs: one whose statistics were re-estimated, one judged by its EMA, one without a motivated model."""
    folder = tmp_path_factory.mktemp("runs")
    flags = {
        "recalibrated": [*MOTIVATED, "--motivation-bn-recalibrate", "3", "--epochs", "4"],
        "ema": [*MOTIVATED, "--model-ema", "--model-ema-decay", "0.5", "--epochs", "4"],
        "plain": [],
    }
    for name, words in flags.items():
        assert train_main([*DIGITS, "-b", "5", *words, "--output", str(folder), "--experiment", name]) == 0
    return folder


def accuracy(folder):
    """Of a model that timm reads, on images prepared as its configuration says."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_data_config(model=model)
    dataset = FewDigits("validation")
    dataset.transform = timm.data.create_transform(**config)
    images = torch.stack([dataset[index][0] for index in range(len(dataset))])
    with torch.no_grad():
        return 100.0 * (model(images).argmax(1) == torch.tensor(dataset.targets)).float().mean().item()


@pytest.mark.parametrize("name", ["recalibrated", "ema"])
def test_both_models_have_the_runs_accuracy_in_timm(name, runs, tmp_path, command):
    assert command("export", runs / name, tmp_path / "out").out.count("timm reads it and computes the same") == 2
    last = rows(runs / name / "summary.csv")[-1]
    for role, column in (("base", "eval_top1"), ("motivated", "motivated_eval_top1")):
        assert accuracy(tmp_path / "out" / role) == pytest.approx(float(last[column]), abs=1e-3)
        files = {path.name for path in (tmp_path / "out" / role).iterdir()}
        assert files == {"config.json", "model.safetensors", "README.md"}


def test_the_best_checkpoint_on_request_a_card_and_an_onnx_file_that_computes_the_same(runs, tmp_path, command):
    run = runs / "recalibrated"
    said = command("export", run, tmp_path, "--best", "--onnx").out
    best = max(float(row["motivated_eval_top1"]) for row in rows(run / "summary.csv"))
    assert accuracy(tmp_path / "motivated") == pytest.approx(best, abs=1e-3)
    differences = [float(line.split()[-3]) for line in said.splitlines() if "model.onnx" in line]
    assert len(differences) == 2
    assert max(differences) < 1e-4
    result, card = json.loads((run / "result.json").read_text()), (tmp_path / "motivated" / "README.md").read_text()
    for said in (
        f"'local-dir:{tmp_path.name}/motivated'",
        "sklearn/digits", "condition loss, k = 1", "1 x 8 x 8", f"{result['last']['motivated']['top1']:.2f} %",
        f"{result['best_motivated']['motivated']['top1']:.2f} %", f"{result['share']:.4f}", "import motivation.models",
        "of the best epoch",
    ):  # fmt: skip
        assert said in card, said


def test_the_card_of_an_interrupted_run_says_how_far_it_came(train, tmp_path, command, monkeypatch):
    def write(self, record, real=UpdatesCsv.update_end):
        real(self, record)
        if record.step == 8:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(UpdatesCsv, "update_end", write)
        run = train(*MOTIVATED, "--epochs", "3", code=130)
    command("export", run, tmp_path / "out")
    card = (tmp_path / "out" / "base" / "README.md").read_text()
    assert "| epochs | 1 of 3 |" in card
    assert "| weights | of epoch 0, counted from 0 |" in card
    assert "| share of motivated updates, up to the interruption |" in card


def test_a_plain_run_gives_its_one_model(runs, tmp_path, command):
    command("export", runs / "plain", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    assert "motivated training" not in (tmp_path / "base" / "README.md").read_text()


class Hub:
    """A hub that remembers what is asked of it."""

    def __init__(self, monkeypatch, error=None):
        self.made, self.pushed, self.error = [], {}, error
        monkeypatch.setattr("motivation.tools.export.HfApi", lambda: self)

    def create_repo(self, name, exist_ok):
        if self.error:
            raise self.error
        self.made.append(name)
        return SimpleNamespace(repo_id=f"me/{name}")

    def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
        self.pushed[repo_id] = {
            file.name: file.read_bytes() for file in folder_path.iterdir() if file.name in allow_patterns
        }


def test_what_is_pushed_is_the_folder_that_was_written(runs, tmp_path, monkeypatch, command):
    hub = Hub(monkeypatch)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "notes.txt").write_text("not of this export")
    said = command("export", runs / "recalibrated", tmp_path, "--push-to-hub", "digits").out
    assert hub.made == ["digits-base", "digits-motivated"]
    for role in ("base", "motivated"):
        pushed = hub.pushed[f"me/digits-{role}"]
        assert pushed.keys() == {"config.json", "model.safetensors", "README.md"}
        assert all(content == (tmp_path / role / name).read_bytes() for name, content in pushed.items())
        assert f"hf-hub:me/digits-{role}" in pushed["README.md"].decode()
        assert f"pushed to me/digits-{role}" in said


@pytest.mark.parametrize(
    "error", [HTTPError("[Errno -2] Name or service not known"), OSError("Token is required"), ValueError("bad name")]
)
def test_without_the_hub_nothing_is_written(error, runs, tmp_path, monkeypatch, command):
    Hub(monkeypatch, error)
    (line,) = command("export", runs / "plain", tmp_path / "out", "--push-to-hub", "me/x", code=2).err.splitlines()
    assert line == f"error: --push-to-hub: {error}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("best", [False, True])
def test_the_card_gives_the_hub_the_metrics_of_its_weights(best, runs, tmp_path, command):
    command("export", runs / "recalibrated", tmp_path, *["--best"] * best)
    summary = rows(runs / "recalibrated" / "summary.csv")
    for role, column in (("base", "eval_top1"), ("motivated", "motivated_eval_top1")):
        top1 = [float(row[column]) for row in summary]
        data = ModelCard.load(tmp_path / role / "README.md").data
        assert data.license is None
        assert data.eval_results[0].dataset_name == "sklearn/digits"
        assert data.eval_results[0].metric_value == pytest.approx(max(top1) if best else top1[-1], abs=1e-3)


def test_a_licence_is_the_one_that_is_given(runs, tmp_path, command):
    command("export", runs / "plain", tmp_path / "none")
    assert "license" not in (tmp_path / "none" / "base" / "config.json").read_text()
    command("export", runs / "plain", tmp_path / "given", "--license", "cc-by-4.0")
    assert ModelCard.load(tmp_path / "given" / "base" / "README.md").data.license == "cc-by-4.0"
    assert json.loads((tmp_path / "given/base/config.json").read_text())["pretrained_cfg"]["license"] == "cc-by-4.0"


def test_the_names_of_the_classes_go_along(runs, tmp_path, command):
    command("export", runs / "recalibrated", tmp_path)
    for role in ("base", "motivated"):
        assert json.loads((tmp_path / role / "config.json").read_text())["label_names"] == list("0123456789")
        assert timm.create_model(f"local-dir:{tmp_path / role}", pretrained=True).pretrained_cfg["label_names"]


def test_the_card_says_what_a_model_needs_that_is_not_timms(runs, tmp_path, command):
    command("export", runs / "plain", tmp_path)
    card = (tmp_path / "base" / "README.md").read_text()
    assert "pip install ." in card
    assert "import motivation.models" in card
    assert _registration("resnet18", []) == ("", "")


def rename_model(run):
    text = (run / "args.yaml").read_text()
    (run / "args.yaml").write_text(text.replace("model: resnet8_cifar", "model: resnet20_cifar"))


def write_card(run):
    (run.parent / "out" / "base").mkdir(parents=True)
    (run.parent / "out" / "base" / "README.md").write_text("mine")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda run: (run / "last.pth.tar").unlink(), "has no last.pth.tar"),
        (lambda run: (run / "last.pth.tar").write_bytes(b"x"), "is no checkpoint"),
        (lambda run: (run / "args.yaml").unlink(), "is no run"),
        (rename_model, "does not fit"),
        (lambda run: (run.parent / "out").write_text(""), "cannot write"),
        (write_card, "out/base/README.md is there and not of an export"),
    ],
)
def test_what_cannot_be_exported_is_one_line(prepare, message, runs, tmp_path, command):
    shutil.copytree(runs / "plain", tmp_path / "run")
    prepare(tmp_path / "run")
    (line,) = command("export", tmp_path / "run", tmp_path / "out", code=2).err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_name_that_is_no_text_is_no_damage_and_weights_that_cannot_be_written_are_one_line(
    runs, tmp_path, command, caplog
):
    caplog.set_level("WARNING", logger="timm")  # it logs the name, which pytest-xdist cannot send
    run = shutil.copytree(runs / "plain", tmp_path / os.fsdecode(b"run\xff"))
    options = yaml.safe_load((run / "args.yaml").read_text())
    (run / "args.yaml").write_text(yaml.safe_dump({**options, "output": "out\udcff", "data_dir": "in\udcff"}))
    command("report", run, "--markdown", tmp_path / "table.md")
    command("export", run, tmp_path / "out")
    (line,) = command("export", run, tmp_path / os.fsdecode(b"out\xff"), code=2).err.splitlines()  # as on a full disk
    assert line.startswith("error: cannot write ")
    assert "is not valid UTF-8" in line


def test_wrong_flags_are_named(runs, tmp_path, monkeypatch, command):
    assert "is the folder of a run" in command("export", runs / "plain", runs / "plain", code=2).err
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    said = command("export", runs / "plain", tmp_path, "--onnx", code=2).err
    assert "--onnx: needs onnx and onnxruntime: pip install onnx onnxruntime" in said
