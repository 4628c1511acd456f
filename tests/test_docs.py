"""What the documents say is so: examples run, flags and files that are named exist."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import motivation
import weight_maps
from motivation.options import make_parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
MODULES = [
    name
    for package in (motivation, weight_maps)
    for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]
OTHER_PROGRAMS = {"--nproc_per_node", "--nnodes", "--node_rank", "--master_addr", "--master_port"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_flags_exist(path):
    known = {flag for action in make_parser()._actions for flag in action.option_strings} | OTHER_PROGRAMS
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", path.read_text()))
    assert named <= known, named - known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_linked_files_exist(path):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_every_module_says_what_it_is():
    assert all(importlib.import_module(name).__doc__ for name in MODULES)
