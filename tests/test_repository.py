"""What GitHub reads is well formed, and says what the package says."""

import re
import subprocess

import pytest
import yaml
from support.program import ROOT

import motivation

WORKFLOW = ROOT / ".github" / "workflows" / "tests.yml"


def read(path):
    return yaml.safe_load(path.read_text())


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == motivation.__version__
    paper = citation["preferred-citation"]
    assert (paper["title"], paper["year"]) == ("Motivation Is Something You Need", 2026)
    assert [author["family-names"] for author in paper["authors"]] == ["Acheli", "Gaaloul"]
    assert f"## {motivation.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_workflow_calls_the_checks_on_every_python_from_the_oldest_on():
    (job,) = read(WORKFLOW)["jobs"].values()
    pythons = job["strategy"]["matrix"]["python"]
    assert pythons == ["3.10", "3.11", "3.12", "3.13"]
    (oldest,) = re.findall(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert pythons[0] == oldest
    assert job["steps"][-1]["run"] == ".ci/run"


def test_the_workflow_pins_the_lowest_versions_that_the_requirements_allow(tmp_path):
    (job,) = read(WORKFLOW)["jobs"].values()
    (step,) = [step for step in job["steps"] if step.get("name") == "Pin the lowest versions"]
    environment = {"RUNNER_TEMP": str(tmp_path), "GITHUB_ENV": str(tmp_path / "env"), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-ec", step["run"]], cwd=ROOT, env=environment, check=True)
    wanted = dict(re.findall(r"^(torch|torchvision|timm)>=([\d.]+)", (ROOT / "requirements.txt").read_text(), re.M))
    pins = (tmp_path / "lowest.txt").read_text().splitlines()
    assert pins == [f"{name}=={version}.*" for name, version in wanted.items()]
    assert len(pins) == 3
    assert (tmp_path / "env").read_text() == f"PIP_CONSTRAINT={tmp_path}/lowest.txt\n"


@pytest.mark.parametrize("word", ["args.yaml", "--version"])
def test_the_issue_form_asks_for_what_a_problem_needs(word):
    form = read(ROOT / ".github" / "ISSUE_TEMPLATE" / "problem.yml")
    asked = [field for field in form["body"] if word in str(field["attributes"])]
    assert any(field["validations"]["required"] for field in asked)
