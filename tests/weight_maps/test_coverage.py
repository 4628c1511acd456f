"""The coverage script finds the pairs, sorts the refusals by kind, and makes the table."""

import json
import multiprocessing

import pytest

from motivation.__main__ import run_command
from motivation.tools.map_coverage import main, table
from weight_maps.coverage import ModuleCoverage, cover, modules_of_timm, size_free


def test_all_models_of_timm_have_a_module():
    modules = modules_of_timm()
    assert len(modules) > 90
    assert "resnet50" in modules["resnet"]
    assert sum(map(len, modules.values())) > 1200


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("efficientnet_b0", "efficientnet_b7", True),
        ("vit_base_patch16_224", "vit_base_patch32_224", False),
        ("vit_base_patch16_224", "vit_base_patch16_384", False),
        ("swin_tiny_patch4_window7_224", "swin_large_patch4_window7_224", True),
        ("regnetx_002", "regnetx_004", True),
    ],
)
def test_siblings_differ_in_their_size_alone(one, other, same):
    assert (size_free(one) == size_free(other)) is same


def test_a_module_is_covered_pair_by_pair():
    found = cover("pvt_v2", ["pvt_v2_b0", "pvt_v2_b1", "pvt_v2_b2", "nothing_at_all"])
    assert found.failed.keys() == {"nothing_at_all"}
    assert ("pvt_v2_b1", "pvt_v2_b2") in found.mapped
    assert set(found.refused) == {("pvt_v2_b0", "pvt_v2_b1"), ("pvt_v2_b0", "pvt_v2_b2")}
    assert len(found.pairs) == len(found.mapped) + len(found.refused)
    assert found.main_reasons() == ["width of heads (2)"]
    row = table([found], []).splitlines()[2]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["pvt_v2", "4", "3", "3", "1", "0", "0", "0", "width of heads (2)"]


def test_reasons_that_are_equally_frequent_keep_the_order_in_which_they_were_met():
    faults = {("a", "b"): ["x: has no y", "x: heads are 2 wide"], ("a", "c"): ["x: groups are 2 wide", "z: has no y"]}
    found = ModuleCoverage("toy", refused=faults)
    assert found.main_reasons() == ["other construction (2)", "width of heads (1)", "width of groups (1)"]


def test_the_script_computes_and_writes(tmp_path, capsys, monkeypatch):
    forked = multiprocessing.get_context("fork")  # it has the packages already
    monkeypatch.setattr("multiprocessing.get_context", lambda method: forked)
    files = ["--markdown", str(tmp_path / "c.md"), "--json", str(tmp_path / "c.json")]
    main(["--modules", "repghost", "--compute", "1", *files])
    text = capsys.readouterr().out
    assert "Computed: 1 pairs; the base's computation is found inside in 1, and 1 train in turns" in text
    assert (tmp_path / "c.md").read_text().startswith("timm ")
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["trials"][0]["contained"] is True
    assert found["modules"]["repghost"]["mapped"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--compute", "x"],
        ["--compute", "-1"],
        ["--modules", "nonsense"],
        ["--jobs", "0"],
        ["--json", "nowhere/at/all.json"],
    ],
)
def test_wrong_options_are_said_before_anything_is_computed(flags, capsys):
    assert run_command(main, flags) == 2
    assert capsys.readouterr().err.startswith("error: ")
