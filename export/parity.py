"""The parity gate: an exported graph must give what its PyTorch module gives, over many seeds and batch sizes."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import cpp_ext
from export.errors import ExportError
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.bundle import OutputParity, Parity, Port

if TYPE_CHECKING:
    from trainer.recipe import Graph

SEEDS = 64
BATCH_SIZES = (1, 2, 5, 8)
BOUNDS = {"fp32": (1e-5, 5e-4)}
"""Largest mean and largest single absolute error allowed, by precision, in the units of OutputParity."""
EQUAL_DB = 999.0


def inputs(ports: tuple[Port, ...], seed: int, count: int) -> dict[str, np.ndarray]:
    """Test inputs for a graph: noise as at run time, anything else evenly spread over its range or limits.

    Returns:
        Arrays by port name, [count, *shape], each a function of (seed, its place among the ports).
    """
    feeds = {}
    for place, port in enumerate(ports):
        size = int(np.prod(port.shape))
        if port.kind == "noise":
            values = cpp_ext.noise(seed, place * 2**32, count, size).astype(np.float64)
        else:
            low, high = _bounds(port)
            values = low + (high - low) * np.random.default_rng([seed, place]).random((count, size))
        feeds[port.name] = values.reshape(count, *port.shape).astype(port.dtype)
    return feeds


def measure(graph: Graph, path: Path, precision: str = "fp32", seeds: int = SEEDS) -> Parity:
    """Compare an ONNX file against the module it came from.

    Args:
        graph: the module with its ports.
        path: the ONNX file.
        precision: which bounds hold.
        seeds: how many; their batch sizes take turns.

    Returns:
        The report that goes into the bundle.

    Raises:
        ExportError: an output drifts past its bound, or is not finite.
    """
    session = OnnxRuntimeSession(path)
    got: dict[str, list[np.ndarray]] = {port.name: [] for port in graph.outputs}
    want: dict[str, list[np.ndarray]] = {port.name: [] for port in graph.outputs}
    for seed in range(seeds):
        feeds = inputs(graph.inputs, seed, BATCH_SIZES[seed % len(BATCH_SIZES)])
        with torch.no_grad():
            expected = graph.module(*(torch.from_numpy(feeds[port.name]) for port in graph.inputs))
        actual = session.run(feeds)
        for port, tensor in zip(graph.outputs, expected, strict=True):
            want[port.name].append(tensor.numpy())
            got[port.name].append(actual[port.name])
    report = Parity(
        seeds=seeds,
        samples=sum(len(part) for part in next(iter(got.values()))),
        batch_sizes=BATCH_SIZES,
        against=f"onnxruntime {version('onnxruntime')} {session.device} against torch {torch.__version__} cpu",
        outputs={
            port.name: compare(port, np.concatenate(got[port.name]), np.concatenate(want[port.name]), BOUNDS[precision])
            for port in graph.outputs
        },
    )
    gate(graph.name, report)
    return report


def compare(port: Port, got: np.ndarray, want: np.ndarray, bounds: tuple[float, float]) -> OutputParity:
    """Errors of one output [N, *shape] against its reference.

    An image's errors are divided by half its range: as they are for [-1, 1]. A vector's are divided by the range of
    each component: its limits, its port's range, or what the reference spans.
    """
    reference = want.reshape(len(want), -1).astype(np.float64)
    # A value that is not finite in either is an infinite error, not a NaN that passes every comparison.
    with np.errstate(invalid="ignore"):
        error = np.abs(got.reshape(len(got), -1).astype(np.float64) - reference)
    error = np.where(np.isfinite(error), error, np.inf)
    if port.range is None and port.limits is None:
        span = np.maximum(reference.max(0) - reference.min(0), 1e-6)
    else:
        low, high = _bounds(port)
        span = high - low
    square = np.mean((error / span) ** 2)
    error = error / (span / 2 if port.kind == "image" else span)
    return OutputParity(
        mean_abs=float(error.mean()),
        max_abs=float(error.max()),
        psnr_db=float(-10 * np.log10(square)) if square > 0 else EQUAL_DB,
        mean_bound=bounds[0],
        max_bound=bounds[1],
    )


def gate(graph: str, report: Parity) -> None:
    """Refuse a graph whose outputs drift past their bounds.

    Raises:
        ExportError: naming the output, its errors and its bounds.
    """
    for name, output in report.outputs.items():
        if not (output.mean_abs <= output.mean_bound and output.max_abs <= output.max_bound):
            raise ExportError(
                f"graph {graph}: output {name} drifts from PyTorch by {output.mean_abs:.2e} mean and "
                f"{output.max_abs:.2e} at most over {report.samples} samples, allowed are {output.mean_bound:.0e} and "
                f"{output.max_bound:.0e}; nothing was exported"
            )


def _bounds(port: Port) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of each component, [prod(shape)] or scalar."""
    low, high = np.asarray(port.limits if port.limits is not None else [port.range or (-1.0, 1.0)], np.float64).T
    return low, high
