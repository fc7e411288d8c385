"""Rewrites the batch normalisations that the exporter left in an ONNX graph as one scale and one shift per channel.

At inference y = (x - mean) / sqrt(var + ε) · weight + bias = x · scale + shift with constant scale and shift. The
exporter folds that into a neighbouring convolution or fully connected layer where it sees one; what stands behind a
reshape stays, and is done here.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.surgery import replace_nodes


def fold_batch_norm(model: onnx.ModelProto) -> int:
    """Replace every BatchNormalization whose constants are known by Mul and Add, in place.

    Returns:
        How many were replaced.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in [*graph.value_info, *graph.input, *graph.output]}
    nodes, folded = [], 0
    for node in graph.node:
        known = node.op_type == "BatchNormalization" and all(name in constants for name in node.input[1:5])
        rank = ranks.get(node.input[0]) or ranks.get(node.output[0]) if known else None
        if rank is None:
            nodes.append(node)
            continue
        weight, bias, mean, variance = (
            numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:5]
        )
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = weight / np.sqrt(variance + epsilon)
        dtype = numpy_helper.to_array(constants[node.input[1]]).dtype
        shape = (-1,) + (1,) * (rank - 2)  # [C, 1, 1] beside [N, C, H, W]
        name, middle = node.output[0], f"{node.output[0]}_scaled"
        for suffix, values in (("scale", scale), ("shift", bias - mean * scale)):
            graph.initializer.append(numpy_helper.from_array(values.astype(dtype).reshape(shape), f"{name}_{suffix}"))
        nodes.append(helper.make_node("Mul", [node.input[0], f"{name}_scale"], [middle], f"{node.name}_scale"))
        nodes.append(helper.make_node("Add", [middle, f"{name}_shift"], [name], f"{node.name}_shift"))
        folded += 1
    if folded:
        replace_nodes(graph, nodes)
    return folded
