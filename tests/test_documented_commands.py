"""Every command in the documents is parsed, and run in the order of a session, or the table says why it is not run."""

import os
import re
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.program import ROOT, FewDigits

from motivation.__main__ import COMMANDS
from motivation.__main__ import main as motivation_main
from motivation.options.parse import parse
from motivation.tools import finetune
from weight_maps import __main__ as weight_maps_command

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

SESSION = [
    "python -m motivation train --config quickstart --limit-batches 5",
    "motivation train --config quickstart",
    "motivation train --config quickstart --motivation-condition never --experiment base",
    "python -m motivation export output/quickstart deploy",
    "python -m motivation validate output/quickstart",
    "python -m motivation validate output/quickstart/motivated/last.pth.tar",
    "python -m motivation validate deploy --dataset sklearn/digits",
    "python -m motivation validate output/quickstart --split train --img-size 24 -- --crop-pct 1",
    "python -m motivation predict output/quickstart pictures --out predictions.csv",
    "motivation plot output/quickstart --beside output/base --output pictures",
    "motivation plot output/quickstart --beside output/base --output pictures --epoch 4",
    "motivation report output/quickstart output/base --html page.html",
    "python -m motivation report output/train --paper table1 --markdown results.md --csv results.csv",
    "python -m motivation cost cifar10/resnet20_resnet32 --images 50000",
    "python -m motivation experiments table1 --dry-run",
    "python -m motivation benchmark scale --base 593 --larger 360 --price 2",
    "python -m weight_maps resnet50 resnet101 --plot map.png",
]
"""Commands of the documents that take seconds on a few digits, in an order in which each finds what it needs."""

NOT_RUN = {
    r"^make |^pip |venv": "the suite itself runs in what they have made",
    r"^tensorboard|^cd |^for |^done|^flags=|^mkdir|^\.ci": "the shell's and other programs'",
    r" \.\.\.": "an abbreviation",
    r"\$s|output/(fm|short|experiments)": "three to ninety runs of some minutes each",
    r"DATA\b|IMAGENET|torch/|resnet50\.a3": "the data are the user's, or fetched",
    r"frontier|reproduction|cross-validate": "dozens of runs; tests/tools/ has small ones",
    r"CONFIG\.yaml|TIMM/|TIMM_TRAIN_SCRIPT": "a file of the user's",
    r"benchmark": "measures for minutes; tests/tools/test_benchmark.py has short ones",
    r"tests/\w+\.py": "a script for hours; the suite has its short form",
    r"map-coverage": "a quarter of an hour; tests/weight_maps/ has a part",
    r"--suggest": "looks at a hundred models; tests/tools/test_suggest.py has fewer",
}
"""Why a command is not run, by what stands in it."""

PROGRAMS = r"(?:python|motivation|torchrun|srun|make|pip|tensorboard|PYTHONPATH=\S+|TIMM_TRAIN_SCRIPT=\S+)"


def commands_of(path):
    """Return the commands in a document's blocks, those of several lines in one."""
    blocks = re.findall(r"^```(?:bash|console|sh)?\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    stripped = [re.sub(r"\s+(#.*|&)$", "", line.strip()) for line in lines]
    return [line for line in stripped if re.match(rf"{PROGRAMS}\s", line)]


COMMANDS_OF = {path.relative_to(ROOT).as_posix(): commands_of(path) for path in DOCUMENTS}
ALL = sorted({command for commands in COMMANDS_OF.values() for command in commands})


def words_of(command):
    """Return the program of a command (a name in COMMANDS, weight_maps, or None) and its words."""
    words = shlex.split(command)
    if (script := next((word for word in words if word in ("train_motivated.py", "finetune.py")), None)) is not None:
        return {"train_motivated.py": "train", "finetune.py": "finetune"}[script], words[words.index(script) + 1 :]
    if words[:3] == ["python", "-m", "weight_maps"]:
        return "weight_maps", words[3:]
    if words[:3] == ["python", "-m", "motivation"]:
        words = words[2:]
    return (words[1], words[2:]) if words[0] == "motivation" else (None, words)


def test_the_documents_have_the_commands_of_the_session():
    assert set(SESSION) <= set(ALL), set(SESSION) - set(ALL)


@pytest.mark.parametrize("command", ALL)
def test_a_command_is_run_or_has_a_reason_not_to_be(command):
    assert (command in SESSION) or any(re.search(pattern, command) for pattern in NOT_RUN), command


@pytest.mark.parametrize("command", [line for line in ALL if words_of(line)[0] and line not in SESSION])
def test_a_command_that_is_not_run_is_parsed(command):
    program, words = words_of(command.replace("$flags ", "").replace("$s", "0").replace(" ...", ""))
    before = words[: words.index("--")] if "--" in words else words
    if program == "weight_maps":
        weight_maps_command.make_parser().parse_args(before)
    elif program in ("train", "finetune"):
        words = ["quickstart" if word == "CONFIG.yaml" else word for word in words]
        parse(words, finetune.make_parser() if program == "finetune" else None)
    else:
        import_module(COMMANDS[program][0]).make_parser().parse_args(before)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the configurations, some pictures, and few digits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("motivation.data.datasets.SklearnDigits", FewDigits)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        pixels = np.full((8, 8), 80 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "train").symlink_to("quickstart")
    return tmp_path


def test_the_session_of_the_documents_runs(workplace):
    for command in SESSION:
        program, words = words_of(command)
        code = weight_maps_command.main(words) if program == "weight_maps" else motivation_main([program, *words])
        assert code == 0, command
    written = [
        "deploy/base/README.md",
        "predictions.csv",
        "pictures/loss.png",
        "results.md",
        "results.csv",
        "map.png",
        "page.html",
    ]
    assert all(Path(name).is_file() for name in written), os.listdir(workplace)
