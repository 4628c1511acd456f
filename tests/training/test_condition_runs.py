"""Every condition in real runs: accumulation, AMP, resume; what valloss and slope see, and what they leave alone."""

import csv

import numpy as np
import pytest
import torch
from support.program import DIGITS, MOTIVATED, assert_same_run, built, part_and_whole, rows
from support.toys import Toy, batch, learner
from torch import nn

from motivation.method.records import Role
from motivation.training.evaluate import HeldOut
from motivation.training.hooks import Hook, HookList
from motivation.training.learner import UpdateRule, gradient_norm
from motivation.training.loop import train as train_run

NAMES = ("loss", "ema", "valloss", "slope", "random", "scheduled", "never", "always")
HARD = ("-b", "10", "--grad-accum-steps", "2", "--amp", "--amp-dtype", "bfloat16", "--clip-grad", "0.5")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A run's folder as `scheduled` reads it: 4 epochs with 1, 2, 3 and 4 motivated updates."""
    folder = tmp_path_factory.mktemp("earlier")
    (folder / "args.yaml").write_text("model: resnet8_cifar\nmotivated_model: resnet14_cifar\n")
    (folder / "result.json").write_text('{"completed": true}')
    with open(folder / "updates.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("epoch", "update", "active", "loss"))
        for epoch in range(4):
            writer.writerows((epoch, n, "motivated" if n <= epoch else "base", 1.0) for n in range(5))
    return folder


def flags_of(name, earlier):
    flags = [*MOTIVATED, "--motivation-condition", name]
    return [*flags, "--motivation-scheduled-runs", earlier] if name == "scheduled" else flags


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_goes_on_with_accumulation_and_amp(name, train, earlier):
    flags = [*flags_of(name, earlier), *HARD, "--sched", "multistep", "--decay-milestones", "1"]
    whole, part = part_and_whole(train, *flags, epochs=2, half=1)
    assert_same_run(whole, part)
    active = [row["active"] for row in rows(whole / "updates.csv")]
    share = active.count("motivated") / len(active)
    assert {"never": share == 0, "always": share == 1}.get(name, 0 < share < 1)


def test_new_blocks_that_begin_at_zero_train_as_in_a_model_that_is_made_so(train):
    flags = [*MOTIVATED, "--model-ema", "--epochs", "1"]
    folders = [
        train(*flags, *words, name=words[0].strip("-"))
        for words in (["--motivated-init", "zero"], ["--motivated-model-kwargs", "zero_init_last=True"])
    ]
    assert_same_run(*folders)


def test_scheduled_takes_its_counts_from_earlier_runs(train, earlier):
    folder = train(*flags_of("scheduled", earlier), "--epochs", "4")
    assert [int(row["motivated_updates"]) for row in rows(folder / "summary.csv")] == [1, 2, 3, 4]
    again = train(
        *MOTIVATED, "--motivation-condition", "scheduled", "--motivation-scheduled-runs", folder, earlier,
        "--epochs", "4", "--seed", "7", name="again",
    )  # fmt: skip
    assert [int(row["motivated_updates"]) for row in rows(again / "summary.csv")] == [1, 2, 3, 4]
    assert rows(again / "updates.csv") != rows(folder / "updates.csv")


# --- valloss


def toy_learner(**options):
    torch.manual_seed(0)
    return learner(Toy(dropout=0.5), **options)


def held_out(**options):
    one = batch(9, size=16)
    return HeldOut(one.images, one.targets, UpdateRule().autocast, **options)


def test_the_held_out_loss_leaves_model_modes_and_random_streams_as_they_were():
    one = toy_learner()
    one.model.train()
    one.model.blocks[0].eval()
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    modes = [module.training for module in one.model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (held_out().loss(one).value for _ in range(2))
    assert first == second  # no dropout
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    assert [module.training for module in one.model.modules()] == modes
    assert one.model.norm.track_running_stats
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert all(parameter.grad is None for parameter in one.model.parameters())


def test_the_held_out_loss_is_that_of_the_batchs_own_statistics():
    one = toy_learner()
    with torch.no_grad():
        one.model.norm.running_mean.fill_(100.0)
    probe = held_out()
    expected = Toy(dropout=0.5)
    expected.load_state_dict(one.model.state_dict())
    expected.eval()
    expected.norm.train()
    loss = nn.functional.cross_entropy(expected(probe.images), probe.targets).item()
    assert probe.loss(one).value == pytest.approx(loss, rel=1e-6)


class Witness(Hook):
    def __init__(self):
        self._signals, self._roles = [], []

    def update_end(self, record):
        self._signals.append({name: value.value for name, value in record.signals.items()})
        self._roles.append(record.role)


def witnessed(run):
    witness = Witness()
    run.hooks = HookList([*run.hooks.hooks, witness])
    train_run(run)
    return witness


@pytest.mark.parametrize("fold", [(), ("--folds", "4", "--fold", "1")])
def test_the_held_out_images_are_never_trained_on(fold, tmp_path):
    run = built(tmp_path, *MOTIVATED, "--motivation-condition", "valloss", "--motivation-valloss-images", "33", *fold)
    dataset = run.feed.loader.dataset
    read, getitem = set(), type(dataset.whole).__getitem__

    class Spy(type(dataset.whole)):
        def __getitem__(self, index):
            read.add(index)
            return getitem(self, index)

    # the held-out images by their pixels: none of them is among those that training reads
    whole = dataset.whole if not fold else dataset.whole.whole
    inside = np.arange(len(whole)) if not fold else dataset.whole.indices
    trained = dataset.indices if not fold else dataset.whole.indices[dataset.indices]
    assert len(run.held_out.images) == 33
    assert len(trained) == len(inside) - 33
    kept_out = np.setdiff1d(inside, trained)
    targets = [whole.targets[index] for index in kept_out]
    assert targets == run.held_out.targets.tolist()
    dataset.whole.__class__ = Spy
    train_run(run)
    dataset.whole.__class__ = Spy.__mro__[1]
    assert read
    assert read <= set(dataset.indices.tolist())


def test_the_held_out_batch_is_that_of_the_seed_and_as_validation_sees_images(tmp_path):
    def batch_of(*flags):
        return built(tmp_path, *MOTIVATED, "--motivation-condition", "valloss", "--reprob", "1.0", *flags).held_out

    one, same, other = batch_of(), batch_of("--hflip", "1.0"), batch_of("--seed", "3")
    assert torch.equal(one.images, same.images)
    assert len(one.images) == 20  # --batch-size
    assert not torch.equal(one.targets, other.targets)


# --- slope


def test_the_norm_is_that_of_all_gradients_before_clipping():
    norms = []
    for clip in (None, 1e-4):
        one = learner(Toy(), rule=UpdateRule(clip_grad=clip, measures_gradients=True))
        norms.append(one.train([batch()]).gradient_norm.value)
    model, b = Toy(), batch()
    nn.functional.cross_entropy(model(b.images), b.targets).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert norms[0] == norms[1] == pytest.approx(expected, rel=1e-6)
    assert norms[0] > 1e-2


def test_a_scaler_does_not_scale_the_norm():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    plain = toy_learner(rule=UpdateRule(measures_gradients=True))
    scaled = toy_learner(rule=UpdateRule(measures_gradients=True, scaler=scaler))
    clipped = toy_learner(rule=UpdateRule(measures_gradients=True, scaler=torch.amp.GradScaler("cpu"), clip_grad=0.1))
    norms = []
    for one in (plain, scaled, clipped):
        torch.manual_seed(3)
        norms.append(one.train([batch()]).gradient_norm.value)
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    assert norms[0] == pytest.approx(norms[2], rel=1e-6)


def test_accumulated_micro_batches_have_one_norm_that_of_their_mean_gradient():
    parts = [batch(seed, accum_steps=3, is_last=seed == 2) for seed in range(3)]
    one, by_hand = (learner(Toy(), rule=UpdateRule(measures_gradients=True)) for _ in range(2))
    for part in parts:
        (nn.functional.cross_entropy(by_hand.model(part.images), part.targets) / 3).backward()
    expected = gradient_norm(by_hand.model).item()
    assert one.train(parts).gradient_norm.value == pytest.approx(expected, rel=1e-6)


def test_without_being_asked_nothing_is_measured(tmp_path):
    assert toy_learner().train([batch()]).gradient_norm is None
    seen = witnessed(built(tmp_path, *MOTIVATED, "--epochs", "1"))
    assert all(signals.keys() == {"loss"} for signals in seen._signals)


def test_slope_is_motivated_by_the_norms_that_it_saw(tmp_path):
    flags = ("--motivation-condition", "slope", "--clip-grad", "0.1", "--epochs", "2")
    seen = witnessed(built(tmp_path, *MOTIVATED, *flags))
    norms = [signals["gradient_norm"] for signals in seen._signals]
    for update in range(1, len(norms)):
        rising = update % 5 >= 2 and norms[update - 1] > norms[update - 2]
        assert (seen._roles[update] is Role.MOTIVATED) == rising


# --- what reviews found


def test_never_is_the_plain_run_with_data_workers_and_re_estimated_statistics(train):
    flags = ("-j", "2", "--motivation-bn-recalibrate", "1", "--epochs", "3", "--reprob", "0.3")
    plain = train(*flags, name="plain")
    never = train(*MOTIVATED, "--motivation-condition", "never", *flags, name="never")
    for one, other in zip(rows(plain / "summary.csv"), rows(never / "summary.csv"), strict=True):
        assert one["eval_loss"] == other["eval_loss"]


@pytest.mark.parametrize(
    "flags",
    [("--motivation-condition", "valloss", "--motivation-valloss-images", "21"), ("--motivation-bn-recalibrate", "1")],
)
def test_split_batchnorm_sees_whole_batches_where_statistics_are_measured(flags, train):
    folder = train(*MOTIVATED, "--aug-splits", "2", "--split-bn", "--aa", "rand-m5", "-b", "21", *flags)
    assert len(rows(folder / "summary.csv")) == 2


def test_a_split_layer_is_measured_by_its_first_part_and_put_back():
    from timm.layers import SplitBatchNorm2d

    from motivation.training.batchnorm import on_batch_statistics

    layer = SplitBatchNorm2d(3, num_splits=2)
    with torch.no_grad():
        layer.aux_bn[0].weight.fill_(7.0)
    images = torch.randn(5, 3, 4, 4)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.train()
    with on_batch_statistics(layer):
        found = layer(images)
    expected = nn.functional.batch_norm(images, None, None, training=True)
    assert torch.allclose(found, expected, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.training
    assert layer(images[:4]).shape == (4, 3, 4, 4)


def broken(earlier, folder, change):
    import shutil

    copy = folder / "broken"
    shutil.copytree(earlier, copy)
    change(copy)
    return copy


WRONG_RUNS = {
    "has not finished": lambda run: (run / "result.json").unlink(),
    "is a run without a motivated model": lambda run: (run / "args.yaml").write_text("model: resnet8_cifar\n"),
    "lacks epochs: it has 3 up to epoch 3": lambda run: (run / "updates.csv").write_text(
        "".join(line for line in (run / "updates.csv").open() if not line.startswith("1,"))
    ),
    "is damaged: line 3 is no update": lambda run: (run / "updates.csv").write_text(
        "epoch,update,active,loss\n0,0,base,1.0\n,,\n"
    ),
    "has no updates.csv": lambda run: (run / "updates.csv").unlink(),
}


@pytest.mark.parametrize("message", WRONG_RUNS)
def test_scheduled_refuses_runs_that_it_cannot_follow(message, earlier, tmp_path, capsys):
    from motivation.tools.train import main

    run = broken(earlier, tmp_path, WRONG_RUNS[message])
    flags = [*MOTIVATED, "--motivation-condition", "scheduled", "--motivation-scheduled-runs", str(run)]
    assert main([*DIGITS, "--output", str(tmp_path), *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_start_says_how_many_motivated_updates_to_expect(train, caplog):
    train(*MOTIVATED, "--motivation-k", "2", "--epochs", "3")
    assert "About 1 of 15 updates should be motivated (share 0.0667)." in caplog.text  # 3 epochs x (5 - 3) / 6
    assert "hardly trains" not in caplog.text
    assert "will be old when it is judged" not in caplog.text
    train(*MOTIVATED, "--motivation-k", "4", "--epochs", "1")
    assert "With fewer than 1 % motivated updates the differential part hardly trains" in caplog.text
    assert caplog.text.count("BatchNorm statistics will be old when it is judged") == 1
    train(*MOTIVATED, "--motivation-k", "4", "--epochs", "1", "--motivation-bn-recalibrate", "1")
    assert caplog.text.count("BatchNorm statistics will be old when it is judged") == 1
