"""The prediction of a run's cost is the arithmetic it says, in conventions that are what they say."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from support.program import assert_equal
from timm.layers import use_fused_attn
from torch import nn

from motivation.method.random_states import get_rng_state, rng_to_dict
from motivation.method.records import Role
from motivation.tools.cost import command
from motivation.tools.cost.predict import (
    Length,
    expected_average,
    expected_motivated_updates,
    prediction,
    updates_per_epoch,
)
from motivation.training.flops import average_flops, forward_flops, torch_flops

ROOT = Path(__file__).parents[2]
CONFIGS = [
    path
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if path.parent.name in ("configs", "digits", "imagenet") and "motivated_model:" in path.read_text()
]
"""Of motivated runs, a few: the others are of the same models."""
RESNETS = ["--model", "resnet8_cifar", "--input-size", "3", "8", "8"]
PAIR = [*RESNETS, "--motivated-model", "resnet14_cifar"]


@pytest.fixture
def cost(capsys):
    """``cost(*arguments)`` is what the command prints; ``code`` is the exit code that is wanted."""

    def run(*arguments, code=0):
        try:
            ended = command.main([str(word) for word in arguments])
        except SystemExit as stop:
            ended = stop.code
        out, err = capsys.readouterr()
        assert ended == code, err
        return out if code == 0 else err

    return run


def line_of(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.split()


# The figures


@pytest.mark.parametrize(("base", "motivated"), [(20, 32), (44, 56)])
def test_command_prints_the_papers_table_8(cost, base, motivated):
    published = {20: "82.82M", 32: "140.13M", 44: "197.44M", 56: "254.76M"}
    text = cost(
        "--model", f"resnet{base}_cifar", "--motivated-model", f"resnet{motivated}_cifar", "--input-size", 3, 32, 32
    )
    assert line_of(text, "base  ")[3] == published[base]
    assert line_of(text, "motivated  ")[3] == published[motivated]


@pytest.mark.parametrize(("side", "base", "motivated"), [(160, 2.1, 4.0), (224, 4.1, 7.8)])
def test_multiply_adds_of_resnets_are_the_published_ones(cost, side, base, motivated):
    data = json.loads(
        cost("--model", "resnet50", "--motivated-model", "resnet101", "--input-size", 3, side, side, "--json")
    )
    assert data["input_size"] == [3, side, side]
    assert data["models"]["base"]["parameters"] == 25_557_032
    assert round(data["models"]["base"]["macs"] / 1e9, 1) == base
    assert round(data["models"]["motivated"]["macs"] / 1e9, 1) == motivated


@pytest.mark.parametrize("fused", [True, False])
def test_torch_flops_of_a_transformer_count_attention(fused):
    dim, depth, tokens, classes, side, patch = 64, 2, 17, 10, 32, 8
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=side, patch_size=patch, embed_dim=dim, depth=depth, num_heads=4, num_classes=classes
    )
    for block in model.blocks:
        block.attn.fused_attn = fused
    layers = depth * tokens * (3 * dim * dim + dim * dim + 2 * 4 * dim * dim)
    patches = (tokens - 1) * 3 * patch * patch * dim
    linear = 2 * (layers + patches + classes * dim)
    attention = depth * 2 * 2 * tokens * tokens * dim
    assert torch_flops(model, (3, side, side)) == linear + attention


def test_thop_leaves_attention_out_and_torch_has_it():
    model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
    tokens, dim = 197, 192
    difference = torch_flops(model, (3, 224, 224)) - forward_flops(model, (3, 224, 224))
    assert difference == 2 * 2 * 2 * tokens * tokens * dim


def test_the_fast_path_of_torchs_attention_is_counted():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, tokens):
            return self.attention(tokens, tokens, tokens)[0]

    assert torch_flops(Attending(), (10, 32)) == 2 * 10 * 4 * 32 * 32 + 2 * 2 * 10 * 10 * 32


def test_a_model_with_attention_pooling_is_counted():
    """Its latent is a parameter that is expanded, which the counter's tracker refuses where gradients are wanted."""
    model = timm.create_model("vit_base_patch16_siglip_224", depth=1, img_size=32, num_classes=3)
    assert torch_flops(model, (3, 32, 32)) > 0


def test_convolutions_without_norms_cost_the_same_in_both_conventions():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 6 * 6, 5))
    expected = 2 * (8 * 36 * 2 * 9 + 8 * 36 * 5)
    assert torch_flops(model, (4, 8, 8)) == forward_flops(model, (4, 8, 8)) == expected


def test_a_parameter_of_whole_numbers_stays_one():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Parameter(torch.tensor([2, 0]), requires_grad=False)
            self.linear = nn.Linear(2, 5)

        def forward(self, images):
            return self.linear(images.flatten(1)[:, self.places])

    assert forward_flops(Choosing(), (3, 1, 1)) == torch_flops(Choosing(), (3, 1, 1)) == 2 * 2 * 5


@pytest.mark.parametrize("count", [forward_flops, torch_flops])
def test_profiling_leaves_everything_as_it_was(count):
    class Noisy(nn.Module):
        """Draws from the random stream."""

        def __init__(self):
            super().__init__()
            self.inner = timm.create_model("test_vit", img_size=32)

        def forward(self, images):
            return self.inner(images + torch.rand_like(images))

    def settings():
        backends = torch.backends.cuda
        return [
            use_fused_attn(),
            torch.backends.mha.get_fastpath_enabled(),
            backends.flash_sdp_enabled(),
            backends.mem_efficient_sdp_enabled(),
            backends.math_sdp_enabled(),
            backends.cudnn_sdp_enabled(),
            torch.is_grad_enabled(),
        ]

    model = Noisy().to(torch.bfloat16).train()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    states, before = rng_to_dict(get_rng_state()), settings()
    assert count(model, (3, 32, 32)) > 0
    assert_equal(model.state_dict(), weights)
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert not any(hasattr(m, "total_ops") for m in model.modules())
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert_equal(rng_to_dict(get_rng_state()), states)
    assert settings() == before


def test_settings_come_back_when_the_model_fails():
    with pytest.raises(RuntimeError):
        torch_flops(nn.Conv2d(3, 4, 3), (1, 8, 8))
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


# The prediction


def test_expected_average_is_the_average_of_a_run_with_that_share():
    updates, flops = {Role.BASE: 750, Role.MOTIVATED: 250}, {Role.BASE: 6.0, Role.MOTIVATED: 14.0}
    assert expected_average(0.25, 6.0, 14.0) == average_flops(updates, flops) == 8.0


def test_rows_follow_the_law_and_their_ratios_the_costs():
    rows = prediction([1, 2, 3], base=100.0, motivated=160.0, condition="loss", own_k=2)
    streaks, (base, motivated, both) = rows[:3], rows[3:]
    for row, k in zip(streaks, (1, 2, 3)):
        assert row.share == pytest.approx(1 / math.factorial(k + 1))
        assert row.flops == pytest.approx(100 + 60 * row.share)
        assert row.over_base == pytest.approx(row.flops / 100)
        assert row.over_motivated == pytest.approx(row.flops / 160)
        assert row.this_run == (k == 2)
    assert (base.flops, motivated.flops, both.flops) == (100.0, 160.0, 260.0)
    assert both.over_motivated == 1.625
    assert all(row.motivated_updates is None for row in rows)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_motivated_updates_are_those_of_a_simulation_with_independent_losses(k):
    stream, epochs, updates = random.Random(5), 20_000, 12
    motivated = 0
    for _ in range(epochs):
        streak, previous = 0, None
        for _ in range(updates):
            motivated += streak >= k
            loss = stream.random()
            streak = streak + 1 if previous is not None and loss < previous else 0
            previous = loss
    assert expected_motivated_updates(k, Length(epochs, updates)) == pytest.approx(motivated, rel=0.05)


def test_an_epoch_shorter_than_a_streak_is_never_motivated():
    assert expected_motivated_updates(4, Length(epochs=10, updates_per_epoch=3)) == 0


@pytest.mark.parametrize(
    ("images", "batch", "accumulate", "processes", "updates"),
    [
        (100, 10, 1, 1, 10), (109, 10, 1, 1, 10), (100, 10, 3, 1, 4), (100, 10, 1, 3, 3), (9, 10, 1, 1, 0),
        (19, 10, 1, 2, 1),
        (1_281_167, 256, 1, 8, 625),
    ],
)  # fmt: skip
def test_updates_of_an_epoch_are_whole_batches(images, batch, accumulate, processes, updates):
    assert updates_per_epoch(images, batch, accumulate, processes) == updates


@pytest.mark.parametrize(
    ("condition", "label", "share"),
    [("never", "base alone", 0), ("always", "motivated alone", 1), ("random", "random", 0.5)],
)
def test_a_condition_with_another_law_has_its_own_row(condition, label, share):
    (row,) = [r for r in prediction([2], 100.0, 200.0, condition, own_k=2, length=Length(2, 50)) if r.this_run]
    assert (row.label, row.share) == (label, share)
    assert row.motivated_updates == 100 * share


def test_the_runs_own_k_is_added_and_marked(cost):
    text = cost(*PAIR, "--k", 2, 3, "--motivation-k", 7)
    rows = [line for line in text.splitlines() if line.startswith("k = ")]
    assert [line.split()[2] for line in rows] == ["2", "3", "7"]
    assert [line.endswith("<- this run") for line in rows] == [False, False, True]
    assert text.count("<- this run") == 1


# The command


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT)) for path in CONFIGS])
def test_every_configuration_is_predicted(path, cost):
    data = json.loads(cost(path, "--json"))
    assert set(data["models"]) == {"base", "motivated"}
    (row,) = [row for row in data["rows"] if row["this_run"]]
    base, motivated = (data["models"][role]["flops"] for role in ("base", "motivated"))
    assert base < row["flops"] < motivated
    assert row["flops"] == pytest.approx(base + row["share"] * (motivated - base))


def test_a_positional_file_is_the_configuration_and_flags_win_over_it(cost):
    quick = ROOT / "configs/quickstart.yaml"
    assert cost(quick, "--images", 1437) == cost("--config", quick, "--images", 1437)
    text = cost("--motivation-k", 3, quick, "--model-kwargs", "shortcut=A")
    assert line_of(text, "base  ")[1] == "resnet8_cifar"
    assert line_of(text, "base  ")[2] != line_of(cost(quick), "base  ")[2]
    assert next(line for line in text.splitlines() if "<- this run" in line).startswith("k = 3")


def test_quickstarts_updates_are_those_it_trains(cost):
    data = json.loads(cost(ROOT / "configs/quickstart.yaml", "--images", 1437, "--json"))
    assert (data["epochs"], data["updates_per_epoch"], data["updates"]) == (30, 22, 660)
    assert cost(ROOT / "configs/quickstart.yaml", "--updates-per-epoch", 22).count("660") == 2


def test_the_schedules_further_epochs_count(cost):
    data = json.loads(cost(*PAIR, "--epochs", 5, "--cooldown-epochs", 2, "--updates-per-epoch", 10, "--json"))
    assert data["updates"] == 70


def test_without_a_length_there_is_no_column_of_updates(cost):
    assert "motivated updates" not in cost(*PAIR)
    assert "motivated updates" in cost(*PAIR, "--train-num-samples", 1280)


def test_small_shares_are_warned_of(cost):
    warning = "the differential part hardly trains"
    assert warning not in cost(*PAIR, "--k", 1, 2, 3)
    assert "at k = 4: " in cost(*PAIR, "--k", 3, 4)
    assert "this run's" in cost(*PAIR, "--motivation-k", 4)


def test_one_model_has_its_cost_and_is_told_what_is_missing(cost):
    text = cost(*RESNETS)
    assert "give --motivated-model" in text
    assert "F_avg" not in text
    assert json.loads(cost(*RESNETS, "--json"))["rows"] == []


def test_each_convention_is_explained_where_it_is_shown(cost):
    lines = cost(*PAIR).splitlines()
    for convention in ("flops", "torch flops", "macs"):
        assert convention in lines[0]
        assert any(line.startswith(convention) for line in lines[1:])


def test_weights_devices_and_folders_of_the_run_are_not_needed(cost):
    cost(*PAIR, "--pretrained", "--device", "cuda", "--data-dir", "nowhere", "--initial-checkpoint", "nowhere.pth")
    cost(*PAIR, "--grad-checkpointing", "--resume", "nowhere.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnt50"], "did you mean resnet50"),
        ([*RESNETS, "--motivated-model", "resnet14_cifarr"], "did you mean"),
        ([*RESNETS, "--motivated-model", "resnet18", "--num-classes", "10"], "does not contain"),
        ([*RESNETS, "--model-kwargs", "nonsense=1"], "unexpected keyword argument 'nonsense'"),
        ([*RESNETS, "--model-kwargs", "nonsense"], "words of the form name=value"),
        (["--model", "test_vit", "--input-size", "3", "33", "33"], "takes images of 160x160, not of 33x33"),
        ([*PAIR, "--motivation-condition", "los"], "did you mean loss"),
        ([*PAIR, "--motivation-k", "0"], "--motivation-k: at least 1, not 0"),
        ([*PAIR, "--nonsense"], "unknown: --nonsense"),
        ([*PAIR, "--k", "0"], "--k: at least 1"),
        ([*PAIR, "--k", "two"], "invalid int value"),
        ([*PAIR, "--images", "5"], "--images: 5 do not fill one batch of 128"),
        ([*PAIR, "--images", "-5"], "--images: at least 1"),
        ([*PAIR, "--images", "5", "--updates-per-epoch", "5"], "not allowed with"),
        ([*PAIR, "--images", "5000", "--train-img-sizes", "8", "16"], "--images: batches vary"),
        (["nowhere.yaml"], "cannot read nowhere.yaml"),
        (["nowhere.yaml", "--config", "elsewhere.yaml"], "two configurations"),
        ([*PAIR, "--motivation-plugins", "nowhere.py"], "there is no such file"),
    ],
)
def test_wrong_input_ends_in_one_line(arguments, message, cost):
    (line,) = cost(*arguments, code=2).splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_several_faults_come_at_once_a_line_each(cost):
    lines = cost("--model", "resnt50", "--motivation-condition", "los", "--k", 0, code=2).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)


def test_the_prediction_draws_no_random_number_that_stays(cost):
    before = rng_to_dict(get_rng_state())
    cost(*PAIR, "--images", 1280)
    assert_equal(rng_to_dict(get_rng_state()), before)


def test_the_module_is_a_command_and_a_closed_pipe_is_no_error():
    words = [sys.executable, "-m", "motivation", "cost", *PAIR]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert "BrokenPipe" not in errors
    assert "Traceback" not in errors
    assert process.returncode == 0
