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


def _fusion(size: int, parts: tuple[int, ...]) -> dict[str, onnx.ModelProto]:
    """The graphs of a fuser whose encoder shrinks fourfold: encoder, generator, blend, and all of them as one."""
    rng, channels, small = np.random.default_rng(1), sum(parts), size // 4
    image, latent, share = ["batch", 3, size, size], ["batch", channels, small, small], ["batch", len(parts)]

    def constant(name: str, values: Any) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(values), name)

    def encode(given: str, made: str) -> list[onnx.NodeProto]:
        conv = helper.make_node("Conv", [given, "shrink"], [f"{made}_map"], strides=[4, 4])
        return [conv, helper.make_node("LeakyRelu", [f"{made}_map"], [made], alpha=0.2)]

    def blend(made: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Gather", ["weights", "part_of"], ["share"], axis=1),
            helper.make_node("Unsqueeze", ["share", "axes"], ["first"]),
            helper.make_node("Sub", ["one", "first"], ["second"]),
            helper.make_node("Mul", ["first", "za"], ["from_a"]),
            helper.make_node("Mul", ["second", "zb"], ["from_b"]),
            helper.make_node("Add", ["from_a", "from_b"], [made]),
        ]

    def generate(given: str) -> list[onnx.NodeProto]:
        conv = helper.make_node("ConvTranspose", [given, "grow"], ["drawn"], strides=[4, 4])
        return [conv, helper.make_node("Tanh", ["drawn"], ["image"])]

    shrink = constant("shrink", (0.3 * rng.standard_normal((channels, 3, 4, 4))).astype(np.float32))
    grow = constant("grow", (0.5 * rng.standard_normal((channels, 3, 4, 4))).astype(np.float32))
    part_of = constant("part_of", np.repeat(np.arange(len(parts)), parts))
    mixing = [part_of, constant("axes", [2, 3]), constant("one", np.float32(1))]
    blended = {"za": latent, "zb": latent, "weights": share}
    return {
        "encoder": _model(encode("picture", "z"), {"picture": image}, {"z": latent}, [shrink]),
        "generator": _model(generate("z"), {"z": latent}, {"image": image}, [grow]),
        "blend": _model(blend("z"), blended, {"z": latent}, mixing),
        "fuse": _model(
            [*encode("a", "za"), *encode("b", "zb"), *blend("z"), *generate("z")],
            {"a": image, "b": image, "weights": share},
            {"image": image},
            [shrink, grow, *mixing],
        ),
    }


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    constants: list[onnx.TensorProto],
) -> onnx.ModelProto:
    taken, made = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()]
        for ports in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "fusion", taken, made, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="session")
def make_fusion_bundle() -> Callable[..., Path]:
    """make_fusion_bundle(folder, size=16, parts=(3, 2, 3), **manifest fields) → the bundle's folder."""

    def make(folder: Path, size: int = 16, parts: tuple[int, ...] = (3, 2, 3), **fields: Any) -> Path:
        shape, names = (sum(parts), size // 4, size // 4), tuple(f"part_{k + 1}" for k in range(len(parts)))
        ports = {name: Port(name=name, shape=shape, kind="latent", parts=parts) for name in ("z", "za", "zb")}
        for name in ("picture", "a", "b", "image"):
            ports[name] = Port(name=name, shape=(3, size, size), kind="image", range=(-1, 1))
        ports["weights"] = Port(name="weights", shape=(len(parts),), kind="vector", range=(0, 1), names=names)
        with writing(folder) as part:
            entries = []
            for name, model in _fusion(size, parts).items():
                file = part / f"{name}.onnx"
                onnx.save_model(model, file)
                entries.append(
                    GraphEntry(
                        name=name,
                        file=file.name,
                        bytes=file.stat().st_size,
                        sha256=sha256_of(file),
                        opset=18,
                        inputs=tuple(ports[port.name] for port in model.graph.input),
                        outputs=tuple(ports[port.name] for port in model.graph.output),
                    )
                )
            fields = {"name": folder.name, "recipe": "fusion", "model": "fuser", **fields}
            write_manifest(part, Manifest(graphs=tuple(entries), **fields))
        return folder

    return make


@pytest.fixture
def fusion_bundle(make_fusion_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A fuser's bundle of 16 × 16 images and three parts."""
    return make_fusion_bundle(tmp_path / "fusion")
