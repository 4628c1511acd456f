"""What cannot work is said before any training, all of it at once, in lines that name the option."""

import re
import subprocess
import sys
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from support.program import DIGITS, MOTIVATED, ROOT
from timm.models.resnet import ResNet

from motivation import versions
from motivation.build import feasible, forward_trial, run
from motivation.build.feasible import model_faults
from motivation.build.ranks import Ranks
from motivation.build.runtime import Runtime
from motivation.models import CifarResNet
from motivation.options.checks import option_faults
from motivation.options.faults import Fault, StartupError
from motivation.options.parse import parse
from motivation.tools.benchmark.recipes import make_small_images
from motivation.tools.train import main

VIT_OF_16_PX = ["--model", "vit_tiny_patch16_224", "--input-size", "1", "16", "16"]
COATNET_OF_64_PX = ["--model", "coatnet_pico_rw_224", "--model-kwargs", "img_size=64", "depths=[1, 1, 1, 1]"]
VIT_OF_16_PX += ["--model-kwargs", "img_size=16", "depth=1"]


def errors(capsys, tmp_path, *flags):
    argv = [*DIGITS, "--output", str(tmp_path / "out"), *map(str, flags)]
    assert main(argv) == 2
    assert not (tmp_path / "out").exists()
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error: ", "  "))]


def test_all_faults_come_at_once(capsys, tmp_path):
    wrong = ["--model", "resnet20_cifer", "--motivated-model", "resnet32_cifarr", "--opt", "adamx"]
    wrong += ["--motivation-condition", "los", "--dataset", "", "--data-dir", tmp_path / "nowhere"]
    found = "\n".join(errors(capsys, tmp_path, *wrong))
    for expected in (
        "resnet20_cifar", "resnet32_cifar", "did you mean loss", "did you mean", "no folder",
    ):  # fmt: skip
        assert expected in found
    assert found.count("error: ") == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--motivated-model", "resnet8_cifar", "--model", "resnet14_cifar"], "layer3: the base has 2 blocks"),
        (["--motivated-model", "resnet18"], "does not contain"),
        (["--motivated-model", "test_vit"], "not of one construction"),
        ([*MOTIVATED, "--naflex-loader", "--train-pad", "0"], "--naflex-loader: not with --motivated-model"),
        ([*MOTIVATED, "--torchscript"], "--torchscript: not with --motivated-model"),
        ([*MOTIVATED, "--layer-decay", "0.7"], "--layer-decay: not with --motivated-model"),
        (
            [*MOTIVATED, "--opt", "adahessian", "--opt-kwargs", "update_each=2"],
            "--opt-kwargs: with --motivated-model no update_each",
        ),
        ([*MOTIVATED, "--opt", "kron"], "Kron keeps list 'Q'"),
        ([*MOTIVATED, "--motivated-model-kwargs", "num_classes=3"], "has 3 classes, resnet8_cifar has 10"),
        ([*MOTIVATED, "--motivated-model-kwargs", "shortcut=C"], "shortcut is 'A' or 'B'"),
        ([*MOTIVATED, "--motivated-initial-checkpoint", "nowhere.pth"], "there is no file nowhere.pth"),
        (
            ["--motivated-model", "resnet8_cifar", "--motivated-init", "zero"],
            "--motivated-init zero: the motivated model has no blocks of its own that could begin at zero",
        ),
        (["--train-split", "tran"], "has no split 'tran'"),
        (["--dataset", "sklearn/faces"], "unknown data set sklearn/faces"),
        (["--dataset", "torch/nothing", "--data-dir", "."], "--dataset torch/nothing: "),
        (["--dataset", "", "--data-dir", ""], "say where the data are"),
        (["--batch-size", "2000"], "has 119 images"),
        (["--aug-repeats", "0.5"], "at least 1, not 0.5"),
        (["--aug-repeats", "3", "--train-img-sizes", "8", "16"], "--aug-repeats: not with --train-img-sizes"),
        (["--naflex-loader", "--train-pad", "0"], "--naflex-loader: takes images of 3 channels only"),
        (["--naflex-loader", "--no-prefetcher", "--train-pad", "0"], "--no-prefetcher: not with --naflex-loader"),
        (["--aug-splits", "2", "--no-prefetcher"], "--aug-splits: not with --no-prefetcher"),
        (["--aug-splits", "2", "--mixup", "0.1"], "--aug-splits: not with mixup and cutmix"),
        (["--jsd-loss"], "--jsd-loss: needs --aug-splits"),
        (["--train-pad", "1", "--no-aug"], "--train-pad"),
        (["--opt-kwargs", "nonsense=1"], "--opt sgd: TypeError"),
        (["--model-kwargs", "nonsense=1"], "unexpected keyword argument 'nonsense'"),
        (["--amp", "--model-dtype", "bfloat16"], "--model-dtype: with --amp"),
        (["--sched", "step", "--decay-epochs", "0"], "--decay-epochs: more than 0"),
        (["--mixup", "0.2", "-b", "21"], "--batch-size: mixup and cutmix mix pairs"),
        (["--val-input-size", "3", "8", "8"], "--val-input-size: 3 channels"),
        (["--in-chans", "3"], "--in-chans: 3, but --input-size has 1"),
        (["--mean", "0.5", "0.5"], "--mean: 2 numbers for 1 channels"),
        (["--scale", "0.5"], "--scale: two numbers"),
        (["--tta", "999"], "--tta: 999 views"),
        (["--remode", "foo"], "--remode: invalid choice: 'foo'"),
        (["--opt", "adamw", "--opt-betas", "0.9"], "--opt adamw: IndexError"),
        (["--device-modules", "nosuchmodule"], "No module named 'nosuchmodule'"),
        (["--lr", "1e39"], "--lr: a number that float32 can hold, not 1e+39"),
        (["--opt-eps", "1e39"], "--opt-eps: a number that float32 can hold"),
        (
            ["--lr", "0", "--lr-base", "3e38", "--lr-base-size", "32", "-b", "60"],
            "--lr-base: gives a learning rate of 5.625e+38",
        ),
        (["--lr-cycle-mul", "-1"], "--lr-cycle-mul: more than 0 for --sched cosine, not -1.0"),
        (["--bn-eps", "0"], "--bn-eps: more than 0"),
        (["--model-kwargs", "bn_eps=0"], "--bn-eps: more than 0"),
        (["--torchscript", "--gp", "catavgmax"], "--torchscript: RuntimeError"),
        (["--torchscript", "--model", "test_efficientnet_ln"], "--torchscript: RuntimeError: a view of a leaf"),
        (
            [
                "--naflex-loader",
                "--train-pad",
                "0",
                "--input-size",
                "3",
                "32",
                "32",
                "--model",
                "naflexvit_base_patch16_gap",
                "--model-kwargs",
                "embed_dim=24",
                "depth=1",
                "num_heads=2",
                "--naflex-patch-sizes",
                "8",
                "16",
            ],
            "--naflex-patch-sizes 8: naflexvit_base_patch16_gap takes patches of 16 px; others with --model-kwargs "
            "enable_patch_interpolator=True",
        ),
        (["--input-size", "1", "1000000", "1000000"], "--input-size: 20 x 1 x 1000000 x 1000000 pixels are more"),
        (["--val-input-size", "1", "1000000", "1000000"], "--val-input-size: 1 x 1 x 1000000"),
        (["--train-img-sizes", "8", "1000000"], "--train-img-sizes: 20 x 1 x 1000000"),
        (
            ["--num-classes", "1000000000"],
            "--model resnet8_cifar: resnet8_cifar has more than 238 GiB",
        ),
        (["--model", "test_vit", "--model-kwargs", "embed_dim=10000000"], "GiB of weights"),
        (["--model", "test_vit", "--model-kwargs", "depth=1000000000"], "takes no depth of more than 16,777,216"),
        (["--model", "test_resnet", "--model-kwargs", "layers=[1,1000000000,1,1]"], "takes no layers of more than"),
        (["--gaussian-blur-prob", "0.1"], "--gaussian-blur-prob: blurs images of at least 12 px, not of 8"),
        (["--train-pad", "10000000"], "--train-pad: 1 x 1 x 20000008"),
        (["--crop-pct", "0.000001"], "--crop-pct: 1 x 1 x 8000000"),
        ([*COATNET_OF_64_PX, "--input-size", "1", "32", "32"], "coatnet_pico_rw_224 does not train on images of 32x32"),
        (
            ["--model", "resnet18", "--input-size", "1", "32", "32", "-b", "1"],
            "--batch-size 1: resnet18 does not train on it",
        ),
        (["--model", "test_vit"], "--model: test_vit takes images of 160x160, not of 8x8"),
        (
            [*VIT_OF_16_PX, "--val-input-size", "1", "32", "32"],
            "--model: vit_tiny_patch16_224 takes images of 16x16, not of 32x32",
        ),
    ],
)
def test_one_fault_is_named_with_its_option(capsys, tmp_path, flags, message):
    found = errors(capsys, tmp_path, *flags)
    assert message in "\n".join(found)


def test_two_models_that_fit_one_by_one_but_not_together_are_refused(monkeypatch):
    args = parse([*DIGITS, *MOTIVATED])[0]
    monkeypatch.setattr(feasible, "memory_of_machine", lambda: 8 * 252_000)
    assert "take 0 GiB" in model_faults(args)[0].text
    args.model_dtype = "float16"
    assert model_faults(args) == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "resnet18", "--val-input-size", "1", "48", "48"],
        VIT_OF_16_PX,
        ["--model", "test_vit", "--input-size", "1", "16", "32", "--model-kwargs", "dynamic_img_size=True"],
    ],
)
def test_a_size_that_a_model_takes_is_no_fault(flags):
    assert model_faults(parse([*DIGITS, *flags])[0]) == []


def test_a_model_that_the_meta_device_cannot_run_is_tried_on_real_images(monkeypatch):
    args = parse(DIGITS)[0]
    on_meta = []

    def forward(self, images):
        on_meta.append(images.is_meta)
        return ResNet.forward(self, images + images.sum().item())

    monkeypatch.setattr(CifarResNet, "forward", forward)
    state = torch.get_rng_state()
    assert model_faults(args) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert on_meta == [True, False] * 2  # in training, in evaluation


def test_each_rank_tries_models_on_its_own_device(monkeypatch):
    tried = []
    monkeypatch.setattr(forward_trial._Trial, "refusal", lambda trial, batch: tried.append(trial.device))
    monkeypatch.setattr(run, "start_runtime", lambda args, ranks: runtime)
    runtime = Runtime(torch.device("cpu:1"), 0, 1, 1, None, None, None)
    with pytest.raises(StartupError):
        run.build_run(*parse([*DIGITS, "--device", "cpu", "--train-split", "tran"]))
    assert set(tried) == {torch.device("cpu:1")}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_named(capsys, tmp_path):
    text = "error: --device: cuda is not available; use --device cpu, or auto"
    assert errors(capsys, tmp_path, "--device", "cuda") == [text]


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({"SLURM_NTASKS": "2"}, "MASTER_ADDR, MASTER_PORT, RANK"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, "MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}, "MASTER_PORT"),
    ],
)
def test_processes_that_nothing_has_started_are_named_by_their_variable(
    monkeypatch, capsys, tmp_path, variables, missing
):
    for name in ("WORLD_SIZE", "RANK", "SLURM_NTASKS", "SLURM_PROCID", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (line,) = errors(capsys, tmp_path)
    announced = "WORLD_SIZE=2" if "WORLD_SIZE" in variables else "SLURM_NTASKS=2"
    assert line.startswith(f"error: {announced}: ")
    assert f"without {missing}: " in line
    assert "torchrun or srun" in line


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: must be a whole number"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE=: must be a whole number"),
        ({"SLURM_NTASKS": "2(x3)"}, "SLURM_NTASKS=2(x3): must be a whole number"),
        ({"RANK": "gold"}, ""),  # nobody reads it where no processes are announced
        ({"WORLD_SIZE": "2", "RANK": "gold"}, "RANK=gold: must be a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "-1"}, "LOCAL_RANK=-1: must be a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "WORLD_SIZE=2: no process of these has the rank 2"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "70000"}, "MASTER_PORT localhost:70000: the 2 processes"),
    ],
)
def test_variables_of_a_launcher_that_cannot_be_are_named(monkeypatch, variables, said):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", **variables}.items():
        monkeypatch.setenv(name, value)

    def begin():
        ranks = Ranks()
        ranks.require_launcher()
        ranks.compare({})

    with pytest.raises(StartupError, match=re.escape(said)) if said else nullcontext():
        begin()


def test_an_optimizer_of_second_derivatives_is_refused_on_several_ranks(monkeypatch):
    args = parse([*DIGITS, "--opt", "lookahead_adahessian"])[0]
    assert option_faults(args) == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [fault.flag for fault in option_faults(args)] == ["--opt"]


def test_a_missing_split_is_named_where_the_other_is_a_folder(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    args, _ = parse(["--data-dir", str(tmp_path), "--device", "cpu"])
    assert option_faults(args) == [Fault("--val-split", f"{tmp_path} has no split 'validation'; it has other, train")]


def test_splits_with_other_classes_are_named(capsys, tmp_path):
    from PIL import Image

    for place in ("train/a", "train/b", "validation/b"):
        (tmp_path / place).mkdir(parents=True)
        for index in range(3):
            Image.new("L", (8, 8)).save(tmp_path / place / f"{index}.png")
    (line,) = errors(capsys, tmp_path, "--dataset", "", "--data-dir", tmp_path, "-b", "2")
    assert "'validation' has 1 classes, 'train' has 2" in line


def test_a_very_long_streak_is_no_error(train):
    train(*MOTIVATED, "--motivation-k", "200", "--epochs", "1")


def test_a_clone_without_packages_says_what_to_install():
    words = [sys.executable, "-E", "-S", "-m", "motivation", "cost", "quickstart"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ended.stderr == f"packages are missing; run: pip install -r {ROOT / 'requirements.txt'}\n"


def test_missing_and_too_old_packages_are_named(monkeypatch):
    requirements = ROOT / "requirements.txt"
    versions.require_packages(requirements)
    found = {"timm": "1.1.0", "torch": "2.4.0+cpu"}

    def version(name):
        if name == "thop":
            raise PackageNotFoundError(name)
        return found.get(name, "9" if name == "pillow" else "99")

    monkeypatch.setattr(versions, "version", version)
    with pytest.raises(SystemExit, match="pip install -r") as stopped:
        versions.require_packages(requirements)
    assert str(stopped.value).splitlines()[:-1] == [
        "torch>=2.11 is needed, 2.4.0+cpu is installed",
        "timm<1.1,>=1.0.29 is needed, 1.1.0 is installed",
        "thop is not installed",
    ]


def test_images_with_other_channels_than_the_model_takes_are_said(tmp_path, capsys):
    make_small_images(tmp_path / "data", 64)
    flags = ["--dataset", "torch/mnist", "--data-dir", str(tmp_path / "data"), "--train-split", "train"]
    assert main([*flags, "--val-split", "test", "--device", "cpu", "--num-classes", "10", "-b", "8"]) == 2
    line = "error: --in-chans: the images of torch/mnist have 1 channel, but the model takes 3"
    assert line in capsys.readouterr().err.splitlines()
