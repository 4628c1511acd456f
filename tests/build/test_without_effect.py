"""Options that have no effect are said, and only those."""

import logging

import pytest
import timm
import torch
from support.program import MOTIVATED
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2, scheduler_kwargs

from motivation.build.without_effect import OF_ALL_SCHEDULES, SCHEDULES, without_effect
from motivation.options.config_files import config_names
from motivation.options.flags import FLAGS
from motivation.options.parse import parse


def lines(*words):
    return without_effect(parse([*map(str, words)])[0])


@pytest.mark.parametrize(("words", "line"), [
    ("--lr 0", "--lr 0: as in timm, 0 counts as not given, and the rate comes from --lr-base"),
    ("--crop-pct 0", "--crop-pct 0: as in timm"),
    ("--clip-grad 0", "--clip-grad 0: all gradients"),
    ("--grad-accum-steps 0", "--grad-accum-steps 0: "),
    ("--pretrained-path x.pth", "--pretrained-path has no effect without --pretrained"),
    ("--pretrained --initial-checkpoint x.pth", "--pretrained has no effect with --initial-checkpoint"),
    ("--bce-loss --smoothing 0", "--bce-loss has no effect without mixup, cutmix or a --smoothing"),
    ("--bce-target-thresh 0.2", "--bce-target-thresh has no effect because"),
    ("--mixup-off-epoch 3", "--mixup-off-epoch has no effect without mixup"),
    ("--mixup 0.2 --mixup-switch-prob 0.1", "--mixup-switch-prob has no effect with only one"),
    ("--mixup 0.2 --cutmix 0.3 --cutmix-minmax 0.2 0.5", "--cutmix has no effect with --cutmix-minmax"),
    ("--lr 0.1 --lr-base 0.2", "--lr-base has no effect with --lr"),
    ("--opt adamw --momentum 0.8", "--momentum has no effect with --opt adamw"),
    ("--opt sgd --opt-betas 0.9 0.99", "--opt-betas has no effect with --opt sgd"),
    ("--clip-mode agc", "--clip-mode has no effect without --clip-grad"),
    ("--dist-bn broadcast", "--dist-bn has no effect in a single process"),
    ("--no-ddp-bb", "--no-ddp-bb has no effect in a single process"),
    ("--model-ema-decay 0.9", "--model-ema-decay has no effect without --model-ema"),
    ("--amp-dtype bfloat16", "--amp-dtype has no effect without --amp"),
    ("--drop-connect 0.2", "--drop-connect has no effect in timm"),
    ("--aa rand-m9 --color-jitter 0.2", "--color-jitter has no effect with --aa"),
    ("--no-aug --hflip 1", "--hflip has no effect with --no-aug"),
    ("--train-pad 4 --scale 0.5 1", "--scale has no effect with --train-pad"),
    ("--recount 3", "--recount has no effect without --reprob"),
    ("--input-size 3 32 32 --img-size 64", "--img-size has no effect with --input-size"),
    ("--kd-temperature 2", "--kd-temperature has no effect without --kd-model-name"),
    ("--train-size-probs 1 2", "--train-size-probs has no effect without --train-img-sizes"),
    ("--naflex-max-seq-len 64", "--naflex-max-seq-len has no effect without --naflex-loader"),
    ("--sched step --min-lr 0.01", "--min-lr has no effect with --sched step"),
    ("--warmup-epochs 0 --warmup-lr 0.01", "--warmup-lr has no effect with --warmup-epochs 0"),
    ("--val-split= --eval-metric top5", "--eval-metric has no effect without validation data"),
    ("--motivation-k 3", "--motivation-k has no effect without --motivated-model"),
    ("--motivated-model a --motivation-ema-decay 0.8",
     "--motivation-ema-decay has no effect with --motivation-condition loss"),
    ("--motivated-model a --motivation-k 3 --motivation-condition always",
     "--motivation-k has no effect with --motivation-condition always"),
])  # fmt: skip
def test_an_option_without_effect_is_one_line(words, line):
    (found,) = lines(*words.split())
    assert found.startswith(line)


@pytest.mark.parametrize("words", [
    "", "--lr-base 0", "--bce-loss", "--bce-loss --smoothing 0 --mixup 0.2", "--opt sgd --momentum 0.5",
    "--mixup 0.2 --cutmix 1 --mixup-switch-prob 0.3", "--color-jitter 0 --aa rand-m9", "--aa 3a --color-jitter 0.1",
    "--motivated-model a --motivation-condition ema --motivation-ema-decay 0.8", "--pretrained --pretrained-path x",
    "--hflip 0 --no-aug",
])  # fmt: skip
def test_options_with_effect_are_not_named(words):
    assert lines(*words.split()) == []


@pytest.mark.parametrize("name", config_names())
def test_our_own_configs_have_no_option_without_effect(name):
    assert lines("--config", name) == []


@pytest.mark.parametrize("schedule", [name for name in FLAGS["sched"].choices if name])
def test_what_schedules_read_is_what_timm_reads(schedule):
    """The learning rates of a run with and without each option."""

    def rates(**changed):
        args = parse(["--sched", schedule, "--epochs", "8", "--warmup-epochs", "2", "--decay-epochs", "3"])[0]
        vars(args).update({"decay_milestones": [3], "lr_cycle_limit": 2, "patience_epochs": 1, **changed})
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule_made, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(args), updates_per_epoch=1)
        if schedule_made is None and schedule != "none":
            pytest.skip(f"timm {timm.__version__} has no schedule {schedule}")
        if schedule_made is None:
            return []
        found = [optimizer.param_groups[0]["lr"]]
        for epoch in range(1, epochs + 1):
            schedule_made.step(epoch, metric=-epoch)
            found.append(optimizer.param_groups[0]["lr"])
        return found

    values = {
        "decay_milestones": [5], "decay_epochs": 2.0, "decay_rate": 0.5, "patience_epochs": 4, "lr_cycle_mul": 2.0,
        "lr_cycle_decay": 0.9, "lr_cycle_limit": 3, "lr_k_decay": 2.0, "min_lr": 0.3, "cooldown_epochs": 4,
    }  # fmt: skip
    assert values.keys() == SCHEDULES.keys()
    for name, value in values.items():
        assert (rates(**{name: value}) != rates()) == (schedule in SCHEDULES[name]), name
    for name, value in (("warmup_epochs", 3), ("warmup_lr", 0.5), ("lr_noise", [0.0])):
        assert name in OF_ALL_SCHEDULES
        assert (rates(**{name: value}) != rates()) == (schedule != "none"), name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb", "lion", "rmsprop", "adafactor", "muon"])
def test_what_optimizers_read_is_what_timm_reads(optimizer):
    assert optimizer in list_optimizers()

    def settings(**changed):
        made = create_optimizer_v2([torch.nn.Parameter(torch.zeros(2, 2))], opt=optimizer, lr=0.1, **changed)
        return made.defaults

    for option, argument, value in (("momentum", "momentum", 0.123), ("opt_betas", "betas", (0.1, 0.2))):
        words = [f"--{option.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
        named = any(line.startswith(words[0]) for line in lines("--opt", optimizer, *words))
        assert named == (settings(**{argument: value}) == settings()), option


def test_a_run_says_it_and_is_otherwise_as_without(train, caplog):
    caplog.set_level(logging.WARNING)
    train("--mixup-prob", "0.5", name="with")
    assert [record.message for record in caplog.records if "no effect" in record.message] == [
        "--mixup-prob has no effect without mixup and cutmix."
    ]
    caplog.clear()
    train(*MOTIVATED, name="motivated")
    assert not [record.message for record in caplog.records if "no effect" in record.message]


def test_a_head_that_would_fit_and_is_made_anew_is_said(train, caplog):
    weights = train("--epochs", "1", name="source") / "last.pth.tar"
    train("--epochs", "1", "--pretrained", "--pretrained-path", weights, name="with_new_head")
    assert f"the head of {weights} has the model's number of classes" in caplog.text
