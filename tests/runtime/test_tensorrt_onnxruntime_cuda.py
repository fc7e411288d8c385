"""ONNX Runtime on a GPU, with stand-ins for the GPU and its provider: the arithmetic is the CPU provider's."""

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
from runtime.backends import cuda
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.backends.onnxruntime_cuda import OnnxRuntimeCudaSession
from runtime.bundle import Bundle
from runtime.errors import InputError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    gpu = Gpu()
    for name, module in gpu_stand_ins.pycuda(gpu).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cuda, "_driver", lambda: Driver(gpu))
    cuda.device.cache_clear()
    yield gpu
    cuda.device.cache_clear()


def open_session(bundle: Path) -> OnnxRuntimeCudaSession:
    opened = Bundle.open(bundle)
    graph = opened.graph("generator")
    return OnnxRuntimeCudaSession(opened.file(graph), graph)


@pytest.mark.parametrize("count", [1, 8, 50, 150])
def test_any_batch(gpu: Gpu, bundle: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    library: Any = library_stand_ins.onnxruntime(gpu, onnxruntime)
    z = np.asarray(cpp_ext.noise(0, 0, count, 32))
    expected = OnnxRuntimeSession(bundle / "generator.onnx").run({"z": z})
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    session = open_session(bundle)
    assert (session.backend, session.device, session.precision) == ("onnxruntime", "cuda:0", "fp32")
    for _ in range(2):
        results = session.run({"z": z})
        for name, array in expected.items():
            np.testing.assert_allclose(results[name], array, rtol=1e-5, atol=1e-6)
    streams = {options["user_compute_stream"] for options in library.options}
    assert len(streams) == 2 and all(options["use_tf32"] == 0 for options in library.options)


def test_no_silent_fallback(gpu: Gpu, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = library_stand_ins.onnxruntime(gpu, onnxruntime, fallback=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    with pytest.raises(InputError, match="CUDA provider does not work here; use device cpu"):
        open_session(bundle)
    library.get_available_providers = lambda: ["CPUExecutionProvider"]
    with pytest.raises(InputError, match=r"has no CUDA provider; `pip install awase\[gpu\]`"):
        open_session(bundle)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="onnxruntime is not installed"):
        open_session(bundle)


def test_a_damaged_file(gpu: Gpu, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", library_stand_ins.onnxruntime(gpu, onnxruntime))
    opened = Bundle.open(bundle)
    (bundle / "generator.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="generator.onnx: onnxruntime cannot open it: "):
        OnnxRuntimeCudaSession(bundle / "generator.onnx", opened.graph("generator"))


def test_options_are_onnxruntime_s() -> None:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
    assert hasattr(onnxruntime.InferenceSession, "run_with_iobinding")
