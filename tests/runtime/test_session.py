"""Which backend a session gets, why not another one, and what a session accepts."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
import runtime.session
from runtime.backends import cuda
from runtime.bundle import Bundle
from runtime.devices import ORDER
from runtime.errors import InputError
from runtime.session import Session, Slot, check_feeds, open_session


def has_driver() -> bool:
    try:
        cuda.check_driver()
    except InputError:
        return False
    return True


no_gpu = pytest.mark.skipif(has_driver(), reason="there is a GPU's driver here")


@no_gpu
def test_auto_says_what_and_why() -> None:
    model = runtime.load("mgan-robot")
    assert model.session.backend == "openvino" and model.session.device == "cpu"
    words = model.choice.split(" | ")
    assert words[0] == "fp32 on cpu by openvino" and words[-1] == "cpu: not needed"
    assert [word.split(":")[0] for word in words[1:-1]] == ["tensorrt, cuda"] and "no NVIDIA driver" in model.choice


@no_gpu
def test_auto_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    model = runtime.load("mgan-robot")
    assert model.session.backend == "onnxruntime"
    assert "openvino: openvino is not installed; `pip install awase[cpu]`" in model.choice


@no_gpu
def test_auto_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    message = "nothing here can run graph generator: tensorrt, cuda: .* | cpu: onnxruntime is not"
    with pytest.raises(InputError, match=message.replace("|", r"\|")):
        runtime.load("mgan-robot")


class Broken(Session):
    """Opens, and fails when it is run."""

    backend, device, precision = "tensorrt", "cuda:0", "fp32"
    inputs = (Slot("z", "float32", (16,)),)
    outputs = (Slot("image", "float32", (3, 80, 80)), Slot("joints", "float32", (10,)))

    def pieces(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[slice, Mapping[str, np.ndarray]]]:
        raise RuntimeError("no kernel image\nfor this device")


def test_auto_passes_by_what_opens_and_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    real = runtime.session._open

    def opening(kind: str, *rest: Any) -> Session:
        return Broken() if kind == "tensorrt" else real(kind, *rest)

    monkeypatch.setattr(runtime.session, "_open", opening)
    monkeypatch.setattr(runtime.session, "ORDER", ("tensorrt", "cpu"))
    model = runtime.load("mgan-robot")
    assert model.session.backend == "onnxruntime"
    assert "tensorrt: RuntimeError: no kernel image for this device" in model.choice


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "tensorrt", "tensorrt:1"])
def test_no_silent_fallback(device: str) -> None:
    with pytest.raises(InputError, match="no NVIDIA driver .* is here, which a GPU needs; use openvino or cpu"):
        runtime.load("mgan-robot", device)


def test_available_is_not_usable(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu lists CUDA on a machine without a GPU, and falls back to the CPU in silence."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has a CUDA provider")
    monkeypatch.setattr(cuda, "check_driver", lambda: None)
    with pytest.raises(InputError, match="cuda|CUDA"):
        runtime.load(bundle, "cuda")
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, **rest: real(path, options))
    with pytest.raises(InputError, match="cuda|CUDA"):
        runtime.load(bundle, "cuda")


@pytest.mark.parametrize("device", ["tpu", "", "cuda:", "cuda:x", "cpu:0", "openvino:1", "auto:0", "CPU", None, 0])
def test_unknown_device(bundle: Path, device: Any) -> None:
    with pytest.raises(InputError, match=f"device is {device!r}, expected auto, cpu, openvino, cuda, cuda:N, tensorrt"):
        runtime.load(bundle, device)


def test_precision_that_is_not_there(bundle: Path) -> None:
    with pytest.raises(InputError, match="graph generator is there in fp32, not in int8; `python -m export"):
        runtime.load(bundle, precision="int8")


def test_unknown_precision(bundle: Path) -> None:
    with pytest.raises(InputError, match="precision is 'fp64', expected fp32, fp16, int8"):
        runtime.load(bundle, precision="fp64")  # type: ignore[arg-type]


@pytest.mark.parametrize("bundle", [None, 3, b"x", "x" * 5000, "a\0b"])
def test_what_is_no_bundle(bundle: Any) -> None:
    with pytest.raises(InputError, match="bundle"):
        runtime.load(bundle)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5])
def test_threads(bundle: Path, threads: int) -> None:
    with pytest.raises(InputError, match=f"threads is {threads!r}"):
        runtime.load(bundle, threads=threads)


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_session(bundle: Path, device: str) -> None:
    session, choice = open_session(Bundle.open(bundle), "generator", device, threads=1)
    assert choice == f"fp32 on cpu by {session.backend}"
    assert [slot.shape for slot in session.outputs] == [(3, 16, 16), (2,)]
    z = np.random.default_rng(0).standard_normal((45, 32), np.float32)
    results = session.run({"z": z})
    outputs = {name: np.empty_like(array) for name, array in results.items()}
    assert session.run({"z": z}, outputs).keys() == outputs.keys()
    assert all(np.array_equal(results[name], outputs[name]) for name in results)
    covered = np.zeros(45, int)
    for part, arrays in session.pieces({"z": z}):
        covered[part] += 1
        assert all(np.array_equal(array, results[name][part]) for name, array in arrays.items())
    assert (covered == 1).all()
    assert np.array_equal(session.run({"z": z[::-1]})["image"], results["image"][::-1])  # not contiguous
    with pytest.raises(InputError, match="inputs none, expected z"):
        session.run({})
    with pytest.raises(InputError, match=r"input z is float64 \[2, 32\], expected float32"):
        session.run({"z": np.zeros((2, 32))})
    with pytest.raises(InputError, match=r"input z is float32 \[2, 31\]"):
        session.run({"z": np.zeros((2, 31), np.float32)})
    with pytest.raises(InputError, match="outputs are for 45 samples, the inputs hold 2"):
        session.run({"z": z[:2]}, outputs)


def test_backends_agree() -> None:
    z = np.random.default_rng(0).standard_normal((40, 16), np.float32)
    results = [runtime.load("mgan-robot", device).session.run({"z": z}) for device in ("cpu", "openvino")]
    for name in ("image", "joints"):
        assert np.abs(results[0][name] - results[1][name]).max() < 1e-4


PORTS = (Slot("a", "float32", (2, 0)), Slot("b", "int64", ()))


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"a": np.zeros((3, 2, 9), np.float32)}, "inputs a, expected a, b"),
        ({"a": np.zeros((3, 2, 9), np.float32), "c": np.zeros(3, int)}, "inputs a, c, expected a, b"),
        ({"a": np.zeros((3, 2), np.float32), "b": np.zeros(3, int)}, r"a is float32 \[3, 2\], .* \[batch, 2, any\]"),
        ({"a": np.zeros((3, 2, 9), np.float32), "b": np.zeros(4, int)}, "b holds a batch of 4, expected 3 as in a"),
        ({"a": np.zeros((0, 2, 9), np.float32), "b": np.zeros(0, int)}, "a holds a batch of 0, expected at least 1"),
        ({"a": [[0]], "b": np.zeros(1, int)}, "a is a list, expected a NumPy array"),
        ({"a": np.zeros((3, 2, 9), np.float32), "b": np.array(3)}, r"b is int64 \[\], expected int64 \[batch"),
    ],
)
def test_feeds(feeds: dict[str, Any], message: str) -> None:
    assert check_feeds("here", PORTS, {"a": np.zeros((3, 2, 9), np.float32), "b": np.zeros(3, np.int64)}) == 3
    with pytest.raises(InputError, match=message):
        check_feeds("here", PORTS, feeds)


def test_order_names_every_backend() -> None:
    assert sorted(ORDER) == ["cpu", "cuda", "openvino", "tensorrt"]
