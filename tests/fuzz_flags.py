"""Random legal flags over random small models; each run ends well or in lines ``error: ...``, never in a traceback.

python tests/fuzz_flags.py --runs 1000 --seed 1
python tests/fuzz_flags.py --runs 1 --seed 1 --first 417     the 418th of them alone

A run trains a few updates on 150 digits at 8 px: plain, motivated or fine-tuning. Some are then resumed for one more
epoch with a flag changed, and all are given to a command. What is printed at the end is JSON; ``failures`` has the
command lines of those that ended otherwise.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from traceback import format_exc
from typing import Any
from unittest import mock

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import timm
import torch
from sklearn.datasets import load_digits

from motivation.__main__ import main as command_main
from motivation.build import runtime
from motivation.method.random_states import fork_rng
from motivation.options.flag_types import Flag
from motivation.options.flags import FLAGS
from motivation.tools import finetune
from motivation.tools.train import EXIT_NOT_FINITE
from motivation.tools.train import main as train_main

SMALL = [
    "--dataset", "sklearn/digits", "--input-size", "1", "8", "8", "--num-classes", "10", "--device", "cpu",
    "-b", "60", "-vb", "30", "-j", "0", "--epochs", "1", "--warmup-epochs", "0", "--lr", "0.05",
    "--train-pad", "1",
]  # fmt: skip
PAIRS = [
    ("resnet8_cifar", "resnet14_cifar"), ("resnet8_cifar", "resnet20_cifar"), ("test_resnet", ""),
    ("test_efficientnet", ""), ("test_vit", ""), ("test_convnext", ""), ("test_byobnet", ""), ("test_mambaout", ""),
    ("test_efficientnet_ln", ""), ("test_vit2", ""), ("test_nfnet", ""), ("test_efficientnet_gn", ""),
]  # fmt: skip
"""Small models, with one around them where there is one."""

SIZES = {
    "test_vit": ["--input-size", "1", "16", "16", "--model-kwargs", "img_size=16"],
    "test_convnext": ["--input-size", "1", "32", "32"],
}
"""Of models that do not take 8 px."""

FIXED = {
    "data", "data_dir", "dataset", "dataset_download", "model", "motivated_model", "device", "local_rank",
    "device_modules", "output", "experiment", "workers", "resume", "initial_checkpoint", "pretrained",
    "pretrained_path", "motivated_pretrained", "motivated_initial_checkpoint", "log_wandb", "wandb_resume_id",
    "wandb_project", "motivation_plugins", "motivation_scheduled_runs", "kd_model_name", "torchcompile",
    "torchcompile_mode", "fuser", "fast_norm", "epochs", "start_epoch", "batch_size", "validation_batch_size",
    "log_tensorboard", "save_images", "config", "num_classes", "cooldown_epochs", "recount", "naflex_loader",
}  # fmt: skip
"""Flags of files, networks and machines, and of how long a run is."""

VALUES: dict[str, list[str]] = {
    "class_map": [""], "train_split": ["train"], "val_split": ["validation", ""], "folds": ["2", "3"],
    "fold": ["0", "1"], "input_img_mode": ["L", "RGB"], "gp": ["avg", "max", "avgmax", "catavgmax", "fast", "no"],
    "input_size": ["1 8 8", "1 16 16", "3 8 8", "1 8 12", "1 160 160"], "val_input_size": ["1 8 8", "1 16 16"],
    "img_size": ["8", "16"], "in_chans": ["1", "3"], "mean": ["0.3", "0.5 0.5 0.5"], "std": ["0.36", "1 1 1"],
    "model_kwargs": ["drop_rate=0.1", "img_size=8", "shortcut=A", "nonsense=1", "bn_eps=0.1", "dynamic_img_size=True"],
    "motivated_model_kwargs": ["drop_rate=0.1", "shortcut=A", "in_chans=2"], "opt_kwargs": ["foreach=True", "lr=1"],
    "opt": ["sgd", "adamw", "lamb", "lion", "rmsprop", "adafactor", "muon", "lookahead_adam", "adopt", "sgdp",
            "nadamw", "mars", "madgrad", "adan", "lars", "laprop", "novograd", "adahessian", "rmsproptf", "kron"],
    "opt_betas": ["0.9 0.99", "0.9", "2 3"], "lr_noise": ["0.1 0.9", "0.5"], "decay_milestones": ["1", "0 1"],
    "scale": ["0.5 1", "1", "1 0.5"], "ratio": ["0.9 1.1", "1.5 0.5"], "cutmix_minmax": ["0.2 0.8", "0.8 0.2"],
    "aa": ["rand-m9-mstd0.5-inc1", "augmix-m3-w2", "original", "v0", "3a", "cifar10", ""], "seed": ["0", "7"],
    "train_img_sizes": ["8 12", "8"], "train_batch_sizes": ["30 20", "40"], "train_size_probs": ["1 2", "0 0"],
    "train_batches_per_epoch": ["1", "2"], "naflex_train_seq_lens": ["4 8"], "naflex_max_seq_len": ["4"],
    "naflex_patch_sizes": ["2 4"], "naflex_patch_size_probs": ["1 2"], "wandb_tags": ["a"],
    "motivation_condition": ["loss", "ema", "valloss", "slope", "random", "scheduled", "never", "always"],
    "motivation_map": ["resnet", "vit", "auto", "nonsense"], "motivation_valloss_images": ["0", "1", "20", "9999"],
    "motivation_plugin_kwargs": ["a=1"], "tta": ["0", "2", "3"], "aug_repeats": ["0", "1.5", "3"],
    "aug_splits": ["0", "2", "3"], "grad_accum_steps": ["0", "1", "2", "3"], "lr_cycle_limit": ["1", "2"],
    "train_num_samples": ["100"], "val_num_samples": ["100"], "checkpoint_hist": ["1", "2"], "lr_base_size": ["1"],
    "max_nonfinite": ["0", "1", "5"], "recovery_interval": ["0", "1"], "log_interval": ["1", "50"],
    "epoch_repeats": ["0", "2"], "val_interval": ["1", "2"], "train_pad": ["0", "1", "3", "99"],
    "kd_distill_type": ["logit"], "color_jitter": ["0", "0.4"], "warmup_epochs": ["0", "1", "9"],
    "lr": ["0", "0.01", "1", "1e30", "1e39"], "layer_decay": ["0.7", "1.3"], "opt_eps": ["0", "1e-8", "1e39"],
    "crop_pct": ["0", "0.5", "1", "1.5"], "bn_eps": ["0", "1e-3"], "target_key": ["x"], "input_key": ["x"],
    "train_size_schedule_spread": ["0", "0.65", "-1"], "eval_metric": ["top1", "top5", "loss"],
    "motivation_bn_recalibrate": ["0", "1", "1000000000"],
}  # fmt: skip
"""Values of flags whose type says too little; of the others, some that are allowed are drawn."""

NUMBERS = {
    int: ["0", "1", "2", "5", "-1"],
    float: ["0", "1e-6", "0.1", "0.5", "0.9", "1", "1.5", "10", "-1", "1e30"],
}
NAFLEX = [
    "--model", "naflexvit_base_patch16_gap", "--model-kwargs", "embed_dim=24", "depth=1", "num_heads=2",
    "--naflex-loader", "--naflex-train-seq-lens", "4", "9", "--naflex-max-seq-len", "9", "--train-pad", "0",
    "--input-size", "3", "32", "32",
]  # fmt: skip
TEACHER = ["--kd-model-name", "resnet8_cifar", "--input-size", "3", "8", "8"]
PLUGIN = """
from motivation import Condition, Hook, register_condition, register_hook

@register_condition("fuzzed")
class Fuzzed(Condition):
    def __init__(self, k, size=1):
        self.k, self.size, self.seen = k, size, 0

    @property
    def motivated(self):
        return self.seen % 2 == 1

    def observe(self, record):
        self.seen += self.size

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]

@register_hook("fuzzed")
class Counting(Hook):
    def __init__(self, stop=9):
        self.stop = stop

    def epoch_end(self, record):
        if record.epoch >= self.stop:
            self.request_stop("enough")
"""
PLUGIN_WORDS = (
    [], ["--motivation-condition", "fuzzed"], ["--motivation-plugin-kwargs", "stop=0"],
    ["--motivation-condition", "fuzzed", "--motivation-plugin-kwargs", "size=2"],
    ["--motivation-plugin-kwargs", "nonsense=1"],
)  # fmt: skip
CHANGES = (
    [], ["--lr", "0.01"], ["--motivation-k", "2"], ["--hflip", "0"], ["--clip-grad", "1"], ["--no-resume-opt"],
    ["--opt", "adamw"], ["--start-epoch", "0"], ["--model-ema"], ["-b", "50"], ["--weight-decay", "0"],
    ["--motivation-bn", "copy"], ["--motivated-model", ""], ["--motivation-condition", "always"], ["--seed", "5"],
    ["--recovery-interval", "1"], ["--num-classes", "11"], ["--checkpoint-hist", "1"], ["--eval-metric", "loss"],
)  # fmt: skip
"""What a resumed run has other than the run before."""

COMMANDS = (
    ["report", "{run}"], ["report", "{run}", "--best", "--csv", "-"], ["plot", "{run}", "--output", "{out}/plots"],
    ["export", "{run}", "{out}/exported"], ["export", "{run}", "{out}/exported", "--best"],
    ["validate", "{run}"], ["validate", "{run}", "--best", "--split", "train"],
    ["report", "{run}", "{run}"], ["plot", "{run}", "--smooth", "2", "--output", "{out}/plots"],
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One run, the words of its resume if it is resumed, and the command after it.

    ``{out}`` stands for a new folder, ``{run}`` for that of the run, ``{plugin}`` for a file of conditions and hooks.
    """

    program: str
    words: list[str]
    after: list[str]
    resume: list[str] | None = None


def draw(seed: int, index: int) -> Case:
    """Return case number ``index`` of a seed, whatever the others are."""
    chance = random.Random(f"{seed} {index}")
    model, larger = chance.choice(PAIRS)
    program = chance.choice(["train"] * 7 + ["finetune", "cost"])
    if not larger:
        larger = chance.choice(["", "", model])
    elif chance.random() < 0.4:
        larger = ""
    words = [*SMALL, "--model", model, *SIZES.get(model, [])]
    if chance.random() < 0.03:
        larger = ""
        words += NAFLEX
    if larger:
        words += ["--motivated-model", larger, "--motivation-k", "1", "-b", chance.choice(["30", "60"])]
    can = [flag for flag in FLAGS.values() if flag.dest not in FIXED and (larger or not flag.motivated)]
    for flag in chance.sample(can, chance.randint(0, 9)):
        words += _words(flag, chance)
    for part, likely in ((TEACHER, 0.04), (["-j", "1"], 0.02)):
        words += part if chance.random() < likely else []
    if chance.random() < 0.08:
        words += ["--motivation-plugins", "{plugin}", *chance.choice(PLUGIN_WORDS)]
    resume = None
    if program == "train" and chance.random() < 0.2:
        resume = ["--epochs", "2", "--resume", chance.choice(["auto", "{run}/last.pth.tar"]), *chance.choice(CHANGES)]
    if program == "cost":
        words += chance.choice([[], ["--json"], ["--images", "1000"], ["--k", "2", "3"]])
    return Case(program, words, chance.choice(COMMANDS), resume)


def _words(flag: Flag, chance: random.Random) -> list[str]:
    if flag.type is bool:
        return [flag.option]
    if flag.dest in VALUES:
        return [flag.option, *chance.choice(VALUES[flag.dest]).split(" ")]
    if flag.choices:
        return [flag.option, chance.choice(flag.choices)]
    allowed = [word for word in NUMBERS[flag.type] if flag._refusal(flag.type(word)) is None]
    return [flag.option, chance.choice(allowed)]


@cache
def few_digits() -> Any:
    """Return 150 of scikit-learn's digits."""
    digits = load_digits()
    return type(digits)(**{**digits, "images": digits.images[:150], "target": digits.target[:150]})


def teacher(**options: Any) -> Any:
    """Make a teacher with random weights, where timm would fetch trained ones."""
    return timm.create_model(**{**options, "pretrained": False})


@contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Catch what is printed, and keep timm's and torch's warnings down."""
    said = io.StringIO()
    with warnings.catch_warnings(), redirect_stderr(said), redirect_stdout(said):
        warnings.simplefilter("ignore")
        yield said


def run(case: Case, source: Path, out: Path) -> tuple[str, str]:
    """Run a case in this process; returns how it ended, and for a failure why.

    Args:
        case: what to run.
        source: folder of a run whose weights fine-tuning begins with.
        out: an empty folder.
    """
    folder = out / "run"
    written = ["--output", str(out), "--experiment", "run"]
    own = [word.replace("{plugin}", str(source / "plugin.py")) for word in case.words]
    if case.program == "finetune":
        words = _without_model(own)
        ended = _call(lambda: train_main([*words, "--checkpoint", str(source), *written], finetune.parse))
    elif case.program == "cost":
        ended = _call(lambda: command_main(["cost", *own]))
    else:
        ended = _call(lambda: train_main([*own, *written]))
    how, why = ended
    if why or case.program == "cost":
        return f"{case.program}: {how}", why
    if how == "refused" and folder.exists():
        return f"{case.program}: wrote files though it was refused", ", ".join(os.listdir(folder))
    if not folder.exists():
        return f"{case.program}: {how}", ""
    if case.resume is not None:
        changed = [word.format(run=folder) for word in case.resume]
        resumed, why = _call(lambda: train_main([*own, *written, *changed]))
        how = f"{how}, resume: {resumed}"
        if why:
            return f"{case.program}: {how}", why
    words = [word.format(run=folder, out=out) for word in case.after]
    after, why = _call(lambda: command_main(words))
    return f"{case.program}: {how}, {case.after[0]}: {after}", why


def _without_model(words: list[str]) -> list[str]:
    where = words.index("--model")
    return words[:where] + words[where + 2 :]


def _call(main: Callable[[], int | None]) -> tuple[str, str]:
    few = mock.patch("sklearn.datasets.load_digits", few_digits)
    memory = mock.patch.object(runtime, "keep_freed_memory")
    untrained = mock.patch("timm.task.distillation.create_model", teacher)
    with quiet() as said, fork_rng(), few, memory, untrained:
        try:
            code = main() or 0
        except SystemExit as end:
            code = end.code
        except Exception:  # noqa: BLE001  (it is what is looked for)
            return "traceback", format_exc()
        finally:
            torch.use_deterministic_algorithms(False)  # --deterministic holds until the end of a process
    errors = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    if "Traceback (most" in said.getvalue():
        return "traceback", said.getvalue()[-3000:]
    if code == 0:
        return "ran", ""
    if code in (2, EXIT_NOT_FINITE) and errors:
        return ("refused" if code == 2 else "not finite"), ""
    return f"exit {code}, {len(errors)} errors", said.getvalue()[-3000:] or "silent"


def make_source(folder: Path) -> Path:
    """Train the run that fine-tuning begins with."""
    how, why = _call(
        lambda: train_main([*SMALL, "--model", "resnet8_cifar", "--output", str(folder), "--experiment", "source"])
    )
    assert how == "ran", why
    (folder / "source" / "plugin.py").write_text(PLUGIN)
    return folder / "source"


def run_cases(seed: int, first: int, runs: int, folder: Path) -> tuple[Counter[str], list[dict]]:
    """Run cases; returns how often each end came, and the failures with their command lines."""
    source = make_source(folder)
    ends: Counter[str] = Counter()
    failures = []
    for index in range(first, first + runs):
        case = draw(seed, index)
        with tempfile.TemporaryDirectory(dir=folder) as out:
            how, why = run(case, source, Path(out))
        ends[how] += 1
        if why:
            parts = [[case.program, *case.words], case.resume or ["no resume"], case.after]
            command = "; ".join(" ".join(word or repr("") for word in words) for words in parts)
            failures.append({"index": index, "end": how, "command": command, "why": why[-2000:]})
    return ends, failures


def main() -> int:
    """Run the script; 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ends, failures = run_cases(args.seed, args.first, args.runs, Path(folder))
    print(json.dumps({"runs": args.runs, "ends": dict(ends.most_common()), "failures": failures}, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
