"""Validation of saved models: the figures of the run bit for bit, other data, and sources that cannot be used."""

import json
import shutil

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from support.program import DIGITS, FINETUNE_DIGITS, MOTIVATED, FewDigits

from motivation.tools.finetune import parse as parse_finetune
from motivation.tools.saved_models import find_source
from motivation.tools.train import main as train_main

FLAGS = {
    "ema": [
        *MOTIVATED, "--model-ema", "--model-ema-decay", "0.5", "-vb", "17", "--channels-last", "--amp",
        "--amp-dtype", "bfloat16", "--crop-pct", "0.9",
    ],
    "recalibrated": [*MOTIVATED, "--motivation-bn-recalibrate", "3", "--lr", "0.4", "--epochs", "3", "-vb", "0"],
    "sized": ["--val-input-size", "1", "12", "12", "--tta", "2", "--model-dtype", "bfloat16", "--no-prefetcher"],
    "fold": ["--folds", "4", "--fold", "1", "--data-on-device", "-vb", "7"],
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Short runs that are validated in different ways, and one that was fine-tuned from the first."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in FLAGS.items():
        argv = [*DIGITS, "-b", "20", "--epochs", "1", *words, "--output", str(folder), "--experiment", name]
        assert train_main(argv) == 0
    words = ["--checkpoint", str(folder / "ema"), "--output", str(folder), "--experiment", "tuned"]
    assert train_main([*FINETUNE_DIGITS, "-b", "20", "-vb", "23", *words], parse=parse_finetune) == 0
    return folder


@pytest.fixture
def measure(command, tmp_path):
    """``measure(source, *words)`` returns the figures that the command writes, and what it prints."""

    def run(source, *words):
        said = command("validate", source, "--json", tmp_path / "found.json", *words)
        return json.loads((tmp_path / "found.json").read_text()), said

    return run


def metrics(found, role="base"):
    return {name: found[role][name] for name in ("loss", "top1", "top5")}


@pytest.mark.parametrize("name", [*FLAGS, "tuned"])
def test_the_figures_are_those_of_the_run_bit_for_bit(name, runs, measure):
    last = json.loads((runs / name / "result.json").read_text())["last"]
    found, said = measure(runs / name)
    for role in ("base", "motivated") if last["motivated"] else ("base",):
        assert metrics(found, role) == last[role]
    assert "The run recorded the same, to the last bit." in said.out
    assert said.out.startswith("sklearn/digits, ")


def test_the_best_checkpoints_have_the_best_figures(runs, measure):
    result = json.loads((runs / "recalibrated" / "result.json").read_text())
    assert result["best"]["epoch"] != result["best_motivated"]["epoch"]
    found, _ = measure(runs / "recalibrated", "--best")
    assert metrics(found) == result["best"]["base"]
    assert metrics(found, "motivated") == result["best_motivated"]["motivated"]


@pytest.mark.parametrize("role", ["base", "motivated"])
def test_a_checkpoint_file_is_its_one_model_wherever_it_lies(role, runs, measure, tmp_path):
    last = json.loads((runs / "ema" / "result.json").read_text())["last"][role]
    inside = runs / "ema" / ("" if role == "base" else role) / "last.pth.tar"
    moved = shutil.copy(inside, tmp_path / "model.pth.tar")
    for file in (inside, moved):
        found, _ = measure(file)
        assert metrics(found, role) == last
        assert not {"base", "motivated"} - {role} & found.keys()
    bare = tmp_path / "run" / "last.pth.tar"  # without options of its own
    bare.parent.mkdir()
    torch.save({"state_dict": timm.create_model("resnet8_cifar", in_chans=1).state_dict()}, bare)
    shutil.copy(runs / "sized" / "args.yaml", bare.parent)
    assert find_source(bare).args.tta == 2


def test_an_exported_folder_has_the_runs_figures_on_its_data(runs, measure, command, tmp_path):
    last = json.loads((runs / "recalibrated" / "result.json").read_text())["last"]
    command("export", runs / "recalibrated", tmp_path / "out")
    data = ("--dataset", "sklearn/digits", "-b", "20", "-j", "0")
    both, _ = measure(tmp_path / "out", *data)
    alone, _ = measure(tmp_path / "out" / "motivated", *data)
    assert metrics(both) == last["base"]
    assert metrics(both, "motivated") == metrics(alone, "motivated") == last["motivated"]
    assert "give --data-dir or --dataset" in command("validate", tmp_path / "out", code=2).err


def test_a_run_of_timms_script_is_validated(tmp_path, measure):
    """Its folder: ``args.yaml`` and a checkpoint with timm's keys only."""
    model = timm.create_model("resnet8_cifar", in_chans=1, num_classes=10)
    (tmp_path / "args.yaml").write_text(
        yaml.safe_dump({"model": "resnet8_cifar", "num_classes": 10, "dataset": "sklearn/digits", "device": "cpu",
                        "input_size": [1, 8, 8], "workers": 0, "epochs": 1})
    )  # fmt: skip
    contents = {"epoch": 0, "arch": "resnet8_cifar", "state_dict": model.state_dict(), "optimizer": {}, "version": 2}
    torch.save(contents, tmp_path / "last.pth.tar")
    found, said = measure(tmp_path)
    assert 0 <= found["base"]["top1"] <= found["base"]["top5"] <= 100
    assert "recorded" not in said.out


def test_another_split_size_and_flags_are_measured_and_not_compared(runs, measure):
    own, _ = measure(runs / "fold")
    other, said = measure(runs / "fold", "--split", "train", "-b", "50")
    assert (other["split"], other["images"]) == ("train", len(FewDigits("train")))
    assert "recorded" not in said.out
    larger, said = measure(runs / "fold", "--img-size", "10", "--", "--crop-pct", "1")
    assert larger["input_size"] == [1, 10, 10]
    assert (larger["split"], own["split"]) == ("fold 1 of 4",) * 2
    assert metrics(larger) != metrics(own)


def image_folder(place, names):
    for name in names:
        (place / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(place / name / "1.png")


def test_other_images_are_numbered_as_in_the_run_or_refused(runs, measure, command, tmp_path):
    image_folder(tmp_path / "some", "579")
    words = ("--dataset", "", "--data-dir", tmp_path / "some")
    said = command("validate", runs / "ema", *words, code=2).err
    assert "class '5' has the number 0 here and 5 in the run" in said
    (tmp_path / "classes.txt").write_text("".join(f"{number}\n" for number in range(10)))
    found, said = measure(runs / "ema", *words, "--", "--class-map", tmp_path / "classes.txt")
    assert found["images"] == 3
    assert "there are no images of" in said.err
    image_folder(tmp_path / "others", "ab")
    assert "have other names" in measure(runs / "ema", "--dataset", "", "--data-dir", tmp_path / "others")[1].err


def test_a_model_of_a_fixed_size_is_made_for_another_one(tmp_path, measure):
    vit = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3}
    model = timm.create_model("vit_tiny_patch16_224", in_chans=1, num_classes=10, **vit)
    options = {"model": "vit_tiny_patch16_224", "model_kwargs": vit, "num_classes": 10, "input_size": [1, 16, 16]}
    options |= {"dataset": "sklearn/digits", "device": "cpu", "workers": 0}
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(options))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "last.pth.tar")
    assert measure(tmp_path, "--img-size", "8")[0]["input_size"] == [1, 8, 8]


def change_options(run, **options):
    text = yaml.safe_load((run / "args.yaml").read_text())
    (run / "args.yaml").write_text(yaml.safe_dump({**text, **options}))


@pytest.mark.parametrize(
    ("prepare", "words", "message"),
    [
        (lambda run: shutil.rmtree(run), (), "there is no folder or file"),
        (lambda run: (run / "args.yaml").unlink(), (), "is no run"),
        (lambda run: (run / "last.pth.tar").unlink(), (), "has no last.pth.tar"),
        (lambda run: (run / "last.pth.tar").write_bytes(b"x"), (), "is no checkpoint"),
        (lambda run: change_options(run, model="resnet14_cifar"), (), "does not fit"),
        (lambda run: change_options(run, model="local-dir:/etc"), (), "--trust"),
        (lambda run: change_options(run, dataset="hfds/someone/code"), (), "--dataset, or give --trust"),
        (lambda run: change_options(run, tta="much"), (), "tta is a whole number"),
        (lambda run: change_options(run, class_map="numbers.pkl"), (), "may hold code"),
        (lambda run: change_options(run, input_size=[1, 10**6, 10**6]), (), "images are of 1 x 1000000 x 1000000"),
        (lambda run: change_options(run, val_split="", folds=None), (), "give the name of a split with --split"),
        (None, ("--split", "none"), "has no split 'none'"),
        (None, ("--dataset", "", "--data-dir", "/nowhere"), "there is no folder /nowhere"),
        (None, ("--dataset", "", "--data-dir", ".", "--split", "none"), "has no none; it has"),
        (None, ("--dataset", "torch/cifar10"), "say where the data are"),
        (None, ("--device", "none"), "--device"),
        (None, ("-b", "0"), "at least 1"),
        (None, ("--", "--num-classes", "7"), "does not fit"),
        (None, ("--", "--no-such-flag"), "unknown: --no-such-flag"),
        (None, ("--json", "/nowhere/found.json"), "cannot write /nowhere/found.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_validated_is_one_line(prepare, words, message, runs, tmp_path, command):
    shutil.copytree(runs / "sized", tmp_path / "run")
    if prepare is not None:
        prepare(tmp_path / "run")
    (line,) = [said for said in command("validate", tmp_path / "run", *words, code=2).err.splitlines()
               if not said.startswith("Test")]  # fmt: skip
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([1], "names no architecture"),
        ({"architecture": "local-dir:/etc"}, "from elsewhere"),
        ({"architecture": "no_such_model"}, "cannot be loaded"),
        ({"architecture": "resnet8_cifar", "model_args": [1]}, "are not mappings"),
        ({"architecture": "resnet8_cifar", "num_classes": -1}, "num_classes"),
        ({"architecture": "resnet8_cifar", "num_classes": 10**9}, "cannot be loaded"),
        ({"architecture": "resnet8_cifar", "pretrained_cfg": {"mean": "a"}}, "mean"),
    ],
    ids=str,
)
def test_a_hostile_exported_folder_is_one_line(change, message, tmp_path, command):
    (tmp_path / "config.json").write_text(json.dumps(change))
    save_file({"head.weight": torch.zeros(10, 3)}, tmp_path / "model.safetensors")
    (line,) = command("validate", tmp_path, "--dataset", "sklearn/digits", code=2).err.splitlines()
    assert message in line
    assert "has no args.yaml" not in line


def test_a_file_that_says_too_little_or_carries_code_is_one_line(tmp_path, command):
    torch.save({"state_dict": {}}, tmp_path / "bare.pth")
    assert "does not say which model" in command("validate", tmp_path / "bare.pth", code=2).err
    torch.save({"state_dict": print}, tmp_path / "code.pth")
    assert "carries code" in command("validate", tmp_path / "code.pth", code=2).err
    assert "--best: chooses in" in command("validate", tmp_path / "bare.pth", "--best", code=2).err
