"""Runs, configurations, files and link tables are still what they were when they were frozen (`frozen.py`)."""

import frozen
import pytest
from support.processes import finish, run_script, start

LOSSES = frozen.read_json("losses.json")
OPTIONS = frozen.read_json("options.json")
FILES = frozen.read_json("files.json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder with all fast runs, made by one fresh process that has the imports already."""
    folder, log = tmp_path_factory.mktemp("frozen"), tmp_path_factory.mktemp("log") / "log"
    code = finish(start(run_script, frozen.__file__, "run", folder, *frozen.FAST, log=log), timeout=600)
    assert code == 0, log.read_text()
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


LINKED = [
    ("resnet8_cifar", "resnet14_cifar"), ("resnet20_cifar", "resnet110_cifar"), ("resnet18", "resnet34"),
    ("resnet50", "resnet101"), ("seresnet50", "seresnet101"), ("resnext50_32x4d", "resnext101_32x4d"),
    ("efficientnet_b0", "efficientnet_b1"), ("mobilenetv3_small_075", "mobilenetv3_small_100"),
    ("vit_tiny_patch16_224", "vit_small_patch16_224"), ("vit_base_patch16_224", "vit_large_patch16_224"),
    ("deit3_small_patch16_224", "deit3_base_patch16_224"), ("beit_base_patch16_224", "beit_large_patch16_224"),
    ("convnext_tiny", "convnext_small"), ("convnextv2_atto", "convnextv2_femto"), ("mixer_s16_224", "mixer_b16_224"),
    ("poolformer_s12", "poolformer_s24"), ("pvt_v2_b1", "pvt_v2_b2"), ("regnety_032", "regnety_040"),
    ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224"), ("densenet121", "densenet161"),
    ("resnet50", "resnext50_32x4d"),
]  # fmt: skip
"""Pairs of many families; the script checks all."""


@pytest.mark.parametrize(("base", "motivated"), LINKED)
def test_links_of_a_pair_are_the_frozen_ones(base, motivated):
    assert frozen.link_hash(base, motivated) == frozen.read_links()[base][motivated]
