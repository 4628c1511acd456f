"""Make the loaders as timm's script does."""

from __future__ import annotations

import copy
import logging
from argparse import Namespace
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import torch
from timm.data import AugMixDataset, FastCollateMixup, Mixup, create_loader, create_naflex_loader
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.loader import MultiEpochsDataLoader
from torch.utils.data import IterableDataset

from motivation.build.data_checks import REPEATS_ROUND
from motivation.build.datasets import DataSets
from motivation.build.device_loaders import DeviceLoaders
from motivation.build.runtime import Runtime
from motivation.data.datasets import CIFAR_POLICY, customise_transform
from motivation.data.device_data import DeviceLoader
from motivation.data.loaders import CheckedLoader, ResumableLoader
from motivation.data.subsets import refuse_iterable
from motivation.data.update_loader import UpdateLoader
from motivation.data.workers import end_workers
from motivation.method.random_states import fork_rng
from motivation.options.derived import accum_steps, mixes, pins_memory
from motivation.options.faults import blaming
from motivation.training.batchnorm import Recalibration
from motivation.training.evaluate import HeldOut, Validator
from motivation.training.signals import WithoutInterrupts

_logger = logging.getLogger("train")


@dataclass
class Data:
    """The loaders of a run.

    Attributes:
        feed: the training data.
        validator: over the validation data, None without.
        recalibration: None unless asked for.
        held_out: the loss on images that are not trained on; None unless the condition watches it.
        mixes: True if mixup or cutmix is on; targets are then ``[B, num_classes]``.
        reference_batch: mean number of images of a micro-batch on one rank.
    """

    feed: UpdateLoader
    validator: Validator | None
    recalibration: Recalibration | None
    mixes: bool
    reference_batch: float
    held_out: HeldOut | None


def make_loaders(
    args: Namespace, runtime: Runtime, config: dict[str, Any], patch_size: Any, num_classes: int, datasets: DataSets
) -> Data:
    """Make the loaders of training and validation, and what measures with them.

    Args:
        args: options.
        runtime: of this rank.
        config: timm's data configuration of the base model.
        patch_size: of the base model, None if it has none (NaFlex).
        num_classes: outputs of the models' heads.
        datasets: the open data sets.

    Raises:
        StartupError: timm cannot make loaders with these options.
    """
    maker = _LoaderMaker(args, runtime, config, patch_size, num_classes)
    for_recalibration = copy.copy(datasets.train) if args.motivation_bn_recalibrate else None
    loader, mixup = maker.training(datasets.train)
    reference = float(args.batch_size)
    if args.train_img_sizes is not None and not args.naflex_loader:
        reference = loader.batch_sampler.average_batch_size
        if runtime.primary:
            _logger.info(f"Training sizes {args.train_img_sizes} with batches of {loader.batch_sampler.batch_sizes}.")
    feed = UpdateLoader(
        loader=loader,
        accum_steps=accum_steps(args),
        device=runtime.device,
        dtype=runtime.dtype,
        needs_device_transfer=maker.needs_device_transfer,
        mixup=mixup,
        mixup_off_epoch=args.mixup_off_epoch,
        channels_last=args.channels_last,
        resumable=maker.resumable,
    )
    validation = datasets.validation
    if validation is not None:
        _tell_padding(validation, runtime)
    validator = None if validation is None else maker.validator(maker.validation(validation))
    recalibration = None
    if for_recalibration is not None:
        asked, loader = args.motivation_bn_recalibrate, maker.recalibration(for_recalibration)
        if runtime.primary and isinstance(for_recalibration, Sized) and len(loader) < asked:
            _logger.warning(
                f"--motivation-bn-recalibrate {asked}: an epoch has {len(loader)} batches, and all are used."
            )
        recalibration = Recalibration(
            loader=loader,
            batches=asked,
            prepare=feed.prepare_images,
            autocast=runtime.autocast,
            world_size=runtime.world_size,
        )
    held_out = None
    if datasets.held_out is not None:
        with fork_rng():
            batch = maker.one_batch(datasets.held_out)
            with blaming("--motivation-valloss-images", args.motivation_valloss_images or args.batch_size):
                images, targets = next(iter(batch))
        images, targets = feed.prepare_images(images), targets.to(device=runtime.device)
        held_out = HeldOut(images, targets, runtime.autocast, runtime.world_size)
    return Data(feed, validator, recalibration, mixes(args), reference, held_out)


def make_validator(
    args: Namespace, runtime: Runtime, config: dict[str, Any], patch_size: Any, num_classes: int | None, dataset: Any
) -> Validator:
    """Make what measures on validation data alone, exactly as in a training.

    Args:
        args: options.
        runtime: of this process.
        config: timm's data configuration of the base model.
        patch_size: of the base model, None if it has none (NaFlex).
        num_classes: outputs of the models' heads; None to leave the labels unchecked.
        dataset: the open validation data.

    Raises:
        StartupError: timm cannot make a loader with these options.
    """
    maker = _LoaderMaker(args, runtime, config, patch_size, num_classes)
    return maker.validator(maker.validation(dataset))


def _tell_padding(dataset: Any, runtime: Runtime) -> None:
    """Say that timm's sampler gives each rank as many validation images as the others, and repeats some for that."""
    if isinstance(dataset, IterableDataset) or not runtime.primary:
        return
    if added := -len(dataset) % runtime.world_size:
        _logger.warning(
            f"{len(dataset)} validation images do not divide among {runtime.world_size} processes: {added} of them "
            f"count{'s' * (added == 1)} twice in accuracy and loss, as in timm; one process counts each once."
        )


class _LoaderMaker:
    def __init__(self, args: Namespace, runtime: Runtime, config: dict[str, Any], patch_size: Any, num_classes: Any):
        self.args, self.runtime, self.config, self.num_classes = args, runtime, config, num_classes
        self.prefetcher = not args.no_prefetcher
        self.needs_device_transfer = args.no_prefetcher and not args.data_on_device
        self.patch_size = patch_size or (16, 16)
        self.splits = args.aug_splits if args.aug_splits > 0 else 0
        self.resumable: ResumableLoader | DeviceLoader | None = None
        self.common = dict(
            mean=config["mean"], std=config["std"], pin_memory=pins_memory(args, runtime.device.type),
            device=runtime.device, img_dtype=runtime.dtype or torch.float32, distributed=runtime.distributed,
            use_prefetcher=self.prefetcher,
        )  # fmt: skip
        interpolation = args.train_interpolation
        self.interpolation = config["interpolation"] if args.no_aug or not interpolation else interpolation
        self.on_device = None
        if args.data_on_device:
            self.on_device = DeviceLoaders(args, runtime, config, self.interpolation, num_classes)
        self.training_options = dict(
            batch_size=args.batch_size, is_training=True, no_aug=args.no_aug, train_crop_mode=args.train_crop_mode,
            scale=args.scale, ratio=args.ratio, hflip=args.hflip, vflip=args.vflip, color_jitter=args.color_jitter,
            color_jitter_prob=args.color_jitter_prob, grayscale_prob=args.grayscale_prob,
            gaussian_blur_prob=args.gaussian_blur_prob, auto_augment=None if args.aa == CIFAR_POLICY else args.aa,
            num_aug_repeats=args.aug_repeats, num_aug_splits=self.splits, interpolation=self.interpolation,
            num_workers=args.workers, worker_seeding=args.worker_seeding,
            re_prob=args.reprob, re_mode=args.remode, re_count=args.recount, re_split=args.resplit,
        )  # fmt: skip
        if args.aa == CIFAR_POLICY:
            self.training_options["color_jitter"] = None  # as timm does for its own policies

    def _mixup_options(self) -> dict[str, Any]:
        args = self.args
        return dict(
            mixup_alpha=args.mixup, cutmix_alpha=args.cutmix, cutmix_minmax=args.cutmix_minmax, prob=args.mixup_prob,
            switch_prob=args.mixup_switch_prob, mode=args.mixup_mode, label_smoothing=args.smoothing,
            num_classes=self.num_classes,
        )  # fmt: skip

    def training(self, dataset: Any) -> tuple[Any, Any]:
        """Make the training loader; returns it, and what mixes its batches if the loader does not."""
        args = self.args
        if args.naflex_loader:
            return self._naflex_training(dataset), None
        collate = mixup = None
        if mixes(args):
            if self.prefetcher and not args.data_on_device:
                collate = FastCollateMixup(**self._mixup_options())
            else:
                mixup = Mixup(**self._mixup_options())
        if self.on_device is not None:
            self.resumable = self.on_device.training(dataset)
            return self.resumable, mixup
        if self.splits > 1:
            dataset = AugMixDataset(dataset, num_splits=self.splits)
        progressive = args.train_size_schedule == "progressive"
        options = dict(self.training_options)
        repeats_alone = args.aug_repeats and not self.runtime.distributed
        if repeats_alone:
            options["num_aug_repeats"] = 0
        loader = self._timm_loader(
            dataset,
            input_size=self.config["input_size"],
            input_size_choices=args.train_img_sizes,
            batch_size_choices=args.train_batch_sizes,
            batch_choice_weights=args.train_size_probs,
            batch_choice_seed=args.seed,
            batch_choice_schedule=args.train_size_schedule,
            batch_schedule_epochs=args.epochs if progressive else None,
            batch_schedule_spread=args.train_size_schedule_spread,
            batch_schedule_random_mix=args.train_size_random_mix,
            num_batches=args.train_batches_per_epoch,
            collate_fn=collate,
            use_multi_epochs_loader=args.use_multi_epochs_loader,
            **options,
        )
        if repeats_alone:
            loader = _with_repeats(loader, args.aug_repeats)
        self._customise(loader)
        draws_here = not args.workers or (self.prefetcher and args.reprob > 0)
        loader = _checked(loader, ResumableLoader, args.train_split, self.num_classes, draws_here)
        inner = getattr(loader, "loader", None)
        self.resumable = next((one for one in (loader, inner) if isinstance(one, ResumableLoader)), None)
        return loader, mixup

    def recalibration(self, dataset: Any) -> Any:
        """Make a loader of the training images without mixing and erasing.

        Its workers end with each pass: ones that stayed would draw more often in a motivated run than in a plain one.
        """
        if isinstance(self.resumable, DeviceLoader):
            return self.resumable.without_erasing()
        options = {**self.training_options, "re_prob": 0.0, "num_aug_splits": 0, "num_aug_repeats": 0}
        options["persistent_workers"] = False
        loader = self._timm_loader(dataset, input_size=self.config["input_size"], **options)
        self._customise(loader)
        return _checked(loader, CheckedLoader, self.args.train_split, self.num_classes)

    def _customise(self, loader: Any) -> None:
        """Add pad-and-crop and the CIFAR policy, where they are asked for."""
        args, dataset = self.args, loader.dataset
        if not args.train_pad and args.aa != CIFAR_POLICY:
            return
        sizes = [(size, size) for size in args.train_img_sizes or ()]
        if sizes and hasattr(dataset, "transforms"):
            dataset.transforms = [
                customise_transform(transform, size, args.train_pad, args.aa, self.interpolation)
                for transform, size in zip(dataset.transforms, sizes, strict=True)
            ]
        else:
            size = tuple(self.config["input_size"][-2:])
            present = dataset.transform
            if isinstance(dataset, AugMixDataset):  # it is given three stages and shows the first
                present = (present, dataset.augmentation, dataset.normalize)
            dataset.transform = customise_transform(present, size, args.train_pad, args.aa, self.interpolation)
        inner = getattr(loader, "loader", loader)
        if getattr(inner, "iterator", None) is not None:
            # before timm 1.0.31 the workers of --use-multi-epochs-loader have the data set already
            inner.iterator = torch.utils.data.DataLoader.__iter__(inner)

    def validation(self, dataset: Any) -> Any:
        args = self.args
        if self.on_device is not None:
            size = args.validation_batch_size or args.batch_size
            return self.on_device.validation(dataset, self._validation_size(), size)
        options = dict(
            batch_size=args.validation_batch_size or args.batch_size, is_training=False,
            interpolation=self.config["interpolation"], crop_pct=self.config["crop_pct"], num_workers=args.workers,
        )  # fmt: skip
        if self.runtime.distributed and any(kind in args.dataset for kind in ("tfds", "wds")):
            options["num_workers"] = min(2, args.workers)  # timm: less padding of the last batch
        if args.naflex_loader:
            return self._naflex_loader(
                dataset, patch_size=self.patch_size, max_seq_len=args.naflex_max_seq_len, **options
            )
        loader = self._timm_loader(dataset, input_size=self._validation_size(), **options)
        return _checked(loader, CheckedLoader, args.val_split, self.num_classes)

    def _validation_size(self) -> Any:
        return tuple(self.args.val_input_size) if self.args.val_input_size else self.config["input_size"]

    def one_batch(self, dataset: Any) -> Any:
        """Make a loader of one batch with all of a small data set, the same on every rank, as validation sees it."""
        return self._timm_loader(
            dataset, input_size=self._validation_size(), batch_size=len(dataset), is_training=False, num_workers=0,
            interpolation=self.config["interpolation"], crop_pct=self.config["crop_pct"], persistent_workers=False,
            distributed=False,
        )  # fmt: skip

    def _timm_loader(self, dataset: Any, **options: Any) -> Any:
        with blaming("data options"):
            return create_loader(dataset, **{**self.common, **options})

    def _naflex_loader(self, dataset: Any, **options: Any) -> Any:
        channels_last = not self.args.naflex_patchify_channels_first
        with blaming("--naflex-loader"):
            return create_naflex_loader(dataset, patchify_channels_last=channels_last, **self.common, **options)

    def validator(self, loader: Any) -> Validator:
        args, runtime = self.args, self.runtime
        return Validator(
            loader=loader,
            device=runtime.device,
            autocast=runtime.autocast,
            dtype=runtime.dtype,
            channels_last=args.channels_last,
            needs_device_transfer=self.needs_device_transfer,
            tta=args.tta,
            world_size=runtime.world_size,
            log_interval=args.log_interval,
            primary=runtime.primary,
        )

    def _naflex_training(self, dataset: Any) -> Any:
        args = self.args
        mixup = None
        if mixes(args):
            from timm.data import NaFlexMixup

            options = self._mixup_options()
            mixup = NaFlexMixup(**{k: v for k, v in options.items() if k not in ("mode", "cutmix_minmax")})
        patches: dict[str, Any] = {"patch_size": self.patch_size}
        if args.naflex_patch_sizes:
            patches = {"patch_size_choices": args.naflex_patch_sizes}
            if args.naflex_patch_size_probs:
                patches["patch_size_choice_probs"] = args.naflex_patch_size_probs
        return self._naflex_loader(
            dataset,
            train_seq_lens=args.naflex_train_seq_lens,
            mixup_fn=mixup,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
            **patches,
            **self.training_options,
        )


def _with_repeats(loader: Any, repeats: float) -> Any:
    """Return a loader of timm's with repeated augmentation in a run of one process.

    timm's factory has its sampler for distributed runs only, and torch's loaders do not let theirs be changed.

    Raises:
        StartupError: the data can only be streamed.
    """
    old = getattr(loader, "loader", loader)
    with blaming("--aug-repeats", errors=ValueError):
        refuse_iterable(old.dataset)
    # an older timm draws nothing from fewer images than it rounds to
    rounded = REPEATS_ROUND if len(old.dataset) >= REPEATS_ROUND else 0
    sampler = RepeatAugSampler(old.dataset, 1, 0, num_repeats=repeats, selected_round=rounded)
    new = type(old)(
        old.dataset, old.batch_size, sampler=sampler,
        num_workers=old.num_workers, collate_fn=old.collate_fn, pin_memory=old.pin_memory, drop_last=old.drop_last,
        worker_init_fn=old.worker_init_fn, persistent_workers=old.persistent_workers,
    )  # fmt: skip
    end_workers(loader)
    if old is loader:
        return new
    loader.loader = new
    return loader


def _checked(loader: Any, kind: type[CheckedLoader], *arguments: Any) -> Any:
    """Wrap the torch loader in a loader of timm's; Ctrl-C then ends the main process only, which ends the workers.

    Streamed images have no numbers by which they could be checked.
    """
    inner = getattr(loader, "loader", loader)
    inner.worker_init_fn = WithoutInterrupts(inner.worker_init_fn)
    if isinstance(inner, MultiEpochsDataLoader) or isinstance(inner.dataset, IterableDataset):
        return loader
    checked = kind(inner, *arguments)
    if inner is loader:
        return checked
    loader.loader = checked
    return loader
