"""Folders, tars, class maps, channels and image modes as people have them: the right thing is done, or one line says
what is wrong. Where timm would train on something else without a word, the run is refused."""

import os
import pickle
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from support.program import load
from timm.data.loader import adapt_to_chs
from torchvision import transforms

from motivation.build import loaders, models
from motivation.build.class_maps import check_class_names
from motivation.build.datasets import make_datasets
from motivation.data.datasets import class_count
from motivation.data.image_files import clipped_image, shared_images
from motivation.options.faults import StartupError
from motivation.options.parse import parse
from motivation.tools import finetune
from motivation.tools.train import main

IMAGES, CLASSES = 4, "abc"
FLAGS = ["--device", "cpu", "-b", "4", "-j", "0", "--epochs", "1", "--model", "resnet8_cifar", "--lr", "0.01"]
RGB = ["--num-classes", "3", "--img-size", "16"]
PETS = ("cat", "dog")
ON_DEVICE = ["--data-on-device", "--train-pad", "1", "--color-jitter", "0"]


def make_classes(root, names=CLASSES, count=IMAGES):
    numbers = np.random.default_rng(len(str(root)))
    for shade, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = numbers.integers(50 * shade, 50 * shade + 60, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")


@pytest.fixture
def good(tmp_path):
    """Class folders in train/ and val/."""
    for split in ("train", "val"):
        make_classes(tmp_path / "data" / split)
    return tmp_path / "data"


@pytest.fixture
def tell(tmp_path, capsys, caplog):
    """``tell(*flags, code=2)`` runs the program; returns its errors, or the warnings of a run that went well."""

    def told(*flags, code=2, parse=parse, base=(*FLAGS, *RGB)):
        caplog.clear()
        capsys.readouterr()
        there = set(tmp_path.rglob("*"))
        out = ["--output", str(tmp_path / "out" / "deep"), "--experiment", "run"]
        ended = main([*base, *out, *map(str, flags)], parse=parse)
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert ended == code, errors
        if code == 2:
            assert set(tmp_path.rglob("*")) == there, "a refused start leaves no folder behind"
        warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        return "\n".join(warned if code == 0 else errors)

    return told


# which images


@pytest.mark.parametrize("more", [(), ("--dataset", "torch/image_folder"), ON_DEVICE], ids=["timm", "torch", "device"])
@pytest.mark.parametrize("names", ["seg_train seg_test", "Train Test", "training_set test_set", "TRAIN Valid"])
def test_splits_by_other_names_are_not_read_as_one(tell, tmp_path, names, more):
    train, validation = names.split()
    make_classes(tmp_path / train)
    make_classes(tmp_path / validation)
    named = f"--train-split {train} --val-split {validation}"
    line = tell("--data-dir", tmp_path, *more)
    assert line.startswith("error: --val-split validation: training and validation would both read 24 images; ")
    assert f"{tmp_path} has " in line
    assert line.endswith(f": give {named}")
    assert tell("--data-dir", tmp_path, *more, *named.split(), code=0) == ""


def test_a_flat_folder_of_classes_is_not_trained_and_validated_on(tell, tmp_path):
    make_classes(tmp_path / "flat")
    line = tell("--data-dir", tmp_path / "flat")
    assert "would both read 12 images" in line
    assert "has a, b, c: put the class folders into train/ and validation/" in line
    assert tell("--data-dir", tmp_path / "flat", "--folds", "2", "--fold", "0", code=0) == ""
    assert tell("--data-dir", tmp_path / "flat", "--val-split", "", "--experiment", "whole", code=0) == ""


def test_splits_one_folder_further_down_are_found(tell, tmp_path):
    make_classes(tmp_path / "a" / "archive" / "train")
    make_classes(tmp_path / "a" / "archive" / "val")
    assert f"give --data-dir {tmp_path}/a/archive --train-split train --val-split val" in tell(
        "--data-dir", tmp_path / "a"
    )


def test_one_split_given_for_both_is_seen(tell, good):
    assert f"give --data-dir {good} --train-split train --val-split val" in tell("--data-dir", good / "train")


def test_a_missing_split_is_guessed_from_the_folders(tell, tmp_path):
    make_classes(tmp_path / "d" / "train")
    make_classes(tmp_path / "d" / "test")
    line = tell("--data-dir", tmp_path / "d")
    assert line.endswith("has no split 'validation'; it has test, train: give --val-split test")


@pytest.mark.parametrize("reader", ["", "torch/image_folder"])
def test_links_to_the_training_images_are_seen(tell, tmp_path, reader):
    make_classes(tmp_path / "d" / "train")
    os.symlink("train", tmp_path / "d" / "val")
    assert "would both read 12 images" in tell("--data-dir", tmp_path / "d", "--dataset", reader)
    (tmp_path / "d" / "val").unlink()
    make_classes(tmp_path / "d" / "val")
    (tmp_path / "d" / "val" / "b" / "0.png").unlink()
    os.symlink(tmp_path / "d" / "train" / "b" / "1.png", tmp_path / "d" / "val" / "b" / "0.png")
    assert "would both read 1 image; " in tell("--data-dir", tmp_path / "d", "--dataset", reader)


def test_validation_on_the_training_split_is_done_if_asked_for_by_name_and_said(tell, good):
    said = tell("--data-dir", good, "--val-split", "train", code=0)
    assert "--val-split train: training and validation would both read 12 images" in said


def test_training_on_all_splits_without_validation_is_said(tell, tmp_path):
    make_classes(tmp_path / "d" / "Train")
    make_classes(tmp_path / "d" / "Test")
    said = tell("--data-dir", tmp_path / "d", "--val-split", "", code=0)
    assert said.endswith("has no folder 'train', so training reads all of it: Test, Train.")


@pytest.mark.parametrize(
    ("dataset", "train", "validation"), [("sklearn/digits", "test", "val"), ("torch/mnist", "tran", "test")]
)
def test_other_data_sets_are_compared_too(tell, tmp_path, dataset, train, validation):
    from motivation.tools.benchmark.recipes import make_small_images

    make_small_images(tmp_path / "data", 64)
    flags = ["--dataset", dataset, "--data-dir", tmp_path / "data", "--in-chans", "1", "--num-classes", "10"]
    line = tell(*flags, "--train-split", train, "--val-split", validation)
    assert f"would both read {30 if 'digits' in dataset else 256} images; {dataset} has others" in line


def pack(folder, *what):
    subprocess.run(["tar", "cf", f"{folder}.tar", "-C", folder, *(what or ".")], check=True)


def test_a_folder_of_tars_is_told_how_it_goes(tell, good):
    both = ["--train-split", "train.tar", "--val-split", "val.tar"]
    for split in ("train", "val"):
        pack(good / split)
    assert "a tar is one split" in tell("--data-dir", good / "train.tar")
    tars = good.parent / "tars"
    tars.mkdir()
    for split in ("train", "val"):
        (good / f"{split}.tar").rename(tars / f"{split}.tar")
    line = tell("--data-dir", tars)
    assert line.endswith("has train.tar, val.tar: give " + " ".join(both))
    assert tell("--data-dir", tars, *both, "-j", "2", code=0) == ""
    for split in ("train", "val"):
        (tars / split).mkdir()
        for name in CLASSES:
            subprocess.run(["tar", "cf", tars / split / f"{name}.tar", "-C", good / split, name], check=True)
        (tars / f"{split}.tar").unlink()
    line = tell("--data-dir", tars)
    assert f"tar cf {tars}/train.tar -C {tars}/train . and then --train-split" in line
    for split in ("train", "val"):  # as the line says
        pack(tars / split)
    assert tell("--data-dir", tars, *both, "--experiment", "again", code=0) == ""


# hidden files


@pytest.fixture
def hidden(good):
    """The same with what editors, versioning and macOS leave behind in the training split."""
    make_classes(good / "train", (".ipynb_checkpoints", "@eaDir", "__MACOSX"), 1)
    make_classes(good / "train" / "b", (".git",), 1)
    (good / "train" / "a" / "._0.png").write_bytes(b"no image")
    return good


@pytest.mark.parametrize("reader", ["folder", "torch", "tar"])
def test_hidden_files_are_left_out_and_said(tell, hidden, reader):
    flags = ["--data-dir", hidden]
    if reader == "torch":
        flags += ["--dataset", "torch/image_folder"]
    if reader == "tar":
        for split in ("train", "val"):
            pack(hidden / split)
        flags += ["--train-split", "train.tar", "--val-split", "val.tar"]
    said = tell(*flags, code=0)
    assert "Hidden files are left out of split 'train" in said
    assert ".ipynb_checkpoints" in said
    train = make_datasets(parse([*FLAGS, *RGB, *map(str, flags)])[0], (3, 16, 16)).train
    assert (len(train), class_count(train)) == (12, 3)
    assert sorted({train[index][1] for index in range(len(train))}) == [0, 1, 2]


def test_folders_of_the_same_name_are_one_class_and_said(tell, good):
    make_classes(good / "train" / "other", "a")
    said = tell("--data-dir", good, code=0)
    assert said == "Split 'train' takes folders of the same name for one class: a, other/a."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a Unix")
def test_a_pipe_among_the_images_is_named_and_not_waited_for(tell, good):
    os.mkfifo(good / "train" / "a" / "pipe.png")
    assert "train/a/pipe.png is no file but a pipe" in tell("--data-dir", good)


def test_a_head_with_more_outputs_than_classes_is_said(tell, good):
    said = tell("--data-dir", good, code=0, base=(*FLAGS, "--img-size", "16"))
    assert said == "resnet8_cifar has 10 outputs, split 'train' has 3 classes: --num-classes 3 makes a head for them."


def test_a_run_in_the_folder_of_another_is_said(tell, good):
    assert tell("--data-dir", good, code=0) == ""
    assert "has checkpoints of an earlier run. Those of the same names will be replaced" in tell(
        "--data-dir", good, code=0
    )


def test_the_images_that_repeats_leave_out_are_counted_in_the_message(tell, tmp_path):
    for split, count in (("train", 100), ("val", 4)):
        make_classes(tmp_path / "data" / split, count=count)
    said = tell("--data-dir", tmp_path / "data", "--aug-repeats", "3", "-b", "280")
    assert "256 images an epoch (of 300; --aug-repeats draws a multiple of 256, --aug-repeats 0 all)" in said


def test_a_new_head_does_not_count_hidden_folders(tell, hidden, tmp_path, train):
    run = train(name="before")
    flags = ["--data-dir", hidden, "--checkpoint", run, "--aug-repeats", "0", "--mixup", "0", "--cutmix", "0"]
    said = tell(*flags, code=0, parse=finetune.parse, base=FLAGS[:-4])  # the run's model and one channel
    assert said.count("Hidden files are left out") == 1
    tuned = load(tmp_path / "out" / "deep" / "run" / "last.pth.tar")
    assert tuned["state_dict"]["fc.weight"].shape[0] == 3


def test_the_class_that_is_too_many_is_named(tell, good):
    make_classes(good / "train", ("old",))
    assert tell("--data-dir", good).endswith("split 'train' has 4 classes, the model 3 (only 'train' has old)")


# class maps


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n\nb\nc\n", "line 2 of {map} is blank"),
        ("# classes\na\nb\nc\n", "{map} has a comment, '# classes'"),
        ("a\nb\nb\nc\n", "'b' stands on the lines 2, 3 of {map}"),
        ("a 0\nb 1\nc 2\n", "{map} has 'a 0' where {data}/train has 'a'"),
        ("0,a\n1,b\n2,c\n", "{map} has '0,a' where {data}/train has 'a'"),
        ("a\nb\nC\n", "{map} has 'C' where {data}/train has 'c'"),
        ("\ufeffa\nb\nc\n", "has 'a' (begin the file without a byte order mark)"),
        ("x\ny\n", "no name in {map} (x, y) is a class with images; {data}/train has a, b, c"),
        ("\n\n", "the file names no class"),
    ],
)
@pytest.mark.parametrize("tars", [False, True])
def test_a_class_map_that_is_none_is_refused(tell, good, text, line, tars):
    file = good.parent / "map.txt"
    file.write_text(text, encoding="utf-8")
    flags, data = [], f"{good}/train"
    if tars:
        for split in ("train", "val"):
            pack(good / split)
        flags, data = ["--train-split", "train.tar", "--val-split", "val.tar"], f"{good}/train.tar"
    said = tell("--data-dir", good, "--class-map", file, *flags)
    assert said.startswith("error: --class-map: ")
    assert line.format(map=file, data=good).replace(f"{good}/train", data) in said


def test_a_class_map_of_another_format_is_told_the_two_that_there_are(tell, good):
    file = good.parent / "map.json"
    file.write_text('{"a": 0, "b": 1, "c": 2}')
    said = tell("--data-dir", good, "--class-map", file)
    assert said.startswith("error: --class-map: ")
    assert ".txt" in said
    assert ".pkl" in said


@pytest.mark.parametrize("text", ["a\nb\nc\n", "a\nb\nc", "a\r\nb\r\nc\r\n", "a\nb\nc\n\n\n"])
def test_a_class_map_with_other_line_ends_is_one(tell, good, text):
    (good.parent / "map.txt").write_bytes(text.encode())
    assert tell("--data-dir", good, "--class-map", good.parent / "map.txt", code=0) == ""
    args, _ = parse([*FLAGS, "--data-dir", str(good), "--class-map", str(good.parent / "map.txt")])
    assert class_count(make_datasets(args, (3, 16, 16)).train) == 3


def test_names_without_images_and_folders_without_a_name_are_said(tell, good):
    file = good.parent / "map.txt"
    file.write_text("a\nzebra\nb\n")
    said = tell("--data-dir", good, "--class-map", file, code=0)
    assert "there are no images of zebra, whose outputs of the model cannot learn (split train, validation)" in said
    assert "folders that it does not name are left out: c (split train, validation)" in said


def test_a_class_map_that_is_not_used_is_said(tell, good):
    (good.parent / "map.txt").write_text("a\nb\nc\n")
    flags = ["--data-dir", good, "--dataset", "torch/image_folder", "--class-map", good.parent / "map.txt"]
    assert "is not used: torch/image_folder numbers its own classes" in tell(*flags, code=0)


# channels and modes


AA = ["--aa", "rand-m9-mstd0.5-inc1"]
WAYS = {
    "plain": [],
    "no-prefetcher": ["--no-prefetcher"],
    "aa": AA,
    "aa-no-prefetcher": [*AA, "--no-prefetcher"],
    "device": ON_DEVICE,
    "erase-mix": ["--reprob", "1", "--mixup", "0.5"],
    "mean": ["--mean", "0.4", "--std", "0.3", "--no-prefetcher"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("count", "mode"), [(1, None), (2, "LA"), (4, "RGBA")])
def test_images_of_any_number_of_channels_are_trained_on(tell, good, count, mode, way):
    flags = ["--data-dir", good, "--in-chans", count, *WAYS[way], *(["--input-img-mode", mode] if mode else [])]
    if count != 1 and "--aa" in flags:
        assert "augments images of the modes L and RGB" in tell(*flags)
    else:
        tell(*flags, code=0)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_mean_and_deviation_are_those_of_timms_prefetcher(count):
    args, _ = parse([*FLAGS, *RGB, "--in-chans", str(count), "--data-dir", "."])
    config = models.data_config(args, models.meta_model(args, models.Role.BASE))
    assert config["input_size"] == (count, 16, 16)
    assert config["mean"] == adapt_to_chs((0.4914, 0.4822, 0.4465), count) or len(config["mean"]) == count
    for name in ("mean", "std"):
        given = models.meta_model(args, models.Role.BASE).pretrained_cfg[name]
        assert config[name] == tuple(adapt_to_chs(given, count))


def test_the_exported_model_of_one_channel_has_a_transform_for_its_images(tell, good, tmp_path, command):
    tell("--data-dir", good, "--in-chans", "1", code=0)
    command("export", tmp_path / "out" / "deep" / "run", tmp_path / "exported")
    model = timm.create_model(f"local-dir:{tmp_path}/exported/base", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    image = Image.open(good / "val" / "a" / "0.png").convert("L")
    assert model(transform(image)[None]).shape == (1, 3)


@pytest.mark.parametrize("count", [2, 4, 5])
def test_a_mode_is_asked_for_where_none_is_usual(tell, good, count):
    said = tell("--data-dir", good, "--in-chans", count)
    assert {2: "have: LA", 4: "have: RGBA or RGBX or CMYK", 5: "PIL has no 5 channels"}[count] in said


@pytest.mark.parametrize("mode", ["1", "P", "PA", "La", "RGBa", "I", "F", "I;16", "I;16B", "rgb"])
def test_modes_whose_pixels_do_not_survive_are_refused(tell, good, mode):
    channels = {"PA": 2, "La": 2, "RGBa": 4, "rgb": 3}.get(mode, 1)
    said = tell("--data-dir", good, "--in-chans", channels, "--input-img-mode", mode)
    assert said.startswith(f"error: --input-img-mode {mode}: use one of L, LA, RGB, ")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "YCbCr", "HSV", "LAB", "RGBA", "RGBX", "CMYK"])
def test_pixels_of_the_other_modes_survive(tell, good, mode):
    channels = len(Image.new(mode, (1, 1)).getbands())
    size = ["--in-chans", channels, "--input-img-mode", mode, "--color-jitter", "0"]
    tell("--data-dir", good, *size, code=0)
    image = Image.open(good / "train" / "b" / "0.png").convert(mode)
    assert np.asarray(image).dtype == np.uint8
    assert np.asarray(image).std() > 5


def test_images_of_16_bits_are_said_once(tell, good):
    def write(split, highest):
        pixels = np.random.default_rng(0).integers(0, highest, (16, 16)).astype(np.uint16)
        Image.fromarray(pixels).save(good / split / "c" / "0.png")

    write("val", 200)
    assert tell("--data-dir", good, code=0) == ""  # 8 bits in 16: nothing is lost
    write("val", 60000)
    write("train", 60000)
    said = tell("--data-dir", good, code=0)
    assert said.count("more than 8 bits a pixel (mode I;16), and is clipped to 0 to 255") == 1


def test_looking_at_images_leaves_no_tar_open_for_workers_to_share(good):
    pack(good / "train")
    args, _ = parse([*FLAGS, *RGB, "--data-dir", str(good), "--train-split", "train.tar"])
    dataset = make_datasets(args, (3, 16, 16)).train
    assert clipped_image(dataset) is None
    assert dataset.reader.tar_state.tf is None


# errors


@pytest.mark.parametrize("reader", ["", "torch/image_folder"])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_transform_is_not_told_as_one_of_the_image(tell, good, monkeypatch, reader, workers):
    def forward(self, image):
        raise TypeError("color must be int")

    monkeypatch.setattr(transforms.RandomHorizontalFlip, "forward", forward)
    said = tell("--data-dir", good, "--dataset", reader, "-j", workers, code=1)
    assert "can be read, but not transformed: TypeError: color must be int" in said
    assert "cannot be read" not in said


def test_an_error_that_comes_by_chance_is_not_told_as_one_of_an_image(tell, good, monkeypatch):
    calls = []

    def forward(self, image):
        calls.append(1)
        if len(calls) == 2:
            raise TypeError("color must be int")
        return image

    monkeypatch.setattr(transforms.RandomHorizontalFlip, "forward", forward)
    said = tell("--data-dir", good, code=1)
    assert "a batch of the split 'train' cannot be made: TypeError: color must be int" in said


def test_an_image_that_cannot_be_read_is_named(tell, good):
    (good / "train" / "a" / "1.png").write_bytes(b"no image")
    said = tell("--data-dir", good, "--dataset", "torch/image_folder", code=1)
    assert "image 1 of the split 'train' cannot be read: UnidentifiedImageError" in said


# the rest


@pytest.mark.parametrize(
    "flags", [["--opt", "adamw", "--opt-betas", "0.9"], ["--motivated-model", "resnet14_cifar", "--opt", "kron"]]
)
def test_a_start_that_is_refused_late_leaves_no_folder_behind(tell, good, flags):
    assert "--opt" in tell("--data-dir", good, *flags)


def test_a_folder_that_was_there_stays(tell, good, tmp_path):
    (tmp_path / "mine" / "run").mkdir(parents=True)
    tell("--data-dir", good, "--opt", "adamw", "--opt-betas", "0.9", "--output", tmp_path / "mine")
    assert (tmp_path / "mine" / "run").is_dir()


@pytest.mark.parametrize(("images", "ranks", "said"), [(3, 2, "1 of them counts twice"), (4, 2, ""), (5, 3, "1 of")])
def test_images_that_ranks_count_twice_are_said(images, ranks, said, caplog):
    dataset = torch.utils.data.TensorDataset(torch.zeros(images))
    loaders._tell_padding(dataset, SimpleNamespace(primary=True, world_size=ranks))
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


# data sets of libraries


def opened(split="", names=(), **attributes):
    """Stand in for a data set that timm opens with a library."""
    return SimpleNamespace(reader=SimpleNamespace(split=split, _source_names=dict(enumerate(names)), **attributes))


@pytest.mark.parametrize(
    ("train", "validation", "shared"),
    [
        ("train", "validation", False),
        ("train", "train", True),
        ("train", "train[:10%]", True),
        ("train[10%:]", "train[:10%]", False),
        ("train[:10%]", "train[:10%]", True),
        ("", "", False),
    ],
)
def test_slices_of_one_split_are_compared_by_name(train, validation, shared):
    assert bool(shared_images(opened(train), opened(validation))) == shared


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"cat": 0, "dog": 1}, []),
        ({0: 1, 1: 0}, []),
        ({"cat": 0, "dog": 1, "cow": 2}, ["there are no images of cow"]),
        ({"cat": 0}, ["classes that it lacks end the run at an image: dog"]),
        ({0: 0}, ["classes that it lacks end the run at an image: dog"]),
        ({"Cat": 0, "dog": 1}, "has 'Cat' where hfds/pets has 'cat'"),
    ],
)
def test_a_class_map_is_compared_with_the_names_of_a_librarys_classes(tmp_path, numbers, said):
    (tmp_path / "map.pkl").write_bytes(pickle.dumps(numbers))
    args, dataset = SimpleNamespace(class_map=str(tmp_path / "map.pkl"), dataset="hfds/pets"), opened("train", PETS)
    if isinstance(said, str):
        with pytest.raises(StartupError, match=said):
            check_class_names(args, dataset)
    else:
        found = check_class_names(args, dataset)
        assert len(found) == len(said)
        assert all(text in note for text, note in zip(said, found))
