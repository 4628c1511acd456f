"""Fine-tuning: whose weights, which head, the paper's recipe, and one clear line for what does not fit."""

import json

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from support.program import DIGITS, FINETUNE_DIGITS, MOTIVATED, load, rows

import motivation.models  # noqa: F401
from motivation.build.transfer import transfer_weights
from motivation.data.datasets import SklearnDigits
from motivation.options.parse import parse as parse_options
from motivation.tools import export
from motivation.tools.finetune import RECIPE, make_parser, parse
from motivation.tools.train import main

STILL = ("--lr", "1e-12")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short motivated run, BatchNorm re-estimated so that both models are good."""
    folder = tmp_path_factory.mktemp("run")
    argv = [*DIGITS, *MOTIVATED, "--epochs", "8", "-b", "5", "--motivation-bn-recalibrate", "3"]
    assert main([*argv, "--output", str(folder), "--experiment", "run"]) == 0
    return folder / "run"


@pytest.fixture
def classes(tmp_path):
    """A folder of images in three classes."""
    for split in ("train", "validation"):
        for number, name in enumerate("abc"):
            place = tmp_path / "images" / split / name
            place.mkdir(parents=True)
            for index in range(12):
                Image.new("L", (8, 8), 80 * number + index).save(place / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def tune(tmp_path):
    def tuned(checkpoint, *flags, code=0):
        argv = [*FINETUNE_DIGITS, "--checkpoint", str(checkpoint), "--output", str(tmp_path), "--experiment", "tuned"]
        assert main([*argv, *map(str, flags)], parse=parse) == code
        return tmp_path / "tuned"

    return tuned


def weights(folder, name="last.pth.tar"):
    return load(folder / name)["state_dict"]


def same_parameters(one, other):
    return all(
        torch.allclose(one[n], other[n], atol=1e-6) for n in one if "running" not in n and "num_batches" not in n
    )


@pytest.mark.parametrize(("from_model", "place"), [("base", "."), ("motivated", "motivated")])
def test_a_runs_model_begins_with_its_weights_and_head(from_model, place, run, tune):
    folder = tune(run, "--from", from_model, *STILL)
    assert same_parameters(weights(folder), weights(run / place))
    args = load(folder / "last.pth.tar")["args"]
    assert args.model == {"base": "resnet8_cifar", "motivated": "resnet14_cifar"}[from_model]
    assert args.input_size == [1, 8, 8]  # the run's, as its mean and deviation
    assert (args.mean, args.std) == ([0.3], [0.36])


def test_a_new_data_set_gets_a_new_head_and_nothing_else(run, tune, classes, caplog):
    folder = tune(run, *STILL, "--dataset", "", "--data-dir", classes, "-b", "12")
    before, after = weights(run), weights(folder)
    assert after["fc.weight"].shape == (3, 64)
    assert same_parameters({n: v for n, v in before.items() if not n.startswith("fc.")}, after)
    assert "its head of 10 classes is replaced by a new one of 3" in caplog.text


def test_fine_tuning_learns(run, tune):
    folder = tune(run, "--epochs", "3", "--lr", "0.01")
    assert float(rows(folder / "summary.csv")[-1]["eval_top1"]) > 60
    assert json.loads((folder / "result.json").read_text())["completed"]


def test_motivated_fine_tuning_begins_with_both_models(run, tune):
    folder = tune(run, *MOTIVATED, *STILL, "--motivation-condition", "never")
    differential = "layer1.1.conv1.weight"
    before, after = weights(run, "motivated/last.pth.tar"), weights(folder, "motivated/last.pth.tar")
    assert torch.equal(before[differential], after[differential])


def test_files_of_timms_format_and_safetensors_and_bare_state_dicts_are_taken(run, tune, tmp_path):
    state = weights(run)
    torch.save(state, tmp_path / "bare.pth")
    save_file(state, tmp_path / "base.safetensors")
    shape = ("--in-chans", "1", "--input-size", "1", "8", "8")
    for file, flags in (
        (run / "model_best.pth.tar", ()),
        (tmp_path / "bare.pth", ("--model", "resnet8_cifar", *shape)),
        (tmp_path / "base.safetensors", ("--model", "resnet8_cifar", *shape)),
    ):
        expected = weights(run, file.name) if file.parent == run else state
        assert same_parameters(weights(tune(file, *flags, *STILL)), expected)


def test_exported_models_are_begun_with_as_the_run_is(run, tune, classes, tmp_path):
    exported = tmp_path / "exported"
    assert export.main([str(run), str(exported)]) == 0
    images = ("--dataset", "", "--data-dir", classes, "-b", "12", *STILL)
    for checkpoint, flags, trained in (
        (exported, (), "."),
        (exported, ("--from", "motivated"), "motivated"),
        (exported / "motivated", (), "motivated"),
        (exported / "base" / "model.safetensors", (), "."),
    ):
        folder = tune(checkpoint, *flags, *images)
        before = {name: value for name, value in weights(run / trained).items() if not name.startswith("fc.")}
        assert same_parameters(before, weights(folder))
        assert weights(folder)["fc.weight"].shape == (3, 64)
        args = load(folder / "last.pth.tar")["args"]
        assert (args.mean, args.std, args.input_size) == ([0.3], [0.36], [1, 8, 8])
    folder = tune(exported, *MOTIVATED, *STILL, "--motivation-condition", "never")
    differential = "layer1.1.conv1.weight"
    before, after = weights(run, "motivated/last.pth.tar"), weights(folder, "motivated/last.pth.tar")
    assert torch.equal(before[differential], after[differential])


def test_an_exported_model_of_one_channel_is_told_as_such(run, tune, classes, tmp_path, capsys):
    assert export.main([str(run), str(tmp_path / "exported")]) == 0
    images = ("--dataset", "", "--data-dir", classes, "-b", "12", *STILL, "--input-size", "3", "8", "8")
    tune(tmp_path / "exported", *images, code=2)
    assert "its images have 1 channel: --in-chans 1" in capsys.readouterr().err


def test_what_a_killed_try_has_left_is_no_checkpoint(run, tune, tmp_path, capsys):
    contents = load(run / "last.pth.tar")
    contents["args"].limit_batches = 3
    torch.save(contents, tmp_path / "left.pth.tar")
    tune(tmp_path / "left.pth.tar", code=2)
    assert "it was left by a run with --limit-batches that was killed" in capsys.readouterr().err


def test_the_defaults_are_the_papers_recipe():
    args = make_parser().parse_args([])
    for name, value in RECIPE.items():
        assert getattr(args, name) == value, name
    paper = {"opt": "sgd", "weight_decay": 1e-4, "batch_size": 384, "lr": 0.01, "sched": "cosine", "epochs": 300}
    assert RECIPE.items() >= paper.items()
    assert all(RECIPE[name] for name in ("mixup", "cutmix", "aa", "aug_repeats"))


def test_the_whole_recipe_runs_on_one_process(run, tmp_path, monkeypatch):
    monkeypatch.setattr("motivation.data.datasets.SklearnDigits", SklearnDigits)  # its batch takes all digits
    argv = ["--checkpoint", str(run), "--dataset", "sklearn/digits", "--device", "cpu", "-j", "0", "--epochs", "2"]
    assert main([*argv, "--output", str(tmp_path), "--experiment", "whole"], parse=parse) == 0
    assert len(rows(tmp_path / "whole" / "updates.csv")) == 2 * (1437 // 256 * 256 // 384)


def test_published_weights_of_another_image_size_are_adapted(tmp_path):
    small, large = (timm.create_model("vit_tiny_patch16_224", depth=1, img_size=size) for size in (32, 64))
    torch.save(small.state_dict(), tmp_path / "vit.pth")
    transfer_weights(large, tmp_path / "vit.pth")
    assert torch.equal(large.blocks[0].mlp.fc1.weight, small.blocks[0].mlp.fc1.weight)


@pytest.fixture
def wrong(run, tmp_path):
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "half.pth.tar").write_bytes((run / "last.pth.tar").read_bytes()[:5000])
    (tmp_path / "half.safetensors").write_bytes(b"\x10" * 40)
    torch.save({"a": 1}, tmp_path / "empty.pth")
    torch.save(weights(run), tmp_path / "bare.pth")
    torch.save({"state_dict": weights(run), "arch": "hf-hub:some/one"}, tmp_path / "hub.pth")
    (tmp_path / "nothing").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("checkpoint", "flags", "message"),
    [
        ("", (), "say which weights to begin with"),
        ("nowhere.pth", (), "is no folder, no file, and no model of timm"),
        ("{wrong}/nothing", (), "is no run: it has no args.yaml"),
        ("{wrong}/text.pth", ("--model", "resnet8_cifar"), "is no checkpoint"),
        ("{wrong}/half.pth.tar", (), "damaged"),
        ("{wrong}/half.safetensors", ("--model", "resnet8_cifar"), "damaged or no safetensors file"),
        ("{wrong}/empty.pth", ("--model", "resnet8_cifar"), "holds no weights"),
        ("{wrong}/bare.pth", (), "does not say which model it is of"),
        ("{wrong}/bare.pth", ("--model", "resnet14_cifar", "--in-chans", "1"), "is of another architecture: "),
        ("{wrong}/bare.pth", ("--model", "resnet8_cifar"), "have other shapes (conv1.weight: [16, 1, 3, 3]"),
        ("{wrong}/bare.pth", ("--model", "resnet8_cifar", "--from", "motivated"), "chooses in the folder of a run"),
        ("{wrong}/hub.pth", (), "hub.pth says it is of hf-hub:some/one, which lies outside of it; give that name"),
        ("{wrong}/hub.pth", ("--model", "hf-hub:some/one"), "error: --model hf-hub:some/one: "),
        ("{run}", ("--model", "resnet18"), "--model: resnet18, but"),
        ("resnet8_cifar", (), "timm has no pretrained weights of resnet8_cifar"),
        ("{run}", ("--pretrained",), "--pretrained: --checkpoint says which weights to begin with"),
        ("{run}", ("--initial-checkpoint", "x.pth"), "--initial-checkpoint: --checkpoint says"),
        ("{run}", ("--aug-repeats", "3", "-b", "1300"), "has 1280 images"),
    ],
)
def test_what_does_not_fit_is_one_line(checkpoint, flags, message, wrong, run, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("motivation.data.datasets.SklearnDigits", SklearnDigits)
    argv = [
        *FINETUNE_DIGITS,
        "--checkpoint",
        checkpoint.format(wrong=wrong, run=run),
        "--output",
        str(tmp_path),
        *flags,
    ]
    assert main(argv, parse=parse) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line


def test_a_checkpoint_of_the_motivated_model_is_read_with_its_own_arguments(tmp_path):
    name = "vit_tiny_patch16_224"
    flags = ["--model", name, "--motivated-model", name, "--input-size", "1", "16", "16"]
    kwargs = ["--model-kwargs", "depth=1", "img_size=16", "--motivated-model-kwargs", "depth=2", "--motivation-k", "1"]
    assert main([*DIGITS, *flags, *kwargs, "--epochs", "1", "--output", str(tmp_path), "--experiment", "run"]) == 0
    file = tmp_path / "run" / "motivated" / "last.pth.tar"
    args, _ = parse([*FINETUNE_DIGITS, "--checkpoint", str(file)])
    assert args.model_kwargs == {"depth": 2, "img_size": 16}
    argv = [*FINETUNE_DIGITS, "--checkpoint", str(file), "--input-size", "1", "32", "32", "--output", str(tmp_path)]
    assert main([*argv, "--experiment", "larger"], parse=parse) == 0  # positions for the new size


def test_channels_and_preprocessing_are_the_runs(run):
    args, _ = parse([*FINETUNE_DIGITS, "--checkpoint", str(run), "--img-size", "12"])
    assert (args.in_chans, args.img_size, args.input_size) == (1, 12, None)


EVALUATED = {
    "side": (["--img-size", "16"], {"img_size": 16, "input_size": None}),
    "grey side": (["--img-size", "16", "--in-chans", "1"], {"img_size": 16, "in_chans": 1}),
    "size": (["--input-size", "3", "16", "24"], {"input_size": [3, 16, 24]}),
    "larger validation": (
        ["--input-size", "3", "16", "16", "--val-input-size", "3", "24", "24"], {"input_size": [3, 24, 24]},
    ),
    "transform": (
        ["--crop-pct", "0.5", "--interpolation", "nearest", "--mean", "0.1", "0.2", "0.3", "--std", "0.4"],
        {"crop_pct": 0.5, "interpolation": "nearest", "mean": [0.1, 0.2, 0.3], "std": [0.4]},
    ),
    "mode": (["--in-chans", "4", "--input-img-mode", "CMYK"], {"in_chans": 4, "input_img_mode": "CMYK"}),
}  # fmt: skip


def written(folder, flags):
    """A run's folder as far as fine-tuning reads it."""
    folder.mkdir()
    options, text = parse_options(["--model", "resnet8_cifar", *flags])
    (folder / "args.yaml").write_text(text)
    torch.save({"arch": "resnet8_cifar", "args": options, "state_dict": {}}, folder / "last.pth.tar")
    return folder


@pytest.mark.parametrize("of_file", [False, True])
@pytest.mark.parametrize("name", EVALUATED)
def test_all_that_a_run_was_evaluated_with_holds_and_is_said(name, of_file, tmp_path, caplog):
    caplog.set_level("INFO")
    flags, expected = EVALUATED[name]
    folder = written(tmp_path / "run", flags)
    checkpoint = folder / "last.pth.tar" if of_file else folder
    args, _ = parse([*FINETUNE_DIGITS, "--num-classes", "10", "--checkpoint", str(checkpoint)])
    assert {option: getattr(args, option) for option in expected} == expected
    (said,) = [record.message for record in caplog.records if "was evaluated" in record.message]
    assert all(f"--{option.replace('_', '-')} " in said for option, value in expected.items() if value is not None)


@pytest.mark.parametrize(("given", "expected"), [
    (["--img-size", "32"], {"img_size": 32, "input_size": None, "in_chans": 1, "mean": [0.3]}),
    (["--in-chans", "3"], {"input_size": [3, 8, 8], "in_chans": 3, "mean": [0.3], "input_img_mode": None}),
    (["--input-size", "3", "16", "16"], {"input_size": [3, 16, 16], "in_chans": None, "input_img_mode": None}),
    (["--mean", "0.5"], {"mean": [0.5], "input_size": [1, 8, 8], "input_img_mode": "L"}),
])  # fmt: skip
def test_what_is_given_wins_over_the_run(given, expected, tmp_path):
    folder = written(tmp_path / "run", ["--input-size", "1", "8", "8", "--mean", "0.3", "--input-img-mode", "L"])
    args, _ = parse([*FINETUNE_DIGITS, "--num-classes", "10", "--checkpoint", str(folder), *given])
    assert {option: getattr(args, option) for option in expected} == expected


def test_auxiliary_batchnorms_are_left_behind(tmp_path):
    from timm.layers import convert_splitbn_model

    split = convert_splitbn_model(timm.create_model("resnet8_cifar"), 2)
    torch.save(split.state_dict(), tmp_path / "split.pth")
    assert "with its head" in transfer_weights(timm.create_model("resnet8_cifar"), tmp_path / "split.pth")
