"""Half precision as a GPU computes it, on a CPU.

ONNX Runtime's CPU kernels compute in float32 and drop the roundings between them, so that what it makes of an fp16 file
flatters it. Here every fp16 tensor is a float32 one that is rounded to 11 bits (Veltkamp: c = 8193 x, c - (c - x)) and
is not a number beyond half precision's range. Sums inside an operator stay in float32, as GPUs keep them. Numbers below
6e-5 keep more digits than they would.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.surgery import replace_nodes


def as_computed_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 model that gives what an fp16 model gives on a machine that computes in half precision."""
    emulated = onnx.shape_inference.infer_shapes(model)
    graph = emulated.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for name, factor in (("split", 2.0**13 + 1), ("up", 2.0**112), ("down", 2.0**-112)):
        graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), f"half_{name}"))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        half = [name for name in node.output if types.get(name) == TensorProto.FLOAT16]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.t.data_type == TensorProto.FLOAT16:
                value = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(value))
        exact = {name: f"{name}_exact" for name in half}
        made = [exact.get(name, name) for name in node.output]
        del node.output[:]
        node.output.extend(made)
        nodes.append(node)
        for name, before in exact.items():
            nodes += [
                helper.make_node("Mul", [before, "half_up"], [f"{name}_up"], f"{name}_up"),
                helper.make_node("Mul", [f"{name}_up", "half_down"], [f"{name}_bound"], f"{name}_down"),
                helper.make_node("Mul", [f"{name}_bound", "half_split"], [f"{name}_c"], f"{name}_c"),
                helper.make_node("Sub", [f"{name}_c", f"{name}_bound"], [f"{name}_d"], f"{name}_d"),
                helper.make_node("Sub", [f"{name}_c", f"{name}_d"], [name], f"{name}_rounded"),
            ]
    replace_nodes(graph, nodes)
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(emulated)
