"""Plots of the reports, drawn with matplotlib in one style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STYLE: Any = {
    "figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.25, "legend.frameon": False, "lines.linewidth": 1.6, "figure.constrained_layout.use": True,
}  # fmt: skip


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    level: tuple[str, float] | None = None,
) -> Any:
    """Named curves over one axis; `level` draws a named horizontal line. Returns a matplotlib figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.2))
        for name, y in lines.items():
            axes.plot(x, y, label=name, marker="o" if len(x) < 30 else None, markersize=3)
        if level:
            axes.axhline(level[1], color="0.4", linestyle=":", label=level[0])
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


def small_curves(x: Sequence[float], lines: Mapping[str, Sequence[float]], xlabel: str) -> Any:
    """Named curves, each on axes of its own scale, four in a row. Returns a matplotlib figure."""
    columns = min(4, max(1, len(lines)))
    rows = -(-len(lines) // columns)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(rows, columns, figsize=(2.4 * columns, 1.9 * rows), squeeze=False, sharex=True)
        for axes, (name, y) in zip(grid.flat, lines.items(), strict=False):
            axes.plot(x, y, linewidth=1.2)
            axes.set_title(name, fontsize=9)
        for axes in list(grid.flat)[len(lines) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel(xlabel)
        return figure


def histograms(panels: dict[str, dict[str, np.ndarray]], limits: dict[str, tuple[float, float]], unit: str) -> Any:
    """One panel a quantity, five in a row, its named samples [N] overlaid within its limits. A matplotlib figure."""
    columns = min(5, len(panels))
    rows = -(-len(panels) // columns)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(rows, columns, figsize=(2.1 * columns, 1.7 * rows), squeeze=False)
        for axes, (name, samples) in zip(grid.flat, panels.items(), strict=False):
            for label, values in samples.items():
                axes.hist(values, bins=24, range=limits[name], density=True, alpha=0.5, label=label)
            axes.set_title(name, fontsize=8)
            axes.set_yticks([])
            axes.tick_params(labelsize=7)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=8)
        figure.supxlabel(unit, fontsize=8)
        return figure


def bars(panels: Mapping[str, Mapping[str, float]], level: float) -> Any:
    """One panel a measure, a bar for each name; a dotted line at `level` times the bars' mean. A matplotlib figure."""
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 2.4), squeeze=False)
        for axes, (title, values) in zip(grid.flat, panels.items(), strict=True):
            axes.bar(list(values), list(values.values()), width=0.6)
            axes.axhline(level * float(np.mean(list(values.values()))), color="0.4", linestyle=":")
            axes.set_title(title, fontsize=9)
            axes.tick_params(labelsize=7)
        return figure


def close(figure: Any) -> None:
    """Free a matplotlib figure's memory."""
    plt.close(figure)
