"""docs/quickstart.ipynb runs, and is stored with the outputs of a run."""

import json
import re

import pytest
from support.program import ROOT, FewDigits

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]


def cells(kind):
    return [cell for cell in CELLS if cell["cell_type"] == kind]


def test_the_notebook_runs_on_few_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the notebook leaves it for a temporary folder
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("motivation.data.datasets.SklearnDigits", FewDigits)
    names = {}
    for cell in cells("code"):
        exec("".join(cell["source"]).replace("--epochs 12", "--epochs 1"), names)
    assert names["mistakes"]
    assert names["picture"]("mistakes.png").width == 900


def test_the_notebook_is_valid():
    nbformat = pytest.importorskip("nbformat", reason="pip install -e .[dev]")
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))


def test_the_notebook_is_small_and_stored_as_it_was_run():
    assert NOTEBOOK.stat().st_size < 300_000
    assert [cell["execution_count"] for cell in cells("code")] == list(range(1, len(cells("code")) + 1))
    outputs = [output for cell in cells("code") for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4


def test_what_the_notebook_links_to_exists():
    text = "".join("".join(cell["source"]) for cell in cells("markdown"))
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) > 5
    assert all((NOTEBOOK.parent / link).is_file() for link in links)
