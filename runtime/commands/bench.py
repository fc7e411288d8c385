"""Times a bundle on every backend that is here."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from runtime.commands.options import RANGES, add_hint, progress
from runtime.devices import ORDER, PRECISIONS, parse_device
from runtime.errors import InputError

PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13", "pycuda")


def configure(command: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    command.add_argument("--batch", default="1,8,64,256", help="batch sizes (default 1,8,64,256)")
    command.add_argument(
        "--device", default="auto", help="auto, or some of cpu,openvino,cuda[:N],tensorrt[:N] (default auto: all)"
    )
    command.add_argument("--precision", help="some of fp32,fp16,int8 (default: those that the bundle has)")
    command.add_argument("--threads", type=int, help="CPU threads (default: the engine's own choice)")
    add_hint(command)
    command.add_argument("--seconds", type=float, default=20, help="how long to measure in all (default 20)")
    command.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there too")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time latency and images a second by batch, backend and precision."""
    batches = _batches(options.batch)
    precisions = _words("precision", options.precision, PRECISIONS)
    devices = _devices(options.device)
    if not (math.isfinite(options.seconds) and 0 < options.seconds <= 86400):
        raise InputError(f"--seconds is {options.seconds:g}, expected more than 0, up to 86400")
    from runtime import machine
    from runtime.bench import measure
    from runtime.bundle import Bundle
    from runtime.files import whole

    bundle = Bundle.open(options.bundle)
    had = {entry.precision for entry in bundle.manifest.graphs}
    precisions = precisions or [name for name in PRECISIONS if name in had]
    with ExitStack() as stack:
        # Opened first: minutes of measuring must not end with a file that cannot be written.
        file = stack.enter_context(whole(options.out, "w", encoding="utf-8")) if options.out else None
        with progress() as bar:
            task = bar.add_task("timing", total=100)
            rows = measure(
                bundle,
                devices,
                precisions,  # type: ignore[arg-type]
                batches,
                options.threads,
                options.seconds,
                lambda done: bar.update(task, completed=round(100 * done)),
                options.hint,
            )
        result = {
            "bundle": str(bundle.path),
            "name": bundle.manifest.name,
            "threads": options.threads,
            "hint": options.hint,
            "machine": machine.describe(PACKAGES),
            "rows": rows,
        }
        _table(rows)
        if file:
            json.dump(result, file, indent=1, ensure_ascii=False, allow_nan=False)
    return result


def _devices(text: str) -> list[str]:
    """The devices to time: a word that is none is refused here, one that cannot run is a row of the result."""
    words = _words("device", text)
    for word in words:
        parse_device(word)
    return list(ORDER) if "auto" in words else words


def _words(what: str, text: str | None, known: Sequence[str] | None = None) -> list[str]:
    words = list(dict.fromkeys(text.split(","))) if text is not None else []
    for word in words:
        if known and word not in known:
            raise InputError(f"--{what} is {text!r}, expected some of {','.join(known)}")
    return words


def _batches(text: str) -> list[int]:
    low, high = RANGES["batch"]
    words = _words("batch", text)
    if not all(word.isascii() and word.isdigit() and len(word) < 9 and low <= int(word) <= high for word in words):
        raise InputError(f"--batch is {text!r}, expected whole numbers from {low} to {high} as in 1,8,64")
    return [int(word) for word in words]


def _table(rows: Sequence[dict[str, Any]]) -> None:
    """The rows on stderr, for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console, table = Console(stderr=True), Table(box=box.SIMPLE_HEAD)
    if not console.is_terminal:
        console.width = 120
    several = len({row["graph"] for row in rows}) > 1
    for name in ["graph"] * several + ["backend", "device", "precision"]:
        table.add_column(name, no_wrap=True)
    for name in ("batch", "p50 ms", "p95 ms", "images/s", "without copies"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if "reason" in row:
            continue
        bare = row["without_copies"]
        table.add_row(
            *[row["graph"]] * several,
            row["backend"],
            row["device"],
            row["precision"],
            str(row["batch"]),
            f"{row['p50_ms']:.3f}",
            f"{row['p95_ms']:.3f}",
            f"{row['images_per_second']:,.0f}",
            bare if isinstance(bare, str) else f"{bare['images_per_second']:,.0f}",
        )
    console.print(table)
    missing: dict[str, dict[str, list[str]]] = {}  # precisions by device by reason, which many often share
    for row in rows:
        if "reason" in row:
            where = f"{row['graph']} on " * several + row["device"]
            missing.setdefault(row["reason"], {}).setdefault(where, []).append(row["precision"])
    for reason, places in missing.items():
        listed = ", ".join(f"{where} {' '.join(precisions)}" for where, precisions in places.items())
        print(f"not timed: {listed}: {reason}", file=sys.stderr)
