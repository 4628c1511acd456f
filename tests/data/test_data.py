"""Digits, pad-and-crop, the CIFAR policy, and the cutting of a loader into updates."""

import inspect
from types import SimpleNamespace

import pytest
import timm
import torch
from PIL import Image
from support.program import DIGITS
from timm.data import create_transform
from timm.data.loader import MultiEpochsDataLoader
from torchvision import transforms

from motivation.build.run import build_run
from motivation.data.datasets import SklearnDigits, create_dataset, customise_transform, label_names
from motivation.data.subsets import labels_of
from motivation.data.update_loader import UpdateLoader
from motivation.data.workers import end_workers
from motivation.options.parse import parse


def test_digits_are_split_stratified_and_always_alike():
    train, held_out = SklearnDigits("train"), SklearnDigits("validation")
    assert (len(train), len(held_out)) == (1437, 360)
    assert sorted(set(held_out.targets)) == list(range(10))
    assert all(abs(held_out.targets.count(c) - 36) <= 1 for c in range(10))
    image, target = train[0]
    assert (image.size, image.mode, type(target)) == ((8, 8), "L", int)
    again = SklearnDigits("train")
    assert (again.images == train.images).all()
    pixels = {train.images[i].tobytes() for i in range(len(train))}
    assert sum(held_out.images[i].tobytes() in pixels for i in range(len(held_out))) < 3


def test_digits_come_in_the_mode_that_is_asked_for():
    image, _ = create_dataset("sklearn/digits", split="val", input_img_mode="RGB")[0]
    assert image.mode == "RGB"


def customised(pad=4, policy=None, size=32, **options):
    transform = create_transform((3, size, size), is_training=True, use_prefetcher=True, color_jitter=None, **options)
    return customise_transform(transform, (size, size), pad, policy, "bicubic")


def test_pad_and_crop_takes_the_place_of_timms_crop():
    steps = customised().transforms
    assert [type(step).__name__ for step in steps] == [
        "Resize",
        "RandomCrop",
        "RandomHorizontalFlip",
        "MaybePILToTensor",
    ]
    assert steps[1].padding == 4
    assert steps[0].interpolation == transforms.InterpolationMode.BICUBIC


def test_a_padded_crop_is_a_shifted_image():
    ramp = Image.new("RGB", (32, 32), (200, 100, 50))
    torch.manual_seed(0)
    crops = [customised(hflip=0.0)(ramp) for _ in range(30)]
    assert all(crop.shape == (3, 32, 32) for crop in crops)
    black = [(crop.sum(0) == 0).sum().item() for crop in crops]
    assert max(black) > 100
    assert all(set(crop[0].unique().tolist()) <= {0, 200} for crop in crops)


def test_the_cifar_policy_comes_after_the_flips():
    names = [type(step).__name__ for step in customised(policy="cifar10").transforms]
    assert names == ["Resize", "RandomCrop", "RandomHorizontalFlip", "AutoAugment", "MaybePILToTensor"]
    names = [type(step).__name__ for step in customised(pad=0, policy="cifar10", hflip=0.0).transforms]
    assert names == ["RandomResizedCropAndInterpolation", "AutoAugment", "MaybePILToTensor"]
    auto = customised(policy="cifar10").transforms[3]
    assert auto.policy == transforms.AutoAugmentPolicy.CIFAR10


def test_augmentation_splits_keep_their_three_stages():
    parts = customised(policy="cifar10", separate=True)
    assert [type(step).__name__ for step in parts[0].transforms] == ["Resize", "RandomCrop", "RandomHorizontalFlip"]
    assert isinstance(parts[1].transforms[0], transforms.AutoAugment)


class Loader(list):
    """Batches of one image each that note the order in which they are fetched."""

    dataset = sampler = batch_sampler = None
    mixup_enabled = False

    def __init__(self, count, events):
        super().__init__(range(count))
        self.events = events

    def __iter__(self):
        for index in range(len(self)):
            self.events.append(f"fetch {index}")
            yield torch.full((2, 1, 4, 4), float(index)), torch.zeros(2)


def cut(count, accumulate):
    events = []
    feed = UpdateLoader(Loader(count, events), accumulate, torch.device("cpu"))
    groups = []
    for update in feed.updates(0):
        groups.append([])
        for micro in update:
            events.append(f"train {micro.index}")
            groups[-1].append((micro.index, micro.accum_steps, micro.is_last))
    return feed.updates_per_epoch, groups, events


def test_a_ragged_last_update_is_divided_by_what_it_has():
    number, groups, _ = cut(5, 2)
    assert number == len(groups) == 3
    assert groups == [[(0, 2, False), (1, 2, True)], [(2, 2, False), (3, 2, True)], [(4, 1, True)]]


@pytest.mark.parametrize(("count", "accumulate"), [(4, 1), (6, 3), (7, 4), (2, 5)])
def test_batches_are_fetched_when_they_are_asked_for(count, accumulate):
    number, groups, events = cut(count, accumulate)
    assert number == len(groups)
    assert events == [f"{what} {i}" for i in range(count) for what in ("fetch", "train")]


def test_mixing_stops_at_its_epoch():
    class Mixup:
        mixup_enabled = True

        def __call__(self, images, targets):
            return images, targets

    feed = UpdateLoader(Loader(1, []), 1, torch.device("cpu"), mixup=Mixup(), mixup_off_epoch=2)
    enabled = []
    for epoch in range(4):
        feed.start_epoch(epoch)
        enabled.append(feed.mixup.mixup_enabled)
    assert enabled == [True, True, False, False]


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--no-prefetcher",),
        pytest.param(
            ("--use-multi-epochs-loader", "-j", "1"),
            marks=pytest.mark.skipif(
                "self.iterator = None" not in inspect.getsource(MultiEpochsDataLoader),
                reason=f"the loader of timm {timm.__version__} reads ahead before it is told the epoch",
            ),
        ),
        ("--folds", "4", "--fold", "0"),
    ],
)
def test_repeated_augmentation_works_on_one_process(flags, tmp_path, monkeypatch):
    """Three views of each image, a third of the images: as many batches as before, and others in the next epoch."""
    monkeypatch.setattr("motivation.data.datasets.SklearnDigits", SklearnDigits)  # timm counts by 256 images
    argv = [*DIGITS, "--output", str(tmp_path), "--aug-repeats", "3", "-b", "40", *flags]
    feed = build_run(*parse(argv)).feed
    count = len(feed.loader.dataset)
    drawn = []
    for epoch in range(2):
        feed.start_epoch(epoch)
        drawn.append(list(feed.loader.sampler))
        assert len(drawn[-1]) == count // 256 * 256
        assert all(len(set(drawn[-1][i : i + 3])) == 1 for i in range(0, len(drawn[-1]) - 2, 3))
    assert drawn[0] != drawn[1]
    targets = [target for batches in feed.updates(1) for batch in batches for target in batch.targets.tolist()]
    labels = labels_of(feed.loader.dataset)
    assert targets == [labels[index] for index in drawn[1]][: len(targets)]
    assert len(targets) == len(drawn[1]) // 40 * 40  # whole batches
    end_workers(feed.loader)


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    """Made-up images where torchvision looks for Flowers: 4 to train, 2 to validate, 6 to test, of 3 classes."""
    scipy_io = pytest.importorskip("scipy.io")
    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for number in range(1, 13):
        Image.new("RGB", (20, 20), (10 * number, 0, 0)).save(folder / "jpg" / f"image_{number:05d}.jpg")
    scipy_io.savemat(folder / "imagelabels.mat", {"labels": [1, 2, 3] * 4})
    scipy_io.savemat(folder / "setid.mat", {"trnid": [1, 2, 3, 4], "valid": [5, 6], "tstid": list(range(7, 13))})
    monkeypatch.setattr("torchvision.datasets.Flowers102._check_integrity", lambda self: True)
    return tmp_path


@pytest.fixture
def pets(tmp_path):
    folder = tmp_path / "oxford-iiit-pet"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    for split, numbers in (("trainval", (1, 2, 3, 4)), ("test", (5, 6))):
        lines = []
        for number in numbers:
            breed = ("Bengal", "Birman")[number % 2]
            Image.new("RGB", (20, 20)).save(folder / "images" / f"{breed}_{number}.jpg")
            lines.append(f"{breed}_{number} {number % 2 + 1} 1 1\n")
        (folder / "annotations" / f"{split}.txt").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize(("name", "train", "test", "classes"), [("flowers102", 6, 6, 102), ("oxford_pets", 4, 2, 2)])
def test_sets_of_transfer_learning_train_on_all_but_the_test_images(name, train, test, classes, request):
    root = str(request.getfixturevalue({"flowers102": "flowers", "oxford_pets": "pets"}[name]))

    def opened(split, mode="RGB"):
        return create_dataset(f"torch/{name}", split=split, input_img_mode=mode, root=root, download=False)

    for split, count in (("train", train), ("trainval", train), ("test", test), ("validation", test)):
        dataset = opened(split)
        assert len(dataset) == len(labels_of(dataset)) == count
        assert [dataset[i][1] for i in range(count)] == labels_of(dataset)
        assert len(dataset.classes) == classes
        dataset.transform = lambda image: image.size
        assert dataset[0][0] == dataset[count - 1][0] == (20, 20)
    assert opened("test", "L")[0][0].mode == "L"
    with pytest.raises(ValueError, match="has no split 'all'"):
        opened("all")
    if name == "flowers102":
        with pytest.raises(ValueError, match="'val' are trained on; validate on 'test'"):
            opened("val")


@pytest.mark.parametrize(("dataset", "names"), [
    (SimpleNamespace(reader=SimpleNamespace(class_to_idx={"b": 1, "a": 0})), ["a", "b"]),
    (SimpleNamespace(reader=SimpleNamespace(class_to_idx={"b": 1, "a": 0, "c": 4})), None),
    (SimpleNamespace(reader=SimpleNamespace(class_to_idx={"a": 0, "also a": 0})), None),
    (SimpleNamespace(reader=SimpleNamespace(class_to_idx={})), None),
    (SimpleNamespace(classes=[("tench", "Tinca"), ("goldfish",)]), ["tench, Tinca", "goldfish"]),
    (SimpleNamespace(), None),
])  # fmt: skip
def test_names_of_classes_are_known_only_where_each_number_has_one(dataset, names):
    assert label_names(dataset) == names
