"""OpenVINO runs a batch in buckets that agree to the last bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
import runtime.backends.openvino as backend
from runtime.backends.openvino import BUCKETS, OpenVinoSession
from runtime.bundle import PRETRAINED
from runtime.errors import InputError

FILE = PRETRAINED / "mgan-robot" / "generator.onnx"


def sizes(session: OpenVinoSession, count: int) -> list[int]:
    feeds = {slot.name: np.zeros((count, *slot.shape), slot.dtype) for slot in session.inputs}
    return [part.stop - part.start for part, _ in session.pieces(feeds)]


def test_a_batch_is_run_in_buckets() -> None:
    session = OpenVinoSession(FILE)
    for size in BUCKETS:
        assert sizes(session, size) == [size]
    assert sizes(session, 75) == [32, 32, 8, 1, 1, 1] and sizes(session, 7) == [1] * 7


def test_a_bucket_with_other_bits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = OpenVinoSession(FILE).run({"z": backend._probe(OpenVinoSession(FILE).inputs[0], 40)})
    real: Callable[..., Any] = backend._Request.run

    def run(self: Any) -> None:
        real(self)
        if len(self.outputs["image"]) == 8:
            self.outputs["image"][5, 0, 0, 0] += np.float32(1e-7)

    monkeypatch.setattr(backend._Request, "run", run)
    session = OpenVinoSession(FILE)
    assert sizes(session, 40) == [32] + [1] * 8
    results = session.run({"z": backend._probe(session.inputs[0], 40)})
    assert all(np.array_equal(results[name], expected[name]) for name in expected)


def test_the_caller_s_arrays_are_left_alone() -> None:
    session = OpenVinoSession(FILE)
    z = backend._probe(session.inputs[0], 70)
    before = z.copy()
    results = session.run({"z": z})
    kept = results["image"].copy()
    for count in (1, 8, 33, 70):
        session.run({"z": np.ones((count, 16), np.float32)})
    assert np.array_equal(z, before) and np.array_equal(results["image"], kept)


def test_hints() -> None:
    latency = runtime.load("mgan-robot", "openvino", threads=2)
    throughput = runtime.load("mgan-robot", "openvino", threads=2, hint="throughput")
    assert latency.session.overlap == 2 and throughput.session.overlap >= 2
    expected = latency.generate(70, seed=4)
    for batch in (1, 9, 64):
        images = [sample.image.copy() for sample in throughput.stream(70, batch, seed=4)]
        difference = np.concatenate(images).astype(int) - expected.image
        assert np.abs(difference).max() <= 1


def test_arithmetic_stays_float32() -> None:
    compiled = OpenVinoSession(FILE)._single._compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is no graph")
    with pytest.raises(InputError, match=r"text\.onnx: openvino cannot open it") as raised:
        OpenVinoSession(tmp_path / "text.onnx")
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="threads is 0"):
        OpenVinoSession(FILE, threads=0)
    with pytest.raises(InputError, match="hint is 'fast', expected latency or throughput"):
        runtime.load("mgan-robot", "openvino", hint="fast")  # type: ignore[arg-type]


def test_open_sizes_are_refused(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(FILE)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    onnx.save_model(model, tmp_path / "open.onnx")
    with pytest.raises(InputError, match="expected open sizes in the batch axis only"):
        OpenVinoSession(tmp_path / "open.onnx")
