"""A bug of ours is never told as the user's fault: it leaves the program with its traceback."""

import inspect
import math
import traceback
from pathlib import Path

import pytest
import torch
from support.program import DIGITS, MOTIVATED

from motivation.__main__ import run_command
from motivation.build import conditions, datasets, learners, loaders, models, resume, run
from motivation.method import random_states
from motivation.method.conditions import Streak
from motivation.method.pair import MotivatedPair
from motivation.options.derived import accum_steps
from motivation.options.faults import Fault, StartupError, blaming
from motivation.options.flags import FLAGS
from motivation.tools import train
from motivation.training import loggers, state
from weight_maps import resnet


def code_objects(code):
    yield code
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from code_objects(constant)


def misspell(monkeypatch, function, right, wrong):
    """Give a function the code that it would have with a misspelt word, in its file and on its line."""
    file, line = function.__code__.co_filename, function.__code__.co_firstlineno
    lines = Path(file).read_text().splitlines(keepends=True)
    own = inspect.getsource(function).splitlines(keepends=True)
    assert right in "".join(own)
    lines[line - 1 : line - 1 + len(own)] = [text.replace(right, wrong) for text in own]
    (code,) = [
        code
        for code in code_objects(compile("".join(lines), file, "exec"))
        if (code.co_name, code.co_firstlineno) == (function.__name__, line)
    ]
    monkeypatch.setattr(function, "__code__", code)
    return file


CASES = {
    "the builder of a run": (run.assemble, "models.patch_size", "models.patchsize"),
    "the builder of models": (models.place_model, "model.to(device", "model.too(device"),
    "the builder of tasks": (learners.finish_task, "task.get_eval_model()", "task.get_evalmodel()"),
    "the builder of schedules": (learners.make_schedule, "args.epochs", "args.epoch"),
    "the builder of loaders": (loaders.make_loaders, "maker.validation", "maker.validate"),
    "the builder of data sets": (datasets._open_split, "args.input_key", "args.inputkey"),
    "the builder of conditions": (conditions.build_condition, "flag.gives_argument_of", "flag.gives_argument"),
    "an optimizer's factory": (learners.make_optimizer, "optimizer.defaults", "optimizer.default"),
    "a map": (resnet.resnet_map, "draft.counterparts()", "draft.counterpart()"),
    "a condition": (Streak.observe, "self.signal(", "self.sign("),
    "a hook in the loop": (loggers.UpdatesCsv.update_end, "record.epoch", "record.epok"),
    "a hook after an epoch": (loggers.SummaryCsv.epoch_end, "summary_row", "sumary_row"),
}
AT_A_RESUME = {
    "the loading of the base": (resume.load_base, "task.load_checkpoint_state", "task.load_checkpointstate"),
    "the loading of the pair": (MotivatedPair.load_state_dict, "self.counts.load", "self.count.load"),
    "the loading of the files": (state._load_savers, "saver.load_state_dict", "saver.loadstate_dict"),
    "the loading of random states": (random_states.rng_from_dict, "keys.numpy()", "key.numpy()"),
}


@pytest.mark.parametrize(("function", "right", "wrong"), CASES.values(), ids=CASES)
def test_a_misspelt_name_flies_with_its_traceback(function, right, wrong, monkeypatch, tmp_path, capsys):
    file = misspell(monkeypatch, function, right, wrong)
    argv = [*DIGITS, *MOTIVATED, "--epochs", "1", "--sched", "none", "--output", str(tmp_path)]
    with pytest.raises((AttributeError, NameError)) as caught:  # an exception that leaves the program is exit code 1
        run_command(train.main, argv)
    frames = traceback.extract_tb(caught.tb)
    assert any(frame.filename == file and frame.name == function.__name__ for frame in frames)
    assert "error: " not in capsys.readouterr().err


@pytest.mark.parametrize(("function", "right", "wrong"), AT_A_RESUME.values(), ids=AT_A_RESUME)
def test_a_misspelt_name_flies_at_a_resume_too(function, right, wrong, monkeypatch, train, capsys):
    flags = [*MOTIVATED, "--epochs", "1"]
    last = train(*flags) / "last.pth.tar"
    file = misspell(monkeypatch, function, right, wrong)
    with pytest.raises((AttributeError, NameError)) as caught:
        train(*flags, "--resume", last)
    assert any(frame.filename == file and frame.name == function.__name__ for frame in traceback.extract_tb(caught.tb))
    assert "error: " not in capsys.readouterr().err


def test_an_error_is_blamed_on_a_flag_if_the_library_raises_it():
    with pytest.raises(StartupError) as caught, blaming("--opt-kwargs", "foo=1"):
        torch.optim.SGD([torch.zeros(1)], lr=-1.0)
    assert caught.value.faults == [Fault("--opt-kwargs", "Invalid learning rate: -1.0", "foo=1")]
    with pytest.raises(StartupError, match="--model: TypeError"), blaming("--model"):
        math.sqrt("2")


def test_of_what_our_own_lines_raise_only_a_value_error_is_blamed_on_a_flag():
    with pytest.raises(StartupError, match="--lr: needs a value"), blaming("--lr"):
        FLAGS["epochs"].from_file(None)
    with pytest.raises(AttributeError), blaming("--lr"):
        accum_steps(None)
    with pytest.raises(RuntimeError), blaming("--lr", errors=ValueError):
        torch.zeros(2) @ torch.zeros(3)
