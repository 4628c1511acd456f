"""The flags: all of timm's ``train.py``, with its names, defaults and destinations, and those of a motivated run."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from motivation.options.derived import holds_images_out
from motivation.options.flag_types import Allowed, Flag, Group, above, at_least, between

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def is_augmentation_policy(name: str) -> bool:
    """Return True if timm can make augmentations of a name, or we can."""
    from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform

    from motivation.data.datasets import CIFAR_POLICY

    make: Any = auto_augment_transform
    if name.startswith("rand"):
        make = rand_augment_transform
    elif name.startswith("augmix"):
        make = augment_and_mix_transform
    try:
        return name in ("", CIFAR_POLICY) or make(name, {}) is not None
    except (AssertionError, ValueError, LookupError):
        return False


def always(args: Namespace) -> bool:
    """Return that a row applies to every run."""
    return True


def is_motivated(args: Namespace) -> bool:
    """Return True if there is a motivated model."""
    return bool(args.motivated_model)


BOUND = Allowed("at least 0", lambda number: number >= 0)
"""Infinity too: the norm is then measured and never clipped."""
SMOOTHING = Allowed("at least 0 and less than 1", lambda number: 0 <= number < 1)
SPLITS = Allowed("0 or at least 2", lambda number: number == 0 or number >= 2)
REPEATS = Allowed("0 for none, or at least 1", lambda number: number == 0 or 1 <= number < float("inf"))
POLICY = Allowed("rand-..., augmix-..., original, originalr, v0, v0r, 3a or cifar10", is_augmentation_policy)

# fmt: off
GROUPS: tuple[Group, ...] = (
    Group("Data", (
        Flag("data", str, "data folder (older form of --data-dir)",
             nargs="?", metavar="DIR", measured=False, per_rank=True),
        Flag("--data-dir", str, "folder of the data set", metavar="DIR", measured=False, per_rank=True),
        Flag("--dataset", str,
             "torch/cifar10, hfds/..., tfds/..., wds/..., sklearn/digits; empty: a folder of class folders, or tars; "
             "hfds/ needs the package datasets, wds/ webdataset (pip install '.[datasets,webdataset]')",
             default="", metavar="KIND/NAME"),
        Flag("--train-split", str, "split to train on", default="train"),
        Flag("--val-split", str, "split to validate on; '' for none", default="validation", null=True),
        Flag("--train-num-samples", int, "length of an iterable training split", allowed=at_least(1)),
        Flag("--val-num-samples", int, "length of an iterable validation split", allowed=at_least(1)),
        Flag("--dataset-download", bool, "let torch/, tfds/ and hfids/ data sets be fetched",
             measured=False, per_rank=True),
        Flag("--class-map", str, "file that maps class names to indices", default="", metavar="FILE", per_rank=True),
        Flag("--input-img-mode", str, "mode that images are converted to: RGB, L, LA, RGBA, CMYK, ...",
             metavar="MODE", of_weights=True),
        Flag("--input-key", str, "field of the image", metavar="KEY"),
        Flag("--target-key", str, "field of the label", metavar="KEY"),
        Flag("--dataset-trust-remote-code", bool, "run code that comes with a Hugging Face data set",
             measured=False, per_rank=True),
    )),
    Group("Cross-validation", (
        Flag("--folds", int, "number of parts; --val-split is then not read", allowed=at_least(2), must_agree=always),
        Flag("--fold", int, "the part to validate on, from 0 to N - 1",
             allowed=at_least(0), metavar="I", must_agree=always, measured=False),
    ), description="Train without one of N stratified parts of the training split, chosen by --seed, and validate on "
                   "it; python -m motivation cross-validate runs them all."),
    Group("Model", (
        Flag("--model", str, "timm model; in a motivated run the base model", default="resnet50"),
        Flag("--pretrained", bool, "begin with timm's pretrained weights"),
        Flag("--pretrained-path", str,
             "with --pretrained: take its weights from this file, but for the head, which is always a new one",
             metavar="FILE", per_rank=True),
        Flag("--initial-checkpoint", str, "weights to begin with", default="", metavar="FILE", per_rank=True),
        Flag("--resume", str,
             "training checkpoint to go on from; auto: the newest whole one of --experiment, if there is any",
             default="", metavar="FILE", measured=False, per_rank=True),
        Flag("--no-resume-opt", bool, "resume the weights but not the optimizer"),
        Flag("--num-classes", int, "outputs of the head; default the model's own", allowed=at_least(1)),
        Flag("--gp", str, "global pooling: avg, max, avgmax, catavgmax, fast; default the model's own",
             metavar="POOL", of_weights=True),
        Flag("--img-size", int, "side of square input images; default the model's own",
             allowed=at_least(1), metavar="PX"),
        Flag("--in-chans", int, "channels of the input images; default 3", allowed=at_least(1)),
        Flag("--input-size", int, "size of the input images", allowed=at_least(1), nargs=3, metavar=("C", "H", "W")),
        Flag("--val-input-size", int, "size of the validation images; default that of the training images, as in timm",
             allowed=at_least(1), nargs=3, metavar=("C", "H", "W")),
        Flag("--crop-pct", float,
             "part of a validation image that the centre crop keeps; default, and for 0, the model's own",
             allowed=at_least(0), of_weights=True),
        Flag("--mean", float, "mean of the pixels, per channel, in 0..1", nargs="+", of_weights=True),
        Flag("--std", float, "standard deviation of the pixels, per channel",
             allowed=above(0), nargs="+", of_weights=True),
        Flag("--interpolation", str, "how images are resized; default the model's own",
             default="", choices=INTERPOLATIONS, of_weights=True),
        Flag("-b --batch-size", int, "training images of one micro-batch per rank", default=128, allowed=at_least(1),
             must_agree=lambda args: holds_images_out(args) and args.motivation_valloss_images is None),
        Flag("-vb --validation-batch-size", int, "default: --batch-size", allowed=at_least(0), measured=False),
        Flag("--channels-last", bool, "NHWC memory layout", measured=False),
        Flag("--fuser", str, "TorchScript fuser", default="", choices=("te", "old", "legacy", "nvfuser", "nvf"),
             measured=False),
        Flag("--grad-accum-steps", int, "micro-batches of one update", default=1, allowed=at_least(0)),
        Flag("--grad-checkpointing", bool, "recompute activations in the backward pass", measured=False),
        Flag("--fast-norm", bool, "timm's normalisation in low precision"),
        Flag("--model-kwargs", dict, "further arguments of the model"),
        Flag("--head-init-scale", float, "factor on the head's initial weights"),
        Flag("--head-init-bias", float, "initial bias of the head"),
    )),
    Group("Compilation", (
        Flag("--torchscript", bool, "script the model", measured=False,
             not_motivated="a scripted module's weights are copied when it is scripted"),
        Flag("--torchcompile", str, "torch.compile the models",
             nargs="?", const="inductor", metavar="BACKEND", measured=False),
        Flag("--torchcompile-mode", str, "mode of torch.compile", measured=False,
             choices=("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")),
    ), exclusive=("torchscript", "torchcompile")),
    Group("Device", (
        Flag("--device", str, "cuda, cpu, mps, xpu, npu, ...; auto: the accelerator of this machine, or else its CPU",
             default="cuda", measured=False, per_rank=True),
        Flag("--amp", bool, "mixed precision"),
        Flag("--amp-dtype", str, "dtype of mixed precision", default="float16", choices=("float16", "bfloat16")),
        Flag("--model-dtype", str, "dtype of the weights themselves", choices=("float32", "float16", "bfloat16")),
        Flag("--no-ddp-bb", bool, "do not broadcast buffers in every forward pass of a distributed run"),
        Flag("--synchronize-step", bool, "wait for the device after every update", measured=False, per_rank=True),
        Flag("--local_rank", int, "set by older launchers; --local-rank is the same",
             default=0, measured=False, per_rank=True),
        Flag("--device-modules", str, "Python modules to import first",
             nargs="+", metavar="MODULE", measured=False, per_rank=True),
        Flag("--deterministic", bool,
             "let a run repeat to the bit on an accelerator of the same kind too; its kernels are slower there, and an "
             "operation without such a kernel ends the run", measured=False),
    )),
    Group("Optimizer", (
        Flag("--opt", str, "timm optimizer", default="sgd"),
        Flag("--opt-eps", float, "epsilon; default the optimizer's own", allowed=at_least(0)),
        Flag("--opt-betas", float, "betas; default the optimizer's own", nargs="+"),
        Flag("--momentum", float, "momentum", default=0.9, allowed=at_least(0)),
        Flag("--weight-decay", float, "weight decay", default=2e-05, allowed=at_least(0)),
        Flag("--clip-grad", float, "bound of the gradient; default none", allowed=BOUND),
        Flag("--clip-mode", str, "what --clip-grad bounds", default="norm", choices=("norm", "value", "agc")),
        Flag("--layer-decay", float, "learning rate factor per layer", allowed=above(0),
             not_motivated="one shared weight would have two learning rates, because its depth differs in the two "
                           "models"),
        Flag("--layer-decay-min-scale", float, "lowest of those factors", default=0),
        Flag("--layer-decay-no-opt-scale", float, "factor below which a layer is frozen"),
        Flag("--opt-kwargs", dict, "further arguments of the optimizer"),
    )),
    Group("Learning rate schedule", (
        Flag("--sched", str, "timm's schedule", default="cosine",
             choices=("cosine", "tanh", "step", "multistep", "plateau", "poly", "wsd", "rsqrt", "constant", "none")),
        Flag("--sched-on-updates", bool, "change the learning rate after every update, not every epoch"),
        Flag("--lr", float, "learning rate; not given, or 0: from --lr-base", allowed=at_least(0)),
        Flag("--lr-base", float, "learning rate for --lr-base-size images an update", default=0.1, allowed=at_least(0)),
        Flag("--lr-base-size", int, "see --lr-base", default=256, allowed=at_least(1)),
        Flag("--lr-base-scale", str, "growth with the images of an update; default by optimizer",
             default="", choices=("linear", "sqrt")),
        Flag("--lr-noise", float, "where noise begins and ends, as parts of training", nargs="+"),
        Flag("--lr-noise-pct", float, "bound of the noise", default=0.67),
        Flag("--lr-noise-std", float, "standard deviation of the noise", default=1.0),
        Flag("--lr-cycle-mul", float, "growth of the cycles' length; of cosine, tanh and poly", default=1.0),
        Flag("--lr-cycle-decay", float, "decay of the cycles' height", default=0.5),
        Flag("--lr-cycle-limit", int, "number of cycles", default=1),
        Flag("--lr-k-decay", float, "k-decay of cosine and poly", default=1.0),
        Flag("--warmup-lr", float, "learning rate at the start of warm-up", default=1e-05, allowed=at_least(0)),
        Flag("--min-lr", float, "lowest learning rate", default=0, allowed=at_least(0)),
        Flag("--epochs", int, "epochs, without cool-down (and prefixed warm-up)", default=300, allowed=at_least(1)),
        Flag("--epoch-repeats", float, "passes over an iterable set per epoch",
             default=0.0, allowed=at_least(0), per_image=True),
        Flag("--start-epoch", int, "epoch to begin with, whatever was resumed", allowed=at_least(0)),
        Flag("--decay-milestones", int, "epochs of multistep", default=[90, 180, 270], nargs="+"),
        Flag("--decay-epochs", float, "step: epochs between two steps; wsd, rsqrt: of the decay", default=90),
        Flag("--warmup-epochs", int, "epochs of warm-up", default=5, allowed=at_least(0)),
        Flag("--warmup-prefix", bool, "add the warm-up to the epochs instead of taking it from them"),
        Flag("--cooldown-epochs", int, "epochs at the lowest rate, after the others; not of step, multistep, plateau",
             default=0, allowed=at_least(0)),
        Flag("--patience-epochs", int, "patience of plateau", default=10, allowed=at_least(0)),
        Flag("--decay-rate --dr", float, "factor of a step (step, multistep, plateau); power of poly", default=0.1),
    )),
    Group("Augmentation", (
        Flag("--no-aug", bool, "train on validation-like images", per_image=True),
        Flag("--train-crop-mode", str, "kind of random crop", choices=("rrc", "rkrc", "rkrr"), per_image=True),
        Flag("--data-on-device", bool,
             "the whole data set as one tensor on the training device; for pad-and-crop, flips, erasing and mixing"),
        Flag("--train-pad", int,
             "resize to the input size, pad by this much, crop at random; replaces the random resized crop",
             default=0, allowed=at_least(0), metavar="PX"),
        Flag("--scale", float, "area of a random crop", default=[0.08, 1.0], allowed=above(0), nargs="+", null=True),
        Flag("--ratio", float, "aspect ratio of a random crop",
             default=[0.75, 1.3333333333333333], allowed=above(0), nargs="+", null=True),
        Flag("--hflip", float, "probability of a horizontal flip", default=0.5, allowed=between(0, 1), metavar="P"),
        Flag("--vflip", float, "probability of a vertical flip", default=0.0, allowed=between(0, 1), metavar="P"),
        Flag("--color-jitter", float, "strength of colour jitter; not beside --aa, but for 3a",
             default=0.4, allowed=at_least(0), null=True, per_image=True),
        Flag("--color-jitter-prob", float, "probability of colour jitter; default always",
             allowed=between(0, 1), metavar="P"),
        Flag("--grayscale-prob", float, "probability of turning grey",
             allowed=between(0, 1), metavar="P", per_image=True),
        Flag("--gaussian-blur-prob", float, "probability of blur", allowed=between(0, 1), metavar="P", per_image=True),
        Flag("--aa", str, "rand-..., augmix-..., v0, original, 3a of timm; cifar10 for AutoAugment's CIFAR-10 policy",
             allowed=POLICY, metavar="POLICY", per_image=True),
        Flag("--aug-repeats", float, "repeated augmentation: each image so often in an epoch, and fewer images",
             default=0, allowed=REPEATS, metavar="N", per_image=True),
        Flag("--aug-splits", int, "augmentation splits, 0 or at least 2",
             default=0, allowed=SPLITS, per_image=True),
        Flag("--jsd-loss", bool, "Jensen-Shannon consistency over the augmentation splits"),
        Flag("--bce-loss", bool, "binary cross-entropy; without mixup, cutmix and smoothing it stays cross-entropy"),
        Flag("--bce-sum", bool, "sum it over the classes"),
        Flag("--bce-target-thresh", float, "soft targets above this count as 1"),
        Flag("--bce-pos-weight", float, "weight of the positive targets"),
        Flag("--reprob", float, "probability of random erasing", default=0.0, allowed=between(0, 1), metavar="P"),
        Flag("--remode", str, "fill of erased boxes", default="pixel", choices=("const", "rand", "pixel")),
        Flag("--recount", int, "boxes to erase", default=1, allowed=between(0, 1000)),
        Flag("--resplit", bool, "leave the first augmentation split whole"),
        Flag("--mixup", float, "mixup alpha; 0 for none", default=0.0, allowed=at_least(0), metavar="A"),
        Flag("--cutmix", float, "cutmix alpha; 0 for none", default=0.0, allowed=at_least(0), metavar="A"),
        Flag("--cutmix-minmax", float, "bounds of cutmix's box, in place of alpha", allowed=between(0, 1), nargs="+"),
        Flag("--mixup-prob", float, "probability of mixing a batch", default=1.0, allowed=between(0, 1), metavar="P"),
        Flag("--mixup-switch-prob", float, "of cutmix, where both are on",
             default=0.5, allowed=between(0, 1), metavar="P"),
        Flag("--mixup-mode", str, "what is mixed by one draw", default="batch", choices=("batch", "pair", "elem")),
        Flag("--mixup-off-epoch", int, "epoch that ends mixing; 0 for never", default=0, allowed=at_least(0)),
        Flag("--smoothing", float, "label smoothing", default=0.1, allowed=SMOOTHING),
        Flag("--train-interpolation", str, "how training images are resized",
             default="random", choices=("random", *INTERPOLATIONS), null=True),
    )),
    Group("Regularisation", (
        Flag("--drop", float, "dropout", default=0.0, allowed=between(0, 1), metavar="P"),
        Flag("--drop-connect", float, "older name of --drop-path; timm ignores it", metavar="P"),
        Flag("--drop-path", float, "stochastic depth", allowed=between(0, 1), metavar="P"),
        Flag("--drop-block", float, "drop block", allowed=between(0, 1), metavar="P"),
    )),
    Group("BatchNorm", (
        Flag("--bn-momentum", float, "momentum of the running statistics", allowed=between(0, 1)),
        Flag("--bn-eps", float, "epsilon", allowed=at_least(0), of_weights=True),
        Flag("--sync-bn", bool, "statistics over all ranks"),
        Flag("--dist-bn", str, "how ranks share running statistics; '' for not at all",
             default="reduce", choices=("reduce", "broadcast", "")),
        Flag("--split-bn", bool, "statistics of their own for each augmentation split"),
    )),
    Group("Average of the weights", (
        Flag("--model-ema", bool, "track an exponential moving average and evaluate it"),
        Flag("--model-ema-force-cpu", bool, "keep it on the CPU and do not evaluate it"),
        Flag("--model-ema-decay", float, "its decay", default=0.9998, allowed=between(0, 1)),
        Flag("--model-ema-warmup", bool, "let the decay grow at the start"),
    )),
    Group("Run", (
        Flag("--seed", int, "random seed", default=42, allowed=at_least(0), measured=False, argument="seed",
             must_agree=lambda args: args.folds is not None or holds_images_out(args)),
        Flag("--worker-seeding", str, "what workers seed", default="all", choices=("all", "part")),
        Flag("--log-interval", int, "updates between two log lines",
             default=50, allowed=at_least(1), measured=False, per_rank=True),
        Flag("--val-interval", int, "epochs between two evaluations", default=1, allowed=at_least(1)),
        Flag("--limit-batches", int,
             "try a run in a minute: N batches of each split, both models, both switches, evaluation, a checkpoint and "
             "its resume, memory and time; no files are left", allowed=at_least(1)),
        Flag("--recovery-interval", int, "updates between two recovery checkpoints",
             default=0, allowed=at_least(0), measured=False),
        Flag("--checkpoint-hist", int, "numbered checkpoints to keep",
             default=10, allowed=at_least(1), measured=False, per_rank=True),
        Flag("-j --workers", int, "processes that load data, per rank",
             default=4, allowed=between(0, 1024), measured=False, per_rank=True),
        Flag("--save-images", bool, "write the last images of a batch at every log line",
             measured=False, per_rank=True),
        Flag("--pin-mem", bool, "pinned host memory; default on CUDA", measured=False, per_rank=True),
        Flag("--no-pin-mem", bool, "no pinned host memory, whatever --pin-mem says", measured=False, per_rank=True),
        Flag("--no-prefetcher", bool, "normalise in the data workers", measured=False),
        Flag("--output", str, "folder of all runs; default ./output/train",
             default="", metavar="DIR", measured=False, per_rank=True),
        Flag("--experiment", str, "folder of this run; default time, model and size",
             default="", measured=False, per_rank=True),
        Flag("--eval-metric", str, "what ranks checkpoints", default="top1", choices=("top1", "top5", "loss")),
        Flag("--tta", int, "consecutive validation images that are views of one",
             default=0, allowed=at_least(0), per_image=True),
        Flag("--use-multi-epochs-loader", bool, "keep the loader's iterator over epochs",
             measured=False, per_image=True),
        Flag("--log-tensorboard", bool, "log to TensorBoard, in the run's folder (pip install '.[tensorboard]')",
             measured=False, per_rank=True),
        Flag("--log-wandb", bool, "log to Weights & Biases (pip install '.[wandb]')", measured=False, per_rank=True),
        Flag("--wandb-project", str, "its project", measured=False, per_rank=True),
        Flag("--wandb-tags", str, "its tags", default=[], nargs="+", metavar="TAG", measured=False, per_rank=True),
        Flag("--wandb-resume-id", str, "its run to resume", default="", metavar="ID", measured=False, per_rank=True),
    )),
    Group("Training sizes that vary", (
        Flag("--train-img-sizes", int, "image sizes that batches are drawn from",
             allowed=at_least(1), nargs="+", metavar="PX", per_image=True),
        Flag("--train-batch-sizes", int, "a batch size for each of them", allowed=at_least(1), nargs="+"),
        Flag("--train-size-probs", float, "a weight for each of them", allowed=at_least(0), nargs="+", metavar="P"),
        Flag("--train-size-schedule", str, "progressive: from the first size to the last",
             default="constant", choices=("constant", "progressive")),
        Flag("--train-size-schedule-spread", float, "spread around the present size", default=0.65),
        Flag("--train-size-random-mix", float, "part of batches of any size", default=0.1, allowed=between(0, 1)),
        Flag("--train-batches-per-epoch --train-steps-per-epoch", int,
             "micro-batches of an epoch; default from the mean batch size",
             allowed=at_least(1), per_image=True),
        Flag("--variable-batch-loss-scale", str, "weight of a batch's loss by its size",
             default="none", choices=("none", "sqrt", "linear")),
    )),
    Group("NaFlex loader", (
        Flag("--naflex-loader", bool, "batches of patches; for NaFlex models", per_image=True,
             not_motivated="batches of varying size and sequence length make the losses of successive updates "
                           "incomparable"),
        Flag("--naflex-train-seq-lens", int, "sequence lengths of training",
             default=[128, 256, 576, 784, 1024], allowed=at_least(1), nargs="+"),
        Flag("--naflex-max-seq-len", int, "sequence length of validation", default=576, allowed=at_least(1)),
        Flag("--naflex-patch-sizes", int, "patch sizes of training", allowed=at_least(1), nargs="+", metavar="PX"),
        Flag("--naflex-patch-size-probs", float, "a weight for each of them",
             allowed=at_least(0), nargs="+", metavar="P"),
        Flag("--naflex-loss-scale", str, "weight of a batch's loss by its size",
             default="linear", choices=("none", "sqrt", "linear")),
        Flag("--naflex-patchify-channels-first", bool, "flatten patches channel by channel"),
    )),
    Group("Distillation", (
        Flag("--kd-model-name", str, "timm model that teaches, pretrained"),
        Flag("--kd-distill-type", str, "what is matched", default="logit", choices=("logit", "feature", "token")),
        Flag("--kd-loss-type", str, "loss on the logits", default="kl", choices=("kl",)),
        Flag("--distill-loss-weight", float, "weight of the teacher's loss"),
        Flag("--task-loss-weight", float, "weight of the labels' loss; alone it makes the teacher's one minus it"),
        Flag("--kd-temperature", float, "temperature of both softmaxes", default=4.0, allowed=above(0), metavar="T"),
        Flag("--kd-student-feature-dim", int, "width of the student's features"),
        Flag("--kd-teacher-feature-dim", int, "width of the teacher's features"),
        Flag("--kd-token-distill-type", str, "targets of the token head", default="soft", choices=("soft", "hard")),
    )),
    Group("Motivation", (
        Flag("--motivated-model", str, "timm model that contains --model", motivated=True),
        Flag("--motivation-k", int, "updates in a row the loss must have fallen",
             default=2, allowed=at_least(1), metavar="K", may_change=True, argument="k", motivated=True),
        Flag("--motivation-condition", str,
             "loss, ema, valloss, slope, random, scheduled, never, always, or one of a plugin",
             default="loss", motivated=True),
        Flag("--motivation-plugins", str,
             "your own Python files or modules, loaded first: conditions, hooks, weights maps, models",
             default=[], nargs="+", metavar="FILE_OR_MODULE", motivated=True, per_rank=True),
        Flag("--motivation-plugin-kwargs", dict, "arguments of your own condition and hooks, by name",
             may_change=True, motivated=True),
        Flag("--max-nonfinite", int,
             "losses in a row that are not finite, after which the run stops; of plain runs too",
             default=20),
        Flag("--check-numerics", bool,
             "for debugging: end at the first module output, loss or gradient that is not finite, and name it; in "
             "plain runs too; about a tenth slower on a CPU", measured=False),
    ), description="A second, larger model takes over while the condition holds. Without --motivated-model nothing of "
                   "it applies."),
    Group("Options of single conditions", (
        Flag("--motivation-ema-decay", float, "ema: weight of the average so far",
             default=0.9, metavar="A", may_change=True, conditions=("ema",), argument="decay", motivated=True),
        Flag("--motivation-ema-drop", float, "ema: relative drop of the average that counts as a decrease",
             default=0.002, metavar="D", may_change=True, conditions=("ema",), argument="drop", motivated=True),
        Flag("--motivation-valloss-images", int, "valloss: training images held out as its batch; default --batch-size",
             must_agree=holds_images_out, conditions=("valloss",), motivated=True),
        Flag("--motivation-scheduled-runs", str,
             "scheduled: folders of earlier runs, whose mean number of motivated updates each epoch takes",
             default=[], nargs="+", metavar="RUN", conditions=("scheduled",), argument="counts",
             motivated=True, per_rank=True),
    )),
    Group("Weights map", (
        Flag("--motivation-map", str, "weights map by its name; default by the names of the models",
             must_agree=is_motivated, motivated=True),
        Flag("--motivation-placement", str,
             "where the base's blocks lie in a deeper model; paper: as it gives for the family",
             default="paper", choices=("paper", "first", "last", "even"), must_agree=is_motivated, motivated=True),
    ), description="Where the base lies inside the motivated model; python -m weight_maps shows it."),
    Group("Motivated model", (
        Flag("--motivated-model-kwargs", dict, "further arguments of the motivated model, over --model-kwargs",
             motivated=True),
        Flag("--motivated-drop", float, "dropout; default --drop", allowed=between(0, 1), metavar="P", motivated=True),
        Flag("--motivated-drop-path", float, "stochastic depth; default --drop-path",
             allowed=between(0, 1), metavar="P", motivated=True),
        Flag("--motivated-drop-block", float, "drop block; default --drop-block", allowed=between(0, 1), metavar="P",
             motivated=True),
        Flag("--motivated-pretrained", bool, "begin with timm's pretrained weights; the base is then laid over them",
             motivated=True),
        Flag("--motivated-initial-checkpoint", str, "weights to begin with; the base is then laid over them",
             default="", metavar="FILE", motivated=True, per_rank=True),
        Flag("--motivated-init", str, "zero: the blocks that only it has begin as the identity",
             default="default", choices=("default", "zero"), motivated=True),
        Flag("--motivated-eval", str, "synced: evaluate it with the base's present weights in their place",
             default="synced", choices=("synced", "none"), measured=False, motivated=True),
    ), description="What is not given is as for the base model, but for weights to begin with."),
    Group("BatchNorm of the two models", (
        Flag("--motivation-bn", str, "carry running statistics at a switch (the paper), or let each model keep its own",
             default="separate", choices=("copy", "separate"), may_change=True, motivated=True),
        Flag("--motivation-bn-recalibrate", int,
             "re-estimate them on N training batches before each evaluation; also in a plain run",
             default=0, allowed=at_least(0)),
    )),
)
# fmt: on

FLAGS = {flag.dest: flag for group in GROUPS for flag in group.flags}
"""The flags by the names of their options."""
