"""Try a model once, before a run, on a blank batch of each size that the options ask for."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from motivation.build.models import MODEL_FLAG, make_model, model_name, patch_size, without_files
from motivation.method.random_states import fork_rng
from motivation.method.records import Role
from motivation.options.faults import Fault, blaming, collecting, one_line
from weight_maps.size_limit import GIB, memory_of_machine

Size = tuple[int, int, int]
"""Channels, height and width of images."""


@dataclass(frozen=True)
class Batch:
    """A batch that a model will see: ``[images, *size]``, in training or in evaluation."""

    flag: str
    images: int
    size: Size
    training: bool


def batches_to_come(args: Namespace, size: Size) -> list[Batch]:
    """Return a batch of each size that the models will be trained or evaluated on.

    Args:
        args: options.
        size: of the training images.
    """
    images, flag = args.batch_size * max(1, args.aug_splits), "--input-size" if args.input_size else "--img-size"
    of_validation = tuple(args.val_input_size) if args.val_input_size else size
    found = [Batch(flag, images, size, training=True)]
    if args.train_img_sizes:
        counts = args.train_batch_sizes or [args.batch_size] * len(args.train_img_sizes)
        found = [
            Batch("--train-img-sizes", count, (size[0], side, side), training=True)
            for count, side in zip(counts, args.train_img_sizes, strict=False)  # another check compares them
        ]
    if args.val_split or args.folds is not None:  # the last batch may be of one image
        found.append(Batch("--val-input-size" if args.val_input_size else flag, 1, of_validation, training=False))
    return found


def memory_faults(args: Namespace, batches: list[Batch]) -> list[Fault]:
    """Return which options ask for images that this machine cannot hold: they would take all memory.

    Counted is what is needed at the very least, a byte for each value of one batch.
    """
    needs = [(batch.flag, batch.images, *batch.size) for batch in batches]
    for batch in batches:
        channels, height, width = batch.size
        if batch.training and args.train_pad:
            needs.append(("--train-pad", 1, channels, height + 2 * args.train_pad, width + 2 * args.train_pad))
        if not batch.training and args.crop_pct:  # images are resized to this before their centre is cropped
            needs.append(("--crop-pct", 1, channels, int(height / args.crop_pct), int(width / args.crop_pct)))
    memory = memory_of_machine()
    faults: dict[str, Fault] = {}
    for flag, images, channels, height, width in needs:
        if images * channels * height * width > memory:
            text = f"{images} x {channels} x {height} x {width} pixels are more than fit into {memory / GIB:.0f} GiB"
            faults.setdefault(flag, Fault(flag, f"{text}, this machine's memory"))
    return list(faults.values())


LEAST_BLURRED = 12
"""Pixels of a side of images that timm's blur takes: it mirrors 11 of them at each edge."""


def blur_faults(args: Namespace, batches: list[Batch]) -> list[Fault]:
    """Return why the training images are too small to be blurred, if they are."""
    least = min(min(batch.size[1:]) for batch in batches if batch.training)
    if args.no_aug or not args.gaussian_blur_prob or least >= LEAST_BLURRED:
        return []
    return [Fault("--gaussian-blur-prob", f"blurs images of at least {LEAST_BLURRED} px, not of {least}")]


def trial_faults(args: Namespace, role: Role, model: Any, batches: list[Batch], device: torch.device) -> list[Fault]:
    """Return why a model does not take batches, in training or in evaluation.

    It runs on the meta device, which costs neither memory nor time. What it refuses there is tried on two real images,
    so that a model which the meta device cannot run is not refused.

    Args:
        args: options.
        role: base or motivated.
        model: from `meta_model`; its dtype becomes that of the options.
        batches: to try.
        device: for real images.
    """
    name, flag = model_name(args, role), MODEL_FLAG[role]
    if any(isinstance(module, _BatchNorm) and module.eps <= 0 for module in model.modules()):
        return [Fault("--bn-eps", f"more than 0: BatchNorm of {name} does not train otherwise")]
    trial = _Trial(args, role, model, device)
    refused = {(batch.size[-2:], batch.training): why for batch in batches if (why := trial.refusal(batch)) is not None}
    if not refused:
        return []
    if args.batch_size == 1 and all(trial.refusal(replace(batch, images=2)) is None for batch in batches):
        return [Fault("--batch-size", f"{name} does not train on it: {next(iter(refused.values()))}", "1")]
    own = getattr(model, "pretrained_cfg", {}).get("input_size") or batches[0].size
    made_for = getattr(getattr(model, "patch_embed", None), "img_size", None) or own[1:]
    known = Batch("", 2, (batches[0].size[0], *made_for), training=False)
    takes = None if known.size[-2:] in {size for size, _ in refused} else trial.refusal(known) is None
    faults: dict[tuple[int, ...], Fault] = {}
    for (size, training), why in refused.items():
        if takes:
            advice = "--model-kwargs dynamic_img_size=True where the model knows it, or img_size=N"
            text = (
                f"{name} takes images of {_by(made_for)}, not of {_by(size)} ({why}); change --input-size, "
                f"--val-input-size, or the model: {advice}"
            )
        else:
            text = f"{name} does not {'train' if training else 'evaluate'} on images of {_by(size)}: {why}"
        faults.setdefault(size, Fault(flag, text))
    return list(faults.values())


def scripting_faults(args: Namespace, batches: list[Batch], device: torch.device) -> list[Fault]:
    """Return why the base cannot be scripted, or not be trained then.

    TorchScript changes the code at the second pass, by what it has seen in the first; some models do not train then.
    """
    scripted = without_files(args)
    scripted.torchscript = True
    batch = batches[0]
    dtype = getattr(torch, args.model_dtype) if args.model_dtype else None
    faults: list[Fault] = []
    with collecting(faults), fork_rng(), blaming("--torchscript"):
        model = torch.jit.script(make_model(scripted, Role.BASE).to(device=device, dtype=dtype)).train()
        try:
            for _ in range(2):
                model(torch.zeros(min(2, batch.images), *batch.size, device=device, dtype=dtype))
        except RuntimeError as error:  # of all that TorchScript says the last line is the reason
            faults.append(Fault("--torchscript", one_line(str(error).strip().split("\n")[-1])))
    return faults


def patch_faults(args: Namespace, model: Any) -> list[Fault]:
    """Return why a NaFlex model does not take patches of the sizes that are asked for."""
    own = patch_size(model)
    others = [size for size in args.naflex_patch_sizes or () if own is not None and (size, size) != tuple(own)]
    if not others or getattr(getattr(model, "embeds", None), "enable_patch_interpolator", False):
        return []
    text = f"{args.model} takes patches of {own[0]} px; others with --model-kwargs enable_patch_interpolator=True"
    return [Fault("--naflex-patch-sizes", text, " ".join(map(str, others)))]


class _Trial:
    def __init__(self, args: Namespace, role: Role, model: Any, device: torch.device):
        self.args, self.role, self.device = args, role, device
        self.dtype = getattr(torch, args.model_dtype) if args.model_dtype else None
        is_meta = all(parameter.is_meta for parameter in model.parameters())
        self.meta = model.to(dtype=self.dtype) if is_meta else None
        self.real = None if is_meta else model.to(device=self.device, dtype=self.dtype)

    def refusal(self, batch: Batch) -> str | None:
        """Return why the model does not take a batch; None if it does."""
        with fork_rng():
            if self.meta is not None and self._run(self.meta, batch, batch.images, "meta") is None:
                return None
            if self.real is None:
                self.real = make_model(without_files(self.args), self.role).to(device=self.device, dtype=self.dtype)
            return self._run(self.real, batch, min(2, batch.images), self.device)

    def _run(self, model: Any, batch: Batch, images: int, device: Any) -> str | None:
        was_training = model.training
        model.train(batch.training)
        try:
            with torch.no_grad():
                model(torch.zeros(images, *batch.size, device=device, dtype=self.dtype))
        except Exception as error:  # noqa: BLE001  (each model has its own way of refusing)
            return one_line(str(error).split("\n")[0]).rstrip(".")
        finally:
            model.train(was_training)
        return None


def _by(size: tuple[int, ...]) -> str:
    return f"{size[-2]}x{size[-1]}"
