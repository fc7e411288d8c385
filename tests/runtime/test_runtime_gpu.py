"""The runtime on a GPU: `make gpu` runs these."""

import numpy as np
import pytest

import runtime

pytestmark = pytest.mark.gpu


def test_cuda_makes_what_the_cpu_makes():
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime here has no CUDA provider (pip install awase[gpu])")
    try:
        on_gpu = runtime.load("mgan-robot", device="cuda").generate(16)
    except runtime.InputError as error:
        pytest.skip(f"CUDA does not work here: {error}")
    on_cpu = runtime.load("mgan-robot").generate(16)
    assert np.abs(on_gpu.joints - on_cpu.joints).max() < 1e-3
    assert np.abs(on_gpu.image.astype(int) - on_cpu.image.astype(int)).max() <= 1
