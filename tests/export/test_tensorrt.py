"""TensorRT-RTX engines are built here, for real and without a GPU."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from export import tensorrt
from export.cache import EngineCache
from export.errors import ExportError
from export.precision import reduce_precision
from export.references import OnnxReference
from runtime.bundle import Port, Precision
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


def test_turing_is_tried_once(graph: Graph, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    real = tensorrt._build
    monkeypatch.setattr(tensorrt, "_build", lambda *args: tried.append(args[2]) or real(*args))
    cache = EngineCache(tmp_path)
    first = tensorrt.build(onnx_file, graph.inputs, "tensorrt-rtx", cache=cache)
    assert ["SM75" in targets for targets in tried] == [True, False]
    again = tensorrt.build(onnx_file, graph.inputs, "tensorrt-rtx", cache=cache)
    assert len(tried) == 2 and again.cached and again.notice == first.notice and "FP32 GEMM" in again.notice
    # Asked for by name it is tried, and another graph knows nothing of it.
    with pytest.raises(ExportError, match="FP32 GEMM"):
        tensorrt.build(onnx_file, graph.inputs, "tensorrt-rtx", tensorrt.compute_capabilities(), cache=cache)
    assert not tensorrt.build(conv(tmp_path / "conv.onnx"), [Z], "tensorrt-rtx", cache=cache).notice


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


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reduced_precisions(graph: Graph, onnx_file: Path, tmp_path: Path, precision: Precision) -> None:
    """Transposed convolutions in int8 too."""
    reference = OnnxReference(graph.name, graph.inputs, graph.outputs, onnx_file, "the fp32 file")
    reduce_precision(reference, onnx_file, tmp_path / "made.onnx", precision)
    engine = tensorrt.build(tmp_path / "made.onnx", graph.inputs, "tensorrt-rtx", precision=precision)
    assert set(MODERN) <= set(engine.compute_capabilities)
    assert ("SM75" in engine.compute_capabilities) == (
        precision == "fp16"
    )  # int8 leaves fully connected layers in fp32


def test_batches_are_the_profile(graph: Graph, onnx_file: Path) -> None:
    engine = tensorrt.build(onnx_file, graph.inputs, "tensorrt-rtx", ["SM89"], (2, 4, 32))
    assert engine.profile == {"z": ((2, 16), (4, 16), (32, 16))}


def test_parse_batches() -> None:
    assert tensorrt.parse_batches("1:8:64") == (1, 8, 64) and tensorrt.parse_batches("4:4:4") == (4, 4, 4)
    for text in ("", "8", "1:8", "0:1:2", "8:4:64", "1:64:8", "1:2:3:4", "a:b:c", "1:2:65537", "1:-2:3", "1:2:1e3"):
        with pytest.raises(InputError, match=f"--batch is '{text}', expected MIN:OPT:MAX"):
            tensorrt.parse_batches(text)


def test_type_stubs_alone_are_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of type stubs makes `import tensorrt` succeed with nothing in it."""
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    assert tensorrt.flavours() == ["tensorrt-rtx"]


def test_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InputError, match=r"pip install awase\[trt\]"):
        tensorrt.flavours()


def test_the_same_code_drives_tensorrt(
    graph: Graph, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data-centre library needs its GPU; with its sister in its place all of our path but that is run."""
    monkeypatch.setitem(tensorrt.MODULES, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(tensorrt, "_own_capability", lambda: ("SM90",))
    assert tensorrt.flavours() == ["tensorrt-rtx", "tensorrt"]
    monkeypatch.setattr(tensorrt, "_own_gpu", lambda: "NVIDIA H100")
    cache = EngineCache(tmp_path)
    engine = tensorrt.build(onnx_file, graph.inputs, "tensorrt", cache=cache)
    assert engine.flavour == "tensorrt" and engine.compute_capabilities == ("SM90",)
    assert cache.timings(engine.version, "NVIDIA H100")  # what it timed is kept for the next build
    assert tensorrt.build(onnx_file, graph.inputs, "tensorrt", cache=cache).cached
    monkeypatch.setattr(tensorrt, "_own_gpu", lambda: "NVIDIA H200")
    assert not tensorrt.build(onnx_file, graph.inputs, "tensorrt", cache=cache).cached
    cache.put_timings(engine.version, "NVIDIA H200", b"damaged")
    assert tensorrt.build(onnx_file, graph.inputs, "tensorrt", batches=(1, 1, 1), cache=cache).data


def test_an_engine_is_built_for_the_gpu_that_is_seen(
    graph: Graph, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA_VISIBLE_DEVICES may hide the machine's first one."""
    monkeypatch.setitem(tensorrt.MODULES, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: {0: (9, 0)}[device])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: {0: "NVIDIA H100"}[device])
    engine = tensorrt.build(onnx_file, graph.inputs, "tensorrt", cache=EngineCache(tmp_path))
    assert engine.compute_capabilities == ("SM90",)
    assert [path.name for path in (tmp_path / "timings").iterdir()] == [f"tensorrt-{engine.version}-NVIDIA_H100.cache"]
    # One that cannot be told is not taken for another of its kind.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for _ in range(2):
        engine = tensorrt.build(onnx_file, graph.inputs, "tensorrt", cache=EngineCache(tmp_path))
        assert engine.compute_capabilities == () and not engine.cached
