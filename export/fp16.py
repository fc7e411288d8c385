"""fp32 ONNX → fp16: typed in the graph, float32 inputs and outputs, and float32 where half precision loses too much."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.drift import Inside
from export.errors import ExportError
from export.surgery import consumers, producers, replace_nodes

LARGEST = float(np.finfo(np.float16).max)
HEADROOM = 0.5
"""Tensors that reach this fraction of the largest half-precision number on test inputs stay in float32."""
_STATISTICS = (
    "InstanceNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "LpNormalization",
    "BatchNormalization",
    "Pow",
    "Softmax",
    "LogSoftmax",
    "CumSum",
)


def to_fp16(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], keep: Collection[str] = ()
) -> tuple[onnx.ModelProto, list[str]]:
    """A half-precision copy of a model.

    Args:
        model: the fp32 model, every node named.
        feeds: inputs that show how large its tensors get.
        keep: names of nodes to leave in float32 too.

    Returns:
        The copy, and notices for the user.

    Raises:
        ExportError: the graph has branches or loops.
    """
    large = _too_large(model, feeds)
    notices = [f"{name} stays in float32: its values reach {peak:.0f}" for name, peak in large.items()]
    return _Converter(model, {*precise_nodes(model), *large, *keep}).convert(), notices


class _Converter:
    """Gives every node one precision and every tensor the precision of the node that makes it, with a Cast for those
    who read it in the other. (ONNX Runtime's converter casts behind every float32 node, so that a value beyond half
    precision's range does not live from one of them to the next.)"""

    def __init__(self, model: onnx.ModelProto, precise: Collection[str]) -> None:
        self.model = onnx.shape_inference.infer_shapes(model)
        graph = self.graph = self.model.graph
        self.version = next(entry.version for entry in model.opset_import if entry.domain == "")
        self.precise = precise
        self.weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        values = (*graph.value_info, *graph.input, *graph.output)
        floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.homes: dict[str, int] = dict.fromkeys(floats | self.weights.keys(), TensorProto.FLOAT)
        self.nodes: list[onnx.NodeProto] = []
        self.copies: dict[tuple[str, int], str] = {}

    def convert(self) -> onnx.ModelProto:
        outputs = {output.name for output in self.graph.output}
        for node in self.graph.node:
            if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                raise ExportError(f"{node.op_type} {node.name} cannot be made fp16; leave fp16 out of --precision")
            takes, makes = self._types(node)
            inputs = [
                self._as(name, kind) if kind and name in self.homes else name
                for name, kind in zip(node.input, takes, strict=True)
            ]
            del node.input[:]
            node.input.extend(inputs)
            self.nodes.append(node)
            for place, (name, kind) in enumerate(zip(list(node.output), makes, strict=True)):
                if kind != TensorProto.FLOAT16 or name not in self.homes:
                    continue
                if name in outputs:  # the graph's ports stay float32
                    node.output[place] = f"{name}_half"
                    self.copies[name, kind] = node.output[place]
                    self.nodes.append(_cast(node.output[place], name, TensorProto.FLOAT))
                else:
                    self.homes[name] = kind
        replace_nodes(self.graph, self.nodes)
        del self.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(self.model)

    def _types(self, node: onnx.NodeProto) -> tuple[list[int], list[int]]:
        """The type of each float input and output; 0 where the node takes any."""
        schema = onnx.defs.get_schema(node.op_type, self.version, node.domain)
        half = {one.type_param_str for one in schema.type_constraints if "tensor(float16)" in one.allowed_type_strs}
        if node.op_type == "Cast":
            return [0], [TensorProto.FLOAT]
        places = [
            [ports[min(place, len(ports) - 1)].type_str in half for place in range(count)]
            for ports, count in ((schema.inputs, len(node.input)), (schema.outputs, len(node.output)))
        ]
        floats = [[name in self.homes for name in names] for names in (node.input, node.output)]
        read = any(is_float and may for is_float, may in zip(floats[0], places[0], strict=True))
        able = read and node.name not in self.precise and node.op_type not in _STATISTICS
        kinds = {True: TensorProto.FLOAT16 if able else TensorProto.FLOAT, False: TensorProto.FLOAT}
        return [kinds[may] for may in places[0]], [kinds[may] for may in places[1]]

    def _as(self, name: str, kind: int) -> str:
        """The name of a float tensor in one precision; made where it is first asked for."""
        if self.homes[name] == kind:
            return name
        if (name, kind) not in self.copies:
            copied = f"{name}_half" if kind == TensorProto.FLOAT16 else f"{name}_float"
            self.copies[name, kind] = copied
            if name in self.weights:
                values = numpy_helper.to_array(self.weights[name]).astype(np.float16)
                self.graph.initializer.append(numpy_helper.from_array(values, copied))
            else:
                self.nodes.append(_cast(name, copied, kind))
        return self.copies[name, kind]


def _cast(name: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [result], f"{result}_cast", to=kind)


def precise_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes whose results half precision would spoil.

    Normalisations and other statistics: sums over many values. Products of two activations' matrices (Gram: a sum of
    squares over all pixels). Squares, and what follows them up to the division or root that brings them back. And a
    variance that is a difference of squares, as in SSIM: nearly all digits cancel, so all that leads to it is precise.
    """
    graph = model.graph
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # constants of constants
        if all(name in fixed for name in node.input if name):
            fixed |= set(node.output)
    makers, readers = producers(graph), consumers(graph)
    precise = {node.name for node in graph.node if node.op_type in _STATISTICS or node.op_type.startswith("Reduce")}
    squares: list[onnx.NodeProto] = []
    for node in graph.node:
        moving = [name for name in node.input if name and name not in fixed]
        if node.op_type in ("MatMul", "Gemm", "Einsum") and len(moving) > 1:
            precise.add(node.name)
        if (node.op_type == "Mul" and len(moving) == 2 and moving[0] == moving[1]) or (
            node.op_type == "Pow" and moving == [node.input[0]]
        ):
            squares.append(node)
    descent: dict[str, set[str]] = {}  # of each square: the nodes it leads to, up to where it is brought back
    for square in squares:
        found, queue = {square.name}, [square]
        while queue:
            node = queue.pop()
            if node.op_type in ("Div", "Sqrt", "Reciprocal") and node is not square:
                continue
            following = [after for name in node.output for after in readers.get(name, []) if after.name not in found]
            found |= {after.name for after in following}
            queue += following
        descent[square.name] = found
        precise |= found
    for node in graph.node:
        made = [makers[name].name for name in node.input if name in makers]
        if node.op_type == "Sub" and len(made) == 2:
            from_squares = [{name for name, found in descent.items() if one in found} for one in made]
            if all(from_squares) and from_squares[0] != from_squares[1]:
                precise |= _ancestors(node, makers)
    return precise


def _ancestors(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> set[str]:
    found: set[str] = set()
    queue = [node]
    while queue:
        for name in queue.pop().input:
            if name in makers and makers[name].name not in found:
                found.add(makers[name].name)
                queue.append(makers[name])
    return found


def _too_large(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Names of the nodes with a constant or a result that half precision cannot hold, and how large it gets."""
    peaks: dict[str, float] = {
        tensor.name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    limits = dict.fromkeys(peaks, LARGEST)
    for name, peak in _peaks(model, feeds).items():
        peaks[name], limits[name] = peak, LARGEST * HEADROOM
    found: dict[str, float] = {}
    for node in model.graph.node:
        worst = max((peaks[n] for n in (*node.input, *node.output) if peaks.get(n, 0) > limits.get(n, 0)), default=0)
        if worst > 0:
            found[node.name] = worst
    return found


def _peaks(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest magnitude of every float tensor that a node makes, taken inside the graph to save memory."""
    watched = onnx.shape_inference.infer_shapes(model)
    graph = watched.graph
    values = (*graph.value_info, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    names = {f"{name}_peak": name for node in graph.node for name in node.output if name in floats}
    for peak, name in names.items():
        graph.node.append(helper.make_node("Abs", [name], [f"{peak}_abs"], f"{peak}_abs"))
        graph.node.append(helper.make_node("ReduceMax", [f"{peak}_abs"], [peak], peak, keepdims=0))
    return {names[peak]: float(value) for peak, value in Inside(watched, names).run(feeds).items()}
