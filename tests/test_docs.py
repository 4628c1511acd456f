"""What the documents say is so: examples run, flags and files that are named exist."""

import doctest
import importlib
import pkgutil
import re
import shlex

import pytest
from api_page import page
from support.program import ROOT

import motivation
import weight_maps
from motivation.options.parse import make_parser, parse
from motivation.tools import cost, experiments, export, finetune, map_coverage, predict, validate
from motivation.tools.benchmark.command import make_parser as benchmark_parser
from motivation.tools.cross_validate.command import make_parser as cross_validate_parser
from motivation.tools.frontier import command as frontier
from motivation.tools.plot import command as plot
from motivation.tools.report.command import make_parser as report_parser
from weight_maps import __main__ as weight_maps_command

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [
    name
    for package in (motivation, weight_maps)
    for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]
OTHER_PROGRAMS = {"--nproc_per_node", "--nnodes", "--node_rank", "--master_addr", "--master_port"}
OTHER_PROGRAMS |= {
    "--standalone",
    "--max-restarts",
    "--rdzv_backend",
    "--rdzv_endpoint",
    "--rdzv_id",
    "--rdzv_conf",
    "--local_addr",
    "--kills",
    "--all",
    "--no-deps",
    "--inplace",
}
OTHER_PROGRAMS |= {  # SLURM's
    "--job-name", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--time", "--signal",
    "--requeue", "--open-mode", "--kill-on-bad-exit",
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_flags_exist(path):
    commands = (
        weight_maps_command,
        map_coverage,
        plot,
        cost,
        experiments,
        export,
        finetune,
        frontier,
        predict,
        validate,
    )
    parsers = [command.make_parser() for command in commands]
    parsers += [make_parser(), cross_validate_parser(), report_parser()]
    parsers += benchmark_parser()._subparsers._group_actions[0].choices.values()
    known = {
        flag for parser in parsers for action in parser._actions for flag in action.option_strings
    } | OTHER_PROGRAMS
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", path.read_text()))
    assert named <= known, named - known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_linked_files_exist(path):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_the_page_of_the_python_interface_is_what_the_docstrings_say():
    assert (ROOT / "docs" / "api.md").read_text() == page()


def test_every_module_says_what_it_is():
    assert all(importlib.import_module(name).__doc__ for name in MODULES)


def test_the_table_in_the_document_is_what_the_command_prints(capsys):
    text = (ROOT / "docs" / "weight_maps.md").read_text()
    assert weight_maps_command.main(["resnet50", "resnet101"]) == 0
    assert capsys.readouterr().out.strip() in text


def test_the_python_example_of_maps_used_alone_runs():
    text = (ROOT / "docs" / "weight_maps.md").read_text()
    exec(re.search(r"## Use it alone\n\n```python\n(.*?)```", text, re.DOTALL)[1], {})


def test_every_launch_of_a3_has_2048_images_an_update():
    launches = re.findall(r"`([^`]*resnet50_resnet101_a3\.yaml[^`]*)`", (ROOT / "README.md").read_text())
    assert len(launches) == 4
    for launch in launches:
        launcher, flags = launch.split("train_motivated.py")
        processes = 1
        for count in re.findall(r"--(?:nproc_per_node|nnodes)=(\d+)", launcher):
            processes *= int(count)
        args = parse(shlex.split(flags))[0]
        assert args.batch_size * processes * args.grad_accum_steps == 2048, launch
