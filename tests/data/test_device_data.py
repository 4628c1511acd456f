"""Batches cut out of one tensor: each image as planned, the same on every resume, apart on every rank."""

import dataclasses

import pytest
import torch
from support.program import DIGITS, MOTIVATED, assert_same_run
from timm.data.random_erasing import RandomErasing

from motivation.build.run import build_run
from motivation.data.device_data import Augmentation, DeviceLoader, read_all
from motivation.options.parse import parse
from motivation.tools.train import main

PLAIN = Augmentation((0.4, 0.5), (0.2, 0.3))
IMAGES = torch.randint(0, 256, (23, 2, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(23) % 4


def loader(batch_size=4, **changes):
    options = {name: changes.pop(name) for name in ("rank", "world_size", "shuffle", "seed") if name in changes}
    images = torch.nn.functional.pad(IMAGES, (changes.get("pad", 0),) * 4)
    return DeviceLoader(images, TARGETS, dataclasses.replace(PLAIN, **changes), batch_size, **options)


def normalised(images):
    mean, std = (torch.tensor(values).view(-1, 1, 1) * 255 for values in (PLAIN.mean, PLAIN.std))
    return (images.float() - mean) / std


def test_each_image_is_cut_out_of_its_padded_self_and_flipped_as_planned():
    one = loader(pad=2, hflip=0.5, vflip=0.3)
    plan, padded = one.plan_epoch(), torch.nn.functional.pad(IMAGES, (2, 2, 2, 2))
    images = torch.cat([batch for batch, _ in one])
    assert len(images) == 20
    assert 0 < plan["hflip"].mean() < 1
    for place, image in enumerate(images):
        top, left = plan["top"][place], plan["left"][place]
        expected = padded[plan["order"][place], :, top : top + 6, left : left + 5]
        dims = [dim for dim, name in ((1, "vflip"), (2, "hflip")) if plan[name][place]]
        assert torch.allclose(image, normalised(expected.flip(dims)))
    assert torch.cat([classes for _, classes in one]).tolist() == TARGETS[plan["order"]].tolist()


def test_boxes_of_images_are_erased():
    bare = next(iter(loader(23)))[0]
    erased = next(iter(loader(23, erasing=RandomErasing(1.0, device="cpu"))))[0]
    changed = erased != bare
    assert 0 < changed.float().mean() < 0.5
    assert (erased[changed] == 0).all()


def test_batches_are_mixed_until_mixing_is_off(tmp_path):
    flags = ["--data-on-device", "--mixup", "1", "--mixup-off-epoch", "1", "--output", str(tmp_path)]
    feed = build_run(*parse([*DIGITS, *flags])).feed
    mixed, whole = (torch.cat([batch.targets for one in feed.updates(e) for batch in one]) for e in range(2))
    assert mixed.shape == whole.shape
    assert torch.allclose(mixed.sum(1), torch.ones(len(mixed)))
    assert (mixed.max(1).values < 1).float().mean() > 0.5
    assert (whole.max(1).values == 1).all()


def test_ranks_share_the_images_and_draw_apart():
    ranks = [loader(3, pad=1, rank=rank, world_size=2) for rank in range(2)]
    assert [len(one) for one in ranks] == [4, 4]
    orders = [one.plan_epoch()["order"].tolist() for one in ranks]
    assert len(set(orders[0]) & set(orders[1])) <= 1  # 23 images: one is there twice
    assert ranks[0].plan_epoch()["top"].tolist() != ranks[1].plan_epoch()["top"].tolist()
    whole = [loader(3, shuffle=False, rank=rank, world_size=2) for rank in range(2)]
    assert sorted({index for one in whole for index in one.plan_epoch()["order"]}) == list(range(23))
    ranks[0].set_epoch(1)
    assert ranks[0].plan_epoch()["order"].tolist() != orders[0]


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
    monkeypatch.setattr("motivation.data.device_data.free_bytes", lambda device: 10_000)
    assert main([*DIGITS, "--data-on-device", "--output", str(tmp_path)]) == 2
    line = "error: --data-on-device: 119 images of 1 x 10 x 10 need 0.00 GB, but cpu has 0.00 GB left; leave the option"
    assert line in capsys.readouterr().err


def test_images_of_one_channel_are_not_copied_into_three():
    batches = [(IMAGES[:2, :1], TARGETS[:2])]
    with pytest.raises(ValueError, match="images are 1 x 6 x 5, but the model takes 3 x 6 x 5"):
        read_all(batches, 2, (3, 6, 5), torch.device("cpu"))
