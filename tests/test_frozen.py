"""Runs, configurations and files are still what they were when they were frozen (`frozen.py`)."""

import frozen
import pytest

LOSSES = frozen.read_json("losses.json")
OPTIONS = frozen.read_json("options.json")
FILES = frozen.read_json("files.json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder with all fast runs, made by one process that imports the program once."""
    folder = tmp_path_factory.mktemp("frozen")
    frozen.run_apart(folder, frozen.FAST)
    return folder


@pytest.mark.parametrize("name", frozen.FAST)
def test_losses_and_active_models_are_the_frozen_ones(name, runs):
    found, kept = frozen.losses(runs / name), LOSSES[name]
    assert found.pop("active") == kept.pop("active")
    # processors and library versions differ in the last digits, and ten updates amplify them
    assert found == {key: pytest.approx(value, rel=1e-3) for key, value in kept.items()}


def test_a_checkpoint_of_format_2_is_found_and_goes_on_inside_its_epoch(runs):
    assert "Resumed from format2/recovery-1-2.pth.tar" in (runs / "format2.log").read_text()


@pytest.mark.parametrize("name", FILES)
def test_a_run_leaves_the_frozen_files(name, runs):
    found = frozen.files_of(runs / name)
    assert found.keys() == FILES[name].keys()
    for file, kept in FILES[name].items():
        if not file.endswith(".pth.tar"):
            assert found[file] == kept, file
        elif file.startswith("motivated/"):  # it is deployed, not resumed
            assert set(found[file]) >= set(kept) - {"optimizer"}, file
        else:
            assert set(found[file]) >= set(kept), file


def test_every_configuration_resolves_to_the_frozen_options():
    found = frozen.all_options()
    assert frozen.differences(OPTIONS, found) == []
