"""What the runtime itself costs: microseconds a call over the bare engine, and how long it takes to start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import cpp_ext
import runtime
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.backends.openvino import OpenVinoSession
from runtime.session import Session

CALLS = 200
"""Calls in a round; each is timed on its own."""
START = {
    "import runtime": (["-c", "import runtime"], 0.3),
    "python -m runtime --help": (["-m", "runtime", "--help"], 0.5),
}
"""What is started, and how many seconds it may take."""


def measure(rounds: int, console: Any) -> tuple[str, Any, dict[str, Any], list[dict[str, Any]]]:
    """Time everything in turns; returns the JSON's name, the table, nothing more on the machine, and the rows."""
    from rich.table import Table

    table = Table("what", "bare", "ours", "ours - bare", "at most")
    rows = []
    for device in ("openvino", "cpu"):
        model = runtime.load("mgan-robot", device)
        z = cpp_ext.noise(0, 0, 1, model.noise.shape[0])
        calls = {"session.run(z)": partial(model.session.run, {"z": z}), "generate(1)": partial(model.generate, 1)}
        with console.status(device):
            times = _in_turns({"bare": _bare(model.session, z), **calls}, rounds)
        bare = times.pop("bare")
        for name, ours in times.items():
            # Each of ours has a bare call beside it: what slows one slows both.
            over = float(np.median(np.subtract(ours, bare))) * 1e6
            what = f"{model.session.backend}, batch 1: {name}"
            figures = {
                "bare_us": statistics.median(bare) * 1e6,
                "ours_us": statistics.median(ours) * 1e6,
                "over_us": over,
            }
            rows.append({"name": what, **figures, "bar_us": 30, "met": bool(over <= 30)})
            table.add_row(what, *(f"{value:.0f} µs" for value in figures.values()), "30 µs")
    for what, (words, bar) in START.items():
        seconds = [_start(words) for _ in range(rounds)]
        empty = [_start(["-c", ""]) for _ in range(rounds)]
        took = statistics.median(seconds)
        rows.append(
            {"name": what, "python_s": statistics.median(empty), "ours_s": took, "bar_s": bar, "met": took <= bar}
        )
        table.add_row(what, f"{statistics.median(empty):.2f} s", f"{took:.2f} s", "", f"{bar} s")
    return "overhead", table, {}, rows


def _bare(session: Session, z: np.ndarray) -> Callable[[], Any]:
    """The engine itself, with its input in place."""
    if isinstance(session, OpenVinoSession):
        request = session._single.take()
        request.inputs["z"][...] = z
        return request.run
    assert isinstance(session, OnnxRuntimeSession)
    return partial(session._session.run, None, {"z": z})


def _in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds * CALLS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return times


def _start(words: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
