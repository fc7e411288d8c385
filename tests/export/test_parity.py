"""The parity gate measures what it says, and lets nothing past that drifted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.errors import ExportError
from export.parity import BOUNDS, EQUAL_DB, compare, inputs, measure
from runtime.bundle import Port
from trainer.recipe import Graph

IMAGE = Port(name="image", shape=(1, 2, 2), kind="image", range=(-1, 1))
JOINTS = Port(name="joints", shape=(2,), kind="vector", limits=((0.0, 1.0), (0.0, 10.0)))
FP32 = BOUNDS["fp32"]


def test_report(graph: Graph, onnx_file: Path) -> None:
    report = measure(graph, onnx_file)
    assert report.seeds == 64 and report.samples == 256 and len(report.batch_sizes) > 2
    assert set(report.outputs) == {"image", "joints"}
    for output in report.outputs.values():
        assert output.mean_abs <= 1e-5 and output.max_abs <= 5e-4 and output.psnr_db > 90


def test_drift_is_refused(graph: Graph, onnx_file: Path, tmp_path: Path) -> None:
    model = onnx.load(onnx_file)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("steps.7.weight"))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.001), tensor.name))
    onnx.save_model(model, tmp_path / "drifted.onnx")
    with pytest.raises(
        ExportError, match="graph generator: output image drifts from PyTorch by .* nothing was exported"
    ):
        measure(graph, tmp_path / "drifted.onnx", seeds=4)


def test_images_are_measured_on_minus_one_to_one() -> None:
    want = np.zeros((3, 1, 2, 2))
    got = want.copy()
    got[0, 0, 0, 0] = 1e-3
    result = compare(IMAGE, got, want, FP32)
    assert result.max_abs == pytest.approx(1e-3) and result.mean_abs == pytest.approx(1e-3 / 12)
    assert result.psnr_db == pytest.approx(10 * np.log10(4 / (1e-6 / 12)))
    wide = IMAGE.model_copy(update={"range": (0.0, 255.0)})
    assert compare(wide, got * 127.5, want, FP32).max_abs == pytest.approx(1e-3)


def test_vectors_are_measured_by_their_ranges() -> None:
    got = np.array([[0.001, 0.001]])
    assert compare(JOINTS, got, np.zeros((1, 2)), FP32).mean_abs == pytest.approx((0.001 + 0.0001) / 2)
    free = replace_limits(JOINTS)
    want = np.array([[0.0, 0.0], [4.0, 0.5]])
    assert compare(free, want + [[0.0, 0.0], [0.004, 0.0]], want, FP32).max_abs == pytest.approx(0.001)


def replace_limits(port: Port) -> Port:
    return port.model_copy(update={"limits": None})


def test_equal_outputs() -> None:
    assert compare(IMAGE, np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), FP32).psnr_db == EQUAL_DB


@pytest.mark.parametrize(("got", "want"), [(np.nan, 0.0), (np.nan, np.nan), (np.inf, np.inf), (0.0, np.nan)])
def test_not_finite_is_never_equal(got: float, want: float) -> None:
    result = compare(JOINTS, np.full((1, 2), got), np.full((1, 2), want), FP32)
    assert result.max_abs == np.inf


def test_inputs_cover_their_range() -> None:
    ports = (
        Port(name="z", shape=(4,), kind="noise"),
        Port(name="label", shape=(2,), kind="vector", limits=((0, 1), (5, 9))),
    )
    feeds = inputs((*ports, IMAGE), seed=3, count=400)
    assert abs(feeds["z"].mean()) < 0.1 and abs(feeds["z"].std() - 1) < 0.1
    assert feeds["label"].min(0) == pytest.approx([0, 5], abs=0.1) and feeds["label"].max(0) == pytest.approx(
        [1, 9], abs=0.1
    )
    assert feeds["image"].shape == (400, 1, 2, 2) and feeds["image"].dtype == np.float32
    assert np.array_equal(feeds["z"], inputs((*ports, IMAGE), seed=3, count=400)["z"])
    assert not np.array_equal(feeds["z"], inputs(ports, seed=4, count=400)["z"])


def test_graph_is_untouched(graph: Graph) -> None:
    assert not graph.module.training and replace(graph).name == "generator"
