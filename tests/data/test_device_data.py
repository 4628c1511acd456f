"""Batches cut out of one tensor: each image as its plan says, the same on every resume, apart on every rank."""

import dataclasses

import numpy as np
import pytest
import torch
from support.program import DIGITS, MOTIVATED, assert_same_run

from motivation.build.run import build_run
from motivation.data.device_data import (
    DeviceLoader,
    EpochPlan,
    Erasing,
    Mixing,
    Recipe,
    erased_boxes,
    free_bytes,
    mixed_parts,
    read_all,
)  # fmt: skip
from motivation.options.parse import parse
from motivation.tools.train import main

PLAIN = Recipe((0.4, 0.5), (0.2, 0.3))
IMAGES = torch.randint(0, 256, (23, 2, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(23) % 4


def loader(batch_size=4, **changes):
    options = {name: changes.pop(name) for name in ("rank", "world_size", "shuffle", "seed") if name in changes}
    images = torch.nn.functional.pad(IMAGES, (changes.get("pad", 0),) * 4)
    return DeviceLoader(images, TARGETS, dataclasses.replace(PLAIN, **changes), batch_size, **options)


def normalised(images):
    mean, std = (torch.tensor(values).view(-1, 1, 1) * 255 for values in (PLAIN.mean, PLAIN.std))
    return (images.float() - mean) / std


def plan_of(one):
    return EpochPlan(one._numbers(), one._own_images(), (6, 5), one.recipe, one.batch_size).arrays


def test_each_image_is_cut_out_of_its_padded_self_and_flipped_as_planned():
    one = loader(pad=2, hflip=0.5, vflip=0.3)
    plan, padded = plan_of(one), torch.nn.functional.pad(IMAGES, (2, 2, 2, 2))
    images = torch.cat([batch for batch, _ in one])
    assert len(images) == 20
    assert 0 < plan["flipped"].mean() < 1
    for place, image in enumerate(images):
        top, left = plan["top"][place], plan["left"][place]
        expected = padded[plan["order"][place], :, top : top + 6, left : left + 5]
        dims = [dim for dim, name in ((1, "upside_down"), (2, "flipped")) if plan[name][place]]
        assert torch.allclose(image, normalised(expected.flip(dims)))
    assert torch.cat([classes for _, classes in one]).tolist() == TARGETS[plan["order"]].tolist()


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_images_and_targets_are_mixed_in_the_same_parts(mode):
    recipe = {"mixing": Mixing(0.8, 1.0, mode=mode), "classes": 4, "smoothing": 0.1}
    one = loader(**recipe)
    plan, bare = plan_of(one), loader()
    for number, ((images, targets), (alone, classes)) in enumerate(zip(one, bare)):
        own, boxes = (plan[name][number * 4 : number * 4 + 4] for name in ("own", "boxes"))
        dense = torch.full((4, 4), 0.025).scatter_(1, classes[:, None], 0.925)
        for place in range(4):
            share, (top, bottom, left, right) = float(own[place]), boxes[place]
            expected, partner = alone[place].clone(), alone[3 - place]
            if bottom > top:
                expected[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
                assert share == pytest.approx(1 - (bottom - top) * (right - left) / 30)
            else:
                expected = share * expected + (1 - share) * partner
            assert torch.allclose(images[place], expected, atol=1e-5)
            assert torch.allclose(targets[place], share * dense[place] + (1 - share) * dense[3 - place], atol=1e-6)
        if mode == "batch":
            assert len(set(own.tolist())) == 1
        if mode == "pair":
            assert own.tolist() == own[::-1].tolist()
    one.mixup_enabled = False
    images, targets = next(iter(one))
    assert targets.max(1).values.tolist() == pytest.approx([0.925] * 4)


def test_shares_and_boxes_follow_their_laws():
    numbers = np.random.default_rng(0)
    parts = mixed_parts(numbers, 40_000, (32, 32), Mixing(0.2, 1.0, prob=0.8, switch_prob=0.3, mode="elem"), 100)
    cut = parts["boxes"][:, 1] > parts["boxes"][:, 0]
    assert (parts["own"] == 1.0).mean() > 0.19
    assert abs(cut.mean() - 0.8 * 0.3) < 0.015
    mixed = ~cut & (parts["own"] < 1.0)
    assert abs(parts["own"][mixed].mean() - 0.5) < 0.01
    assert abs(parts["own"][mixed].var() - 1 / (4 * (2 * 0.2 + 1))) < 0.01  # of Beta(0.2, 0.2)
    sides = mixed_parts(numbers, 1000, (32, 32), Mixing(cutmix_minmax=(0.25, 0.5), mode="elem"), 10)["boxes"]
    assert (sides[:, 1] - sides[:, 0]).min() >= 8
    assert (sides[:, 1] - sides[:, 0]).max() < 16
    boxes = erased_boxes(numbers, 20_000, (32, 24), Erasing(0.4, count=1))[:, 0]
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    assert abs((area > 0).mean() - 0.4) < 0.015
    assert area.max() <= 32 * 24 / 3 * 1.1
    assert (boxes[:, 1] <= 32).all()
    assert (boxes[:, 3] <= 24).all()


@pytest.mark.parametrize(("mode", "count"), [("const", 1), ("rand", 2), ("pixel", 3)])
def test_boxes_are_erased_and_the_rest_is_left(mode, count):
    one, bare = loader(23, erasing=Erasing(1.0, mode, count)), loader(23)
    plan = plan_of(one)
    images, alone = next(iter(one))[0], next(iter(bare))[0]
    again = next(iter(one))[0]
    assert torch.equal(images, again)
    for place, boxes in enumerate(plan["erased"]):
        inside = np.zeros((6, 5), dtype=bool)
        for top, bottom, left, right in boxes:
            inside[top:bottom, left:right] = True
        assert torch.equal(images[place][:, ~inside], alone[place][:, ~inside])
        erased = images[place][:, inside]
        assert (erased == 0).all() if mode == "const" else not torch.equal(erased, alone[place][:, inside])
        if mode == "rand" and (boxes[1, 1] == 0) and inside.any():
            assert (erased == erased[:, :1]).all()


def test_ranks_share_the_images_and_draw_apart():
    ranks = [loader(3, pad=1, rank=rank, world_size=2) for rank in range(2)]
    assert [len(one) for one in ranks] == [4, 4]
    orders = [one._own_images().tolist() for one in ranks]
    assert len(set(orders[0]) & set(orders[1])) <= 1  # 23 images: one is there twice
    assert plan_of(ranks[0])["top"].tolist() != plan_of(ranks[1])["top"].tolist()
    whole = [loader(3, shuffle=False, rank=rank, world_size=2) for rank in range(2)]
    assert sorted({*whole[0]._own_images(), *whole[1]._own_images()}) == list(range(23))
    ranks[0].set_epoch(1)
    assert ranks[0]._own_images().tolist() != orders[0]


FLAGS = ["--data-on-device", "--hflip", "0.5", "--reprob", "0.3", "--mixup", "0.2", "--cutmix", "1"]


def test_a_resumed_run_is_the_run_that_was_not_interrupted_whatever_the_workers(train):
    flags = [*MOTIVATED, *FLAGS, "--motivation-bn-recalibrate", "2", "--recovery-interval", "3"]
    whole = train(*flags, name="whole")
    part = train(*flags, name="part")
    (part / "last.pth.tar").unlink()
    (part / "checkpoint-1.pth.tar").unlink()
    assert_same_run(whole, train(*flags, "--resume", "auto", "-j", "1", name="part"))


def test_validation_images_are_those_of_timms_loader(tmp_path):
    batches = []
    for number, flags in enumerate(([], ["--data-on-device"])):
        argv = [*DIGITS, "--input-size", "1", "12", "12", "--crop-pct", "0.9", "--output", str(tmp_path / str(number))]
        batches.append(list(build_run(*parse([*argv, *flags])).evaluator.validator.loader))
    for (images, targets), (ours, classes) in zip(*batches, strict=True):
        assert torch.allclose(images, ours, atol=1e-6)
        assert torch.equal(targets, classes)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--train-pad", "0"], "give --train-pad"),
        (["--aa", "rand-m9"], "not with --aa rand-m9"),
        (["--color-jitter", "0.4"], "not with --color-jitter 0.4"),
        (["--aug-repeats", "3"], "not with --aug-repeats 3"),
        (["--train-img-sizes", "8", "16"], "not with --train-img-sizes"),
        (["--use-multi-epochs-loader"], "not with --use-multi-epochs-loader;"),
    ],
)
def test_what_needs_single_images_is_refused_by_name(flags, named, tmp_path, capsys):
    assert main([*DIGITS, "--data-on-device", *flags, "--output", str(tmp_path)]) == 2
    assert f"error: --data-on-device: {named}" in capsys.readouterr().err


def test_data_that_have_no_room_are_refused_before_they_are_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("motivation.data.device_data.free_bytes", lambda device: 100_000)
    assert main([*DIGITS, "--data-on-device", "--output", str(tmp_path)]) == 2
    line = (
        "error: --data-on-device: 1437 images of 1 x 10 x 10 need 0.00 GB, but cpu has 0.00 GB left; leave the option"
    )
    assert line in capsys.readouterr().err


def test_images_of_one_channel_are_not_copied_into_three():
    batches = [(IMAGES[:2, :1], TARGETS[:2])]
    with pytest.raises(ValueError, match="images are 1 x 6 x 5, but the model takes 3 x 6 x 5"):
        read_all(batches, 2, (3, 6, 5), torch.device("cpu"))


def test_memory_that_is_left_is_known_here():
    assert free_bytes(torch.device("cpu")) > 2**20
