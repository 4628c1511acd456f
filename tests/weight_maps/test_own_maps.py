"""A user's own map: the worked example of the documentation trains; every fault is one line at the start."""

import json
import re
from pathlib import Path

import pytest
from support.program import DIGITS, MOTIVATED

from motivation.tools.train import main as train_main
from weight_maps import WeightMap, WeightMapError, find_map, map_named, register_map, registered_maps
from weight_maps import registry as registry_module
from weight_maps.plugins import PluginError, load_plugin

DOCS = Path(__file__).parents[2] / "docs" / "weight_maps.md"


@pytest.fixture
def clean_registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry_module, "_maps", dict(registry_module._maps))


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The documentation's file, written once: timm knows a model name but once in a process."""
    text = re.search(r"```python\n# my_mlp.py\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]
    file = tmp_path_factory.mktemp("plugin") / "my_mlp.py"
    file.write_text(text)
    return file


def test_the_worked_example_is_mapped_checked_and_trained(example, train):
    folder = train(
        *("--motivation-plugins", example, "--model", "gated_mlp_small", "--motivated-model", "gated_mlp_large"),
        *("--in-chans", "1", "--motivation-k", "1"),
    )
    assert ",motivated," in (folder / "updates.csv").read_text()
    (head,) = [link for link in find_map("gated_mlp_small", "gated_mlp_large").links if link.base == "head.weight"]
    assert head.index == (((0, 10),), ((0, 32), (64, 96)))


def test_the_example_is_found_inside_by_computing(example, capsys):
    from weight_maps.__main__ import main

    names = ["gated_mlp_small", "gated_mlp_large", "--plugins", str(example), "--in-chans", "1"]
    assert main([*names, "--verify", "--img-size", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["map_name"] == "gated_mlp"


def errors(capsys, *flags):
    assert train_main([*DIGITS, *MOTIVATED, *flags]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import nowhere_at_all", r"broken.py:1: ModuleNotFoundError"),
        ("x = 1\ny = x / 0\n", r"broken.py:2: ZeroDivisionError"),
        ("def (:\n", r"broken.py:1: SyntaxError"),
        ("from weight_maps import register_map\n@register_map(name='auto')\ndef f(a, b): ...\n", "registered already"),
        ("raise SystemExit(3)", r"broken.py:1: SystemExit"),
    ],
)
def test_a_plugin_that_fails_is_a_start_up_error_with_file_and_line(tmp_path, capsys, text, expected):
    file = tmp_path / "broken.py"
    file.write_text(text)
    found = errors(capsys, "--motivation-plugins", str(file))
    assert re.search(r"--motivation-plugins: .*" + expected, found)
    assert "Traceback" not in found


def test_a_plugin_that_is_not_there_is_said(capsys):
    assert "there is no such file" in errors(capsys, "--motivation-plugins", "nowhere.py")
    assert "there is no such module" in errors(capsys, "--motivation-plugins", "nowhere.at.all")


BUILDERS = {
    "fails": ("raise KeyError('gone')", "KeyError: 'gone'"),
    "returns": ("return {}", "it returned no WeightMap, but {}"),
    "malformed": ("return WeightMap(None)", "failed\n  TypeError: 'NoneType' object is not iterable"),
    "no index": ("return WeightMap(tuple(Link(n, n, None) for n in base))", "failed\n  TypeError: "),
    "misses": ("return WeightMap(())", "neither mapped nor declared unmapped"),
    "unknown": ("return WeightMap(tuple(Link(n, 'x.' + n, leading(s)) for n, s in base.items()))", "has no x.conv1"),
    "shapes": (
        "return WeightMap(tuple(Link(n, n, leading((1,) * len(s))) for n, s in base.items()))",
        "shape [16, 1, 3, 3], but the part of conv1.weight [16, 1, 3, 3] it is mapped to has shape [1, 1, 1, 1]",
    ),
    "twice": (
        "return WeightMap(tuple(Link(n, 'bn1.bias' if n == 'bn1.weight' else n, leading(s)) for n, s in base.items()))",
        "both on the same part of bn1.bias",
    ),
}


@pytest.mark.parametrize("case", BUILDERS)
def test_the_faults_of_an_own_map_are_listed_at_the_start(tmp_path, capsys, clean_registry, case):
    body, expected = BUILDERS[case]
    file = tmp_path / f"own_{case.replace(' ', '_')}.py"
    file.write_text(
        "from weight_maps import Link, WeightMap, leading, register_map\n"
        f"@register_map(name='own')\ndef own(base, motivated):\n    {body}\n"
    )
    flags = ["--motivation-plugins", str(file), "--motivation-map", "own"]
    found = errors(capsys, *flags)
    assert "--motivated-model" in found
    assert expected in found
    assert "Traceback" not in found
    if case in ("fails", "returns", "malformed", "no index"):
        assert f"{file}:2" in found


def test_a_map_without_placements_refuses_one(clean_registry):
    @register_map(name="fixed")
    def fixed_map(base, motivated):
        return WeightMap((), dict.fromkeys(base, "nothing is shared"))

    assert find_map("resnet10t", "resnet18", map_name="fixed").links == ()
    with pytest.raises(WeightMapError, match="no placement 'even'"):
        find_map("resnet10t", "resnet18", map_name="fixed", placement="even")


def test_an_unknown_map_is_answered_with_the_known_ones(capsys):
    found = errors(capsys, "--motivation-map", "resnt")
    assert "did you mean resnet?" in found
    assert "vit_fused" in found
    with pytest.raises(WeightMapError, match="no weights map is called"):
        map_named("resnt")


def test_a_name_or_a_pattern_is_registered_once(clean_registry):
    def builder(base, motivated):
        return WeightMap(())

    register_map("toy_once*")(builder)
    with pytest.raises(ValueError, match="named 'builder' is registered already"):
        register_map("toy_twice*")(builder)
    with pytest.raises(ValueError, match="for 'toy_once\\*' is registered already"):
        register_map("toy_once*", name="other")(builder)


def test_the_longest_pattern_wins(clean_registry):
    @register_map("resnet18*", name="mine")
    def mine(base, motivated):
        return WeightMap((), dict.fromkeys(base, "mine"))

    assert find_map("resnet18", "resnet18d").unmapped
    assert not find_map("resnet18", "resnet34").unmapped  # the other name is for another map
    assert "mine" in [entry.name for entry in registered_maps()]


def test_a_plugin_is_loaded_once(tmp_path):
    file = tmp_path / "counts.py"
    file.write_text("import sys\nsys.loaded_by_test = getattr(sys, 'loaded_by_test', 0) + 1\n")
    assert load_plugin(str(file)) is load_plugin(str(file))
    assert __import__("sys").loaded_by_test == 1
    with pytest.raises(PluginError, match="no such file"):
        load_plugin(str(tmp_path / "other.py"))
