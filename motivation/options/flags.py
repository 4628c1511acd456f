"""The flags: all of timm's ``train.py``, with its names, defaults and destinations, and those of a motivated run."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from timm.utils import ParseKwargs


class _Group:
    """Adds flags to one group of the help text, a line each."""

    def __init__(self, parser: ArgumentParser, title: str, description: str | None = None, exclusive: bool = False):
        group = parser.add_argument_group(title, description)
        self._group = group.add_mutually_exclusive_group() if exclusive else group

    def value(self, *flags: str, help: str, default: Any = None, type: Any = str, **options: Any) -> None:
        """A flag with a value."""
        self._group.add_argument(*flags, default=default, type=type, help=help, **options)

    def switch(self, flag: str, help: str, **options: Any) -> None:
        """A flag without a value."""
        self._group.add_argument(flag, action="store_true", help=help, **options)

    def pairs(self, flag: str, help: str) -> None:
        """A flag with ``key=value`` words."""
        self._group.add_argument(flag, nargs="*", default={}, action=ParseKwargs, metavar="KEY=VALUE", help=help)


def _add_data_flags(parser: ArgumentParser) -> None:
    parser.add_argument("data", nargs="?", metavar="DIR", const=None, help="data folder (older form of --data-dir)")
    g = _Group(parser, "Data")
    g.value("--data-dir", type=None, metavar="DIR", help="folder of the data set")
    g.value(
        "--dataset",
        default="",
        type=None,
        metavar="KIND/NAME",
        help="torch/cifar10, hfds/..., tfds/..., wds/..., sklearn/digits; empty: a folder of class folders, or tars",
    )
    g.value("--train-split", default="train", type=None, metavar="NAME", help="split to train on")
    g.value("--val-split", default="validation", type=None, metavar="NAME", help="split to validate on; '' for none")
    g.value("--train-num-samples", type=int, metavar="N", help="length of an iterable training split")
    g.value("--val-num-samples", type=int, metavar="N", help="length of an iterable validation split")
    g.switch("--dataset-download", help="let torch/, tfds/ and hfids/ data sets be fetched")
    g.value("--class-map", default="", metavar="FILE", help="file that maps class names to indices")
    g.value("--input-img-mode", metavar="MODE", help="mode that images are converted to: RGB, L, ...")
    g.value("--input-key", metavar="KEY", help="field of the image")
    g.value("--target-key", metavar="KEY", help="field of the label")
    g.switch("--dataset-trust-remote-code", help="run code that comes with a Hugging Face data set")
    g = _Group(
        parser,
        "Cross-validation",
        "Train without one of N stratified parts of the training split, chosen by --seed, and validate on it; "
        "python -m motivation cross-validate runs them all.",
    )
    g.value("--folds", type=int, metavar="N", help="number of parts; --val-split is then not read")
    g.value("--fold", type=int, metavar="I", help="the part to validate on, from 0 to N - 1")


def _add_model_flags(parser: ArgumentParser) -> None:
    g = _Group(parser, "Model")
    g.value("--model", default="resnet50", metavar="NAME", help="timm model; in a motivated run the base model")
    g.switch("--pretrained", help="begin with timm's pretrained weights")
    g.value("--pretrained-path", metavar="FILE", help="take the pretrained weights from this file; the head is adapted")
    g.value("--initial-checkpoint", default="", metavar="FILE", help="weights to begin with")
    g.value(
        "--resume",
        default="",
        metavar="FILE",
        help="training checkpoint to go on from; auto: the newest whole one of --experiment, if there is any",
    )
    g.switch("--no-resume-opt", help="resume the weights but not the optimizer")
    g.value("--num-classes", type=int, metavar="N", help="outputs of the head; default the model's own")
    g.value("--gp", metavar="POOL", help="global pooling: avg, max, avgmax, catavgmax, fast; default the model's own")
    g.value("--img-size", type=int, metavar="PX", help="side of square input images; default the model's own")
    g.value("--in-chans", type=int, metavar="N", help="channels of the input images; default 3")
    g.value("--input-size", type=int, nargs=3, metavar=("C", "H", "W"), help="size of the input images")
    g.value(
        "--val-input-size",
        type=int,
        nargs=3,
        metavar=("C", "H", "W"),
        help="size of the validation images; default that of the training images, as in timm",
    )
    g.value("--crop-pct", type=float, metavar="X", help="part of a validation image that the centre crop keeps")
    g.value("--mean", type=float, nargs="+", metavar="X", help="mean of the pixels, per channel, in 0..1")
    g.value("--std", type=float, nargs="+", metavar="X", help="standard deviation of the pixels, per channel")
    g.value("--interpolation", default="", metavar="NAME", help="how images are resized: bilinear, bicubic, ...")
    g.value(
        "-b", "--batch-size", default=128, type=int, metavar="N", help="training images of one micro-batch per rank"
    )
    g.value("-vb", "--validation-batch-size", type=int, metavar="N", help="default: --batch-size")
    g.switch("--channels-last", help="NHWC memory layout")
    g.value("--fuser", default="", metavar="NAME", help="TorchScript fuser: te, old, nvfuser")
    g.value("--grad-accum-steps", default=1, type=int, metavar="N", help="micro-batches of one update")
    g.switch("--grad-checkpointing", help="recompute activations in the backward pass")
    g.switch("--fast-norm", help="timm's normalisation in low precision")
    g.pairs("--model-kwargs", help="further arguments of the model")
    g.value("--head-init-scale", type=float, metavar="X", help="factor on the head's initial weights")
    g.value("--head-init-bias", type=float, metavar="X", help="initial bias of the head")
    g.value("--torchcompile-mode", metavar="MODE", help="mode of torch.compile")
    g = _Group(parser, "Compilation", exclusive=True)
    g.switch("--torchscript", help="script the model")
    g.value("--torchcompile", nargs="?", const="inductor", metavar="BACKEND", help="torch.compile the models")


def _add_device_flags(parser: ArgumentParser) -> None:
    g = _Group(parser, "Device")
    g.value("--device", default="cuda", metavar="NAME", help="cuda, cpu, mps, npu, ...")
    g.switch("--amp", help="mixed precision")
    g.value("--amp-dtype", default="float16", metavar="DTYPE", help="float16 or bfloat16")
    g.value("--model-dtype", metavar="DTYPE", help="dtype of the weights themselves")
    g.switch("--no-ddp-bb", help="do not broadcast buffers in every forward pass of a distributed run")
    g.switch("--synchronize-step", help="wait for the device after every update")
    g.value("--local_rank", default=0, type=int, help="set by older launchers")
    g.value("--device-modules", nargs="+", metavar="MODULE", help="Python modules to import first")


def _add_optimizer_flags(parser: ArgumentParser) -> None:
    g = _Group(parser, "Optimizer")
    g.value("--opt", default="sgd", metavar="NAME", help="timm optimizer")
    g.value("--opt-eps", type=float, metavar="X", help="epsilon; default the optimizer's own")
    g.value("--opt-betas", type=float, nargs="+", metavar="X", help="betas; default the optimizer's own")
    g.value("--momentum", default=0.9, type=float, metavar="X", help="momentum")
    g.value("--weight-decay", default=2e-5, type=float, metavar="X", help="weight decay")
    g.value("--clip-grad", type=float, metavar="X", help="bound of the gradient; default none")
    g.value("--clip-mode", default="norm", metavar="MODE", help="what is bounded: norm, value or agc")
    g.value("--layer-decay", type=float, metavar="X", help="learning rate factor per layer; not in a motivated run")
    g.value("--layer-decay-min-scale", default=0, type=float, metavar="X", help="lowest of those factors")
    g.value("--layer-decay-no-opt-scale", type=float, metavar="X", help="factor below which a layer is frozen")
    g.pairs("--opt-kwargs", help="further arguments of the optimizer")


def _add_schedule_flags(parser: ArgumentParser) -> None:
    g = _Group(parser, "Learning rate schedule")
    g.value(
        "--sched",
        default="cosine",
        metavar="NAME",
        help="cosine, tanh, step, multistep, plateau, poly, or none; timm's",
    )
    g.switch("--sched-on-updates", help="change the learning rate after every update, not every epoch")
    g.value("--lr", type=float, metavar="X", help="learning rate; default from --lr-base")
    g.value("--lr-base", default=0.1, type=float, metavar="X", help="learning rate for --lr-base-size images an update")
    g.value("--lr-base-size", default=256, type=int, metavar="N", help="see --lr-base")
    g.value("--lr-base-scale", default="", metavar="HOW", help="linear or sqrt; default by optimizer")
    g.value("--lr-noise", type=float, nargs="+", metavar="X", help="where noise begins and ends, as parts of training")
    g.value("--lr-noise-pct", default=0.67, type=float, metavar="X", help="bound of the noise")
    g.value("--lr-noise-std", default=1.0, type=float, metavar="X", help="standard deviation of the noise")
    g.value("--lr-cycle-mul", default=1.0, type=float, metavar="X", help="growth of the cycles' length")
    g.value("--lr-cycle-decay", default=0.5, type=float, metavar="X", help="decay of the cycles' height")
    g.value("--lr-cycle-limit", default=1, type=int, metavar="N", help="number of cycles")
    g.value("--lr-k-decay", default=1.0, type=float, metavar="X", help="k-decay of cosine and poly")
    g.value("--warmup-lr", default=1e-5, type=float, metavar="X", help="learning rate at the start of warm-up")
    g.value("--min-lr", default=0, type=float, metavar="X", help="lowest learning rate")
    g.value("--epochs", default=300, type=int, metavar="N", help="epochs, without cool-down (and prefixed warm-up)")
    g.value("--epoch-repeats", default=0.0, type=float, metavar="X", help="passes over an iterable set per epoch")
    g.value("--start-epoch", type=int, metavar="N", help="epoch to begin with, whatever was resumed")
    g.value("--decay-milestones", default=[90, 180, 270], type=int, nargs="+", metavar="N", help="epochs of multistep")
    g.value("--decay-epochs", default=90, type=float, metavar="X", help="epochs between two steps")
    g.value("--warmup-epochs", default=5, type=int, metavar="N", help="epochs of warm-up")
    g.switch("--warmup-prefix", help="add the warm-up to the epochs instead of taking it from them")
    g.value("--cooldown-epochs", default=0, type=int, metavar="N", help="epochs at the lowest rate, after the others")
    g.value("--patience-epochs", default=10, type=int, metavar="N", help="patience of plateau")
    g.value("--decay-rate", "--dr", default=0.1, type=float, metavar="X", help="factor of a step; power of poly")


def _add_augmentation_flags(parser: ArgumentParser) -> None:
    g = _Group(parser, "Augmentation")
    g.switch("--no-aug", help="train on validation-like images")
    g.value("--train-crop-mode", metavar="MODE", help="rrc, rkrc or rkrr")
    g.switch(
        "--data-on-device",
        help="the whole data set as one tensor on the training device; for pad-and-crop, flips, erasing and mixing",
    )
    g.value(
        "--train-pad",
        default=0,
        type=int,
        metavar="PX",
        help="resize to the input size, pad by this much, crop at random; replaces the random resized crop",
    )
    g.value("--scale", default=[0.08, 1.0], type=float, nargs="+", metavar="X", help="area of a random crop")
    g.value("--ratio", default=[3 / 4, 4 / 3], type=float, nargs="+", metavar="X", help="aspect ratio of a random crop")
    g.value("--hflip", default=0.5, type=float, metavar="P", help="probability of a horizontal flip")
    g.value("--vflip", default=0.0, type=float, metavar="P", help="probability of a vertical flip")
    g.value("--color-jitter", default=0.4, type=float, metavar="X", help="strength of colour jitter")
    g.value("--color-jitter-prob", type=float, metavar="P", help="probability of colour jitter; default always")
    g.value("--grayscale-prob", type=float, metavar="P", help="probability of turning grey")
    g.value("--gaussian-blur-prob", type=float, metavar="P", help="probability of blur")
    g.value(
        "--aa",
        metavar="POLICY",
        help="rand-..., augmix-..., v0, original, 3a of timm; cifar10 for AutoAugment's CIFAR-10 policy",
    )
    g.value(
        "--aug-repeats",
        default=0,
        type=float,
        metavar="N",
        help="repeated augmentation: each image so often in an epoch, and fewer images",
    )
    g.value("--aug-splits", default=0, type=int, metavar="N", help="augmentation splits, 0 or at least 2")
    g.switch("--jsd-loss", help="Jensen-Shannon consistency over the augmentation splits")
    g.switch("--bce-loss", help="binary cross-entropy (with mixup, cutmix or smoothing)")
    g.switch("--bce-sum", help="sum it over the classes")
    g.value("--bce-target-thresh", type=float, metavar="X", help="soft targets above this count as 1")
    g.value("--bce-pos-weight", type=float, metavar="X", help="weight of the positive targets")
    g.value("--reprob", default=0.0, type=float, metavar="P", help="probability of random erasing")
    g.value("--remode", default="pixel", metavar="MODE", help="fill of erased boxes: const, rand or pixel")
    g.value("--recount", default=1, type=int, metavar="N", help="boxes to erase")
    g.switch("--resplit", help="leave the first augmentation split whole")
    g.value("--mixup", default=0.0, type=float, metavar="A", help="mixup alpha; 0 for none")
    g.value("--cutmix", default=0.0, type=float, metavar="A", help="cutmix alpha; 0 for none")
    g.value("--cutmix-minmax", type=float, nargs="+", metavar="X", help="bounds of cutmix's box, in place of alpha")
    g.value("--mixup-prob", default=1.0, type=float, metavar="P", help="probability of mixing a batch")
    g.value("--mixup-switch-prob", default=0.5, type=float, metavar="P", help="of cutmix, where both are on")
    g.value("--mixup-mode", default="batch", metavar="MODE", help="mix per batch, pair or elem")
    g.value("--mixup-off-epoch", default=0, type=int, metavar="N", help="epoch that ends mixing; 0 for never")
    g.value("--smoothing", default=0.1, type=float, metavar="X", help="label smoothing")
    g.value("--train-interpolation", default="random", metavar="NAME", help="how training images are resized")
    g = _Group(parser, "Regularisation")
    g.value("--drop", default=0.0, type=float, metavar="P", help="dropout")
    g.value("--drop-connect", type=float, metavar="P", help="older name of --drop-path; timm ignores it")
    g.value("--drop-path", type=float, metavar="P", help="stochastic depth")
    g.value("--drop-block", type=float, metavar="P", help="drop block")


def _add_batchnorm_flags(parser: ArgumentParser) -> None:
    g = _Group(parser, "BatchNorm")
    g.value("--bn-momentum", type=float, metavar="X", help="momentum of the running statistics")
    g.value("--bn-eps", type=float, metavar="X", help="epsilon")
    g.switch("--sync-bn", help="statistics over all ranks")
    g.value(
        "--dist-bn", default="reduce", metavar="HOW", help="how ranks share running statistics: reduce, broadcast, ''"
    )
    g.switch("--split-bn", help="statistics of their own for each augmentation split")
    g = _Group(parser, "Average of the weights")
    g.switch("--model-ema", help="track an exponential moving average and evaluate it")
    g.switch("--model-ema-force-cpu", help="keep it on the CPU and do not evaluate it")
    g.value("--model-ema-decay", default=0.9998, type=float, metavar="X", help="its decay")
    g.switch("--model-ema-warmup", help="let the decay grow at the start")


def _add_run_flags(parser: ArgumentParser) -> None:
    g = _Group(parser, "Run")
    g.value("--seed", default=42, type=int, metavar="N", help="random seed")
    g.value("--worker-seeding", default="all", metavar="HOW", help="all or part")
    g.value("--log-interval", default=50, type=int, metavar="N", help="updates between two log lines")
    g.value("--val-interval", default=1, type=int, metavar="N", help="epochs between two evaluations")
    g.value("--recovery-interval", default=0, type=int, metavar="N", help="updates between two recovery checkpoints")
    g.value("--checkpoint-hist", default=10, type=int, metavar="N", help="numbered checkpoints to keep")
    g.value("-j", "--workers", default=4, type=int, metavar="N", help="processes that load data, per rank")
    g.switch("--save-images", help="write the last images of a batch at every log line")
    g.switch("--pin-mem", help="pinned host memory")
    g.switch("--no-prefetcher", help="normalise in the data workers")
    g.value("--output", default="", metavar="DIR", help="folder of all runs; default ./output/train")
    g.value("--experiment", default="", metavar="NAME", help="folder of this run; default time, model and size")
    g.value("--eval-metric", default="top1", metavar="NAME", help="what ranks checkpoints: top1, top5 or loss")
    g.value("--tta", default=0, type=int, metavar="N", help="consecutive validation images that are views of one")
    g.switch("--use-multi-epochs-loader", help="keep the loader's iterator over epochs")
    g.switch("--log-tensorboard", help="log to TensorBoard, in the run's folder")
    g.switch("--log-wandb", help="log to Weights & Biases")
    g.value("--wandb-project", metavar="NAME", help="its project")
    g.value("--wandb-tags", default=[], nargs="+", metavar="TAG", help="its tags")
    g.value("--wandb-resume-id", default="", metavar="ID", help="its run to resume")


def _add_size_flags(parser: ArgumentParser) -> None:
    g = _Group(parser, "Training sizes that vary")
    g.value("--train-img-sizes", type=int, nargs="+", metavar="PX", help="image sizes that batches are drawn from")
    g.value("--train-batch-sizes", type=int, nargs="+", metavar="N", help="a batch size for each of them")
    g.value("--train-size-probs", type=float, nargs="+", metavar="P", help="a weight for each of them")
    g.value(
        "--train-size-schedule",
        default="constant",
        choices=("constant", "progressive"),
        help="progressive: from the first size to the last",
    )
    g.value(
        "--train-size-schedule-spread", default=0.65, type=float, metavar="X", help="spread around the present size"
    )
    g.value("--train-size-random-mix", default=0.1, type=float, metavar="X", help="part of batches of any size")
    g.value(
        "--train-batches-per-epoch",
        "--train-steps-per-epoch",
        type=int,
        metavar="N",
        help="micro-batches of an epoch; default from the mean batch size",
    )
    g.value(
        "--variable-batch-loss-scale",
        default="none",
        choices=("none", "sqrt", "linear"),
        help="weight of a batch's loss by its size",
    )
    g = _Group(parser, "NaFlex loader")
    g.switch("--naflex-loader", help="batches of patches; for NaFlex models")
    g.value(
        "--naflex-train-seq-lens",
        default=[128, 256, 576, 784, 1024],
        type=int,
        nargs="+",
        metavar="N",
        help="sequence lengths of training",
    )
    g.value("--naflex-max-seq-len", default=576, type=int, metavar="N", help="sequence length of validation")
    g.value("--naflex-patch-sizes", type=int, nargs="+", metavar="PX", help="patch sizes of training")
    g.value("--naflex-patch-size-probs", type=float, nargs="+", metavar="P", help="a weight for each of them")
    g.value(
        "--naflex-loss-scale",
        default="linear",
        choices=("none", "sqrt", "linear"),
        help="weight of a batch's loss by its size",
    )
    g.switch("--naflex-patchify-channels-first", help="flatten patches channel by channel")


def _add_distillation_flags(parser: ArgumentParser) -> None:
    g = _Group(parser, "Distillation")
    g.value("--kd-model-name", metavar="NAME", help="timm model that teaches, pretrained")
    g.value("--kd-distill-type", default="logit", choices=("logit", "feature", "token"), help="what is matched")
    g.value("--kd-loss-type", default="kl", metavar="NAME", help="loss on the logits: kl")
    g.value("--distill-loss-weight", type=float, metavar="X", help="weight of the teacher's loss")
    g.value(
        "--task-loss-weight",
        type=float,
        metavar="X",
        help="weight of the labels' loss; alone it makes the teacher's one minus it",
    )
    g.value("--kd-temperature", default=4.0, type=float, metavar="T", help="temperature of both softmaxes")
    g.value("--kd-student-feature-dim", type=int, metavar="N", help="width of the student's features")
    g.value("--kd-teacher-feature-dim", type=int, metavar="N", help="width of the teacher's features")
    g.value("--kd-token-distill-type", default="soft", choices=("soft", "hard"), help="targets of the token head")


def _add_motivation_flags(parser: ArgumentParser) -> None:
    """The flags that are new here."""
    g = _Group(
        parser,
        "Motivation",
        "A second, larger model takes over while the condition holds. Without --motivated-model nothing of it applies.",
    )
    g.value("--motivated-model", metavar="NAME", help="timm model that contains --model")
    g.value("--motivation-k", default=2, type=int, metavar="K", help="updates in a row the loss must have fallen")
    g.value(
        "--motivation-condition",
        default="loss",
        metavar="NAME",
        help="loss, ema, valloss, slope, random, scheduled, never, always, or one of a plugin",
    )
    g.value(
        "--motivation-plugins",
        nargs="+",
        default=[],
        metavar="FILE_OR_MODULE",
        help="your own Python files or modules, loaded first: conditions, hooks, weights maps, models",
    )
    g.pairs("--motivation-plugin-kwargs", help="arguments of your own condition and hooks, by name")
    g.value(
        "--max-nonfinite",
        default=20,
        type=int,
        metavar="N",
        help="losses in a row that are not finite, after which the run stops; of plain runs too",
    )
    g = _Group(parser, "Options of single conditions")
    g.value("--motivation-ema-decay", default=0.9, type=float, metavar="A", help="ema: weight of the average so far")
    g.value(
        "--motivation-ema-drop",
        default=0.002,
        type=float,
        metavar="D",
        help="ema: relative drop of the average that counts as a decrease",
    )
    g.value(
        "--motivation-valloss-images",
        type=int,
        metavar="N",
        help="valloss: training images held out as its batch; default --batch-size",
    )
    g.value(
        "--motivation-scheduled-runs",
        nargs="+",
        default=[],
        metavar="RUN",
        help="scheduled: folders of earlier runs, whose mean number of motivated updates each epoch takes",
    )
    g = _Group(parser, "Weights map", "Where the base lies inside the motivated model; python -m weight_maps shows it.")
    g.value("--motivation-map", metavar="NAME", help="weights map by its name; default by the names of the models")
    g.value(
        "--motivation-placement",
        default="paper",
        choices=("paper", "first", "last", "even"),
        help="where the base's blocks lie in a deeper model; paper: as it gives for the family",
    )
    g = _Group(parser, "Motivated model", "What is not given is as for the base model, but for weights to begin with.")
    g.pairs("--motivated-model-kwargs", help="further arguments of the motivated model, over --model-kwargs")
    g.value("--motivated-drop", type=float, metavar="P", help="dropout; default --drop")
    g.value("--motivated-drop-path", type=float, metavar="P", help="stochastic depth; default --drop-path")
    g.value("--motivated-drop-block", type=float, metavar="P", help="drop block; default --drop-block")
    g.switch("--motivated-pretrained", help="begin with timm's pretrained weights; the base is then laid over them")
    g.value(
        "--motivated-initial-checkpoint",
        default="",
        metavar="FILE",
        help="weights to begin with; the base is then laid over them",
    )
    g.value(
        "--motivated-eval",
        default="synced",
        choices=("synced", "none"),
        help="synced: evaluate it with the base's present weights in their place",
    )
    g = _Group(parser, "BatchNorm of the two models")
    g.value(
        "--motivation-bn",
        default="separate",
        choices=("copy", "separate"),
        help="carry running statistics at a switch (the paper), or let each model keep its own",
    )
    g.value(
        "--motivation-bn-recalibrate",
        default=0,
        type=int,
        metavar="N",
        help="re-estimate them on N training batches before each evaluation; also in a plain run",
    )


def add_all_flags(parser: ArgumentParser) -> None:
    """Every flag, group by group."""
    for add in (
        _add_data_flags,
        _add_model_flags,
        _add_device_flags,
        _add_optimizer_flags,
        _add_schedule_flags,
        _add_augmentation_flags,
        _add_batchnorm_flags,
        _add_run_flags,
        _add_size_flags,
        _add_distillation_flags,
        _add_motivation_flags,
    ):
        add(parser)
