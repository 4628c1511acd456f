"""Files of options: bases, several files, our own by name; whatever is wrong is one line that names the right file."""

import os

import pytest
import yaml

from motivation.errors import InputError
from motivation.options.config_files import CONFIG_FOLDERS, config_names, config_path
from motivation.options.parse import make_parser, parse, read_configs


@pytest.fixture
def files(tmp_path):
    """``files(name=text)`` writes ``name.yaml``, ``a__b=text`` writes ``a/b.yaml``."""

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def options(*paths):
    return read_configs([str(path) for path in paths], make_parser())


def error_of(*paths):
    with pytest.raises(InputError) as caught:
        options(*paths)
    (fault,) = caught.value.faults
    assert "\n" not in fault
    return fault


def test_a_file_wins_over_its_base_and_keeps_the_rest(files):
    folder = files(base="lr: 0.1\nepochs: 3\n", head="base: base.yaml\nlr: 0.2\n")
    assert options(folder / "head.yaml") == {"lr": 0.2, "epochs": 3}


def test_a_file_wins_over_its_base_wherever_it_names_it(files):
    folder = files(base="lr: 0.1\n", head="lr: 0.2\nbase: base.yaml\n")
    assert options(folder / "head.yaml") == {"lr": 0.2}


def test_of_several_bases_the_later_wins(files):
    folder = files(a="lr: 1\nepochs: 1\nseed: 1\n", b="lr: 2\nepochs: 2\n", head="base: [a.yaml, b.yaml]\nlr: 3\n")
    assert options(folder / "head.yaml") == {"lr": 3, "epochs": 2, "seed": 1}


def test_a_base_brings_its_own_bases_relative_to_itself(files):
    folder = files(recipes__root="seed: 7\nlr: 1\n", recipes__sgd="base: root.yaml\nlr: 2\n")
    files(runs__x="base: ../recipes/sgd.yaml\n", both="base: [recipes/sgd.yaml, recipes/root.yaml]\n")
    assert options(folder / "runs" / "x.yaml") == {"seed": 7, "lr": 2}
    assert options(folder / "both.yaml") == {"seed": 7, "lr": 1}  # the same file twice is no circle


def test_a_mapping_is_replaced_as_a_whole(files):
    folder = files(base="model_kwargs: {a: 1, b: 2}\n", head="base: base.yaml\nmodel_kwargs: {b: 3}\n")
    assert options(folder / "head.yaml") == {"model_kwargs": {"b": 3}}


def test_several_files_merge_in_order_and_the_command_line_wins(files):
    folder = files(a="lr: 0.1\nepochs: 3\nseed: 1\n", b="lr: 0.2\nepochs: 4\n")
    args, _ = parse(["-c", str(folder / "a.yaml"), "--lr", "0.3", "--config", str(folder / "b.yaml")])
    assert (args.lr, args.epochs, args.seed) == (0.3, 4, 1)


def test_bases_leave_no_trace_in_the_options(files):
    folder = files(base="lr: 0.1\n", head="base: base.yaml\n")
    args, text = parse(["-c", str(folder / "head.yaml")])
    assert "base" not in yaml.safe_load(text)
    assert not hasattr(args, "base")


@pytest.mark.parametrize("value", ["", "[]", "null"])
def test_no_base_is_none(files, value):
    assert options(files(head=f"base: {value}\nlr: 1\n") / "head.yaml") == {"lr": 1}


@pytest.mark.parametrize("value", ["3", "[a.yaml, 3]", "{a: b}", "true"])
def test_a_base_that_is_no_file_is_refused(files, value):
    assert "head.yaml: base: is a file or a list of files, not " in error_of(
        files(head=f"base: {value}\n") / "head.yaml"
    )


def test_a_missing_base_is_told_with_the_file_that_names_it(files):
    folder = files(head="base: nowhere.yaml\n")
    assert error_of(folder / "head.yaml") == (
        f"{folder}/head.yaml: base: cannot read {folder}/nowhere.yaml: No such file or directory"
    )


def test_a_circle_of_bases_is_shown(files):
    folder = files(a="base: b.yaml\n", b="base: ./a.yaml\n", own="base: own.yaml\n")
    assert error_of(folder / "a.yaml") == (
        f"{folder}/b.yaml: base: a circle of files: {folder}/a.yaml -> {folder}/b.yaml -> {folder}/a.yaml"
    )
    assert "a circle of files" in error_of(folder / "own.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1\n", "has unknown options: 'learning_rat'"),
        ("epochs: many\n", "has wrong values: epochs: is a whole number"),
        ("lr: 1\nlr: 2\n", "has keys twice: 'lr' on lines 1, 2"),
        ("- 1\n", "must hold 'option: value' lines, not a list"),
        ("a: [1\n", "is not YAML"),
    ],
)
def test_an_error_names_the_file_in_which_it_stands(files, text, message):
    folder = files(good="lr: 1\n", bad=text, head="base: [good.yaml, bad.yaml]\nepochs: 3\n", last="seed: 3\n")
    error = error_of(folder / "head.yaml", folder / "last.yaml")
    assert f"{folder}/bad.yaml {message}" in error
    assert "good.yaml" not in error


def test_our_configs_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_path("quickstart") in [folder / "quickstart.yaml" for folder in CONFIG_FOLDERS]
    assert parse(["-c", "imagenet/resnet50_resnet101_a3"])[0].motivated_model == "resnet101"
    assert not any(name.startswith("_") for name in config_names())


def test_a_file_goes_before_a_config_of_ours(files, monkeypatch):
    monkeypatch.chdir(files(quickstart="seed: 99\n"))
    os.rename("quickstart.yaml", "quickstart")
    assert parse(["-c", "quickstart"])[0].seed == 99


def test_the_base_may_be_a_config_of_ours(files):
    assert options(files(head="base: quickstart\nseed: 3\n") / "head.yaml")["model"] == "resnet8_cifar"


def test_a_misspelt_name_is_met_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert error_of("quickstrat") == ("cannot read quickstrat: No such file or directory (did you mean quickstart?)")
