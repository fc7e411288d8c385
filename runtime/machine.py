"""What a figure depends on: the processor, its cores and instruction set, the versions of what was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cpp_ext


def describe(packages: Sequence[str]) -> dict[str, Any]:
    """This machine, as it goes into the JSON; `packages`: whose versions to give, of those that are installed."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "cores_usable": usable_cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # how busy others kept it before
        "system": platform.platform(),
        "python": platform.python_version(),
        "isa": cpp_ext.isa(),
        "versions": {name: version for name in packages if (version := installed(name))},
    }


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name as Linux knows it, or what Python knows elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
