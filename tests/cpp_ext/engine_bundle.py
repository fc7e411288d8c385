"""A bundle small enough to be opened a thousand times in a second, made without the packages that make real ones."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LIMITS = [[-1.2, 0.1], [-0.1, 0.7]]


def model(batch: str | int = "batch", dim: int = 4) -> bytes:
    """z [N, 4] → image [N, 3, 8, 8] in (-1, 1), joints [N, 2] often beyond LIMITS."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((dim, 192)).astype(np.float32), "w0"),
        numpy_helper.from_array(np.array([-1, 3, 8, 8]), "map"),
        numpy_helper.from_array(rng.standard_normal((dim, 2)).astype(np.float32), "w1"),
    ]
    nodes = [
        helper.make_node("MatMul", ["z", "w0"], ["flat"]),
        helper.make_node("Reshape", ["flat", "map"], ["drawn"]),
        helper.make_node("Tanh", ["drawn"], ["image"]),
        helper.make_node("MatMul", ["z", "w1"], ["joints"]),
    ]
    graph = helper.make_graph(
        nodes,
        "generator",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, dim])],
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8]),
            helper.make_tensor_value_info("joints", TensorProto.FLOAT, [batch, 2]),
        ],
        weights,
    )
    opset = [helper.make_opsetid("", 18)]
    return onnx.ModelProto.SerializeToString(helper.make_model(graph, opset_imports=opset, ir_version=10))


def entry(data: bytes, file: str = "generator.onnx", **fields: Any) -> dict[str, Any]:
    """The manifest's entry of a graph whose file holds `data`."""
    outputs = [
        {"name": "image", "shape": [3, 8, 8], "dtype": "float32", "kind": "image", "range": [-1.0, 1.0]},
        {"name": "joints", "shape": [2], "kind": "vector", "unit": "rad", "names": ["pan", "tilt"], "limits": LIMITS},
    ]
    return {
        "file": file,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "name": "generator",
        "precision": "fp32",
        "opset": 18,
        "inputs": [{"name": "z", "shape": [4], "kind": "noise"}],
        "outputs": outputs,
        **fields,
    }


def manifest(data: bytes, **fields: Any) -> dict[str, Any]:
    """A whole manifest of one graph."""
    return {
        "schema_version": 1,
        "name": "tiny",
        "recipe": "mgan",
        "model": "multimodal",
        "graphs": [entry(data)],
        "engines": [],
        "noise": {"generator": "philox4x32-10", "transform": "box-muller", "distribution": "normal(0, 1)"},
        "licence": "Apache-2.0",
        **fields,
    }


def write(folder: Path, raw: dict[str, Any] | bytes, **files: bytes) -> Path:
    """A bundle's folder of a manifest and files (`generator_onnx=` is generator.onnx)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_bytes(raw if isinstance(raw, bytes) else json.dumps(raw).encode())
    for name, data in files.items():
        (folder / name.replace("_", ".")).write_bytes(data)
    return folder
