"""The ONNX file is the graph that was declared: opset 18, dynamic batch, folded, self-contained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.errors import ExportError
from export.fold import fold_batch_norm
from export.onnx import check_model, check_runs, export_onnx
from runtime.bundle import Port
from trainer.recipe import Graph


def test_file(onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    operators = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in operators and {"Conv", "ConvTranspose", "Gemm"} <= operators
    assert [node.op_type for node in model.graph.node].count("ConvTranspose") == 1 and "DepthToSpace" in operators
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [path.name for path in onnx_file.parent.iterdir()] == [onnx_file.name]


def test_nothing_is_said(graph: Graph, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_onnx(graph, tmp_path / "graph.onnx")
    assert capfd.readouterr() == ("", "")


class Fixed(nn.Module):
    def forward(self, z: Tensor) -> tuple[Tensor]:
        return (z.reshape(2, 8, 1)[:, :, 0],)


class ByLength(nn.Module):
    def forward(self, z: Tensor) -> tuple[Tensor]:
        return (z + torch.zeros(len(z.tolist()), 8),)


def one_output(module: nn.Module, shape: tuple[int, ...] = (8,)) -> Graph:
    kind = "image" if len(shape) == 3 else "vector"
    ports = (Port(name="z", shape=(8,), kind="noise"),), (Port(name="y", shape=shape, kind=kind),)  # type: ignore[arg-type]
    return Graph("odd", module.eval(), *ports)


@pytest.mark.parametrize("module", [Fixed(), ByLength()])
def test_static_batch_is_refused(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="graph odd: .*(batch axis of input z is static|with a dynamic batch)"):
        export_onnx(one_output(module), tmp_path / "odd.onnx")
    assert not list(tmp_path.iterdir())


def test_static_axis_in_the_file_is_refused(graph: Graph, onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(ExportError, match=r"the batch axis of output image is static \(2\)"):
        check_model(model, graph)


def test_hidden_static_batch_does_not_run(graph: Graph, onnx_file: Path, tmp_path: Path) -> None:
    """The declared axis is dynamic, the reshape inside is not."""
    model = onnx.load(onnx_file)
    reshape = next(node for node in model.graph.node if node.op_type == "Reshape")
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 16, 5, 5]), "fixed"))
    reshape.input[1] = "fixed"
    onnx.save_model(model, tmp_path / "hidden.onnx")
    with pytest.raises(ExportError, match="graph generator: "):
        check_runs(tmp_path / "hidden.onnx", graph)


def test_ports_must_fit(graph: Graph, onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    image, joints = graph.outputs
    with pytest.raises(ExportError, match="outputs image, joints, expected joints, image"):
        check_model(model, replace(graph, outputs=(joints, image)))
    wide = Port(name="image", shape=(3, 20, 40), kind="image")
    with pytest.raises(ExportError, match=r"output image is FLOAT \[3, 20, 20\], expected float32 \[3, 20, 40\]"):
        check_model(model, replace(graph, outputs=(wide, joints)))


def test_other_opset_is_refused(graph: Graph, onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    model.opset_import[0].version = 17
    with pytest.raises(ExportError, match="expected 18"):
        check_model(model, graph)


def test_batch_norm_that_cannot_be_folded_is_refused(graph: Graph, onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    last = model.graph.node[-1]
    last.op_type = "BatchNormalization"
    with pytest.raises(ExportError, match="batch normalisation is left"):
        check_model(model, graph)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 6)])
def test_fold_batch_norm(shape: tuple[int, ...]) -> None:
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(0)
    constants = {name: rng.normal(size=3).astype(np.float32) for name in ("weight", "bias", "mean")}
    constants["variance"] = rng.uniform(0.1, 2, 3).astype(np.float32)
    axes = ["batch", *shape[1:]]
    graph = helper.make_graph(
        [helper.make_node("BatchNormalization", ["x", *constants], ["y"], epsilon=0.01)],
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, axes)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    x = rng.normal(size=shape).astype(np.float32)
    want = ReferenceEvaluator(model).run(None, {"x": x})[0]
    assert fold_batch_norm(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Mul", "Add"] and len(model.graph.initializer) == 2
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, {"x": x})[0], want, rtol=1e-5, atol=1e-6)
