"""Tell versions, and name packages that are missing or too old before anything else fails because of them."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from motivation import __version__


def version_text() -> str:
    """Return the versions of this program, of the libraries that decide and of Python, and the device, a line each."""
    import torch

    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    libraries = [f"{name} {version(name)}" for name in ("timm", "torch", "torchvision")]
    lines = [f"motivation {__version__}", *libraries, f"Python {platform.python_version()}"]
    return "\n".join([*lines, f"device {device.type}: {device_name(device)}"])


def device_name(device: Any) -> str:
    """Return what a `torch.device` is called, as far as torch or the machine say."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {os.cpu_count()} cores, {threads} thread{'s' * (threads != 1)}"


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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
