"""The custom operators in ONNX Runtime's CUDA sessions."""

import numpy as np
import pytest

import cpp_ext

pytestmark = pytest.mark.gpu
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from onnx import TensorProto  # noqa: E402
from ort_graphs import KERNEL, UINT8, fed, fusion, images, op, session  # noqa: E402

CUDA = "CUDAExecutionProvider"


@pytest.fixture(autouse=True)
def _needs():
    try:
        cpp_ext.ort_ops()
    except (RuntimeError, ValueError) as missing:
        pytest.skip(str(missing))
    if CUDA not in ort.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")


def test_a_fusion_graph_with_its_metrics_stays_on_the_gpu():
    on_gpu = session(*fusion(), constants=KERNEL, provider=CUDA)
    assert on_gpu.get_providers()[0] == CUDA
    on_cpu = session(*fusion(), constants=KERNEL)
    for seed, count in ((0, 1), (10, 7), (20, 64)):
        for got, expected in zip(*(runs.run(None, fed(seed, count)) for runs in (on_gpu, on_cpu)), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("element_type", [UINT8, TensorProto.FLOAT16])
def test_ssim_is_the_kernels(layout, element_type):
    a, b = images(5, 20, 21, 22), images(5, 20, 21, 22, seed=1)
    data_range = 255.0
    if element_type == TensorProto.FLOAT16:
        a, b, data_range = (a / 255).astype(np.float16), (b / 255).astype(np.float16), 1.0
    node = op("SSIM", "a b", "scores", window="gaussian", data_range=data_range, layout=layout)
    ports = {name: (element_type, ["N", None, None, None]) for name in "ab"}
    (scores,) = session([node], ports, {"scores": None}, provider=CUDA).run(None, {"a": a, "b": b})
    a, b = (x.astype(np.float32) if x.dtype == np.float16 else x for x in (a, b))
    expected = cpp_ext.ssim(a, b, window="gaussian", data_range=data_range, layout=layout)
    np.testing.assert_allclose(scores, expected, atol=2e-6)


def test_errors_are_the_kernels():
    node = op("Gram", "f", "g")
    runs = session([node], {"f": (TensorProto.FLOAT, None)}, {"g": None}, provider=CUDA)
    with pytest.raises(Exception, match=r"Gram: f: got float32 \[4, 5\] on CUDA device 0, expected"):
        runs.run(None, {"f": np.ones((4, 5), np.float32)})
