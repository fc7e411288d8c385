"""Engines that may not run here: every refusal, with stand-ins and with the real libraries as far as those go."""

import gc
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gpu_stand_ins
import pytest
from gpu_stand_ins import Gpu
from library_stand_ins import VERSION, Machine, Tensor, bundles_with_engine, machines

from runtime.backends import cuda, tensorrt
from runtime.bundle import Bundle
from runtime.errors import InputError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield from machines(monkeypatch)


@pytest.fixture
def with_engine(bundle: Path) -> Callable[..., Bundle]:
    return bundles_with_engine(bundle)


def refusal(bundle: Bundle, precision: Any = "fp32", number: int = 0) -> str:
    with pytest.raises(InputError) as caught:
        tensorrt.open_engine(bundle, "generator", precision, number)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"onnx_sha256": "0" * 64}, "is stale: built from another generator.onnx .* `python -m export RUN --trt`"),
        ({"version": "10.9.0.34"}, f"built by tensorrt 10.9.0.34, here is {VERSION}, .* own version alone; `python"),
        ({"compute_capabilities": ("SM80", "SM90")}, r"for SM80, SM90, and cuda:0 \(Stand-in GPU\) is SM89; `python"),
        ({"profile": {"z": ((1, 31), (8, 31), (64, 31))}}, "profile .* does not fit the graph's inputs"),
        ({"profile": {"z": ((8, 32), (4, 32), (64, 32))}}, "profile .* does not fit the graph's inputs"),
        ({"profile": {"y": ((1, 32), (8, 32), (64, 32))}}, "profile .* does not fit the graph's inputs"),
        ({"profile": {}}, "profile .* does not fit the graph's inputs"),
    ],
)
def test_not_read_at_all(machine: Machine, with_engine: Any, fields: dict[str, Any], expected: str) -> None:
    gpu, _, _ = machine()
    message = refusal(with_engine(**fields))
    assert message.startswith(str(with_engine().path)) and not gpu.events
    with pytest.raises(InputError, match=expected):
        raise InputError(message)


def test_hopper_has_no_rtx(machine: Machine, with_engine: Any) -> None:
    gpu, _, _ = machine(rtx=True, capability=(9, 0))
    message = refusal(with_engine(flavour="tensorrt-rtx", compute_capabilities=("SM86", "SM89")))
    assert "is for SM86, SM89, and cuda:0 (Stand-in GPU) is SM90; TensorRT-RTX knows no SM90: use device" in message
    assert not gpu.events


def test_a_generation_that_was_left_out(machine: Machine, with_engine: Any) -> None:
    machine(rtx=True, capability=(8, 6))
    assert "`python -m export RUN --trt --sm 86` builds one" in refusal(with_engine(flavour="tensorrt-rtx"))


def test_no_engine(machine: Machine, bundle: Path) -> None:
    machine()
    opened = Bundle.open(bundle)
    assert "no engine of graph generator in fp32; `python -m export RUN --trt` builds one" in refusal(opened)


def test_the_next_engine_that_may_run_is_taken(machine: Machine, with_engine: Any) -> None:
    machine()
    bundle = with_engine()
    (good,) = bundle.manifest.engines
    bad = good.model_copy(update={"version": "9"})
    both = Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": (bad, good)}))
    assert tensorrt.open_engine(both, "generator").backend == "tensorrt"
    worse = Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": (bad, bad)}))
    assert refusal(worse).count("was built by") == 2


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_no_library(machine: Machine, with_engine: Any, monkeypatch: pytest.MonkeyPatch, flavour: str) -> None:
    machine()
    name = tensorrt.MODULES[flavour]
    monkeypatch.setitem(sys.modules, name, None)
    assert f"needs {name}, which is not installed" in refusal(with_engine(flavour=flavour))
    monkeypatch.setitem(sys.modules, name, ModuleType(name))  # what type stubs alone leave
    assert refusal(with_engine(flavour=flavour)).endswith(f"`pip install {tensorrt.PACKAGES[flavour]}`")


def test_no_pycuda(machine: Machine, with_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    monkeypatch.delitem(sys.modules, "pycuda")
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.setattr(sys, "path", [])
    assert refusal(with_engine()) == "pycuda is not installed; `pip install awase[gpu]`"


def test_pycuda_for_another_driver(machine: Machine, with_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert refusal(with_engine()).startswith("pycuda cannot be imported (")


def test_no_driver(machine: Machine, with_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()

    def missing() -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(cuda, "_driver", missing)
    assert "no NVIDIA driver (libcuda.so.1)" in refusal(with_engine())


def test_no_such_gpu(machine: Machine, with_engine: Any) -> None:
    machine()
    assert refusal(with_engine(), number=1) == "there is no cuda:1: this machine has 1 GPU(s), numbered from 0"
    machine(count=0)
    assert "the NVIDIA driver finds no GPU (cuInit failed: no CUDA-capable" in refusal(with_engine())


def test_no_room(machine: Machine, with_engine: Any) -> None:
    gpu, _, _ = machine(room=100_000)
    assert "Stand-in GPU: no room for 0 MB more; use a smaller batch" in refusal(with_engine())
    gc.collect()
    assert not gpu.live


@pytest.mark.parametrize(
    ("rtx", "words", "expected"),
    [
        (False, "magic tag does not match", "cannot be loaded: magic tag does not match"),
        (True, "magic tag does not match", "cannot be loaded: magic tag does not match"),
        (True, "invalid", "is not valid here: version mismatch old cuda driver"),
    ],
)
def test_refused_by_the_library(machine: Machine, with_engine: Any, rtx: bool, words: str, expected: str) -> None:
    machine(rtx)
    assert refusal(with_engine(words, flavour="tensorrt-rtx" if rtx else "tensorrt")).endswith(expected)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("image", Tensor((-1, 3, 32, 32))),
        ("image", Tensor((-1, 3, 16, 16), "HALF")),
        ("image", Tensor((-1, 3, 16, 16), "BF16")),
        ("more", Tensor((-1, 2))),
        ("z", Tensor((-1, 32), profile=((1, 32), (8, 32), (16, 32)))),
        ("joints", Tensor((-1, 2), profile=((1, 2), (8, 2), (64, 2)))),
    ],
)
def test_an_engine_that_is_not_what_the_bundle_says(
    machine: Machine, with_engine: Any, name: str, tensor: Tensor
) -> None:
    _, _, library = machine()
    library.tensors[name] = tensor
    message = refusal(with_engine())
    assert "its bundle says" in message and name in message


# --- the real libraries, as far as they go without a GPU ---


def test_rtx_refuses_damaged_engines(tmp_path: Path) -> None:
    library = pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    for number, data in enumerate((b"", b"x", b"x" * 1000)):
        path = tmp_path / f"{number}.engine"
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{number}.engine is not valid here: malformed engine"):
            tensorrt._Engine(library, path, None, [])  # type: ignore[arg-type]


USED = {
    "Runtime": ["deserialize_cuda_engine"],
    "ICudaEngine": [
        *("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape"),
        *("get_tensor_profile_shape", "device_memory_size_v2", "create_execution_context"),
    ],
    "IExecutionContext": ["set_device_memory", "set_input_shape", "set_tensor_address", "execute_async_v3"],
    "TensorIOMode": ["INPUT"],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "DataType": ["FLOAT", "HALF", "UINT8", "INT64"],
}
RTX_ONLY = {
    "Runtime": ["get_engine_validity"],
    "ICudaEngine": ["create_runtime_config"],
    "IRuntimeConfig": [
        *("set_execution_context_allocation_strategy", "cuda_graph_strategy", "create_runtime_cache"),
        *("dynamic_shapes_kernel_specialization_strategy", "set_runtime_cache"),
    ],
    "CudaGraphStrategy": ["WHOLE_GRAPH_CAPTURE"],
    "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
    "EngineValidity": ["INVALID"],
    "EngineInvalidityDiagnostics": ["VERSION_MISMATCH"],
}


def test_names_are_tensorrt_rtx_s() -> None:
    library = pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    for names in (USED, RTX_ONLY):
        for owner, members in names.items():
            assert not [name for name in members if not hasattr(getattr(library, owner), name)], owner


def test_names_are_tensorrt_s() -> None:
    paths = [Path(entry) / "tensorrt_bindings" / "tensorrt.pyi" for entry in sys.path]
    stubs = next((path for path in paths if path.is_file()), None)
    if stubs is None:
        pytest.skip("pip install tensorrt-stubs")
    # Read as text: the stubs are not quite Python.
    classes = dict(re.findall(r"^class (\w+).*?:\n((?:    .*\n|\n)*)", stubs.read_text(), re.MULTILINE))
    for owner, members in USED.items():
        assert not [name for name in members if not re.search(rf"^    (?:def )?{name}\b", classes[owner], re.M)], owner


def test_names_are_pycuda_s() -> None:
    try:
        cuda.check_driver()
    except InputError:
        pytest.skip("pycuda needs a driver to be imported")
    driver = pytest.importorskip("pycuda.driver", reason="pip install awase[gpu]")
    stand_in = gpu_stand_ins.pycuda(Gpu())["pycuda.driver"]
    used = [name for name in vars(stand_in) if not name.startswith("_")]
    assert not [name for name in used if not hasattr(driver, name)]
    for owner, name in (("Context", "push"), ("Device", "retain_primary_context"), ("Stream", "handle")):
        assert hasattr(getattr(driver, owner), name)
