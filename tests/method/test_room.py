"""The method stands alone, and the package's public names cost nothing until they are used."""

import ast
import subprocess
import sys
from pathlib import Path

import motivation

ROOT = Path(__file__).parents[2]


def imported(path):
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_method_imports_torch_numpy_and_weight_maps_only():
    for path in (ROOT / "motivation" / "method").glob("*.py"):
        for name in imported(path):
            room = name if name.startswith("motivation") else name.partition(".")[0]
            known = room in {"torch", "numpy", "weight_maps"} or room in sys.stdlib_module_names
            assert known or room.startswith("motivation.method"), f"{path.name} imports {name}"


def test_importing_the_package_imports_no_library():
    code = "import sys, motivation; print(*sorted({'torch', 'timm', 'numpy', 'weight_maps'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_every_public_name_is_there():
    for name in motivation.__all__:
        assert getattr(motivation, name) is not None
        assert name in dir(motivation)
