"""A run's records: stats.jsonl, metric-*.jsonl, timing.jsonl and TensorBoard, and how they are cut back on resume.

stats.jsonl and metric-*.jsonl hold what is reproducible bit for bit; timing.jsonl holds what is not (clocks).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from trainer import distributed

console = Console(stderr=True, highlight=False, soft_wrap=True)
"""Where talk goes: stdout is for results."""


class Means:
    """Running means of named scalars between two ticks, in float64, without waiting for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one step's scalars, averaged over the processes."""
        stacked = distributed.average(torch.stack([value.detach().double() for value in values.values()]))
        for name, value in zip(values, stacked, strict=True):
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1  # a name may come up in one stage of a training alone

    def take(self) -> dict[str, float]:
        """The means since the last call, and start anew."""
        means = {name: (total / self.counts[name]).item() for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means

    def state(self) -> dict[str, Any]:
        """For a checkpoint: JSON that `restore` turns back into the same sums exactly."""
        return {"counts": self.counts, "sums": {name: total.item() for name, total in self.sums.items()}}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """The inverse of `state`."""
        self.counts = dict(state["counts"])
        self.sums = {n: torch.tensor(v, dtype=torch.float64, device=device) for n, v in state["sums"].items()}


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def append(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON line."""
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a jsonl file; [] if there is none. A last line cut short by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def rewind(run: Path, images: int) -> None:
    """Cut a run's records back to what was known after `images` images: they are written again as training goes on."""
    for path in run.glob("*.jsonl"):
        write_text(path, "".join(json.dumps(line) + "\n" for line in read(path) if line["images"] <= images))


def history(run: Path) -> dict[str, list[dict[str, Any]]]:
    """All records of a run by file name without its ending."""
    return {path.stem: read(path) for path in sorted(run.glob("*.jsonl"))}


class Records:
    """Writes a run's records while it trains; in other processes than the main one it does nothing.

    On entering, what was written after `images` images by a session that was killed is cut off.
    """

    def __init__(self, path: Path, images: int, main: bool) -> None:
        self.path, self.main, self.board = path, main, None
        if main:
            rewind(path, images)
            self.board = _tensorboard(path, images)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *error: object) -> None:
        if self.board:
            self.board.close()

    def tick(
        self, images: int, total: int, means: dict[str, float], seconds: float, cpu_seconds: float, headline: str
    ) -> None:
        """One line of statistics, one of timing, and the status line."""
        if not self.main:
            return
        append(self.path / "stats.jsonl", {"images": images, "kimg": images / 1000} | means)
        append(self.path / "timing.jsonl", {"images": images, "seconds": seconds, "cpu_seconds": cpu_seconds})
        self._plot("stats", images, means)
        words = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        place = f"kimg {images / 1000:7.1f}/{total / 1000:g}  min {seconds / 60:5.1f}  cpu {cpu_seconds / 60:5.1f}"
        console.print(f"{place}  {words}  {headline}")

    def metric(self, name: str, images: int, figures: dict[str, Any]) -> None:
        """One line of a metric."""
        append(self.path / f"metric-{name}.jsonl", {"images": images, "kimg": images / 1000} | figures)
        self._plot(name, images, {key: value for key, value in figures.items() if isinstance(value, float)})

    def _plot(self, group: str, images: int, scalars: dict[str, float]) -> None:
        if self.board:
            for name, value in scalars.items():
                self.board.add_scalar(f"{group}/{name}", value, images)


def _tensorboard(path: Path, images: int) -> Any:
    """TensorBoard's writer if TensorBoard is installed, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path / "tensorboard"), purge_step=images + 1)
