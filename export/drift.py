"""Where inside a graph its numbers leave those of its reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.surgery import WEIGHTED
from runtime.bundle import Drift, Precision

Tensors = dict[str, np.ndarray]
"""Arrays by tensor name."""
EQUAL_DB = 999.0
"""Said of tensors that are equal."""
CLEAN_DB = {"fp32": 130.0, "fp16": 66.0, "int8": 40.0}
"""What one layer on its own loses by rounding, about; only what falls below counts as that layer's drift."""


@dataclass(frozen=True)
class Layer:
    """How far one tensor inside a graph is from the reference's."""

    tensor: str
    node: str
    """Name of the node that makes it."""
    operator: str
    sqnr_db: float
    before_db: float
    """The lowest of the measured tensors that it is computed from; EQUAL_DB if there is none."""

    @property
    def entry(self) -> Drift:
        """What the manifest says of it."""
        return Drift(tensor=self.tensor, operator=self.operator, sqnr_db=round(self.sqnr_db, 2))

    def __str__(self) -> str:
        after = f" after {self.before_db:.0f} dB" if self.before_db < EQUAL_DB else ""
        return f"{self.tensor} ({self.operator} {self.node}): {self.sqnr_db:.0f} dB{after}"


class Inside:
    """A model opened so that tensors inside it can be fetched.

    Graph optimisation is off: it would fuse some of them away, and with QDQ nodes it would compute in integers.

    Args:
        model: the model; it is not changed.
        names: which tensors; those that the model makes as float32 are fetched.
    """

    def __init__(self, model: onnx.ModelProto, names: Collection[str]) -> None:
        import onnxruntime

        opened = onnx.shape_inference.infer_shapes(model)
        graph = opened.graph
        types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
        made = [name for node in graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]
        self._names = [name for name in made if name in names]
        del graph.output[:]
        graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self._names)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=providers)

    def run(self, feeds: Mapping[str, np.ndarray]) -> Tensors:
        """Arrays by tensor name, those asked for that the model makes as float32."""
        return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))


def told(model: onnx.ModelProto) -> set[str]:
    """Names of the tensors whose drift is told: what weighted layers make, and the outputs."""
    weighted = {name for node in model.graph.node if node.op_type in WEIGHTED for name in node.output}
    return weighted | {output.name for output in model.graph.output}


def layers(model: onnx.ModelProto, got: Tensors, want: Tensors) -> list[Layer]:
    """Compare the tensors that are told of.

    Args:
        model: the graph as it is in fp32: what is computed from what, and by which operator.
        got: tensors of the graph that may drift.
        want: those of the reference, for the same inputs.

    Returns:
        One layer for each tensor that both have, in the order they are computed.
    """
    names = told(model)
    found: list[Layer] = []
    lowest: dict[str, float] = {}  # of each tensor: the lowest figure among the measured ones that lead to it
    for node in model.graph.node:
        before = min((lowest.get(name, EQUAL_DB) for name in node.input), default=EQUAL_DB)
        for name in node.output:
            lowest[name] = before
            if name in names and name in got and name in want and got[name].shape == want[name].shape:
                figure = sqnr_db(want[name], got[name])
                found.append(Layer(name, node.name, node.op_type, figure, before))
                lowest[name] = min(before, figure)
    return found


def steepest(found: list[Layer], precision: Precision) -> Layer | None:
    """The layer that loses most against what it is computed from; None if all are equal to the reference's."""
    falls = [layer for layer in found if layer.sqnr_db < EQUAL_DB]
    return max(falls, key=lambda layer: min(layer.before_db, CLEAN_DB[precision]) - layer.sqnr_db, default=None)


def sqnr_db(want: np.ndarray, got: np.ndarray) -> float:
    """Signal-to-quantisation-noise ratio: mean square of `want` over that of the difference; at most EQUAL_DB, and
    -EQUAL_DB where a value is not finite."""
    reference = want.astype(np.float64)
    noise = float(np.mean((got.astype(np.float64) - reference) ** 2))
    signal = float(np.mean(reference**2))
    if not (np.isfinite(noise) and np.isfinite(signal)):
        return -EQUAL_DB
    if noise == 0:
        return EQUAL_DB
    return float(10 * np.log10(max(signal, 1e-99) / noise))
