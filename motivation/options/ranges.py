"""Numbers among the options that cannot be what they are for."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Iterator

_Range = tuple[str, Callable[[float], bool], tuple[str, ...]]

RANGES: tuple[_Range, ...] = (
    ("at least 1", lambda number: number >= 1, (
        "batch_size", "epochs", "val_interval", "checkpoint_hist", "log_interval", "num_classes", "img_size",
        "in_chans", "input_size", "val_input_size", "train_img_sizes", "train_batch_sizes", "train_batches_per_epoch",
        "train_num_samples", "val_num_samples", "naflex_train_seq_lens", "naflex_max_seq_len", "naflex_patch_sizes",
        "lr_base_size",
    )),
    ("at least 0", lambda number: 0 <= number < math.inf, (
        "start_epoch", "workers", "train_pad", "validation_batch_size", "grad_accum_steps", "warmup_epochs",
        "cooldown_epochs", "patience_epochs", "recovery_interval", "mixup_off_epoch", "tta", "epoch_repeats",
        "lr", "lr_base", "min_lr", "warmup_lr", "weight_decay", "momentum", "opt_eps", "mixup", "cutmix",
        "color_jitter", "bn_eps", "crop_pct", "train_size_probs", "naflex_patch_size_probs",
    )),
    ("at least 0", lambda number: number >= 0, ("clip_grad",)),  # infinity: measured, never clipped
    ("more than 0", lambda number: 0 < number < math.inf, ("std", "scale", "ratio", "layer_decay", "kd_temperature")),
    ("from 0 to 1", lambda number: 0 <= number <= 1, (
        "drop", "drop_path", "drop_block", "motivated_drop", "motivated_drop_path", "motivated_drop_block", "hflip",
        "vflip", "reprob", "mixup_prob", "mixup_switch_prob", "color_jitter_prob", "grayscale_prob",
        "gaussian_blur_prob", "bn_momentum", "model_ema_decay", "train_size_random_mix", "cutmix_minmax",
    )),
    ("at least 0 and less than 1", lambda number: 0 <= number < 1, ("smoothing",)),
)  # fmt: skip
"""Options by the numbers that they take; of options with several numbers it holds for each."""


def number_faults(args: Namespace) -> Iterator[str]:
    """One line for each option with a number outside its range, or with one that is no number."""
    ranges = {name: (words, fits) for words, fits, names in RANGES for name in names}
    for name, value in vars(args).items():
        words, fits = ranges.get(name, ("a number", lambda number: not math.isnan(number)))
        numbers = value if isinstance(value, (list, tuple)) else [value]
        for number in numbers:
            if isinstance(number, (int, float)) and not isinstance(number, bool) and not fits(number):
                yield f"--{name.replace('_', '-')}: {words}, not {number}"
                break
