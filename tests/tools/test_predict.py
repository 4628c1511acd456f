"""Predictions of saved models on a folder of images: order, names, and files that cannot be read."""

import csv
import json
import os

import pytest
import timm
import torch
import yaml
from PIL import Image

import motivation.models  # noqa: F401
from motivation.tools import predict as predict_module

NAMES = ["ant", "bee", "cat"]
OPTIONS = {
    "model": "resnet8_cifar", "motivated_model": "resnet14_cifar", "num_classes": 3, "input_size": [3, 8, 8],
    "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0, "device": "cpu", "workers": 0, "batch_size": 4,
    "tta": 2, "data_on_device": True,
}  # fmt: skip
FOLDERS = ("", "deep/er", "deep")
COUNT = 5


@pytest.fixture
def run(tmp_path):
    """The folder of a run whose models are random."""
    folder = tmp_path / "run"
    (folder / "motivated").mkdir(parents=True)
    (folder / "args.yaml").write_text(yaml.safe_dump(OPTIONS))
    (folder / "label_names.json").write_text(json.dumps(NAMES))
    for place, name in ((folder, "resnet8_cifar"), (folder / "motivated", "resnet14_cifar")):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=3).eval()
        torch.nn.init.normal_(model.get_classifier().weight, std=100.0)
        with torch.no_grad():  # else a random model has one class for all images
            model.get_classifier().bias -= model(torch.rand(64, 3, 8, 8) * 2 - 1).mean(0)
        torch.save({"epoch": 0, "arch": name, "state_dict": model.state_dict()}, place / "last.pth.tar")
    return folder


@pytest.fixture
def images(tmp_path):
    """Images of noise in nested folders, one of them grey; beside them a hidden one and a text."""
    generator = torch.Generator().manual_seed(0)
    root = tmp_path / "images"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(COUNT):
            pixels = torch.randint(256, (8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    Image.new("L", (20, 10)).save(root / "grey.png")
    Image.new("L", (8, 8)).save(root / ".hidden.png")
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def predict(command, tmp_path):
    """``predict(source, folder, *words)`` returns the rows of the table, and what the command prints."""

    def predicted(*words):
        said = command("predict", *words, "--out", tmp_path / "found.csv")
        with open(tmp_path / "found.csv", encoding="utf-8", errors="surrogateescape") as file:
            return list(csv.DictReader(file)), said

    return predicted


def test_disagreements_come_first_and_then_the_least_certain_by_name(run, images, predict):
    rows, said = predict(run, images)
    paths = [os.path.join(folder, f"{number}.png") for folder in FOLDERS for number in range(COUNT)]
    assert sorted(row["file"] for row in rows) == sorted([*paths, "grey.png"])
    assert {row["base_class"] for row in rows} <= set(NAMES)
    columns = ("base_probability", "motivated_probability")
    ranks = [(row["base_class"] == row["motivated_class"], min(float(row[name]) for name in columns)) for row in rows]
    assert ranks == sorted(ranks)
    different = [agree for agree, _ in ranks].count(False)
    assert 0 < different < len(rows)
    assert f"disagree on {different} of them" in said.out
    assert said.out.splitlines()[0].split() == ["model", "weights", "images/s"]


def test_each_model_says_what_timm_says_alone(run, images, predict):
    rows, _ = predict(run, images)
    transform = timm.data.create_transform((3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)
    for place, role, name in ((run, "base", "resnet8_cifar"), (run / "motivated", "motivated", "resnet14_cifar")):
        model = timm.create_model(name, num_classes=3).eval()
        model.load_state_dict(torch.load(place / "last.pth.tar")["state_dict"])
        for row in rows:
            batch = transform(Image.open(images / row["file"]).convert("RGB"))[None]
            with torch.no_grad():
                likely = model(batch).softmax(1)[0].max(0)
            assert row[f"{role}_class"] == NAMES[likely.indices]
            assert float(row[f"{role}_probability"]) == pytest.approx(likely.values.item(), abs=1e-4)


def test_one_model_has_its_columns_only_and_classes_without_names_are_numbers(run, images, predict):
    (run / "label_names.json").unlink()
    rows, said = predict(run / "motivated" / "last.pth.tar", images)
    assert [*rows[0]] == ["file", "motivated_class", "motivated_probability"]
    assert {row["motivated_class"] for row in rows} <= set("012")
    assert "disagree" not in said.out


def test_an_exported_folder_knows_the_names(run, images, predict, command, tmp_path):
    of_run, _ = predict(run, images)
    command("export", run, tmp_path / "out")
    assert predict(tmp_path / "out", images, "-b", "4", "-j", "0")[0] == of_run


def test_files_that_cannot_be_read_are_named_and_left_out(run, images, predict, command):
    (images / "torn.png").write_bytes((images / "0.png").read_bytes()[:60])
    (images / "deep" / "empty.jpg").write_bytes(b"")
    rows, said = predict(run, images)
    assert len(rows) == len(FOLDERS) * COUNT + 1
    lines = [line for line in said.err.splitlines() if line.startswith("left out: ")]
    assert [line.split(": ")[1] for line in lines] == [os.path.join("deep", "empty.jpg"), "torn.png"]
    assert "2 could not be read and are left out" in said.out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a Unix")
def test_a_pipe_is_left_out_and_not_waited_for(run, images, predict):
    os.mkfifo(images / "pipe.png")
    assert "left out: pipe.png: it is no file" in predict(run, images)[1].err


def test_odd_names_and_links_in_a_circle_are_followed_once(run, images, predict):
    odd = os.fsdecode(b"\xff\n.png")
    (images / "0.png").rename(images / odd)
    (images / "deep" / "round").symlink_to(images)
    rows, _ = predict(run, images)
    assert len(rows) == len(FOLDERS) * COUNT + 1
    assert odd in {row["file"] for row in rows}


def test_the_first_batch_warms_each_model_up_and_is_not_timed(run, images, predict, monkeypatch):
    passes = []
    real = predict_module.Validator.forward
    monkeypatch.setattr(
        predict_module.Validator,
        "forward",
        lambda self, model, batch: passes.append(len(batch)) or real(self, model, batch),
    )
    predict(run, images)
    assert passes == [4] * 4 + [4] * 6  # two passes of each model over the first of four batches, then one


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda run, images: (run / "args.yaml").unlink(), "is no run"),
        (lambda run, images: (run / "motivated" / "last.pth.tar").unlink(), "has no motivated/last.pth.tar"),
        (lambda run, images: images.rename(run / "moved"), "there is no folder"),
        (lambda run, images: [file.unlink() for file in images.rglob("*.png")], "there are no images in"),
        (lambda run, images: [file.write_bytes(b"") for file in images.rglob("*.png")], "none of the 16 images in"),
        (lambda run, images: (run.parent / "found.csv").mkdir(), "cannot write"),
        (lambda run, images: (run.parent / "found.csv").write_text("mine"), "is there and no table of predictions"),
    ],
)
def test_what_cannot_be_predicted_is_one_error(prepare, message, run, images, tmp_path, command):
    prepare(run, images)
    lines = command("predict", run, images, "--out", tmp_path / "found.csv", code=2).err.splitlines()
    (line,) = [line for line in lines if not line.startswith("left out: ")]
    assert line.startswith("error: ")
    assert message in line
