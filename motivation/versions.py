"""Names packages that are missing or too old, before anything else fails because of them."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version

NEEDED = {
    "torch": ((2, 11), None),
    "torchvision": ((0, 26), None),
    "timm": ((1, 0, 29), (1, 1)),
    "PyYAML": ((5, 4), None),
    "numpy": ((1, 24), None),
    "thop": ((0, 1), None),
    "scikit-learn": ((1, 3), None),
    "tqdm": ((4, 60), None),
}


def version_faults() -> list[str]:
    """One line for each package that does not fit; none if all do."""
    faults = []
    if sys.version_info < (3, 10):  # noqa: UP036  (pip does not look at it for a script)
        faults.append(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}")
    for package, (lowest, below) in NEEDED.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            faults.append(f"{package} is not installed")
            continue
        numbers = tuple(int(part) for part in re.findall(r"\d+", found.split("+")[0])[:3])
        if numbers < lowest:
            faults.append(f"{package} {_dotted(lowest)} or newer is needed, {found} is installed")
        elif below is not None and numbers >= below:
            faults.append(f"{package} below {_dotted(below)} is needed, {found} is installed")
    return faults


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in numbers)


def require_versions() -> None:
    """End the program if a package does not fit."""
    if faults := version_faults():
        raise SystemExit("\n".join([*faults, "run: pip install -r requirements.txt"]))
