"""Reduced precisions of a graph: made from its fp32 file, measured, and mended where a layer loses too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from export.drift import Inside, Layer, layers, steepest, told
from export.errors import ExportError
from export.fp16 import to_fp16
from export.half import as_computed_in_half
from export.int8 import quantised, to_int8
from export.onnx import check_file
from export.parity import Runner, measure, misses, onnxruntime_runner, openvino_runner
from export.references import Reference
from runtime.bundle import Parity, Precision

ATTEMPTS = 4
"""How often a layer more is left in float32 before a precision is given up."""
_CALIBRATION_SEEDS = range(1_000_000, 1_000_016)
"""Not among those of the parity report."""
_CALIBRATION_BATCH = 16
_PROBE = 4
"""Samples that tensors inside a graph are looked at with."""


@dataclass
class Variant:
    """A graph in a reduced precision."""

    parity: Parity
    notices: list[str] = field(default_factory=list)


def reduce_precision(
    reference: Reference,
    fp32: Path,
    target: Path,
    precision: Precision,
    openvino: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Variant:
    """Write a graph in fp16 or int8, with as many layers left in float32 as its parity bound demands, within reason.

    Args:
        reference: what it is compared with.
        fp32: its fp32 file.
        target: the file to write.
        precision: "fp16" or "int8".
        openvino: measure it in OpenVINO too; the bound must hold there as well.
        say: told what is being done.

    Raises:
        ExportError: the bound fails although ATTEMPTS layers were left in float32. The message says which layer drifts
            first. `target` may have been written.
        InputError: `openvino` without OpenVINO.
    """
    model = onnx.load(fp32)
    calibration = [reference.feeds(seed, _CALIBRATION_BATCH) for seed in _CALIBRATION_SEEDS]
    probe = {name: array[:_PROBE] for name, array in calibration[0].items()}
    kept: list[str] = []
    while True:
        say(f"{reference.name}: {precision}" + (f", {len(kept)} layers in float32" if kept else ""))
        notices = _write(model, fp32, target, precision, calibration, probe, kept)
        made = check_file(target, reference)
        report = measure(reference, _runners(target, made, precision, openvino), precision)
        found = _drift(model, made, precision, probe)
        missed = misses(report)
        if not missed:
            if kept:
                notices.append(f"{target.name}: left in float32 to hold its bound: {', '.join(kept)}")
            return Variant(report.model_copy(update={"drift": tuple(layer.entry for layer in found)}), notices)
        mendable = _mendable(made, precision)
        worst = steepest([layer for layer in found if layer.node in mendable], precision)
        if worst is None or len(kept) == ATTEMPTS:
            raise ExportError(_failure(reference, precision, missed, found, kept))
        kept.append(worst.node)


def _write(
    model: onnx.ModelProto,
    fp32: Path,
    target: Path,
    precision: Precision,
    calibration: Sequence[dict[str, np.ndarray]],
    probe: dict[str, np.ndarray],
    kept: Sequence[str],
) -> list[str]:
    if precision == "int8":
        to_int8(fp32, target, calibration, kept)
        empty = not quantised(onnx.load(target))
        return [f"{target.name} computes in float32: it has no convolution to quantise"] if empty else []
    half, notices = to_fp16(model, probe, kept)
    onnx.save_model(half, target)
    return [f"{target.name}: {notice}" for notice in notices]


def _runners(path: Path, made: onnx.ModelProto, precision: Precision, openvino: bool) -> list[Runner]:
    if precision == "fp16":
        rounded = Inside(as_computed_in_half(made), [output.name for output in made.graph.output])
        return [Runner(f"{onnxruntime_runner(path).text} with every fp16 tensor rounded", rounded)]
    return [onnxruntime_runner(path)] + ([openvino_runner(path)] if openvino else [])


def _drift(
    fp32: onnx.ModelProto, made: onnx.ModelProto, precision: Precision, feeds: dict[str, np.ndarray]
) -> list[Layer]:
    emulated = as_computed_in_half(made) if precision == "fp16" else made
    names = told(fp32)
    return layers(fp32, Inside(emulated, names).run(feeds), Inside(fp32, names).run(feeds))


def _mendable(made: onnx.ModelProto, precision: Precision) -> set[str]:
    """Names of the nodes that could be left in float32 and are not."""
    if precision == "int8":
        return set(quantised(made))
    types = {value.name: value.type.tensor_type.elem_type for value in made.graph.value_info}
    half = onnx.TensorProto.FLOAT16
    return {node.name for node in made.graph.node if any(types.get(name) == half for name in node.output)}


def _failure(reference: Reference, precision: Precision, missed: str, found: list[Layer], kept: list[str]) -> str:
    worst = steepest(found, precision)
    where = f"drifts first at {worst}" if worst else "no tensor inside differs"
    tried = f" with {', '.join(kept)} in float32" if kept else ""
    return (
        f"graph {reference.name} in {precision}{tried}: {missed}; {where}; nothing was exported, leave {precision} out "
        "of --precision"
    )
