"""Every configuration file is one its program takes, and has the values of its recipe."""

from functools import cache
from pathlib import Path

import pytest
from timm.optim import create_optimizer_v2, optimizer_kwargs

import motivation.models  # noqa: F401
from motivation.build.models import meta_model
from motivation.method.records import Role
from motivation.options.checks import option_faults
from motivation.options.config_files import config_names
from motivation.options.parse import make_parser, parse, read_configs
from motivation.tools import finetune
from motivation.tools.report.paper import TABLES
from weight_maps import find_map

ROOT = Path(__file__).parents[2] / "configs"
FILES = {f"{name}.yaml": ROOT / f"{name}.yaml" for name in config_names()}


def options_of(name):
    """The options of a file, by the parser of its program."""
    parser = finetune.make_parser() if name.startswith("finetune/") else make_parser()
    return parse(["--config", str(FILES[name]), "--data-dir", str(ROOT), "--device", "cpu"], parser)[0]


@cache
def on_meta(model):
    return meta_model(parse(["--model", model])[0], Role.BASE)


@pytest.mark.parametrize("name", FILES)
def test_config_is_taken_by_its_program(name):
    args = options_of(name)
    if name.startswith("finetune/"):
        args.model = "resnet50"  # that of the checkpoint
    if args.motivation_condition == "scheduled":
        assert args.motivation_scheduled_runs == []  # the command gives them
    assert option_faults(args) == []
    base = on_meta(args.model)
    optimizer = create_optimizer_v2(base, **optimizer_kwargs(cfg=args))
    assert optimizer.param_groups[0]["lr"] == args.lr
    if args.motivated_model:
        find_map(args.model, args.motivated_model, base, on_meta(args.motivated_model))


@pytest.mark.parametrize("name", FILES)
def test_config_is_headed_by_command_target_and_measurement(name):
    head = FILES[name].read_text().split("\nbase:")[0]
    program = "finetune.py" if name.startswith("finetune/") else "train_motivated.py"
    assert f"{program} --config configs/{name}" in head
    for word in ("command", "target", "measured"):
        assert f"#   {word}" in head
    assert all(line.startswith("#") for line in head.splitlines())


NO_MIXING = {"mixup": 0, "cutmix": 0, "reprob": 0, "smoothing": 0, "color_jitter": None}
CIFAR = {
    "opt": "momentum", "momentum": 0.9, "batch_size": 128, "weight_decay": 5e-4, "epochs": 200, "sched": "cosine",
    "lr": 0.1, "warmup_epochs": 0, "warmup_lr": 0, "min_lr": 0, "cooldown_epochs": 0, "train_pad": 4, "hflip": 0.5,
    "drop": 0, "drop_path": None, **NO_MIXING,
}  # fmt: skip
VIT = {
    "opt": "adamw", "batch_size": 64, "weight_decay": 0.05, "epochs": 300, "sched": "cosine", "lr": 2.5e-4,
    "warmup_epochs": 20, "cooldown_epochs": 0, "input_size": [3, 224, 224], "warmup_lr": 1e-6, "min_lr": 0,
}  # fmt: skip
EFFICIENTNET = {
    "opt": "rmsproptf", "momentum": 0.9, "batch_size": 64, "weight_decay": 1e-4, "epochs": 350, "sched": "step",
    "decay_epochs": 2, "decay_rate": 0.97, "lr": 0.01, "warmup_epochs": 5, "cooldown_epochs": 0, "hflip": 0.5,
    "input_size": [3, 224, 224], "aa": "cifar10", "drop_path": 0.2, "warmup_lr": 1e-6, "min_lr": 0, **NO_MIXING,
}  # fmt: skip
A3 = {
    "epochs": 100, "opt": "lamb", "lr": 8e-3, "weight_decay": 0.02, "sched": "cosine", "warmup_epochs": 5,
    "warmup_lr": 1e-6, "min_lr": 1e-6, "cooldown_epochs": 0, "input_size": [3, 160, 160], "batch_size": 256,
    "val_input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic", "bce_loss": True,
    "bce_target_thresh": 0.2, "mixup": 0.1, "cutmix": 1.0, "aa": "rand-m6-mstd0.5-inc1", "smoothing": 0,
    "reprob": 0, "aug_repeats": 0, "drop": 0, "drop_path": 0, "num_classes": 1000, "grad_accum_steps": 1,
    "amp": True, "amp_dtype": "bfloat16", "channels_last": True, "workers": 11,
}  # fmt: skip
TRANSFER = {
    "opt": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 384, "lr": 0.01, "sched": "cosine",
    "warmup_epochs": 0, "warmup_lr": 0, "min_lr": 0, "cooldown_epochs": 0, "aug_repeats": 3,
}  # fmt: skip
DROPOUT = [0.2, 0.2, 0.3, 0.3, 0.4, 0.4]
"""Dropout of EfficientNet-B0 to B5 (Tan & Le)."""
EPOCHS = {"cifar10": 300, "cifar100": 300, "flowers102": 2000, "oxford_pets": 1000}


def recipe_of(name):
    """Return the options that a file must state, by its name."""
    folder, _, stem = name.removesuffix(".yaml").partition("/")
    if folder == "finetune":
        return {**TRANSFER, "epochs": EPOCHS[stem]}
    if folder == "imagenet":
        return A3
    if folder in ("digits", "quickstart"):
        return {}
    if folder == "frontier":
        if stem.startswith("digits"):
            return {}
        return recipe_of(f"reproduction/{stem}.yaml")
    if name == "reproduction/digits.yaml":
        return {**CIFAR, "batch_size": 32, "train_pad": 2, "hflip": 0, "motivated_drop": 0, "motivated_drop_path": None}
    if name == "reproduction/fashion_mnist.yaml":
        return {**CIFAR, "epochs": 20, "train_pad": 2, "motivated_drop": 0, "motivated_drop_path": None}
    if stem.startswith("efficientnet"):
        sizes = [int(word[1]) for word in stem.split("_") if word[0] == "b" and word[1:].isdigit()]
        motivated = {} if len(sizes) == 1 else {"motivated_drop": DROPOUT[sizes[1]], "motivated_drop_path": 0.2}
        return {**EFFICIENTNET, "drop": DROPOUT[sizes[0]], **motivated}
    if stem.startswith("vit"):
        return VIT
    motivated = {"motivated_drop": 0, "motivated_drop_path": None} if stem.count("resnet") == 2 else {}
    return {**CIFAR, **motivated}


@pytest.mark.parametrize("name", FILES)
def test_config_states_every_value_of_its_recipe(name):
    stated, args = read_configs([str(FILES[name])], finetune.make_parser()), options_of(name)
    for key, value in recipe_of(name).items():
        assert key in stated, key
        assert getattr(args, key) == value, key
    if name.startswith(("cifar", "imagenet", "ablation")):
        assert stated["input_size"] == args.input_size
        assert ("motivation_k" in stated) == (args.motivated_model is not None)
    if "/vit" in name and not name.startswith("digits"):
        assert all(stated[key] for key in ("aa", "reprob", "mixup", "cutmix"))


K_OF_THE_PAPER = {
    "cifar10/resnet20_resnet32": 2, "cifar10/resnet32_resnet44": 2, "cifar10/resnet44_resnet56": 4,
    "cifar100/resnet20_resnet32": 3, "cifar100/resnet32_resnet44": 3, "cifar100/resnet44_resnet56": 4,
    "cifar10/vit_tiny_vit_small": 4, "cifar100/vit_tiny_vit_small": 5, "imagenet/resnet50_resnet101_a3": 4,
    "cifar100/efficientnet_b0_b1": 2, "cifar100/efficientnet_b1_b2": 3, "cifar100/efficientnet_b2_b3": 4,
    "cifar100/efficientnet_b3_b4": 4, "cifar100/efficientnet_b4_b5": 3, "cifar100/efficientnet_b1_b2_k2": 2,
    "cifar100/efficientnet_b2_b3_k2": 2, "cifar100/efficientnet_b3_b4_k2": 2, "cifar100/efficientnet_b4_b5_k2": 2,
}  # fmt: skip


def test_k_is_what_the_papers_flops_imply():
    found = {
        name.removesuffix(".yaml"): options_of(name).motivation_k
        for name in FILES
        if name.startswith(("cifar", "imagenet")) and options_of(name).motivated_model
    }
    assert found == K_OF_THE_PAPER


def test_every_row_of_the_papers_tables_has_a_config():
    models = {}
    for name in FILES:
        if name.startswith(("cifar", "imagenet")):
            args = options_of(name)
            models.setdefault((args.model, args.motivated_model), set()).add(args.dataset.rpartition("/")[2])
    for table, sets in (("table1", {"cifar10", "cifar100"}), ("table2", {""}), ("table4", {"cifar100"})):
        for label in TABLES[table].rows:
            base, *motivated, _ = label.split("-")
            assert models[base, motivated[0] if motivated else None] >= sets, label


def test_an_update_of_a3_has_2048_images():
    for name in ("resnet50_resnet101_a3", "resnet50_a3", "resnet101_a3"):
        args = options_of(f"imagenet/{name}.yaml")
        assert args.batch_size * args.grad_accum_steps * 8 == 2048
    recipe = (ROOT / "_recipes" / "imagenet_a3.yaml").read_text().replace("\n# ", " ")
    assert "4 GPUs --batch-size 512, 1 GPU --batch-size 256 --grad-accum-steps 8" in recipe
