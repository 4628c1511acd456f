"""Train once, deploy twice: timm reads what is exported, with the accuracy that the run had."""

import json
import shutil

import pytest
import timm
import torch
from support.program import DIGITS, MOTIVATED, rows

from motivation.data.datasets import SklearnDigits
from motivation.tools.train import main as train_main


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
        assert train_main([*DIGITS, "-b", "60", *words, "--output", str(folder), "--experiment", name]) == 0
    return folder


def accuracy(folder):
    """Of a model that timm reads, on images prepared as its configuration says."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_data_config(model=model)
    dataset = SklearnDigits("validation")
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
        "sklearn/digits", "condition loss, k = 1", "1 x 8 x 8", f"{result['last']['motivated']['top1']:.2f} %",
        f"{result['best_motivated']['motivated']['top1']:.2f} %", f"{result['share']:.4f}", "import motivation.models",
        "of the best epoch",
    ):  # fmt: skip
        assert said in card, said


def test_a_plain_run_gives_its_one_model(runs, tmp_path, command):
    command("export", runs / "plain", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    assert "motivated training" not in (tmp_path / "base" / "README.md").read_text()


def test_pushing_is_timms_own(runs, tmp_path, monkeypatch, command):
    pushed = []
    monkeypatch.setattr("motivation.tools.export.push_to_hf_hub", lambda model, repo, **options: pushed.append(repo))
    command("export", runs / "recalibrated", tmp_path, "--push-to-hub", "me/digits")
    assert pushed == ["me/digits-base", "me/digits-motivated"]


def rename_model(run):
    text = (run / "args.yaml").read_text()
    (run / "args.yaml").write_text(text.replace("model: resnet8_cifar", "model: resnet20_cifar"))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda run: (run / "last.pth.tar").unlink(), "has no last.pth.tar"),
        (lambda run: (run / "last.pth.tar").write_bytes(b"x"), "is no checkpoint"),
        (lambda run: (run / "args.yaml").unlink(), "is no run"),
        (rename_model, "does not fit"),
        (lambda run: (run.parent / "out").write_text(""), "cannot write"),
    ],
)
def test_what_cannot_be_exported_is_one_line(prepare, message, runs, tmp_path, command):
    shutil.copytree(runs / "plain", tmp_path / "run")
    prepare(tmp_path / "run")
    (line,) = command("export", tmp_path / "run", tmp_path / "out", code=2).err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_wrong_flags_are_named(runs, tmp_path, monkeypatch, command):
    assert "is the run's own folder" in command("export", runs / "plain", runs / "plain", code=2).err
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    said = command("export", runs / "plain", tmp_path, "--onnx", code=2).err
    assert "--onnx: needs onnx and onnxruntime: pip install onnx onnxruntime" in said
