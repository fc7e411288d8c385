"""Samples drawn and packed on a GPU, with stand-ins for it: the same as by way of the host."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_stand_ins
import library_stand_ins
import numpy as np
import onnxruntime
import pytest
from gpu_stand_ins import Driver, Gpu

import cpp_ext
from runtime.backends import cuda, drawn
from runtime.backends.device_array import DeviceArray
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.backends.onnxruntime_cuda import OnnxRuntimeCudaSession
from runtime.bundle import Bundle

LIMITS = {"joints": (np.float32([-1.0, -0.1]), np.float32([1.0, 0.1]))}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    gpu = Gpu()
    for name, module in gpu_stand_ins.pycuda(gpu).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cuda, "_driver", lambda: Driver(gpu))
    monkeypatch.setattr(drawn, "cpp_ext", gpu_stand_ins.kernels(gpu))
    cuda.device.cache_clear()
    yield gpu
    cuda.device.cache_clear()


@pytest.fixture
def session(gpu: Gpu, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> OnnxRuntimeCudaSession:
    monkeypatch.setitem(sys.modules, "onnxruntime", library_stand_ins.onnxruntime(gpu, onnxruntime))
    opened = Bundle.open(bundle)
    graph = opened.graph("generator")
    return OnnxRuntimeCudaSession(opened.file(graph), graph)


@pytest.mark.parametrize("form", ["uint8", "float32"])
@pytest.mark.parametrize("count", [3, 300])
@pytest.mark.parametrize("place", ["host", "device"])
def test_as_by_way_of_the_host(
    gpu: Gpu,
    session: OnnxRuntimeCudaSession,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    count: int,
    place: str,
) -> None:
    shape = (count, 16, 16, 3) if form == "uint8" else (count, 3, 16, 16)
    sample: dict[str, Any] = {"image": np.empty(shape, form), "joints": np.empty((count, 2), np.float32)}
    if place == "device":
        sample = {name: session.gpu.empty(array.shape, array.dtype) for name, array in sample.items()}
    drawn.fill(session, sample, LIMITS, seed=5, first=11)
    got = {
        name: gpu.memory(array.pointer, array.shape, array.dtype) if isinstance(array, DeviceArray) else array
        for name, array in sample.items()
    }
    monkeypatch.setitem(sys.modules, "onnxruntime", onnxruntime)
    want = OnnxRuntimeSession(bundle / "generator.onnx").run({"z": np.asarray(cpp_ext.noise(5, 11, count, 32))})
    np.testing.assert_allclose(got["joints"], np.clip(want["joints"], *LIMITS["joints"]), atol=1e-6)
    assert np.abs(got["joints"][:, 1]).max() == np.float32(0.1)
    if form == "uint8":
        assert np.abs(got["image"].astype(int) - np.asarray(cpp_ext.pack(want["image"]))).max() <= 1
    else:
        np.testing.assert_allclose(got["image"], want["image"], atol=1e-6)
    assert not [event for event in gpu.events if event[0] == "to device" and place == "host"]  # no noise is sent


def test_whether_it_can(session: OnnxRuntimeCudaSession, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn.can_fill(session) and not drawn.can_fill(object())

    def without() -> int:
        raise RuntimeError("this build has no CUDA")

    monkeypatch.setattr(drawn.cpp_ext, "cuda_devices", without)
    assert not drawn.can_fill(session)
