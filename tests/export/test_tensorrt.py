"""TensorRT-RTX engines are built here, for real and without a GPU."""

import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from export import tensorrt
from export.errors import ExportError
from runtime.bundle import Port
from runtime.errors import InputError
from trainer.recipe import Graph

MODERN = ["SM80", "SM86", "SM89", "SM120", "SM121"]
Z = Port(name="x", shape=(4, 8, 8), kind="image")


def conv(path: Path, operator: str = "Conv") -> Path:
    """One convolution, in fp32: it runs on Turing too."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 4, 1, 1], [0.5] * 16)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"], domain="" if operator == "Conv" else "own")],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture(autouse=True)
def library() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")


def test_every_generation_is_known() -> None:
    assert tensorrt.flavours()[0] == "tensorrt-rtx"
    assert set(MODERN) <= set(tensorrt.compute_capabilities())
    assert not {"CURRENT", "NONE"} & set(tensorrt.compute_capabilities())


def test_generator_for_sm80_to_sm121(graph: Graph, onnx_file: Path) -> None:
    engine = tensorrt.build(onnx_file, graph.inputs, "tensorrt-rtx")
    assert set(MODERN) <= set(engine.compute_capabilities)
    assert len(engine.data) > 10_000 and engine.profile == {"z": ((1, 16), (8, 16), (64, 16))}
    # Fully connected layers in fp32: Turing is left out, and said so.
    assert "SM75" not in engine.compute_capabilities
    assert "left out SM75" in engine.notice and "FP32 GEMM" in engine.notice


@pytest.mark.parametrize("name", MODERN)
def test_one_generation(graph: Graph, onnx_file: Path, name: str) -> None:
    engine = tensorrt.build(onnx_file, graph.inputs, "tensorrt-rtx", [name])
    assert engine.compute_capabilities == (name,) and not engine.notice


def test_turing_where_it_can(tmp_path: Path) -> None:
    engine = tensorrt.build(conv(tmp_path / "conv.onnx"), [Z], "tensorrt-rtx")
    assert "SM75" in engine.compute_capabilities and not engine.notice


def test_turing_asked_for_where_it_cannot(graph: Graph, onnx_file: Path) -> None:
    with pytest.raises(ExportError, match="tensorrt-rtx cannot build it: .*FP32 GEMM is not supported"):
        tensorrt.build(onnx_file, graph.inputs, "tensorrt-rtx", ["SM75", "SM89"])


def test_refusals_hold_the_library_s_words(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="own.onnx: tensorrt-rtx cannot build it: .*Mystery"):
        tensorrt.build(conv(tmp_path / "own.onnx", "Mystery"), [Z], "tensorrt-rtx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ExportError, match="empty.onnx: tensorrt-rtx cannot build it"):
        tensorrt.build(tmp_path / "empty.onnx", [Z], "tensorrt-rtx")


def test_parse_capabilities() -> None:
    assert tensorrt.parse_capabilities("80, sm89,89") == ["SM80", "SM89"]
    with pytest.raises(InputError, match="--sm: SM90 is not among what this TensorRT-RTX builds for: .*80,86,89"):
        tensorrt.parse_capabilities("80,90")
    with pytest.raises(InputError, match="--sm is ','"):
        tensorrt.parse_capabilities(",")


def test_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InputError, match=r"pip install awase\[trt\]"):
        tensorrt.flavours()


def test_the_same_code_drives_tensorrt(graph: Graph, onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data-centre library needs its GPU; with its sister in its place all of our path but that is run."""
    monkeypatch.setitem(tensorrt.MODULES, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(tensorrt, "_own_capability", lambda: ("SM90",))
    assert tensorrt.flavours() == ["tensorrt-rtx", "tensorrt"]
    engine = tensorrt.build(onnx_file, graph.inputs, "tensorrt")
    assert engine.flavour == "tensorrt" and engine.compute_capabilities == ("SM90",)
