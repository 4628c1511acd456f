"""Wrong input ends in one line that names the option or the file, code 2, and nothing of an earlier run is touched."""

import os
import pickle

import pytest
import torch
from PIL import Image
from support.program import DIGITS, FINETUNE_DIGITS, MOTIVATED

from motivation.data.subsets import listed_labels
from motivation.tools import finetune
from motivation.tools.train import main

HALF = "is damaged or no checkpoint"
CODE = "is no checkpoint, or one that carries code, which is never run"
OTHER = "is of another architecture"
TWICE = "has keys twice"


class Runs:
    """Pickled, it would make a folder when it is read."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def images(root, spec, garbage=()):
    """``{"train/a": 3}`` makes so many images of 8 px in the folder; those in ``garbage`` are none."""
    for place, count in spec.items():
        (root / place).mkdir(parents=True)
        for index in range(count):
            file = root / place / f"{index}.png"
            if place in garbage:
                file.write_bytes(b"no image")
            else:
                Image.new("L", (8, 8), index).save(file)


def both(*classes, count=4):
    return {f"{split}/{name}": count for split in ("train", "validation") for name in classes}


def make_data(root):
    images(root / "good", {**both("a", "b"), "train/.hidden": 0, "train/a/.cache": 0})
    images(root / "empty_train", {**both("a", "b"), "train/c": 0, "validation/c": 2})
    images(root / "empty_validation", {**both("a"), "train/b": 4, "validation/b": 0})
    images(root / "empty_both", {**both("a", "c"), **both("b", count=0)})
    images(root / "empty_deep", {**both("x/a", "x/b"), "train/x/c/d": 0})
    images(root / "empty", both("a", count=0))
    images(root / "garbage", both("a", "b", count=20), garbage=("train/a", "train/b"))
    images(root / "garbage_to_judge", both("a", count=20), garbage=("validation/a",))
    images(root / "flat", {"train": 4, **both("a")})
    images(root / "others", {**both("a"), "train/b": 4, "validation/c": 4})
    images(root / "more", both(*"abcdefghijkl"))
    maps = {"negative": {"a": -1, "b": 0}, "words": {"a": "first", "b": "second"}}
    for name, numbers in maps.items():
        (root / f"{name}.pkl").write_bytes(pickle.dumps(numbers))
    (root / "many.txt").write_text("\n".join("abcdefghijkl"))
    (root / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    (root / "file.tar").write_bytes(b"no archive")


CONFIGS = {
    "group": "optimizer:\n  lr: 1\n",
    "twice": "lr: 0.1\nepochs: 3\nlr: 0.2\n",
    "twice_below": "model_kwargs:\n  depth: 1\n  depth: 2\n",
    "tag": "lr: !!python/object/apply:os.mkdir [x]\n",
    "kind": "amp: !!bool perhaps\n",
    "date": "experiment: 2025-13-45\n",
    "deep": "mean: " + "[" * 1000,
    "documents": "lr: 1\n---\nlr: 2\n",
    "bytes": b"model: caf\xe9\n",
    "huge": "seed: 0x" + "f" * 5000,
}


def make_configs(root):
    for name, text in CONFIGS.items():
        (root / f"{name}.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())


def make_files(root, run):
    """Checkpoints that are none, or not of this model."""
    last = run / "last.pth.tar"
    contents = torch.load(last, weights_only=False)
    (root / "half.pth").write_bytes(last.read_bytes()[:9000])
    (root / "text.pth").write_text("hello world\n")
    (root / "empty.pth").write_bytes(b"")
    with open(root / "code.pickle", "wb") as file:
        pickle.dump({"state_dict": Runs(root / "was_run")}, file)
    for name, value in {
        "code": {**contents, "more": Runs(root / "was_run")},
        "list": [1, 2],
        "nothing": {"epoch": 3},
        "number": {"state_dict": 3},
        "unnamed": {1: torch.zeros(2)},
        "larger": torch.load(run / "motivated" / "last.pth.tar", weights_only=False),
        "classes": {**contents, "state_dict": {**contents["state_dict"], "fc.bias": torch.zeros(3)}},
        "epoch": {**contents, "epoch": "three"},
        "ours": {**contents, "motivation": {"update": None}},
    }.items():
        torch.save(value, root / f"{name}.pth")
    contents["args"].mean, contents["args"].opt = "grey", "adamw"
    torch.save(contents, root / "options.pth")


def make_places(root):
    """Folders where a file should go, and the other way round."""
    (root / "file").write_text("in the way")
    (root / "no_run").mkdir()
    for name, text in {"twice": "model: a\nmodel: b\n", "list": "[1]", "unfinished": "model: resnet8_cifar\n"}.items():
        (root / f"run_{name}").mkdir()
        (root / f"run_{name}" / "args.yaml").write_text(text)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with an earlier run in ``out/run`` and everything wrong around it."""
    root = tmp_path_factory.mktemp("world")
    argv = [*DIGITS, *MOTIVATED, "--epochs", "1", "--output", str(root / "out"), "--experiment", "run"]
    assert main(argv) == 0
    make_data(root)
    make_configs(root)
    make_files(root, root / "out" / "run")
    make_places(root)
    return root


def state_of(world):
    """All files but data, with what is in them."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in (world / "out").rglob("*")}


def folder(name, *flags):
    return ["--dataset", "", "--data-dir", "{w}/" + name, "-b", "2", *flags]


LAST = "{w}/out/run/last.pth.tar"
RESUME, INITIAL, LARGER = ["--resume"], ["--initial-checkpoint"], [*MOTIVATED, "--motivated-initial-checkpoint"]
PUBLISHED = ["--pretrained", "--pretrained-path"]

CASES = [
    # data
    (folder("empty_train"), ["--data-dir: no images in {w}/empty_train/train/c:"]),
    (folder("empty_validation"), ["--data-dir: no images in {w}/empty_validation/validation/b:"]),
    (folder("empty_deep"), ["--data-dir: no images in {w}/empty_deep/train/x/c:"]),
    (folder("empty_both"), ["no images in {w}/empty_both/train/b:", "no images in {w}/empty_both/validation/b:"]),
    (folder("empty"), ["--data-dir {w}/empty: RuntimeError: Found 0 images in subfolders of {w}/empty/train"]),
    (folder("garbage"), ["--data-dir: split 'train' has no images that can be read: {w}/garbage/train/a/0.png"]),
    (folder("garbage_to_judge"), ["--data-dir: split 'validation' has no images that can be read"]),
    (folder("flat"), ["--data-dir: {w}/flat/train has images outside of class folders (0.png)"]),
    (folder("others"), ["--val-split: 'validation' has other classes than 'train' (b, c)"]),
    (folder("more"), ["--num-classes: split 'train' has 12 classes, the model 10"]),
    (folder("good", "--num-classes", "1"), ["--num-classes: split 'train' has 2 classes, the model 1"]),
    (folder("good", "--class-map", "{w}/many.txt"), ["--num-classes: split 'train' has 12 classes, the model 10"]),
    (folder("good", "--class-map", "{w}/negative.pkl"), ["has the label -1; the model has 0 to 9"]),
    (folder("good", "--class-map", "{w}/words.pkl"), ["--class-map: the number of a class is a whole number"]),
    (folder("good", "--class-map", "{w}/bytes.txt"), ["--class-map {w}/bytes.txt: UnicodeDecodeError: 'utf-8' codec"]),
    (
        folder("good", "--class-map", "{w}/none.txt"),
        ["--class-map: there is no file {w}/none.txt, neither"],
    ),
    (folder("good", "--input-img-mode", "RGBX"), ["--input-img-mode: RGBX has 4 channels, the models take 1"]),
    (folder("nowhere"), ["--data-dir: there is no folder {w}/nowhere"]),
    (folder("file.tar"), ["--data-dir {w}/file.tar: "]),
    (["--dataset", "torch/image_folder", "--data-dir", "{w}/empty_train"], ["--dataset torch/image_folder: "]),
    (["--input-img-mode", "grey"], ["--input-img-mode grey: use one of L, LA, RGB,"]),
    # YAML
    (["-c", "{w}/group.yaml"], ["{w}/group.yaml has unknown options: 'optimizer' (options stand side by side"]),
    (["-c", "{w}/twice.yaml"], ["{w}/twice.yaml has keys twice: 'lr' on lines 1, 3"]),
    (["-c", "{w}/twice_below.yaml"], [TWICE + ": 'depth' on lines 2, 3"]),
    (["-c", "{w}/tag.yaml"], ["{w}/tag.yaml is not YAML: line 1, column 5: could not determine a constructor"]),
    (["-c", "{w}/kind.yaml"], ["{w}/kind.yaml has a value that is not of its kind: KeyError: 'perhaps'"]),
    (
        ["-c", "{w}/date.yaml"],
        ["{w}/date.yaml has a value that is not of its kind: ValueError: month must be in 1..12"],
    ),
    (["-c", "{w}/deep.yaml"], ["{w}/deep.yaml is nested too deeply"]),
    (["-c", "{w}/documents.yaml"], ["{w}/documents.yaml is not YAML: line 2"]),
    (["-c", "{w}/bytes.yaml"], ["{w}/bytes.yaml is not YAML: byte 10 is not UTF-8 text"]),
    (["-c", "{w}/huge.yaml"], ["seed: is a whole number of a sensible size, not a very large int"]),
    (["-c", "{w}"], ["cannot read {w}: Is a directory"]),
    (["-c", "no\0file"], ["embedded null"]),
    (["-c"], ["-c/--config: expected one argument"]),
    # the command line
    (["--opt-kwargs", "a={{[]: 1}}"], ["--opt-kwargs: takes words of the form name=value"]),
    (["--opt-kwargs", "a=1j"], ["--opt-kwargs: takes only numbers"]),
    (["one", "two", "three"], ["unknown: two; three"]),
    (["--no\nsuch"], ["unknown: --no"]),
    # numbers and names
    (["--lr", "nan"], ["--lr: at least 0, not nan"]),
    (["--mean", "nan"], ["--mean: a number, not nan"]),
    (["--std", "0"], ["--std: more than 0, not 0.0"]),
    (["--smoothing", "1"], ["--smoothing: at least 0 and less than 1"]),
    (["--input-size", "1", "0", "8"], ["--input-size: at least 1, not 0"]),
    (["-j", "100000"], ["-j/--workers: from 0 to 1024, not 100000"]),
    (["--recount", "1000000000"], ["--recount: from 0 to 1000, not 1000000000"]),
    (["--cutmix-minmax", "0.9", "0.1"], ["--cutmix-minmax: the lowest number, then a higher one"]),
    (["--train-img-sizes", "8", "8", "--train-batch-sizes", "9"], ["--train-batch-sizes: as many numbers as"]),
    (["--aa", "foo"], ["--aa: rand-..., augmix-"]),
    (["--aa", "rand-x9"], ["3a or cifar10, not 'rand-x9'"]),
    (["--torchcompile", "foo"], ["--torchcompile: there is no 'foo'"]),
    (["--fuser", "foo"], ["--fuser: "]),
    (["--model", ""], ["--model: give the name of a timm model"]),
    # checkpoints
    ([*RESUME, "{w}"], ["--resume: there is no file {w}"]),
    ([*RESUME, "{w}/half.pth"], ["{w}/half.pth " + HALF]),
    ([*RESUME, "{w}/text.pth"], ["{w}/text.pth " + HALF]),
    ([*RESUME, "{w}/code.pth"], ["{w}/code.pth " + CODE]),
    ([*RESUME, "{w}/code.pickle"], ["{w}/code.pickle " + CODE]),
    ([*RESUME, "{w}/list.pth"], ["{w}/list.pth holds a list, not a checkpoint"]),
    ([*RESUME, "{w}/number.pth"], ["--resume {w}/number.pth: "]),
    ([*RESUME, "{w}/unnamed.pth"], ["--resume {w}/unnamed.pth: "]),
    ([*RESUME, "{w}/epoch.pth"], ["--resume {w}/epoch.pth: "]),
    ([*RESUME, "{w}/classes.pth"], ["--resume {w}/classes.pth: the checkpoint does not fit: "]),
    ([*RESUME, "{w}/options.pth"], ["it was trained with --opt adamw, this run has --opt sgd"]),
    ([*RESUME, LAST, "--model", "resnet14_cifar"], ["it is of resnet8_cifar, --model is resnet14_cifar"]),
    ([*RESUME, "{w}/empty.pth"], ["{w}/empty.pth " + HALF]),
    ([*RESUME, "{w}/ours.pth"], ["--resume {w}/ours.pth: "]),
    ([*RESUME, LAST, "--motivated-model", "resnet20_cifar"], ["its motivated model is resnet14_cifar"]),
    ([*INITIAL, "{w}/half.pth"], ["--initial-checkpoint {w}/half.pth: {w}/half.pth " + HALF]),
    ([*INITIAL, "{w}/code.pth"], ["--initial-checkpoint {w}/code.pth: {w}/code.pth " + CODE]),
    ([*INITIAL, "{w}/unnamed.pth"], ["{w}/unnamed.pth holds no weights"]),
    ([*INITIAL, "{w}/larger.pth"], ["{w}/larger.pth " + OTHER + ": 36 are unknown (layer1.1.bn1.bias ...)"]),
    ([*INITIAL, "{w}/classes.pth"], [OTHER + ": 1 have other shapes (fc.bias: [3], here [10])"]),
    ([*LARGER, LAST], ["--motivated-initial-checkpoint " + LAST + ": " + LAST + " " + OTHER]),
    ([*PUBLISHED, "{w}/text.pth"], ["--pretrained-path: {w}/text.pth " + HALF]),
    ([*PUBLISHED, "{w}/nothing.pth"], ["--pretrained-path: {w}/nothing.pth holds no weights"]),
    # places to write to
    (["--output", "{w}/file"], ["--output: {w}/file cannot be written: {w}/file is a file"]),
    (["--output", "{w}/file/below"], ["--output: {w}/file/below cannot be written: {w}/file is a file"]),
    (["--output", "{w}", "--experiment", "file"], ["--experiment: {w}/file cannot be written: {w}/file is a file"]),
    (["--experiment", "x" * 300], ["cannot be written: File name too long"]),
]

FINETUNE_CASES = [
    (["{w}/half.pth"], ["--checkpoint: {w}/half.pth " + HALF]),
    (["{w}/code.pth"], ["--checkpoint: {w}/code.pth " + CODE]),
    (["{w}/options.pth"], ["--checkpoint: the options in {w}/options.pth are damaged: mean is a list, not 'grey'"]),
    (["{w}/number.pth", "--model", "resnet8_cifar"], ["--checkpoint: {w}/number.pth holds no weights"]),
    (["{w}/unnamed.pth", "--model", "resnet8_cifar"], ["--checkpoint: {w}/unnamed.pth holds no weights"]),
    (["{w}/no_run"], ["--checkpoint: {w}/no_run is no run: it has no args.yaml"]),
    (["{w}/run_twice"], ["--checkpoint: {w}/run_twice is a damaged run: {w}/run_twice/args.yaml " + TWICE]),
    (["{w}/run_list"], ["--checkpoint: {w}/run_list/args.yaml does not name a model"]),
    (["{w}/run_unfinished"], ["--checkpoint: {w}/run_unfinished has no checkpoint of its base model"]),
    (["{w}/out/run", "--model", "resnet18"], ["--model: resnet18, but {w}/out/run is of resnet8_cifar"]),
    (["{w}/out/run", "-c", "{w}/twice.yaml"], [TWICE + ": 'lr' on lines 1, 3"]),
    (["{w}/out/run", "--output", "{w}/file"], ["--output: {w}/file cannot be written"]),
    (["{w}/out/run", *folder("empty_train")], ["--data-dir: no images in {w}/empty_train/train/c:"]),
    (["no\0file"], ["--checkpoint: a file's name has no null characters"]),
]


def refused(capsys, world, argv, expected, **kwargs):
    """Run the program on what must be refused, with the earlier run in the way of all that it might write."""
    before, places = state_of(world), sorted(os.listdir(world))
    code = main([word.format(w=world) for word in argv], **kwargs)
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 2, said
    assert "Traceback" not in said
    assert len(errors) == len(expected), errors
    for line, words in zip(errors, expected):
        assert words.format(w=world) in line
    assert state_of(world) == before
    assert sorted(os.listdir(world)) == places  # nothing new, and no code of a file was run


def named(cases):
    return [" ".join(flags).replace("\n", " ").replace("\0", " ")[:60] for flags, _ in cases]


@pytest.mark.parametrize(("flags", "expected"), CASES, ids=named(CASES))
def test_wrong_input_is_one_line_and_touches_nothing(flags, expected, world, capsys):
    refused(capsys, world, [*DIGITS, "--output", "{w}/out", "--experiment", "run", *flags], expected)


@pytest.mark.parametrize(("flags", "expected"), FINETUNE_CASES, ids=named(FINETUNE_CASES))
def test_wrong_input_to_fine_tuning_is_one_line_and_touches_nothing(flags, expected, world, capsys):
    argv = [*FINETUNE_DIGITS, "--output", "{w}/out", "--experiment", "run", "--checkpoint", *flags]
    refused(capsys, world, argv, expected, parse=finetune.parse)


def test_hidden_folders_and_single_unreadable_images_are_no_fault(world, tmp_path):
    images(tmp_path / "data", both("a", "b"))
    (tmp_path / "data/train/.hidden").mkdir()
    (tmp_path / "data/train/a/0.png").write_bytes(b"no image")
    argv = [*DIGITS, *folder("data"), "--epochs", "1", "--output", "{w}"]
    assert main([word.format(w=tmp_path) for word in argv]) == 0


def test_an_empty_folder_outside_the_class_map_is_no_fault(world, tmp_path):
    (tmp_path / "map.txt").write_text("a\nb\n")
    argv = [*DIGITS, "--dataset", "", "--data-dir", str(world / "empty_train"), "-b", "2", "--epochs", "1"]
    assert main([*argv, "--class-map", str(tmp_path / "map.txt"), "--output", str(tmp_path)]) == 0


def test_labels_are_not_looked_for_in_data_without_a_list_of_them():
    class Streamed:
        def __iter__(self):
            raise AssertionError

    class Decoded(Streamed):
        def __len__(self):
            return 2

    assert listed_labels(Streamed()) is None
    assert listed_labels(Decoded()) is None


def test_what_pretrained_weights_lack_is_said(world, tmp_path, caplog):
    argv = [*DIGITS, "--model", "resnet14_cifar", *PUBLISHED, LAST.format(w=world), "--epochs", "1"]
    assert main([*argv, "--output", str(tmp_path)]) == 0
    assert "30 tensors are not in" in caplog.text


def test_a_run_whose_result_is_damaged_is_not_followed(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text("[]")
    (run / "args.yaml").write_text("model: resnet8_cifar\nmotivated_model: resnet14_cifar\n")
    flags = [*MOTIVATED, "--motivation-condition", "scheduled", "--motivation-scheduled-runs", str(run)]
    assert main([*DIGITS, *flags, "--output", str(tmp_path / "out")]) == 2
    assert f"{run}/result.json is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
