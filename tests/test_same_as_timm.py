"""Without --motivated-model the program is timm's train.py: compared with the real script, bit for bit.

Set ``TIMM_TRAIN_SCRIPT`` to timm's ``train.py`` (of the version nearest the installed library) to run these tests.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.program import assert_equal, load

SCRIPT = os.environ.get("TIMM_TRAIN_SCRIPT")
pytestmark = pytest.mark.skipif(not SCRIPT, reason="TIMM_TRAIN_SCRIPT does not name timm's train.py")

RESNET = "--model resnet14_cifar --device-modules support.comparison_models"
VIT = "--model test_vit --model-kwargs img_size=32"
DEIT = "--model comparison_deit --device-modules support.comparison_models"
TEACHER = "--kd-model-name comparison_teacher --device-modules support.comparison_models"

CASES = {
    # optimizers
    "sgd": "--opt sgd --lr 0.05",
    "momentum_without_nesterov": "--opt momentum --lr 0.05 --weight-decay 5e-4",
    "adamw": f"{VIT} --opt adamw --lr 1e-3 --weight-decay 0.05",
    "adamw_betas_eps": "--opt adamw --lr 1e-3 --opt-betas 0.8 0.95 --opt-eps 1e-6",
    "lamb": "--opt lamb --lr 5e-3 --weight-decay 0.02",
    "rmsproptf": "--opt rmsproptf --lr 1e-2 --opt-eps 1e-3 --opt-kwargs alpha=0.95",
    "adafactor": "--opt adafactor --lr 1e-2",
    "lion": "--opt lion --lr 1e-3",
    "adan": "--opt adan --lr 1e-3",
    "nadamw": "--opt nadamw --lr 1e-3",
    "lookahead": "--opt lookahead_adam --lr 1e-3",
    "adahessian_second_order": "--opt adahessian --lr 1e-2",
    # learning rates and schedules
    "lr_from_base": "--lr-base 0.2",
    "lr_from_base_sqrt": "--opt adamw --lr-base 0.01 --lr-base-size 64",
    "cosine_on_updates": "--lr 0.1 --sched-on-updates --warmup-epochs 1",
    "warmup_prefix": "--lr 0.1 --warmup-epochs 1 --warmup-prefix --warmup-lr 1e-3 --min-lr 1e-3 --cooldown-epochs 1",
    "step": "--lr 0.1 --sched step --decay-epochs 1 --decay-rate 0.5 --warmup-epochs 0",
    "multistep": "--lr 0.1 --sched multistep --decay-milestones 1 2 --warmup-epochs 0",
    "poly_on_updates": "--lr 0.1 --sched poly --decay-rate 2 --sched-on-updates --warmup-epochs 0",
    "tanh_cycles": "--lr 0.1 --sched tanh --lr-cycle-limit 2 --warmup-epochs 0 --epochs 1",
    "plateau": "--lr 0.1 --sched plateau --patience-epochs 0 --warmup-epochs 0 --eval-metric loss",
    "lr_noise": "--lr 0.1 --lr-noise 0.1 0.9 --sched-on-updates --warmup-epochs 0",
    # losses and mixing
    "no_smoothing": "--lr 0.05 --smoothing 0",
    "mixup": "--lr 0.05 --mixup 0.4",
    "cutmix_elem": "--lr 0.05 --cutmix 1.0 --mixup-mode elem",
    "mixup_cutmix_pair_minmax": "--lr 0.05 --mixup 0.2 --cutmix-minmax 0.2 0.8 --mixup-mode pair --mixup-prob 0.7",
    "mixup_off_epoch": "--lr 0.05 --mixup 0.4 --mixup-off-epoch 1 -j 1",
    "bce_mixup": "--lr 0.05 --bce-loss --mixup 0.1 --cutmix 1.0 --bce-target-thresh 0.2",
    "bce_smoothing_sum": "--lr 0.01 --bce-loss --bce-sum --smoothing 0.2",
    "jsd_augmix_split_bn": "--lr 0.01 --aug-splits 3 --jsd-loss --split-bn --aa augmix-m3-w3 --resplit --reprob 0.3 "
    "-b 8",
    # augmentation
    "randaugment_erasing": "--lr 0.05 --aa rand-m6-mstd0.5-inc1 --reprob 0.5 --recount 2",
    "autoaugment_original": "--lr 0.05 --aa original --remode rand --reprob 0.25",
    "no_aug": "--lr 0.05 --no-aug",
    "crop_rkrc_vflip_jitter": "--lr 0.05 --train-crop-mode rkrc --vflip 0.3 --color-jitter-prob 0.5 "
    "--grayscale-prob 0.2",
    "scale_ratio_bicubic": "--lr 0.05 --scale 0.5 1.0 --ratio 0.9 1.1 --train-interpolation bicubic "
    "--interpolation bicubic",
    "grey_input": "--lr 0.05 --in-chans 1 --input-size 1 32 32",
    # averages, accumulation, clipping
    "ema": "--lr 0.05 --model-ema --model-ema-decay 0.9",
    "ema_warmup": "--lr 0.05 --model-ema --model-ema-warmup",
    "ema_force_cpu": "--lr 0.05 --model-ema --model-ema-force-cpu",
    "accumulation_ragged": "--lr 0.05 --grad-accum-steps 3 --reprob 0.5 --drop 0.2",
    "clip_norm": "--lr 0.05 --clip-grad 0.5",
    "clip_value": "--lr 0.05 --clip-grad 0.01 --clip-mode value",
    "clip_agc_accumulated": "--lr 0.05 --clip-grad 0.02 --clip-mode agc --grad-accum-steps 2",
    # precision and layout
    "bf16_amp": "--lr 0.05 --amp --amp-dtype bfloat16",
    "bf16_weights": "--lr 0.05 --model-dtype bfloat16",
    "channels_last": "--lr 0.05 --channels-last",
    "no_prefetcher": "--lr 0.05 --no-prefetcher --reprob 0.5 --mixup 0.2",
    # models
    "drop_rates": f"{VIT} --opt adamw --lr 1e-3 --drop 0.3 --drop-path 0.2 --reprob 0.4",
    "layer_decay": f"{VIT} --opt adamw --lr 1e-3 --layer-decay 0.7 --layer-decay-min-scale 0.1",
    "head_init": "--lr 0.05 --head-init-scale 0.1 --head-init-bias -2",
    "grad_checkpointing": "--lr 0.05 --grad-checkpointing",
    "efficientnet_bn": "--model test_efficientnet --lr 0.05 --bn-momentum 0.2 --bn-eps 1e-4 --gp max",
    "convnext": "--model test_convnext --opt adamw --lr 1e-3",
    # evaluation
    "val_interval": "--lr 0.05 --val-interval 2",
    "tta": "--lr 0.05 --tta 2 -vb 6",
    "no_validation": "--lr 0.05 --val-split= --eval-metric loss",
    "eval_metric_loss_history": "--lr 0.05 --eval-metric loss --checkpoint-hist 1",
    "validation_batch": "--lr 0.05 -vb 5 --crop-pct 0.8",
    # distillation
    "kd_logit": f"--lr 0.05 {TEACHER} --kd-temperature 2",
    "kd_logit_complementary": f"--lr 0.05 {TEACHER} --task-loss-weight 0.3 --mixup 0.2",
    "kd_feature": f"--lr 0.05 {TEACHER} --kd-distill-type feature --distill-loss-weight 2 --clip-grad 1",
    "kd_feature_projected": f"{VIT} {TEACHER} --lr 0.05 --kd-distill-type feature --model-ema",
    "kd_token": f"{DEIT} {TEACHER} --lr 0.01 --kd-distill-type token --kd-token-distill-type hard",
    # sizes that vary
    "scheduled_sizes": "--lr 0.05 --train-img-sizes 24 32 --train-batch-sizes 16 8 --variable-batch-loss-scale sqrt",
    "progressive_sizes": "--lr-base 0.1 --train-img-sizes 16 32 --train-size-schedule progressive -j 1",
    "naflex": "--model naflexvit_base_patch16_gap --model-kwargs embed_dim=24 depth=2 num_heads=2 --lr 0.01 "
    "--naflex-loader --naflex-train-seq-lens 4 9 --naflex-max-seq-len 9 --input-size 3 48 48 -j 1",
    # the rest
    "multi_epochs_loader": "--lr 0.05 --use-multi-epochs-loader -j 1",
    "worker_seeding_part": "--lr 0.05 --worker-seeding part -j 2",
    "recovery": "--lr 0.05 --recovery-interval 2",
    "torchscript": "--model test_resnet --lr 0.05 --torchscript",
    "torchcompile": "--lr 0.05 --torchcompile eager --model-ema --model-ema-decay 0.9",
    "save_images_accumulated": "--lr 0.05 --save-images --grad-accum-steps 2 --synchronize-step",
    "fast_norm": f"{VIT} --lr 0.01 --fast-norm",
    "seed": "--lr 0.05 --seed 7 --reprob 0.3",
    "initial_checkpoint": "--lr 0.05 --initial-checkpoint {weights}",
    "pretrained_path": "--lr 0.05 --pretrained --pretrained-path {weights}",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image folder of 5 classes: 55 training and 24 validation images of various sizes."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, counts in (("train", (13, 10, 12, 9, 11)), ("validation", (5, 4, 5, 5, 5))):
        for label, count in enumerate(counts):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                height, width = random.integers(33, 60, 2)
                pixels = random.integers(0, 120, (height, width, 3)) + 25 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a resnet14_cifar and of the teacher."""
    from motivation.models import CifarResNet

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    torch.save(CifarResNet(depth=14, num_classes=5).state_dict(), folder / "resnet14.pth")
    torch.save(CifarResNet(depth=8, num_classes=5).state_dict(), folder / "teacher.pth")
    return folder


@pytest.fixture(scope="module")
def harness(weights):
    """``harness(program, argv, log)`` runs one of the two programs and checks that it ended well."""
    environment = {**os.environ, "COMPARISON_TEACHER": str(weights / "teacher.pth")}
    here = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent), environment.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, str(here / "support" / "timm_harness.py"), SCRIPT],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    ) as server:  # fmt: skip

        def run(program, argv, log):
            server.stdin.write(json.dumps({"program": program, "argv": argv, "log": str(log)}) + "\n")
            server.stdin.flush()
            code = int(server.stdout.readline())
            assert code == 0, f"{program} ended with {code}:\n{Path(log).read_text()[-3000:]}"

        yield run
        server.stdin.close()


def arguments(flags, images, output, weights):
    flags = flags.format(weights=weights / "resnet14.pth")
    model = [] if "--model " in flags else RESNET.split()
    size = [] if "--input-size" in flags else ["--input-size", "3", "32", "32"]
    return [
        "--data-dir", str(images), "--num-classes", "5", "--device", "cpu", "-b", "10", "-j", "1", "--epochs", "2",
        "--log-interval", "2", "--output", str(output), "--experiment", "run", *model, *size, *flags.split(),
    ]  # fmt: skip


def compare_runs(ours, theirs):
    """Same files, same numbers in them."""
    our_files = {p.name for p in ours.iterdir()} - {"result.json", "updates.csv", "label_names.json"}
    assert our_files == {p.name for p in theirs.iterdir()}
    with open(ours / "summary.csv") as a, open(theirs / "summary.csv") as b:
        assert list(csv.reader(a)) == list(csv.reader(b))
    our_args, their_args = (yaml.safe_load((run / "args.yaml").read_text()) for run in (ours, theirs))
    for key in their_args.keys() - {"output", "resume"}:
        assert our_args[key] == their_args[key], key
    for path in sorted(theirs.glob("*.pth.tar")):
        a, b = load(ours / path.name), load(path)
        for key in b.keys() - {"args", "saver"}:
            assert_equal(a[key], b[key], f"{path.name}/{key}")


@pytest.mark.parametrize("name", CASES)
def test_plain_run_is_timms_bit_for_bit(name, harness, images, weights, tmp_path):
    for program in ("timm", "ours"):
        argv = arguments(CASES[name], images, tmp_path / program, weights)
        harness(program, argv, tmp_path / f"{program}.log")
    compare_runs(tmp_path / "ours" / "run", tmp_path / "timm" / "run")


@pytest.mark.parametrize(
    "flags", ["--lr 0.05 --reprob 0.4", "--opt lamb --lr 5e-3 --model-ema", "--no-resume-opt --lr 0.1"]
)
def test_resuming_timms_checkpoint_is_timms_resume(flags, harness, images, weights, tmp_path):
    first = arguments(flags, images, tmp_path / "first", weights)
    harness("timm", [*first, "--epochs", "2"], tmp_path / "first.log")
    for program in ("timm", "ours"):
        argv = arguments(flags, images, tmp_path / program, weights)
        argv += ["--epochs", "4", "--resume", str(tmp_path / "first" / "run" / "checkpoint-0.pth.tar")]
        harness(program, argv, tmp_path / f"{program}.log")
    compare_runs(tmp_path / "ours" / "run", tmp_path / "timm" / "run")


def test_timm_resumes_our_checkpoint(harness, images, weights, tmp_path):
    flags = "--opt adamw --lr 1e-3 --model-ema --reprob 0.3"
    for program in ("timm", "ours"):
        harness(program, arguments(flags, images, tmp_path / program, weights), tmp_path / f"{program}.log")
        argv = arguments(flags, images, tmp_path / f"{program}-resumed", weights)
        argv += ["--epochs", "3", "--resume", str(tmp_path / program / "run" / "last.pth.tar")]
        harness("timm", argv, tmp_path / f"{program}-resumed.log")
    compare_runs(tmp_path / "ours-resumed" / "run", tmp_path / "timm-resumed" / "run")


def test_timms_validate_script_reads_our_checkpoint(harness, images, weights, tmp_path):
    flags = "--model test_resnet --lr 0.05"
    harness("ours", arguments(flags, images, tmp_path, weights), tmp_path / "ours.log")
    script = Path(SCRIPT).with_name("validate.py")
    command = [sys.executable, script, "--data-dir", images, "--split", "validation", "--model", "test_resnet"]
    command += ["--checkpoint", tmp_path / "run" / "last.pth.tar", "--device", "cpu", "--num-classes", "5", "-j", "1"]
    command += ["--input-size", "3", "32", "32", "-b", "10", "--results-file", tmp_path / "results.csv"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True, cwd=tmp_path)
    with open(tmp_path / "results.csv") as theirs, open(tmp_path / "run" / "summary.csv") as ours:
        found, kept = next(csv.DictReader(theirs)), list(csv.DictReader(ours))[-1]
    assert float(found["top1"]) == pytest.approx(float(kept["eval_top1"]), abs=1e-3)
    assert float(found["top5"]) == pytest.approx(float(kept["eval_top5"]), abs=1e-3)
