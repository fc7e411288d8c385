"""The parity gate: an exported graph must give what its reference gives, over many seeds and batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

import cpp_ext
from export.drift import EQUAL_DB
from export.references import Reference, bounds_of
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.bundle import OutputParity, Parity, Port, Precision

SEEDS = 64
BATCH_SIZES = (1, 2, 5, 8)
NOT_FINITE = 1e60
"""The error of a value that is not finite, or should not be. A manifest's numbers are finite; no float32 errs by it."""
SSIM_WINDOW = 11
"""Pixels; images smaller than this have no SSIM."""


class Bounds(NamedTuple):
    """What an output may drift, in the units of OutputParity; None: not bounded."""

    mean_abs: float | None = None
    max_abs: float | None = None
    ssim: float | None = None


_FP32 = Bounds(mean_abs=1e-5, max_abs=5e-4)
BOUNDS: dict[Precision, tuple[Bounds, Bounds]] = {
    "fp32": (_FP32, _FP32),
    "fp16": (Bounds(ssim=0.995), Bounds(mean_abs=2e-3)),
    "int8": (Bounds(ssim=0.97), Bounds(mean_abs=2e-2)),
}
"""By precision: of an image that is large enough for SSIM, and of anything else."""


class Opened(Protocol):
    """What runs a graph here: a session, or something that computes as another machine would."""

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by output name, for arrays by input name."""
        ...


class Runner(NamedTuple):
    """An engine with the graph opened in it, and its name for the report."""

    text: str
    session: Opened


def onnxruntime_runner(path: Path) -> Runner:
    """The file in ONNX Runtime on the CPU."""
    return Runner(f"onnxruntime {version('onnxruntime')} cpu", OnnxRuntimeSession(path))


def openvino_runner(path: Path) -> Runner:
    """The file in OpenVINO on the CPU.

    Raises:
        InputError: OpenVINO is not installed or cannot open the file.
    """
    from runtime.backends.openvino import OpenVinoSession

    session = OpenVinoSession(path)
    return Runner(f"openvino {version('openvino')} cpu", session)


def measure(
    reference: Reference, runners: Sequence[Runner], precision: Precision = "fp32", seeds: int = SEEDS
) -> Parity:
    """Compare an exported graph against what it should be.

    Args:
        reference: that.
        runners: the engines that run it; of each figure the worst engine's is reported.
        precision: whose bounds hold.
        seeds: how many; their batch sizes take turns.

    Returns:
        The report that goes into the bundle. `misses` says whether it passes.
    """
    want: dict[str, list[np.ndarray]] = {port.name: [] for port in reference.outputs}
    got: list[dict[str, list[np.ndarray]]] = [{name: [] for name in want} for _ in runners]
    for seed in range(seeds):
        feeds = reference.feeds(seed, BATCH_SIZES[seed % len(BATCH_SIZES)])
        for name, array in reference.run(feeds).items():
            want[name].append(array)
        for runner, results in zip(runners, got, strict=True):
            arrays = runner.session.run(feeds)
            for name in want:
                results[name].append(arrays[name])
    names = " and ".join(runner.text for runner in runners) + (", the worse of them," if len(runners) > 1 else "")
    return Parity(
        seeds=seeds,
        samples=sum(len(part) for part in next(iter(want.values()))),
        batch_sizes=BATCH_SIZES,
        against=f"{names} against {reference.text}",
        outputs={
            port.name: _worst(
                [
                    compare(port, np.concatenate(results[port.name]), np.concatenate(want[port.name]), precision)
                    for results in got
                ]
            )
            for port in reference.outputs
        },
    )


def compare(port: Port, got: np.ndarray, want: np.ndarray, precision: Precision = "fp32") -> OutputParity:
    """Errors of one output [N, *shape] against its reference.

    An image's errors are divided by half its range: as they are for [-1, 1]. A vector's are divided by the range of
    each component: its limits, its port's range, or what the reference spans.
    """
    reference = want.reshape(len(want), -1).astype(np.float64)
    if port.range is None and port.limits is None:
        with np.errstate(invalid="ignore"):
            span = np.maximum(reference.max(0) - reference.min(0), 1e-6)
    else:
        low, high = bounds_of(port)
        span = high - low
    with np.errstate(invalid="ignore"):
        share = np.abs(got.reshape(len(got), -1).astype(np.float64) - reference) / span
    share = np.where(np.isfinite(share), share, NOT_FINITE)  # not a NaN, which passes every comparison
    square = np.mean(share**2)
    error = share * (2 if port.kind == "image" else 1)
    scores = _ssim(port, got, want)
    bounds = BOUNDS[precision][0 if scores is not None else 1]
    return OutputParity(
        mean_abs=float(error.mean()),
        max_abs=float(error.max()),
        psnr_db=float(-10 * np.log10(square)) if square > 0 else EQUAL_DB,
        ssim=None if scores is None else float(scores.mean()),
        ssim_worst=None if scores is None else float(scores.min()),
        mean_bound=bounds.mean_abs,
        max_bound=bounds.max_abs,
        ssim_bound=bounds.ssim,
    )


def _ssim(port: Port, got: np.ndarray, want: np.ndarray) -> np.ndarray | None:
    """SSIM [N] of images packed to uint8; None for what is no image or too small."""
    if port.kind != "image" or min(port.shape[1:]) < SSIM_WINDOW:
        return None
    low, high = port.range or (-1.0, 1.0)

    def packed(images: np.ndarray) -> np.ndarray:
        return cpp_ext.pack(((images.astype(np.float64) - low) / (high - low) * 2 - 1).astype(np.float32))

    with np.errstate(invalid="ignore"):
        return cpp_ext.ssim(packed(got), packed(want), window="gaussian")


def _worst(reports: Sequence[OutputParity]) -> OutputParity:
    """Of each figure the worst, over several engines' reports of one output."""
    least = {
        name: min(values)
        for name in ("psnr_db", "ssim", "ssim_worst")
        if None not in (values := [getattr(report, name) for report in reports])
    }
    most = {name: max(getattr(report, name) for report in reports) for name in ("mean_abs", "max_abs")}
    return reports[0].model_copy(update=least | most)


def misses(report: Parity) -> str:
    """The first output that drifts past its bounds, in words; empty if all hold them."""
    for name, output in report.outputs.items():
        if output.max_abs >= NOT_FINITE:
            return f"output {name} is not finite over {report.samples} samples"
        errors = [
            (label, value, bound)
            for label, value, bound in (
                ("mean", output.mean_abs, output.mean_bound),
                ("at most", output.max_abs, output.max_bound),
            )
            if bound is not None
        ]
        if any(value > bound for _, value, bound in errors):
            drifts = " and ".join(f"{value:.2e} {label}" for label, value, _ in errors)
            allowed = " and ".join(f"{bound:.0e}" for _, _, bound in errors)
            return f"output {name} drifts by {drifts} over {report.samples} samples, allowed are {allowed}"
        if output.ssim_bound is not None and not (output.ssim or 0) >= output.ssim_bound:
            return (
                f"output {name} has SSIM {output.ssim or 0:.4f} over {report.samples} samples, expected at least "
                f"{output.ssim_bound:g}"
            )
    return ""
