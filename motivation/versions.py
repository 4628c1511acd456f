"""Name packages that are missing or too old, before anything else fails because of them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def require_packages(requirements: Path) -> None:
    """End the program, with one line per package, if an installed one does not fit a requirements file."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        raise SystemExit(f"packages are missing; run: pip install -r {requirements}") from None
    faults = []
    for line in requirements.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        needed = Requirement(line)
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            faults.append(f"{needed.name} is not installed")
            continue
        if not needed.specifier.contains(found, prereleases=True):
            faults.append(f"{needed} is needed, {found} is installed")
    if faults:
        raise SystemExit("\n".join([*faults, f"run: pip install -r {requirements}"]))
