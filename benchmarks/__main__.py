"""python -m benchmarks [SUBJECT …]: rates and ratios as JSON on stdout, a table on stderr."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import Case, Result, WrongValue, compare
from runtime import machine
from runtime.errors import InputError, cli

NOT_SUBJECTS = {
    "__init__",
    "__main__",
    "compare",
    "generators",
    "gpu_engine",
    "gpu_kernels",
    "peers",
    "roofline",
    "torch_peers",
}
PACKAGES = (
    "numpy",
    "torch",
    "scikit-image",
    "frame-analytics",
    "fast-ssim",
    "pytorch-msssim",
    "torchmetrics",
    "onnxruntime",
    "openvino",
    "pybullet",
)
"""Whose versions a figure depends on."""


def subjects() -> list[str]:
    """What can be measured: the other files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_SUBJECTS)


@cli
def main(argv: Sequence[str]) -> int:
    """Run the subjects; returns the exit status: 1 if a kernel's values were wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subject", nargs="*", help=f"one of {', '.join(subjects())} (default: all)")
    parser.add_argument("--rounds", type=int, default=9, help="timings of each side (default 9)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write each subject's JSON to DIR/SUBJECT.json")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        raise InputError(f"--rounds is {options.rounds}, expected at least 1")
    for name in options.subject:
        if name not in subjects():
            raise InputError(f"there is no subject {name!r}, expected one of {', '.join(subjects())}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)

    from rich.console import Console

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 180)  # a log has no width of its own
    described = machine.describe(PACKAGES)
    results: list[dict[str, Any]] = []
    for name in options.subject or subjects():
        try:
            subject = importlib.import_module(f"benchmarks.{name}")
        except ImportError as error:
            if name in options.subject:
                raise InputError(f"{name}: {error.name or error} is not installed, which it is measured with") from None
            console.print(f"{name} skipped: {error.name or error} is not installed", highlight=False)
            continue
        # A subject gives cases to compare; one with a clock of its own (a GPU's) measures by itself.
        if reason := getattr(subject, "skipped", lambda: None)():
            console.print(f"{name} skipped: {reason}", highlight=False)
            continue
        if hasattr(subject, "measure"):
            stem, table, here, rows = subject.measure(options.rounds, console)
            described = {**described, **here}
        else:
            stem, (table, rows) = name, _compared(subject.cases(), options.rounds, console)
        console.print(table)
        rows = [{"subject": name, **row} for row in rows]
        results += rows
        if options.out:
            (options.out / f"{stem}.json").write_text(_json(described, rows))
            console.print(f"wrote {options.out / f'{stem}.json'}", highlight=False, soft_wrap=True)
    print(_json(described, results), end="")
    return 1 if any("wrong" in row for row in results) else 0


def _compared(cases: Iterable[Any], rounds: int, console: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Compare a subject's cases; returns the table to show and the rows for the JSON."""
    from rich.table import Table

    table = Table("case", "ours /s", "peer", "peer /s", "ratio", "bar")
    rows = []
    for case in (Case(*case) for case in cases):
        with console.status(case.name):
            try:
                result = compare(case, rounds)
            except WrongValue as error:
                console.print(f"[bold]wrong:[/bold] {error}", highlight=False)
                rows.append({"name": case.name, "peer_name": case.peer_name, "wrong": str(error)})
                continue
        peer = f"{result.peer_per_second:,.0f}" if result.peer_per_second else "not installed"
        ratio = f"{result.ratio:.2f}" if result.ratio else ""
        table.add_row(case.name, f"{result.ours_per_second:,.0f}", case.peer_name, peer, ratio, _bar(result))
        rows.append(result._asdict())
    return table, rows


def _bar(result: Result) -> str:
    if result.bar is None:
        return ""
    return f"≥ {result.bar:g} {'' if result.met is None else 'met' if result.met else '[bold]missed[/bold]'}".rstrip()


def _json(described: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    return json.dumps({"machine": described, "results": rows}, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
