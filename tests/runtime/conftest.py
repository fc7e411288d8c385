"""A small random generator written in ONNX by hand, so that the runtime's tests need no PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.bundle import write_manifest, writing
from runtime.bundle import GraphEntry, Manifest, Port, sha256_of

NOISE = 32


def _generator(size: int, joints: int) -> onnx.ModelProto:
    """z [N, 32] → image [N, 3, size, size] in (-1, 1), joints [N, joints] in (-2.5, 2.5)."""
    rng, small = np.random.default_rng(0), size // 4

    def weights(name: str, *shape: int, scale: float) -> onnx.TensorProto:
        return numpy_helper.from_array((scale * rng.standard_normal(shape)).astype(np.float32), name)

    constants = [
        weights("w0", NOISE, 32 * small * small, scale=0.3),
        numpy_helper.from_array(np.array([-1, 32, small, small]), "map"),
        numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"),
        weights("w1", 3, 32, 3, 3, scale=0.1),
        weights("w2", NOISE, 128, scale=0.3),
        weights("w3", 128, joints, scale=0.3),
        numpy_helper.from_array(np.float32(2.5), "range"),
    ]
    nodes = [
        helper.make_node("MatMul", ["z", "w0"], ["flat"]),
        helper.make_node("Reshape", ["flat", "map"], ["small"]),
        helper.make_node("Resize", ["small", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Conv", ["large", "w1"], ["drawn"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["drawn"], ["image"]),
        helper.make_node("MatMul", ["z", "w2"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "w3"], ["posed"]),
        helper.make_node("Tanh", ["posed"], ["squashed"]),
        helper.make_node("Mul", ["squashed", "range"], ["joints"]),
    ]
    graph = helper.make_graph(
        nodes,
        "generator",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", NOISE])],
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size]),
            helper.make_tensor_value_info("joints", TensorProto.FLOAT, ["batch", joints]),
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """make_bundle(folder, size=16, names=(…), limits=(…), **manifest fields) → the bundle's folder."""

    def make(
        folder: Path,
        size: int = 16,
        names: tuple[str, ...] = ("pan", "tilt"),
        limits: tuple[tuple[float, float], ...] = ((-1.2, 2.0), (-0.1, 0.7)),
        **fields: Any,
    ) -> Path:
        with writing(folder) as part:
            file = part / "generator.onnx"
            onnx.save_model(_generator(size, len(names)), file)
            entry = GraphEntry(
                name="generator",
                file=file.name,
                bytes=file.stat().st_size,
                sha256=sha256_of(file),
                opset=18,
                inputs=(Port(name="z", shape=(NOISE,), kind="noise"),),
                outputs=(
                    Port(name="image", shape=(3, size, size), kind="image", range=(-1, 1)),
                    Port(name="joints", shape=(len(names),), kind="vector", unit="rad", names=names, limits=limits),
                ),
            )
            fields = {"name": folder.name, "recipe": "mgan", "model": "multimodal", **fields}
            write_manifest(part, Manifest(graphs=(entry,), **fields))
        return folder

    return make


@pytest.fixture
def bundle(make_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A bundle of 16 × 16 images and two joints."""
    return make_bundle(tmp_path / "tiny")
