"""Stand-ins for TensorRT and ONNX Runtime's CUDA provider, on the stand-in for a GPU."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gpu_stand_ins
import numpy as np
import pytest
from gpu_stand_ins import Driver, Gpu

from runtime.backends import cuda
from runtime.bundle import Bundle, EngineEntry, sha256_of

PROFILE = {"z": ((1, 32), (8, 32), (64, 32))}
VERSION = "10.13.0.35"
Machine = Callable[..., tuple[Gpu, Driver, ModuleType]]


def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """machine(rtx=False, **what the GPU is) → the stand-ins, put in place."""

    def make(rtx: bool = False, **gpu_is: Any) -> tuple[Gpu, Driver, ModuleType]:
        gpu = Gpu(**gpu_is)
        driver, library = Driver(gpu), tensorrt(gpu, VERSION, rtx)
        for name, module in gpu_stand_ins.pycuda(gpu).items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx" if rtx else "tensorrt", library)
        monkeypatch.setattr(cuda, "_driver", lambda: driver)
        cuda.device.cache_clear()
        return gpu, driver, library

    yield make
    cuda.device.cache_clear()


def bundles_with_engine(bundle: Path) -> Callable[..., Bundle]:
    """with_engine(words="good", **fields) → the bundle with an engine file that holds the words."""

    def make(words: str = "good", **fields: Any) -> Bundle:
        opened = Bundle.open(bundle)
        flavour = fields.get("flavour", "tensorrt")
        path = bundle / f"generator.{flavour}.engine"
        path.write_text(words)
        entry = {
            "graph": "generator",
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "onnx_sha256": opened.graph("generator").sha256,
            "flavour": flavour,
            "version": VERSION,
            "compute_capabilities": ("SM89",),
            "profile": PROFILE,
        }
        manifest = opened.manifest.model_copy(update={"engines": (EngineEntry(**{**entry, **fields}),)})
        return Bundle(bundle, manifest)

    return make


class Words(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class Tensor:
    def __init__(self, shape: tuple[int, ...], dtype: str = "FLOAT", profile: Any = None) -> None:
        self.shape, self.dtype, self.profile = shape, dtype, profile


def compute(z: np.ndarray) -> dict[str, np.ndarray]:
    """What the stand-in engine computes: z [N, 32] → image [N, 3, 16, 16], joints [N, 2]."""
    image = np.tanh(z[:, :1, None, None] + np.linspace(-1, 1, 768, dtype=np.float32).reshape(3, 16, 16))
    return {"image": image, "joints": 2 * z[:, 1:3]}


def tensorrt(gpu: Gpu, version: str = "10.13.0.35", rtx: bool = False) -> ModuleType:
    """The library; its engines are files that hold `good` or the words of a refusal."""
    library = ModuleType("tensorrt")
    profile = ((1, 32), (8, 32), (64, 32))
    library.tensors = {  # type: ignore[attr-defined]
        "z": Tensor((-1, 32), profile=profile),
        "image": Tensor((-1, 3, 16, 16)),
        "joints": Tensor((-1, 2)),
    }
    library.configs = []  # type: ignore[attr-defined]
    mode = enum.Enum("TensorIOMode", "INPUT OUTPUT")

    class ILogger:
        Severity = Words

        def log(self, severity: Words, message: str) -> None:
            raise AssertionError("a logger of one's own has a log of its own")

    class Context:
        def __init__(self) -> None:
            gpu.check_current()
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.addresses: dict[str, int] = {}
            self.scratch = False

        def set_device_memory(self, pointer: int, size: int) -> None:
            gpu.memory(pointer, (size,), np.uint8)
            self.scratch = size >= 512

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            low, _, high = library.tensors[name].profile
            self.shapes[name] = shape
            return low[0] <= shape[0] <= high[0]

        def set_tensor_address(self, name: str, pointer: int) -> bool:
            assert name in library.tensors
            self.addresses[name] = pointer
            return True

        def execute_async_v3(self, stream: int) -> bool:
            gpu.check_current()
            assert self.scratch and self.shapes.keys() == {"z"}
            assert self.addresses.keys() == library.tensors.keys()
            shape, addresses = self.shapes["z"], dict(self.addresses)

            def work() -> None:
                for name, values in compute(gpu.memory(addresses["z"], shape, np.float32)).items():
                    gpu.memory(addresses[name], values.shape, np.float32)[...] = values

            gpu.events.append(("execute", stream, shape[0]))
            gpu.streams[stream].enqueue(work)
            return True

    class Engine:
        num_io_tensors = property(lambda self: len(library.tensors))
        device_memory_size_v2 = 512

        def get_tensor_name(self, index: int) -> str:
            return list(library.tensors)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return mode.INPUT if library.tensors[name].profile else mode.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return SimpleNamespace(name=library.tensors[name].dtype)

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return library.tensors[name].shape

        def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
            assert index == 0
            return list(library.tensors[name].profile)

        def create_runtime_config(self) -> Any:
            config = SimpleNamespace(create_runtime_cache=lambda: "cache")
            config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
            config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
            library.configs.append(config)
            return config

        def create_execution_context(self, how: Any) -> Context:
            assert how is (library.configs[0] if rtx else "user managed")
            return Context()

    class Runtime:
        def __init__(self, log: ILogger) -> None:
            gpu.check_current()
            gpu.events.append(("runtime",))
            self.log = log

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            if data == b"good":
                return Engine()
            self.log.log(Words.WARNING, "not this")
            self.log.log(Words.ERROR, data.decode())
            return None

    library.__dict__.update(
        __version__=version,
        ILogger=ILogger,
        Runtime=Runtime,
        TensorIOMode=mode,
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
    )
    if rtx:
        validity = enum.Enum("EngineValidity", "VALID SUBOPTIMAL INVALID")
        flags = enum.IntEnum("EngineInvalidityDiagnostics", {"VERSION_MISMATCH": 1, "OLD_CUDA_DRIVER": 4})

        def get_engine_validity(self: Runtime, data: bytes) -> tuple[Any, int]:
            return (validity.INVALID, 5) if data == b"invalid" else (validity.VALID, 0)

        Runtime.get_engine_validity = get_engine_validity  # type: ignore[attr-defined]
        library.__dict__.update(
            EngineValidity=validity,
            EngineInvalidityDiagnostics=flags,
            ComputeCapability=enum.Enum("ComputeCapability", "SM80 SM86 SM89 SM120"),
            CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole"),
            DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
        )
    return library


def onnxruntime(gpu: Gpu, real: ModuleType, fallback: bool = False) -> ModuleType:
    """ONNX Runtime with a CUDA provider: bound addresses and a stream outside, the real CPU provider inside."""
    library = ModuleType("onnxruntime")
    library.options = []  # type: ignore[attr-defined]

    class Binding:
        def __init__(self) -> None:
            self.inputs: dict[str, tuple[Any, ...]] = {}
            self.outputs: dict[str, tuple[Any, ...]] = {}

        def bind_input(self, name: str, place: str, number: int, element: Any, shape: list[int], pointer: int) -> None:
            assert (place, number) == ("cuda", 0)
            self.inputs[name] = (pointer, tuple(shape), element)

        def bind_output(self, name: str, place: str, number: int, element: Any, shape: list[int], pointer: int) -> None:
            assert (place, number) == ("cuda", 0)
            self.outputs[name] = (pointer, tuple(shape), element)

    class RunOptions:
        def __init__(self) -> None:
            self.entries: dict[str, str] = {}

        def add_run_config_entry(self, key: str, value: str) -> None:
            self.entries[key] = value

    class InferenceSession:
        def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
            gpu.check_current()
            (name, chosen), cpu = providers
            assert (name, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
            library.options.append(chosen)
            self.stream = int(chosen["user_compute_stream"])
            self.session = real.InferenceSession(path, options, providers=[cpu])

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"] if fallback else ["CUDAExecutionProvider", "CPUExecutionProvider"]

        io_binding = staticmethod(Binding)

        def run_with_iobinding(self, binding: Binding, options: RunOptions) -> None:
            gpu.check_current()
            assert options.entries == {"disable_synchronize_execution_providers": "1"}

            def work() -> None:
                feeds = {name: gpu.memory(*bound) for name, bound in binding.inputs.items()}
                for bound, values in zip(
                    binding.outputs.values(), self.session.run(list(binding.outputs), feeds), strict=True
                ):
                    gpu.memory(*bound)[...] = values

            gpu.events.append(("execute", self.stream, next(iter(binding.inputs.values()))[1][0]))
            gpu.streams[self.stream].enqueue(work)

    library.__dict__.update(
        SessionOptions=real.SessionOptions,
        RunOptions=RunOptions,
        InferenceSession=InferenceSession,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    return library
