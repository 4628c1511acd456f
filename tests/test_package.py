"""The package, built as a wheel and laid into an empty folder, works from anywhere."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from support.program import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what ``pip install .`` would install of the project itself."""
    folder = tmp_path_factory.mktemp("package")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True)
    with ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def python(installed, tmp_path):
    """``python(*words)`` runs Python in an empty folder with the installed package and returns what it prints."""

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    return run


def test_importing_the_package_imports_nothing_heavy(python):
    heavy = python("-c", "import motivation, sys; print(*{'torch', 'timm', 'numpy'} & set(sys.modules))")
    assert not heavy.strip()


def test_the_command_tells_its_version_and_lists_its_commands(python):
    assert python("-m", "motivation", "--version").startswith("motivation ")
    listed = python("-m", "motivation", "--help")
    assert all(f"\n  {name} " in listed for name in ("train", "finetune", "cost", "cross-validate", "map-coverage"))


def test_the_public_names_can_be_imported_and_a_config_is_found_by_its_name(python):
    code = """
import motivation.models, weight_maps
from motivation import MotivatedPair, __version__
from motivation.__main__ import main

main(["cost", "--config", "quickstart"])
"""
    assert "resnet14_cifar" in python("-c", code)


def test_all_configs_and_type_markers_are_in_the_package(installed):
    there = {str(path.relative_to(installed / "motivation")) for path in installed.rglob("*.yaml")}
    assert there == {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    assert all(Path(installed, name, "py.typed").exists() for name in ("motivation", "weight_maps"))


def test_the_files_of_the_reports_page_are_in_the_package(installed):
    folder = installed / "motivation/tools/report"
    assert {f"page.{end}" for end in ("html", "css", "js")} <= {path.name for path in folder.iterdir()}
