"""fp16 and int8 are made from the fp32 file, keep in float32 what loses too much, and hold their bounds or fail."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import export.precision
from export.drift import EQUAL_DB, Inside, layers, sqnr_db, steepest
from export.errors import ExportError
from export.fp16 import precise_nodes, to_fp16
from export.half import as_computed_in_half
from export.int8 import quantised
from export.onnx import check_model
from export.precision import reduce_precision
from export.references import OnnxReference
from export.surgery import constants
from runtime.bundle import Port
from trainer.recipe import Graph

Nodes = list[tuple[str, list[str], str, dict[str, object]]]


def model_of(nodes: Nodes, weights: dict[str, np.ndarray], shape: tuple[int, ...] = (2, 8, 8)) -> onnx.ModelProto:
    """x [N, *shape] → nodes (operator, inputs, output, attributes), each named after its output → y"""
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], name=f"make_{out}", **extra) for op, ins, out, extra in nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def weights(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * scale).astype(np.float32)


@pytest.fixture
def reference(graph: Graph, onnx_file: Path) -> OnnxReference:
    return OnnxReference(graph.name, graph.inputs, graph.outputs, onnx_file, "the fp32 file")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_generator(reference: OnnxReference, tmp_path: Path, precision: str) -> None:
    path = tmp_path / "made.onnx"
    variant = reduce_precision(reference, reference.path, path, precision)  # type: ignore[arg-type]
    model = onnx.load(path)
    check_model(model, reference)  # opset, float32 ports, dynamic batch
    assert path.stat().st_size < 0.9 * reference.path.stat().st_size and not variant.notices
    image = variant.parity.outputs["image"]
    assert image.ssim_bound is not None and (image.ssim or 0) >= image.ssim_bound and variant.parity.seeds == 64
    assert [entry.operator for entry in variant.parity.drift].count("ConvTranspose") == 1
    drifts = [entry.sqnr_db for entry in variant.parity.drift if "Conv" in entry.operator]
    assert all((50 if precision == "fp16" else 20) < figure < 90 for figure in drifts)
    assert [p.name for p in tmp_path.iterdir()] == ["made.onnx"]


def test_fp16_is_typed_in_the_file(reference: OnnxReference) -> None:
    model = onnx.load(reference.path)
    half, notices = to_fp16(model, reference.feeds(0, 4))
    assert not notices
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    (resize,) = [node for node in half.graph.node if node.op_type == "Resize"]
    floats = {name for name, kind in kinds.items() if kind == TensorProto.FLOAT}
    assert TensorProto.FLOAT16 in kinds.values() and floats == {resize.input[2]}  # its scales are float32 by definition
    assert [node.op_type for node in half.graph.node].count("Cast") == 3  # one a port


def test_a_weight_read_in_both_precisions_and_a_chain_in_float32() -> None:
    nodes: Nodes = [
        ("Conv", ["x", "w"], "a", {"pads": [1] * 4}),
        ("Mul", ["a", "big"], "b", {}),
        ("Mul", ["b", "small"], "c", {}),
        ("Conv", ["c", "w"], "y", {"pads": [1] * 4}),
    ]
    model = model_of(nodes, {"w": CONSTANTS["w"], "big": np.float32(3e4), "small": np.float32(1 / 3e4)})
    half, notices = to_fp16(model, {"x": weights(2, 2, 8, 8)}, keep=["make_a"])
    assert len(notices) == 2
    assert [node.op_type for node in half.graph.node] == ["Conv", "Mul", "Mul", "Cast", "Conv", "Cast"]
    assert {t.name: t.data_type for t in half.graph.initializer if t.name[0] == "w"} == {"w": 1, "w_half": 10}
    onnx.checker.check_model(half, full_check=True)


def test_branches_are_refused() -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Relu", ["x"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name in ("then", "else")
    }
    model = model_of([("If", ["yes"], "y", branches)], {"yes": np.array(True)})
    with pytest.raises(ExportError, match="If make_y cannot be made fp16; leave fp16 out of --precision"):
        to_fp16(model, {"x": weights(1, 2, 8, 8)})


def test_int8_quantises_every_convolution_and_nothing_else(reference: OnnxReference, tmp_path: Path) -> None:
    reduce_precision(reference, reference.path, tmp_path / "q.onnx", "int8")
    model = onnx.load(tmp_path / "q.onnx")
    convolutions = [node.name for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert sorted(quantised(model)) == sorted(convolutions) and len(convolutions) == 3
    values = constants(model.graph)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert values[node.input[2]].dtype == np.int8 and not values[node.input[2]].any()  # symmetric
    kinds = {t.data_type for t in model.graph.initializer}
    assert TensorProto.INT32 not in kinds and not model.metadata_props  # biases stay float32


def test_openvino_must_pass_too(reference: OnnxReference, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    variant = reduce_precision(reference, reference.path, tmp_path / "q.onnx", "int8", openvino=True)
    assert "onnxruntime" in variant.parity.against and " and openvino " in variant.parity.against


@pytest.fixture
def spoiled(reference: OnnxReference, tmp_path: Path) -> OnnxReference:
    """One input channel of a convolution is 3000 times as large as the others and its weights as much smaller: int8
    cannot hold both."""
    model = onnx.load(reference.path)
    up = next(node for node in model.graph.node if node.op_type == "ConvTranspose")
    factor = np.ones((12, 1, 1), np.float32)
    factor[0] = 3000
    tensor = next(t for t in model.graph.initializer if t.name == up.input[1])
    shrunk = numpy_helper.to_array(tensor) / factor[:, None]
    tensor.CopyFrom(numpy_helper.from_array(shrunk, tensor.name))
    model.graph.initializer.append(numpy_helper.from_array(factor, "factor"))
    at = list(model.graph.node).index(up)
    model.graph.node.insert(at, helper.make_node("Mul", [up.input[0], "factor"], ["uneven"], "make_uneven"))
    model.graph.node[at + 1].input[0] = "uneven"
    onnx.save_model(model, tmp_path / "spoiled.onnx")
    return OnnxReference(reference.name, reference.inputs, reference.outputs, tmp_path / "spoiled.onnx", "itself")


def test_a_layer_that_loses_too_much_stays_in_float(spoiled: OnnxReference, tmp_path: Path) -> None:
    variant = reduce_precision(spoiled, spoiled.path, tmp_path / "q.onnx", "int8")
    model = onnx.load(tmp_path / "q.onnx")
    up = next(node.name for node in model.graph.node if node.op_type == "ConvTranspose")
    assert variant.notices == [f"q.onnx: left in float32 to hold its bound: {up}"]
    assert up not in quantised(model) and len(quantised(model)) == 2


def test_what_cannot_be_mended_is_refused(
    spoiled: OnnxReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.precision, "ATTEMPTS", 0)
    with pytest.raises(ExportError) as caught:
        reduce_precision(spoiled, spoiled.path, tmp_path / "q.onnx", "int8")
    message = str(caught.value)
    assert "graph generator in int8: output image has SSIM 0." in message and "\n" not in message
    assert "drifts first at getitem" in message and "(ConvTranspose " in message and "--precision" in message


SQUARE: Nodes = [("Mul", ["x", "x"], "squared", {})]
PIXEL_NORM: Nodes = [
    *SQUARE,
    ("ReduceMean", ["squared", "axis"], "mean", {}),
    ("Sqrt", ["mean"], "root", {}),
    ("Div", ["x", "root"], "normal", {}),
    ("Conv", ["normal", "w"], "y", {"pads": [1] * 4}),
]
SSIM: Nodes = [
    ("Conv", ["x", "w"], "mu", {"pads": [1] * 4}),
    *SQUARE,
    ("Conv", ["squared", "w"], "moment", {"pads": [1] * 4}),
    ("Mul", ["mu", "mu"], "mu2", {}),
    ("Sub", ["moment", "mu2"], "variance", {}),
    ("Add", ["variance", "c"], "lower", {}),
    ("Div", ["mu2", "lower"], "score", {}),
    ("Conv", ["score", "w"], "y", {"pads": [1] * 4}),
]
GRAM: Nodes = [
    ("Conv", ["x", "w"], "f", {"pads": [1] * 4}),
    ("Reshape", ["f", "flat"], "rows", {}),
    ("Transpose", ["rows"], "columns", {"perm": [0, 2, 1]}),
    ("MatMul", ["rows", "columns"], "gram", {}),
    ("MatMul", ["gram", "m"], "y", {}),
]
CONSTANTS = {
    "w": weights(2, 2, 3, 3),
    "axis": np.array([1]),
    "c": np.float32(1e-3),
    "flat": np.array([0, 2, -1]),
    "m": weights(2, 2),
}


@pytest.mark.parametrize(
    ("nodes", "precise"),
    [
        (PIXEL_NORM, {"squared", "mean", "root"}),
        (SSIM, {"mu", "squared", "moment", "mu2", "variance", "lower", "score"}),
        (GRAM, {"gram"}),
        ([("InstanceNormalization", ["x", "s", "s"], "n", {}), ("Relu", ["n"], "y", {})], {"n"}),
        ([("Relu", ["x"], "a", {}), ("Conv", ["a", "w"], "y", {"pads": [1] * 4})], set()),
    ],
)
def test_what_half_precision_would_spoil_stays_in_float32(nodes: Nodes, precise: set[str]) -> None:
    used = {name for _, ins, _, _ in nodes for name in ins}
    model = model_of(nodes, {k: v for k, v in (CONSTANTS | {"s": np.ones(2, np.float32)}).items() if k in used})
    assert {name.removeprefix("make_") for name in precise_nodes(model)} == precise
    half, _ = to_fp16(model, {"x": weights(2, 2, 8, 8)})
    onnx.checker.check_model(half, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in (*half.graph.value_info, *half.graph.output)}
    assert all(types.get(name, TensorProto.FLOAT) == TensorProto.FLOAT for name in precise)
    rest = {out for _, _, out, _ in nodes} - precise - {"y"}
    assert all(types[name] == TensorProto.FLOAT16 for name in rest)


def test_what_half_precision_cannot_hold_stays_in_float32() -> None:
    nodes: Nodes = [
        ("Mul", ["x", "big"], "grown", {}),
        ("Relu", ["grown"], "active", {}),
        ("Mul", ["active", "small"], "back", {}),
        ("Conv", ["back", "w"], "y", {"pads": [1] * 4}),
    ]
    model = model_of(nodes, {"big": np.float32(1e5), "small": np.float32(1e-5), "w": CONSTANTS["w"]})
    x = np.abs(weights(4, 2, 8, 8)) + 1
    half, notices = to_fp16(model, {"x": x})
    assert [notice.split(" ")[0] for notice in notices] == ["make_grown", "make_active", "make_back"]
    assert all("stays in float32: its values reach" in notice for notice in notices)
    want = Inside(model, ["y"]).run({"x": x})["y"]
    got = Inside(as_computed_in_half(half), ["y"]).run({"x": x})["y"]
    assert sqnr_db(want, got) > 55


def test_half_precision_is_computed_as_a_gpu_does() -> None:
    """Every operator's result is rounded as NumPy rounds to float16; beyond its range nothing is left."""
    nodes: Nodes = [("Mul", ["x", "k"], "a", {}), ("Add", ["a", "one"], "b", {}), ("Mul", ["b", "k"], "y", {})]
    model = model_of(nodes, {"k": np.float32(1.7), "one": np.float32(1)}, (50,))
    x = weights(40, 50)
    half, _ = to_fp16(model, {"x": x})
    got = Inside(as_computed_in_half(half), ["y"]).run({"x": x})["y"]
    k, h = np.float16(1.7), x.astype(np.float16)
    want = (h * k + np.float16(1)) * k
    np.testing.assert_array_equal(got, want.astype(np.float32))
    assert not np.array_equal(got, Inside(half, ["y"]).run({"x": x})["y"])  # ONNX Runtime's CPU rounds less often
    assert not np.isfinite(Inside(as_computed_in_half(half), ["y"]).run({"x": x * 0 + 5e4})["y"]).any()


def test_drift_follows_the_graph_not_the_order() -> None:
    """Two branches: the bad one is named, though the good one comes after it."""
    nodes: Nodes = [
        ("Conv", ["x", "w"], "bad", {"pads": [1] * 4}),
        ("Conv", ["x", "v"], "good", {"pads": [1] * 4}),
        ("Conv", ["bad", "w"], "later", {"pads": [1] * 4}),
        ("Add", ["good", "later"], "y", {}),
    ]
    model = model_of(nodes, {"w": weights(2, 2, 3, 3), "v": weights(2, 2, 3, 3) + 1})
    want = Inside(model, ["bad", "good", "later", "y"]).run({"x": weights(2, 2, 8, 8)})
    noise = {"bad": 1e-2, "good": 0.0, "later": 1.1e-2, "y": 1e-2}
    got = {name: array * np.float32(1 + noise[name]) for name, array in want.items()}
    found = layers(model, got, want)
    assert [layer.tensor for layer in found] == ["bad", "good", "later", "y"]
    assert [layer.before_db for layer in found] == pytest.approx([EQUAL_DB, EQUAL_DB, 40, 39.17], abs=0.01)
    worst = steepest(found, "fp32")
    assert worst is not None and str(worst) == "bad (Conv make_bad): 40 dB"
    assert steepest(layers(model, want, want), "fp32") is None


def test_nothing_is_said(
    reference: OnnxReference, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    say: Callable[[str], None] = said.append
    for precision in ("fp16", "int8"):
        reduce_precision(reference, reference.path, tmp_path / f"{precision}.onnx", precision, say=say)  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert said == ["generator: fp16", "generator: int8"]


def test_nothing_to_quantise_is_said(tmp_path: Path) -> None:
    path = tmp_path / "dense.onnx"
    model = model_of([("MatMul", ["x", "m"], "y", {})], {"m": weights(6, 6)}, (6,))
    onnx.save_model(model, path)
    port = Port(name="x", shape=(6,), kind="noise")
    reference = OnnxReference("dense", (port,), (Port(name="y", shape=(6,), kind="vector"),), path, "the fp32 file")
    variant = reduce_precision(reference, path, tmp_path / "q.onnx", "int8")
    assert variant.notices == ["q.onnx computes in float32: it has no convolution to quantise"]
    assert variant.parity.outputs["y"].max_abs == 0


def test_nodes_without_names_get_one(tmp_path: Path) -> None:
    path = tmp_path / "unnamed.onnx"
    model = model_of([("Relu", ["x"], "t", {}), ("Tanh", ["t"], "y", {})], {}, (2, 16, 16))
    for node in model.graph.node:
        node.name = ""
    onnx.save_model(model, path)
    ports = [Port(name=name, shape=(2, 16, 16), kind="image", range=(-1, 1)) for name in ("x", "y")]
    reference = OnnxReference("plain", (ports[0],), (ports[1],), path, "the fp32 file")
    reference.freeze(tmp_path / "named.onnx")
    assert [node.name for node in onnx.load(tmp_path / "named.onnx").graph.node] == ["Relu_t", "Tanh_y"]


def test_ports_of_other_kinds(tmp_path: Path) -> None:
    """An image in, an image out, no noise: calibration spreads over the port's range."""
    path = tmp_path / "image.onnx"
    nodes: Nodes = [("Conv", ["x", "w"], "t", {"pads": [1] * 4}), ("Tanh", ["t"], "y", {})]
    model = model_of(nodes, {"w": weights(2, 2, 3, 3, scale=0.3)}, (2, 16, 16))
    onnx.save_model(model, path)
    ports = [Port(name=name, shape=(2, 16, 16), kind="image", range=(-1, 1)) for name in ("x", "y")]
    reference = OnnxReference("translator", (ports[0],), (ports[1],), path, "the fp32 file")
    variant = reduce_precision(reference, path, tmp_path / "q.onnx", "int8")
    assert (variant.parity.outputs["y"].ssim or 0) > 0.97
