"""Every flag of timm's train.py is here, with its name, default and meaning; YAML works as there."""

import inspect
import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
import timm
from timm.utils import ParseKwargs

from motivation.__main__ import main as command_line
from motivation.errors import InputError
from motivation.options.derived import pins_memory
from motivation.options.flags import FLAGS
from motivation.options.parse import make_parser, parse
from motivation.tools import finetune
from weight_maps.__main__ import main as weight_maps_command

TIMM = json.loads((Path(__file__).parents[1] / "files" / "timm_train_args.json").read_text())
OURS = {
    "motivated_model", "motivation_k", "motivation_condition", "motivation_bn", "motivation_bn_recalibrate",
    "motivated_drop", "motivated_drop_path", "motivated_drop_block", "motivated_model_kwargs",
    "motivated_initial_checkpoint", "motivated_pretrained", "motivated_init", "motivated_eval", "val_input_size",
    "train_pad",
    "motivation_plugins", "motivation_map", "motivation_placement", "motivation_plugin_kwargs", "motivation_ema_decay",
    "motivation_ema_drop", "motivation_valloss_images", "motivation_scheduled_runs", "folds", "fold", "log_tensorboard",
    "max_nonfinite", "data_on_device", "no_pin_mem", "deterministic", "check_numerics",
    "limit_batches",
}  # fmt: skip


@pytest.mark.parametrize("expected", TIMM, ids=[argument["dest"] for argument in TIMM])
def test_flag_of_timm_is_accepted_alike(expected):
    (action,) = [a for a in make_parser()._actions if a.dest == expected["dest"]]
    found = {
        "flags": list(action.option_strings),
        "dest": action.dest,
        "default": action.default,
        "type": action.type.__name__ if action.type else None,
        "nargs": action.nargs,
        "const": action.const,
        "kind": "ParseKwargs" if isinstance(action, ParseKwargs) else type(action).__name__.lstrip("_"),
    }
    if expected["kind"] == "StoreAction" and expected["type"] is None:  # argparse takes no type for str
        expected = {**expected, "type": "str"}
    assert found == {key: expected[key] for key in found}
    if expected["choices"]:  # where timm has none, it refuses what ours has not, but later
        assert list(action.choices) == expected["choices"]


def test_the_rank_that_torchs_launcher_sends_is_taken_in_both_spellings():
    for word in ("--local_rank=3", "--local-rank=3"):
        assert parse([word])[0].local_rank == 3


def test_choices_have_every_name_that_timm_takes():
    source = inspect.getsource(timm.scheduler.scheduler_factory)
    newer = {"wsd", "rsqrt", "constant"}  # timm 1.0.29 lacks them
    schedules = {*re.findall(r"if sched == '(\w+)'", source), "none"}
    assert set(FLAGS["sched"].choices) - newer == schedules - newer
    assert set(FLAGS["interpolation"].choices) == {*timm.data.transforms._str_to_pil_interpolation, ""}
    assert set(FLAGS["train_interpolation"].choices) == {*timm.data.transforms._str_to_pil_interpolation, "random"}
    assert set(FLAGS["fuser"].choices) == {*re.findall(r'fuser == "(\w+)"', inspect.getsource(timm.utils.jit)), ""}


def test_no_flag_is_there_that_is_neither_timms_nor_described():
    known = {argument["dest"] for argument in TIMM} | OURS | {"help", "version", "config"}
    assert {action.dest for action in make_parser()._actions} == known


def test_every_flag_has_a_help_text():
    assert all(action.help for action in make_parser()._actions)
    assert "--motivated-model" in make_parser().format_help()


def help_of(parser):
    """The help text of each flag, by the name of its option."""
    formatter = parser._get_formatter()
    return {action.dest: formatter._expand_help(action) for action in parser._actions}


@pytest.mark.parametrize("program", [make_parser, finetune.make_parser])
def test_the_help_shows_every_default_that_is_not_empty(program):
    parser = program()
    texts = help_of(parser)
    for name, flag in parser.flags.items():
        if flag.default is None or flag.default in ("", [], {}) or flag.type is bool:
            continue
        words = flag.default if isinstance(flag.default, list) else [flag.default]
        assert texts[name].endswith(f"(default {' '.join(map(str, words))})"), name
    assert texts["lr"].count("(default") == (parser.flags["lr"].default is not None)


def test_the_help_of_fine_tuning_shows_its_recipe():
    texts = help_of(finetune.make_parser())
    assert texts["batch_size"].endswith("(default 384)")
    assert texts["color_jitter"].endswith("(default none)")


def test_a_flag_that_belongs_to_another_stands_beside_it():
    names = list(FLAGS)
    assert names.index("torchcompile_mode") == names.index("torchcompile") + 1
    assert parse(["--torchcompile", "--torchcompile-mode", "max-autotune"])[0].torchcompile == "inductor"


@pytest.mark.parametrize("command", [["train"], ["finetune"], ["cost"], ["benchmark", "switch"], []])
def test_every_command_tells_all_versions_and_the_device(command, capsys):
    assert_versions(lambda: command_line([*command, "--version"]), capsys)


def test_the_command_of_the_maps_tells_them_too(capsys):
    assert_versions(lambda: weight_maps_command(["--version"]), capsys)


def assert_versions(command, capsys):
    with suppress(SystemExit):
        command()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["motivation", "timm", "torch", "torchvision", "Python", "device"]
    assert timm.__version__ in lines[1]


@pytest.mark.parametrize(
    ("flags", "cpu", "cuda"),
    [
        ([], False, True),
        (["--pin-mem"], True, True),
        (["--no-pin-mem"], False, False),
        (["--pin-mem", "--no-pin-mem"], False, False),
    ],
)
def test_memory_is_pinned_on_cuda_unless_it_is_switched_off(flags, cpu, cuda):
    args = parse(flags)[0]
    assert (pins_memory(args, "cpu"), pins_memory(args, "cuda")) == (cpu, cuda)


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


def test_command_line_goes_over_file_and_file_over_default(tmp_path):
    config = write(tmp_path, "lr: 0.5\nbatch_size: 7\nmodel_kwargs: {depth: 3}\nmean: [0.1]\n")
    args, text = parse(["-c", config, "--lr", "0.25"])
    assert (args.lr, args.batch_size, args.epochs, args.model_kwargs, args.mean) == (0.25, 7, 300, {"depth": 3}, [0.1])
    assert "batch_size: 7" in text
    assert not hasattr(args, "config")


def test_null_switches_off_what_timm_lets_be_switched_off(tmp_path):
    args, _ = parse(["-c", write(tmp_path, "color_jitter: null\nval_split: null\naa: null\nexperiment: null\n")])
    assert (args.color_jitter, args.aa, args.experiment) == (None, None, "")


def test_the_args_yaml_of_a_run_is_a_config(tmp_path):
    args, text = parse(["--lr", "0.1", "--model-kwargs", "depth=3", "--mean", "0.5"])
    assert parse(["-c", write(tmp_path, text)])[0] == args


def test_a_number_that_yaml_takes_for_a_text_is_still_a_number(tmp_path):
    args, _ = parse(["-c", write(tmp_path, "weight_decay: 1e-4\nmean: ['0.5', 1e-1]\n")])
    assert (args.weight_decay, args.mean) == (1e-4, [0.5, 0.1])


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_changes_nothing(text, tmp_path):
    assert parse(["-c", write(tmp_path, text)])[0] == parse([])[0]


def test_a_key_may_stand_again_in_another_mapping_and_over_a_merged_one(tmp_path):
    text = "model_kwargs: &a {depth: 1, drop: 2}\nmotivated_model_kwargs: {<<: *a, depth: 3}\n"
    assert parse(["-c", write(tmp_path, text)])[0].motivated_model_kwargs == {"depth": 3, "drop": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 3\nepoch: 2\n", "'epoch' (did you mean epochs"),
        ("motivated-model: x\n", "did you mean motivated_model"),
        ("- 1\n- 2\n", "not a list"),
        ("a: [1\n", "is not YAML"),
        ('amp: "false"\n', "amp: is true or false"),
        ("motivation_k: true\n", "motivation_k: is a whole number"),
        ("motivation_k: 2.5\n", "motivation_k: is a whole number"),
        ("epochs: null\nlr: fast\n", "epochs: needs a value, 300 by default; lr: is a number, not 'fast'"),
        ("mean: 0.3\n", "mean: is a list"),
        ("input_size: [1, 8]\n", "input_size: is a list of 3, not of 2"),
        ("batch_size: [1, 2]\n", "batch_size: is a whole number"),
        ("model: 5\n", "model: is a text"),
        ("motivation_bn: mix\n", "motivation_bn: is one of copy, separate"),
        ("model_kwargs: [a]\n", "model_kwargs: is a mapping"),
        ("model_kwargs: {1: 2}\n", "model_kwargs: is a mapping"),
    ],
)
def test_a_wrong_file_ends_in_one_line(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        parse(["--config", write(tmp_path, text)])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gpus", "2"], "unknown: --gpus (--help"),  # --gp is not near
        (["--motivated-modle", "x"], "--motivated-modle (did you mean --motivated-model"),
        (["--epochs", "many"], "--epochs"),
        (["-c", "/no/such/file.yaml"], "cannot read /no/such/file.yaml"),
        (["--motivation-bn", "mix"], "copy"),
        (["--torchscript", "--torchcompile"], "not allowed with"),
        (["--opt-kwargs", "foo"], "name=value"),
    ],
)
def test_a_wrong_command_line_ends_in_one_line(argv, message):
    with pytest.raises(InputError) as caught:
        parse(argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
