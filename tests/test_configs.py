"""Every configuration file is one the program takes, and has the values of its recipe."""

from pathlib import Path

import pytest
import timm
import torch
import yaml

import motivation.models  # noqa: F401
from motivation.checks import option_faults
from motivation.options import parse
from weight_maps import find_map

ROOT = Path(__file__).parent.parent / "configs"
FILES = sorted(ROOT.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_config_is_taken_by_the_program(path, tmp_path):
    args, _ = parse(["--config", str(path), "--data-dir", str(tmp_path), "--device", "cpu"])
    assert option_faults(args) == []
    with torch.device("meta"):
        base, motivated = timm.create_model(args.model), timm.create_model(args.motivated_model)
    find_map(args.model, args.motivated_model, base, motivated)
    head = path.read_text().split("\n\n")[0]
    assert str(path.relative_to(ROOT.parent)) in head, "the command is in the heading"
    for word in ("command", "target", "measured"):
        assert word in head


CIFAR = {
    "opt": "momentum", "momentum": 0.9, "batch_size": 128, "weight_decay": 5e-4, "epochs": 200, "sched": "cosine",
    "lr": 0.1,
    "warmup_epochs": 0, "warmup_lr": 0, "min_lr": 0, "cooldown_epochs": 0, "train_pad": 4, "hflip": 0.5, "smoothing": 0,
    "color_jitter": None, "mixup": 0, "cutmix": 0, "reprob": 0, "drop": 0, "drop_path": None, "motivated_drop": 0,
    "motivated_drop_path": None, "model": "resnet20_cifar", "motivated_model": "resnet32_cifar", "motivation_k": 2,
}  # fmt: skip
RECIPES = {
    "cifar10/resnet20_resnet32.yaml": {**CIFAR, "mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]},
    "fashion_mnist/resnet20_resnet32.yaml": CIFAR,
    "imagenet/resnet50_resnet101_a3.yaml": {
        "epochs": 100, "opt": "lamb", "lr": 8e-3, "weight_decay": 0.02, "sched": "cosine", "warmup_epochs": 5,
        "warmup_lr": 1e-6, "min_lr": 1e-6, "cooldown_epochs": 0, "input_size": [3, 160, 160],
        "val_input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic", "bce_loss": True,
        "bce_target_thresh": 0.2, "mixup": 0.1, "cutmix": 1.0, "aa": "rand-m6-mstd0.5-inc1", "smoothing": 0,
        "reprob": 0,
        "aug_repeats": 0, "drop": 0, "drop_path": 0, "motivated_drop": 0, "motivated_drop_path": 0,
        "model": "resnet50", "motivated_model": "resnet101", "motivation_k": 4, "num_classes": 1000,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_config_states_every_value_of_its_recipe(name):
    stated = yaml.safe_load((ROOT / name).read_text())
    for key, value in RECIPES[name].items():
        assert key in stated, key
        parsed = parse(["-c", str(ROOT / name)])[0]
        assert getattr(parsed, key) == value, key


def test_an_update_of_a3_has_2048_images():
    args, _ = parse(["-c", str(ROOT / "imagenet/resnet50_resnet101_a3.yaml")])
    assert args.batch_size * args.grad_accum_steps * 8 == 2048
