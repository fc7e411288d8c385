"""Sessions on a real GPU, against the CPU: `make gpu` runs these."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cpp_ext
from runtime.backends import cuda
from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.session import Session, open_session

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu() -> cuda.Device:
    try:
        return cuda.device(0)
    except InputError as error:
        pytest.skip(str(error))


def check_against_the_cpu(session: Session, bundle: Bundle) -> None:
    on_cpu, _ = open_session(bundle, "generator", "cpu")
    for count in (1, 8, 8, 8, 50, 150):
        z = np.asarray(cpp_ext.noise(0, count, count, session.inputs[0].shape[0]))
        expected, results = on_cpu.run({"z": z}), session.run({"z": z})
        for name, array in expected.items():
            np.testing.assert_allclose(results[name], array, atol=2e-3, err_msg=name)


def test_onnxruntime_in_lanes(gpu: cuda.Device) -> None:
    from runtime.backends.onnxruntime_cuda import OnnxRuntimeCudaSession

    bundle = Bundle.open("mgan-robot")
    graph = bundle.graph("generator")
    try:
        session = OnnxRuntimeCudaSession(bundle.file(graph), graph)
    except InputError as error:
        pytest.skip(str(error))
    check_against_the_cpu(session, bundle)


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt(gpu: cuda.Device, tmp_path: Path, flavour: Any) -> None:
    tensorrt = pytest.importorskip("export.tensorrt", reason="pip install awase[train]")
    from export.pipeline import Plan, export_bundle
    from export.sources import source_of_bundle
    from runtime.backends.tensorrt import open_engine

    try:
        built = flavour in tensorrt.flavours()
    except InputError as error:
        pytest.skip(str(error))
    if not built:
        pytest.skip(f"{flavour} is not installed")
    source = source_of_bundle(Bundle.open("mgan-robot").path)
    bundle = Bundle.open(export_bundle(source, tmp_path / "bundle", Plan(engines=(flavour,))).path)
    if flavour == "tensorrt-rtx" and gpu.capability not in tensorrt.compute_capabilities():
        with pytest.raises(InputError, match=f"TensorRT-RTX knows no {gpu.capability}"):
            open_engine(bundle, "generator")
    else:
        check_against_the_cpu(open_engine(bundle, "generator"), bundle)


def test_arrays_on_the_device(gpu: cuda.Device) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")
    array = gpu.empty((6, 4), "float32")
    torch.from_dlpack(array)[2:].fill_(3)
    torch.cuda.synchronize()
    assert torch.from_dlpack(array).sum().item() == 3 * 16
    cpp_ext.noise(1, 0, 6, 4, out=array)
    torch.cuda.synchronize()
    np.testing.assert_array_equal(torch.from_dlpack(array).cpu().numpy(), cpp_ext.noise(1, 0, 6, 4))


def test_a_cuda_graph_does_its_work_again(gpu: cuda.Device) -> None:
    stream, array = gpu.stream(), gpu.empty((4, 8), "float32")
    seeds = iter((1, 2))

    def draw() -> None:
        cpp_ext.noise(next(seeds), 0, 4, 8, out=array, stream=int(stream.handle))

    with gpu.current():
        graph = cuda.Graph(int(stream.handle), draw)
        out = gpu.pinned((4, 8), "float32")
        graph.launch()
        gpu.cuda.memcpy_dtoh_async(out, array.pointer, stream)
        stream.synchronize()
    np.testing.assert_array_equal(out, cpp_ext.noise(1, 0, 4, 8))
