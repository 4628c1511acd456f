"""The worked examples of docs/conditions.md are what they say, and a plugin that is wrong says where."""

import json
import re
from pathlib import Path

import numpy
import pytest
from support.program import DIGITS, MOTIVATED, assert_same_run, load, part_and_whole, rows

from motivation.method import condition_registry, conditions
from motivation.tools.train import main
from motivation.training import hooks
from motivation.training.plugin_errors import PluginError, guarded

DOCUMENT = Path(__file__).parents[2] / "docs" / "conditions.md"


pytestmark = pytest.mark.usefixtures("forgotten_plugins")


@pytest.fixture
def example(tmp_path):
    """A file of the document, written out."""

    def written(name):
        text = re.search(rf"```python\n(# {name}\n.*?)```", DOCUMENT.read_text(), re.DOTALL)[1]
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


@pytest.fixture
def error(tmp_path, capsys):
    """The lines on the standard error stream of a run with this text as its plugin."""

    def lines(text, *flags):
        path = tmp_path / "mine.py"
        path.write_text(text)
        argv = [*DIGITS, *MOTIVATED, "--output", str(tmp_path), "--motivation-plugins", str(path), *flags]
        assert main(argv) == 2
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]

    return lines


def test_the_condition_of_the_document_trains_and_resumes(example, train):
    plugin = example("below_mean.py")
    flags = (
        *MOTIVATED, "-b", "5", "--motivation-plugins", plugin, "--motivation-condition", "below_mean",
        "--motivation-plugin-kwargs", "window=7", "--sched", "multistep", "--decay-milestones", "1",
    )  # fmt: skip
    whole, part = part_and_whole(train, *flags, epochs=3, half=1)
    assert_same_run(whole, part)
    state = load(whole / "last.pth.tar")["motivation"]["pair"]["condition"]
    assert state["name"] == "below_mean"
    assert len(state["state"]["recent"]) == 7
    recent, streak = [], 0
    for row in rows(whole / "updates.csv"):
        streak = 0 if row["update"] == "0" else streak
        assert (row["active"] == "motivated") == (streak >= 1)
        loss = float(row["loss"])
        streak = streak + 1 if recent and loss < sum(recent) / len(recent) else 0
        recent = [*recent, loss][-7:]


def test_the_hook_of_the_document_ends_a_run_early_and_remembers_over_a_resume(example, train):
    plugin = example("early_stop.py")
    kwargs = ("--motivation-plugins", plugin, "--motivation-plugin-kwargs", "patience=3")
    flags = (*MOTIVATED, "--lr", "1e-12", "--sched", "none", *kwargs)  # accuracy soon stops rising
    whole, part = part_and_whole(train, *flags, epochs=12, half=2)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, part)]
    assert results[0] == results[1]
    assert results[0]["completed"]
    assert re.fullmatch(r"top-1 of the base has not risen above [\d.]+ for 3 epochs", results[0]["stopped_by"])
    top1 = [float(row["eval_top1"]) for row in rows(whole / "summary.csv")]
    assert 4 <= len(top1) < 12
    assert max(top1[-3:]) <= max(top1[:-3])
    assert load(whole / "last.pth.tar")["epoch"] == len(top1) - 1


STOP_INSIDE = """
from motivation.training.hooks import Hook, register_hook

@register_hook("stop_inside")
class StopInside(Hook):
    def update_end(self, record):
        if record.step == 7:
            self.request_stop("seven updates are enough")
"""


def test_a_stop_inside_an_epoch_evaluates_and_saves_it_as_it_is(train, tmp_path):
    (tmp_path / "stop.py").write_text(STOP_INSIDE)
    flags = (*MOTIVATED, "--motivation-plugins", tmp_path / "stop.py", "--val-interval", "9", "--epochs", "9")
    folder = train(*flags)
    assert len(rows(folder / "updates.csv")) == 7
    (evaluated,) = rows(folder / "summary.csv")
    assert evaluated["epoch"] == "1"
    assert load(folder / "last.pth.tar")["epoch"] == 1
    assert json.loads((folder / "result.json").read_text())["stopped_by"] == "seven updates are enough"


def test_hooks_of_an_earlier_runs_plugin_are_not_in_the_next(train, tmp_path):
    (tmp_path / "stop.py").write_text(STOP_INSIDE)
    train(*MOTIVATED, "--motivation-plugins", tmp_path / "stop.py", name="one")
    assert len(rows(train(*MOTIVATED, name="two") / "updates.csv")) == 10


HEAD = (
    "from motivation.training.hooks import Hook, register_hook\nfrom motivation import Condition, register_condition\n"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD + "@register_hook('a')\nclass A(Hook):\n    def epoch_ends(self, record): pass\n",
            r"mine.py:3: ValueError: A has the public method 'epoch_ends', which is no event; events are run_start",
        ),
        (
            HEAD + "@register_condition('loss')\nclass A(Condition):\n    motivated = True\n",
            r"mine.py:3: ValueError: a motivation condition 'loss' is registered already",
        ),
        (
            HEAD + "for _ in range(2):\n    register_hook('a')(type('A', (Hook,), {}))\n",
            r"mine.py:4: ValueError: a hook 'a' is registered already",
        ),
        (HEAD + "import numpyy\n", r"mine.py:3: ModuleNotFoundError: No module named 'numpyy'"),
        (HEAD + "class A(Condition)\n", r"mine.py:3: SyntaxError"),
        (HEAD + "@register_condition('a')\nclass A(Condition):\n    pass\n", r"mine.py:3: .* has no `motivated`"),
        (HEAD + "@register_hook('a')\nclass A:\n    pass\n", r"mine.py:3: .* not a class derived from .*Hook"),
    ],
    ids=["event", "condition twice", "hook twice", "import", "syntax", "no decision", "no hook"],
)
def test_a_wrong_plugin_is_named_with_file_and_line(text, message, error):
    (line,) = error(text)
    assert re.search(message, line), line


CONDITION = HEAD + (
    "@register_condition('mine')\nclass Mine(Condition):\n    motivated = False\n"
    "    def __init__(self, window): self.window = window\n"
)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--motivation-plugin-kwargs", "windw=3"), "takes 'windw' (did you mean window?)"),
        ((), "--motivation-condition mine: the condition 'mine' cannot be made: .*'window'"),
        (("--motivation-plugin-kwargs", "window"), "--motivation-plugin-kwargs: takes words of the form name=value"),
    ],
)
def test_arguments_that_nobody_takes_are_refused(flags, message, error, capsys, tmp_path):
    if "window" in flags:
        (tmp_path / "mine.py").write_text(CONDITION)
        assert main([*DIGITS, *flags]) == 2
        assert message in capsys.readouterr().err
        return
    lines = error(CONDITION, "--motivation-condition", "mine", *flags)
    assert any(re.search(message.replace("(", r"\(").replace("?)", r"\?\)"), line) for line in lines), lines


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--motivation-condition", "scheduled"), "--motivation-scheduled-runs: say which earlier runs to follow"),
        (
            ("--motivation-condition", "scheduled", "--motivation-scheduled-runs", "nowhere"),
            "no folder nowhere",
        ),
        (
            ("--motivation-condition", "ema", "--motivation-ema-decay", "1"),
            "ema: the average's decay is from 0",
        ),
        (
            ("--motivation-condition", "valloss", "--motivation-valloss-images", "119"),
            "-valloss-images 119: from 1",
        ),
        (("--motivation-condition", "valloss", "-b", "100"), "--batch-size: 100, but split 'train' has 19 images"),
        (("--folds", "5"), "--folds: give --folds N and --fold I together"),
        (("--folds", "5", "--fold", "5"), "--fold: from 0 to --folds minus 1"),
        (("--folds", "1000", "--fold", "5"), "--folds 1000: class 1 has only 6 images"),
        (("--motivation-plugin-kwargs", "a=1"), "no hook or condition of this run takes 'a'"),
    ],
)
def test_wrong_options_of_conditions_and_folds_are_one_line(flags, message, capsys, tmp_path):
    assert main([*DIGITS, *MOTIVATED, "--output", str(tmp_path), *flags]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line


COUNTED = (
    HEAD
    + """
made = []

@register_hook("counted")
class Counted(Hook):
    def __init__(self):
        made.append(self)
"""
)


def test_a_hook_is_made_once(train, tmp_path):
    import sys

    (tmp_path / "counted.py").write_text(COUNTED)
    train(*MOTIVATED, "--motivation-plugins", tmp_path / "counted.py")
    (module,) = [module for name, module in sys.modules.items() if name.startswith("plugin_counted_")]
    assert len(module.made) == 1


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        (HEAD + "class Stop(Hook):\n    pass\n", (), r"mine.py:3: Stop is not registered: put @register_hook"),
        (HEAD + "class C(Condition):\n    pass\n", (), r"mine.py:3: C is not registered: put @register_condition"),
        (
            HEAD + "@register_condition('m')\nclass C(Condition):\n    def motivated(s): pass\n",
            (),
            "is a method: put @property above it",
        ),
        ("", ("--motivation-plugin-kwargs", "k=3"), "'k' has a flag of its own, --motivation-k"),
        (
            "",
            ("--motivation-condition", "ema", "--motivation-plugin-kwargs", "decay=0.5"),
            "'decay' has a flag of its own, --motivation-ema-decay",
        ),
        (
            HEAD + "@register_hook('a')\nclass A(Hook):\n    def __init__(self): 1 / 0\n",
            (),
            "hook A\\): ZeroDivisionError",
        ),
    ],
)  # fmt: skip
def test_plugins_that_would_not_act_are_said(text, flags, message, error):
    (line,) = error(text, *flags)
    assert re.search(message, line), line


def test_needs_may_be_one_name():
    @condition_registry.register_condition("one_need")
    class One(conditions.Condition):
        motivated = False
        needs = "gradient_norm"

    assert condition_registry.needs_of("one_need") == {"gradient_norm"}


def test_every_hook_hears_of_the_end_also_when_one_fails():
    ended = []

    class Fails(hooks.Hook):
        def run_end(self):
            ended.append("fails")
            raise OSError("full")

    class Ends(hooks.Hook):
        def run_end(self):
            ended.append("ends")

    with pytest.raises(OSError, match="full"):
        hooks.HookList([Fails(), Ends()]).run_end()
    assert ended == ["fails", "ends"]


def test_a_state_that_no_resume_could_read_is_refused():
    class Watch(hooks.Hook):
        def state_dict(self):
            return {"best": numpy.float64(1)}

    with pytest.raises(PluginError, match="state_dict gives what no checkpoint can hold; plain values"):
        guarded(Watch(), ()).state_dict()
