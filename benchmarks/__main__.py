"""python -m benchmarks [SUBJECT …]: rates and ratios as JSON on stdout, a table on stderr."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare import Case, compare
from runtime.errors import InputError, cli

NOT_SUBJECTS = {"__init__", "__main__", "compare"}


def subjects() -> list[str]:
    """What can be measured: the other files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_SUBJECTS)


@cli
def main(argv: Sequence[str]) -> int:
    """Run the subjects; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subject", nargs="*", help=f"one of {', '.join(subjects())} (default: all)")
    parser.add_argument("--rounds", type=int, default=9, help="timings of each side (default 9)")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        raise InputError(f"--rounds is {options.rounds}, expected at least 1")
    for name in options.subject:
        if name not in subjects():
            raise InputError(f"there is no subject {name!r}, expected one of {', '.join(subjects())}")

    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    table = Table("subject", "case", "ours /s", "peer", "peer /s", "ratio")
    results = []
    for name in options.subject or subjects():
        try:
            cases = importlib.import_module(f"benchmarks.{name}").cases()
        except ImportError as error:
            console.print(f"{name} skipped: {error.name or error} is not installed", highlight=False)
            continue
        for case in map(Case._make, cases):
            with console.status(f"{name}: {case.name}"):
                result = compare(case, options.rounds)
            peer = f"{result.peer_per_second:,.0f}" if result.peer_per_second else "not installed"
            ratio = f"{result.ratio:.2f}" if result.ratio else ""
            table.add_row(name, case.name, f"{result.ours_per_second:,.0f}", case.peer_name, peer, ratio)
            results.append({"subject": name, **result._asdict()})
    console.print(table)
    machine = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()}
    print(json.dumps({"machine": machine, "python": platform.python_version(), "results": results}, indent=1))
    return 0


def _processor() -> str:
    """The processor's name as Linux knows it, or what Python knows elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
