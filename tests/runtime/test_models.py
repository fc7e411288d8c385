"""What a loaded model gives, and that it gives it again."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime.bundle import MANIFEST, Bundle
from runtime.errors import InputError
from runtime.session import open_session


def test_generate(bundle: Path) -> None:
    model = runtime.load(bundle)
    images, joints = sample = model.generate(50, seed=3)
    assert sample._fields == ("image", "joints")
    assert images.dtype == np.uint8 and images.shape == (50, 16, 16, 3) and images.std() > 10
    assert joints.dtype == np.float32 and joints.shape == (50, 2)
    assert not np.array_equal(images, model.generate(50, seed=4).image)


def test_vectors_stay_within_their_exact_limits(bundle: Path) -> None:
    joints = runtime.load(bundle).generate(500).joints.astype(np.float64)
    low, high = np.array([(-1.2, 2.0), (-0.1, 0.7)]).T  # the network goes to ±2.5
    assert (joints >= low).all() and (joints <= high).all()
    assert np.abs(joints.min(0) - low).max() < 1e-6 and np.abs(joints.max(0) - high).max() < 1e-6


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 37, 100])
@pytest.mark.parametrize("threads", [1, 2])
def test_same_bytes_for_any_split(make_bundle: Callable[..., Path], tmp_path: Path, batch: int, threads: int) -> None:
    model = runtime.load(
        make_bundle(tmp_path / "split", size=80, names=tuple("abcdefghij"), limits=((-2, 2),) * 10), threads=threads
    )
    whole = model.generate(64, seed=2**40 + 1, batch=64)
    parts = [
        model.generate(size, seed=2**40 + 1, first=first, batch=batch) for first, size in ((0, 1), (1, 40), (41, 23))
    ]
    for name in ("image", "joints"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))


def test_same_bytes_in_another_process(bundle: Path) -> None:
    code = f"import runtime, hashlib; s = runtime.load({str(bundle)!r}).generate(9, seed=5)\n"
    code += "print(hashlib.sha256(s.image.tobytes() + s.joints.tobytes()).hexdigest())"
    digests = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0, expected a whole number from 1"),
        ({"count": 2.0}, "count is 2.0"),
        ({"count": True}, "count is True"),
        ({"count": 1, "seed": -1}, "seed is -1"),
        ({"count": 1, "seed": 2**64}, "seed is 18446744073709551616"),
        ({"count": 2, "first": 2**64 - 1}, "first is 18446744073709551615"),
        ({"count": 1, "batch": 0}, "batch is 0"),
    ],
)
def test_bad_arguments(bundle: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        runtime.load(bundle).generate(**arguments)


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "device 'cuda': "), ("cuda:3", "device 'cuda:3': "), ("tpu", "expected cpu, cuda"), ("", "expected cpu")],
)
def test_no_silent_fallback(bundle: Path, device: str, message: str) -> None:
    import onnxruntime

    if device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has a CUDA provider")
    with pytest.raises(InputError, match=message):
        runtime.load(bundle, device=device)


def test_available_is_not_usable(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu lists CUDA on a machine without a GPU, and falls back to the CPU in silence."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has a CUDA provider")
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, providers: real(path, options))
    with pytest.raises(InputError, match="no usable GPU with CUDA"):
        runtime.load(bundle, device="cuda")


def test_session_checks_its_feeds(bundle: Path) -> None:
    session = open_session(Bundle.open(bundle), "generator", threads=1)
    assert session.device == "cpu"
    with pytest.raises(InputError, match="inputs none, expected z"):
        session.run({})
    with pytest.raises(InputError, match=r"input z is float64 \[2, 32\], expected float32"):
        session.run({"z": np.zeros((2, 32))})
    with pytest.raises(InputError, match=r"input z is float32 \[2, 31\]"):
        session.run({"z": np.zeros((2, 31), np.float32)})
    with pytest.raises(InputError, match="threads is 0"):
        open_session(Bundle.open(bundle), "generator", threads=0)


def test_unknown_model(bundle: Path) -> None:
    path = bundle / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "translator"}))
    with pytest.raises(InputError, match="model 'translator' is not one of multimodal; upgrade awase"):
        runtime.load(bundle)


def test_graph_that_is_no_generator(bundle: Path) -> None:
    path = bundle / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["graphs"][0]["outputs"][0]["range"] = [0.0, 1.0]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"output image must be an image in \[-1, 1\]"):
        runtime.load(bundle)
