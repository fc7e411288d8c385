"""The parity gate measures what it says, and lets nothing past that drifted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.drift import EQUAL_DB
from export.errors import ExportError
from export.parity import BOUNDS, NOT_FINITE, Runner, compare, measure, misses, onnxruntime_runner
from export.pipeline import _checked
from export.references import TorchReference, drawn
from runtime.bundle import Parity, Port
from trainer.recipe import Graph

IMAGE = Port(name="image", shape=(1, 2, 2), kind="image", range=(-1, 1))
JOINTS = Port(name="joints", shape=(2,), kind="vector", limits=((0.0, 1.0), (0.0, 10.0)))


def test_report(graph: Graph, onnx_file: Path) -> None:
    report = measure(TorchReference(graph), [onnxruntime_runner(onnx_file)])
    assert report.seeds == 64 and report.samples == 256 and len(report.batch_sizes) > 2
    assert set(report.outputs) == {"image", "joints"} and misses(report) == ""
    assert "onnxruntime" in report.against and "against torch" in report.against
    for output in report.outputs.values():
        assert output.mean_abs <= 1e-5 and output.max_abs <= 5e-4 and output.psnr_db > 90
    assert (report.outputs["image"].ssim or 0) > 0.999 and report.outputs["joints"].ssim is None


def test_drift_is_refused_and_the_layer_named(graph: Graph, onnx_file: Path, tmp_path: Path) -> None:
    model = onnx.load(onnx_file)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("steps.1.weight"))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    onnx.save_model(model, tmp_path / "drifted.onnx")
    node = next(node for node in model.graph.node if tensor.name in node.input)
    with pytest.raises(ExportError) as caught:
        _checked(TorchReference(graph), tmp_path / "drifted.onnx")
    message = str(caught.value)
    assert message.startswith("graph generator: output image drifts by ") and "nothing was exported" in message
    assert f"drifts first at {node.output[0]} (Conv {node.name}): " in message


def test_the_worst_engine_is_reported(graph: Graph, onnx_file: Path) -> None:
    class Worse:
        def __init__(self) -> None:
            self.inner = onnxruntime_runner(onnx_file).session

        def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: array + np.float32(0.01) for name, array in self.inner.run(feeds).items()}

    reference = TorchReference(graph)
    both = measure(reference, [onnxruntime_runner(onnx_file), Runner("worse", Worse())], "int8", seeds=4)
    alone = measure(reference, [onnxruntime_runner(onnx_file)], "int8", seeds=4)
    assert both.outputs["image"].mean_abs == pytest.approx(0.01, rel=0.1)
    assert alone.outputs["image"].mean_abs < 0.005
    assert (both.outputs["image"].ssim or 0) < (alone.outputs["image"].ssim or 0)
    assert "and worse, the worse of them, against torch" in both.against


def report_of(port: Port, got: np.ndarray, want: np.ndarray, precision: str = "fp32") -> Parity:
    output = compare(port, got, want, precision)  # type: ignore[arg-type]
    return Parity(seeds=1, samples=len(got), batch_sizes=(1,), against="", outputs={port.name: output})


def test_bounds_by_precision() -> None:
    rng = np.random.default_rng(0)
    port = Port(name="image", shape=(3, 32, 32), kind="image", range=(-1, 1))
    want = np.tanh(rng.normal(size=(4, 3, 32, 32))).astype(np.float32)
    noisy = want + rng.normal(size=want.shape).astype(np.float32) * 0.1
    assert misses(report_of(port, want, want)) == misses(report_of(port, want, want, "int8")) == ""
    assert "output image drifts by" in misses(report_of(port, noisy, want))
    ssim = report_of(port, noisy, want, "fp16").outputs["image"].ssim or 0
    assert 0.97 < ssim < 0.995
    assert f"output image has SSIM {ssim:.4f} over 4 samples, expected at least 0.995" in misses(
        report_of(port, noisy, want, "fp16")
    )
    assert misses(report_of(port, noisy, want, "int8")) == ""
    vector = np.array([[0.5, 5.0]])
    assert misses(report_of(JOINTS, vector + 1e-3, vector, "fp16")) == ""
    assert "allowed are 2e-03" in misses(report_of(JOINTS, vector + 5e-3, vector, "fp16"))
    assert misses(report_of(JOINTS, vector + 5e-3, vector, "int8")) == ""
    # Too small for SSIM's window: bounded as a vector is.
    assert compare(IMAGE, np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 2)), "int8").mean_bound == BOUNDS["int8"][1][0]


def test_images_are_measured_on_minus_one_to_one() -> None:
    want = np.zeros((3, 1, 2, 2))
    got = want.copy()
    got[0, 0, 0, 0] = 1e-3
    result = compare(IMAGE, got, want)
    assert result.max_abs == pytest.approx(1e-3) and result.mean_abs == pytest.approx(1e-3 / 12)
    assert result.psnr_db == pytest.approx(10 * np.log10(4 / (1e-6 / 12)))
    wide = IMAGE.model_copy(update={"range": (0.0, 255.0)})
    assert compare(wide, got * 127.5, want).max_abs == pytest.approx(1e-3)


def test_ssim_is_of_the_port_s_range() -> None:
    rng = np.random.default_rng(0)
    want = rng.random((2, 1, 16, 16))
    got = np.clip(want + rng.normal(size=want.shape) * 0.05, 0, 1)
    unit = Port(name="image", shape=(1, 16, 16), kind="image", range=(0, 1))
    signed = unit.model_copy(update={"range": (-1.0, 1.0)})
    assert compare(unit, got, want).ssim == pytest.approx(compare(signed, got * 2 - 1, want * 2 - 1).ssim or 0)


def test_vectors_are_measured_by_their_ranges() -> None:
    got = np.array([[0.001, 0.001]])
    assert compare(JOINTS, got, np.zeros((1, 2))).mean_abs == pytest.approx((0.001 + 0.0001) / 2)
    free = JOINTS.model_copy(update={"limits": None})
    want = np.array([[0.0, 0.0], [4.0, 0.5]])
    assert compare(free, want + [[0.0, 0.0], [0.004, 0.0]], want).max_abs == pytest.approx(0.001)


def test_equal_outputs() -> None:
    assert compare(IMAGE, np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2))).psnr_db == EQUAL_DB


@pytest.mark.parametrize(("got", "want"), [(np.nan, 0.0), (np.nan, np.nan), (np.inf, np.inf), (0.0, np.nan)])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_not_finite_is_never_equal(got: float, want: float, precision: str) -> None:
    for port in (JOINTS, Port(name="image", shape=(1, 12, 12), kind="image", range=(-1, 1))):
        report = report_of(port, np.full((1, *port.shape), got), np.full((1, *port.shape), want), precision)
        assert report.outputs[port.name].max_abs >= NOT_FINITE
        json.dumps(report.model_dump(), allow_nan=False)  # a manifest could hold it
        assert misses(report) == f"output {port.name} is not finite over 1 samples"


def test_inputs_cover_their_range() -> None:
    ports = (
        Port(name="z", shape=(4,), kind="noise"),
        Port(name="label", shape=(2,), kind="vector", limits=((0, 1), (5, 9))),
    )
    feeds = drawn((*ports, IMAGE), seed=3, count=400)
    assert abs(feeds["z"].mean()) < 0.1 and abs(feeds["z"].std() - 1) < 0.1
    assert feeds["label"].min(0) == pytest.approx([0, 5], abs=0.1) and feeds["label"].max(0) == pytest.approx(
        [1, 9], abs=0.1
    )
    assert feeds["image"].shape == (400, 1, 2, 2) and feeds["image"].dtype == np.float32
    assert np.array_equal(feeds["z"], drawn((*ports, IMAGE), seed=3, count=400)["z"])
    assert not np.array_equal(feeds["z"], drawn(ports, seed=4, count=400)["z"])


def test_graph_is_untouched(graph: Graph) -> None:
    assert not graph.module.training and replace(graph).name == "generator"
