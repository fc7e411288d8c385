"""Runs an engine that TensorRT-RTX or NVIDIA's data-centre TensorRT (10, 11) built, on the GPU it was built for.

An engine is machine code: it is loaded only if it was built from this very ONNX file, by this very version of the
library, for this GPU's generation. Both libraries share one API; where they differ the code asks what there is.

This code has run with stand-ins for the libraries only, never on a GPU.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from runtime.backends import cuda
from runtime.backends.lanes import DeviceSession, Lane, buckets
from runtime.errors import InputError, one_line

if TYPE_CHECKING:
    from runtime.bundle import Bundle, EngineEntry, GraphEntry, Port, Precision

MODULES = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
"""The library of each flavour."""
PACKAGES = {"tensorrt-rtx": "awase[trt]", "tensorrt": "tensorrt"}
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT64": "int64"}

log = logging.getLogger(__name__)


def open_engine(bundle: Bundle, graph: str, precision: Precision = "fp32", number: int = 0) -> TensorRtSession:
    """Open the first of a graph's engines that may run on a GPU.

    Args:
        bundle: a verified bundle.
        graph: the graph's name.
        precision: which variant of it.
        number: CUDA's number of the GPU.

    Raises:
        InputError: there is no engine, or why each cannot run here and what to do.
    """
    entry = bundle.graph(graph, precision)
    engines = bundle.engines(graph, precision)
    if not engines:
        raise InputError(f"{bundle.path}: no engine of graph {graph} in {precision}; {_again(precision)} builds one")
    reasons = []
    for engine in engines:
        try:
            return TensorRtSession(bundle.file(engine), engine, entry, number)
        except InputError as error:
            reasons.append(str(error))
    raise InputError("; ".join(reasons))


class TensorRtSession(DeviceSession):
    """One engine, opened.

    Args:
        path: the engine's file.
        engine: what the bundle says of it.
        graph: the graph it must be of.
        number: CUDA's number of the GPU.

    Raises:
        InputError: the engine is stale, or of another version, GPU or graph; the library, PyCUDA, the driver or the
            GPU is missing; or the library refuses the engine, in its own words.
    """

    def __init__(self, path: Path, engine: EngineEntry, graph: GraphEntry, number: int = 0) -> None:
        self.backend = engine.flavour
        self.precision = engine.precision
        _check_fresh(path, engine, graph)
        sizes = _sizes(path, engine, graph.inputs)
        gpu = cuda.device(number)
        library = _library(path, engine)
        _check_gpu(path, engine, library, gpu)
        with gpu.current():
            opened = _Engine(library, path, engine, [*graph.inputs, *graph.outputs])
        super().__init__(
            gpu,
            graph.inputs,
            graph.outputs,
            str(path),
            lambda: _TensorRtLane(gpu, graph.inputs, graph.outputs, sizes, opened),
        )


# --- whether an engine may run here: all of it asked before the library reads a byte ---


def _again(precision: str) -> str:
    return f"`python -m export RUN --trt{'' if precision == 'fp32' else f' --precision {precision}'}`"


def _check_fresh(path: Path, engine: EngineEntry, graph: GraphEntry) -> None:
    if engine.onnx_sha256 != graph.sha256:
        raise InputError(
            f"{path} is stale: built from another {graph.file} (SHA-256 {engine.onnx_sha256[:12]}…, the bundle's has "
            f"{graph.sha256[:12]}…); {_again(engine.precision)} builds it anew"
        )


def _sizes(path: Path, engine: EngineEntry, inputs: Sequence[Port]) -> tuple[int, ...]:
    """The batch sizes to run, from the engine's profile."""
    fits = engine.profile.keys() == {port.name for port in inputs}
    for port in inputs if fits else ():
        shapes = engine.profile[port.name]
        fits &= all(shape[1:] == port.shape for shape in shapes) and shapes[0][0] <= shapes[1][0] <= shapes[2][0]
    ends = {tuple(shape[0] for shape in shapes) for shapes in engine.profile.values()} if fits else set()
    if len(ends) != 1:
        raise InputError(
            f"{path}: its profile {engine.profile} does not fit the graph's inputs; {_again(engine.precision)} builds "
            "it anew"
        )
    return buckets(*ends.pop())


def _library(path: Path, engine: EngineEntry) -> ModuleType:
    name = MODULES[engine.flavour]
    try:
        library = importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: its shared libraries are not there
        library, reason = None, f" ({one_line(error)})"
    else:
        reason = ""
    # Type stubs alone make an empty package of the same name.
    if library is None or not hasattr(library, "Runtime"):
        raise InputError(
            f"{path} needs {name}, which is not installed{reason}; `pip install {PACKAGES[engine.flavour]}`"
        )
    if library.__version__ != engine.version:
        raise InputError(
            f"{path} was built by {name} {engine.version}, here is {library.__version__}, and engines run on their own "
            f"version alone; {_again(engine.precision)} builds it anew"
        )
    return library


def _check_gpu(path: Path, engine: EngineEntry, library: ModuleType, gpu: cuda.Device) -> None:
    known = engine.compute_capabilities
    if not known or gpu.capability in known:
        return
    if engine.flavour == "tensorrt":
        mend = f"{_again(engine.precision)} on this machine builds one for it"
    elif hasattr(library.ComputeCapability, gpu.capability):
        mend = f"{_again(engine.precision).rstrip('`')} --sm {gpu.capability.removeprefix('SM')}` builds one for it"
    else:
        mend = f"TensorRT-RTX knows no {gpu.capability}: use device cuda, or export with the data-centre tensorrt"
    raise InputError(
        f"{path} is for {', '.join(known)}, and cuda:{gpu.number} ({gpu.name}) is {gpu.capability}; {mend}"
    )


# --- the engine ---


def error_log(library: ModuleType) -> Any:
    """A logger that keeps errors instead of printing them: the libraries return None and say why here."""

    class Log(library.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= library.ILogger.Severity.ERROR:
                self.lines.append(message)

    return Log()


class _Engine:
    """An engine in the GPU's memory; the context must be current."""

    def __init__(self, library: ModuleType, path: Path, entry: EngineEntry, ports: Sequence[Port]) -> None:
        self.library = library
        self.path = path
        self.said = False
        """Whether it was said that there are no CUDA graphs."""
        self._making = threading.Lock()
        self._log = error_log(library)
        data = path.read_bytes()
        try:
            self._runtime = library.Runtime(self._log)
            if hasattr(self._runtime, "get_engine_validity"):
                self._check_validity(data)
            self.engine = self._runtime.deserialize_cuda_engine(data)
        except (RuntimeError, TypeError) as error:  # TypeError: what a null result of a constructor becomes
            raise self.refusal("cannot be loaded", one_line(error)) from error
        if self.engine is None:
            raise self.refusal("cannot be loaded")
        self._check_ports(entry, ports)
        # TensorRT-RTX compiles kernels for each shape, and captures and replays CUDA graphs of its own.
        self.own_graphs = hasattr(library, "CudaGraphStrategy")
        self._config = self._runtime_config() if self.own_graphs else None

    @property
    def scratch(self) -> int:
        """Bytes that a context needs to work in."""
        size = getattr(self.engine, "device_memory_size_v2", None)
        return int(self.engine.device_memory_size if size is None else size)

    def context(self) -> Any:
        """A new execution context whose working memory is the caller's to give."""
        strategy = self.library.ExecutionContextAllocationStrategy.USER_MANAGED
        with self._making:
            context = self.engine.create_execution_context(self._config if self.own_graphs else strategy)
        if context is None:
            raise self.refusal("gives no execution context")
        return context

    def refusal(self, what: str, more: str = "") -> InputError:
        """The error that holds the library's own words."""
        words = "; ".join([*self._log.lines, *([more] if more else [])])
        return InputError(f"{self.path} {what}: {words[:600] or 'TensorRT gave no reason'}")

    def _check_validity(self, data: bytes) -> None:
        validity, flags = self._runtime.get_engine_validity(data)
        if validity == self.library.EngineValidity.INVALID:
            names = self.library.EngineInvalidityDiagnostics.__members__
            found = [name for name, flag in names.items() if int(flags) & int(flag)]
            raise self.refusal("is not valid here", " ".join(found).lower().replace("_", " "))

    def _check_ports(self, entry: EngineEntry, ports: Sequence[Port]) -> None:
        """The engine must be what the bundle says: buffers are made by that."""
        engine = self.engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        has: dict[str, Any] = {}
        for name in names:
            shape = tuple(engine.get_tensor_shape(name))[1:]
            has[name] = (_DTYPES.get(engine.get_tensor_dtype(name).name), shape)
            if engine.get_tensor_mode(name) == self.library.TensorIOMode.INPUT:
                profile = tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0))
                has[name] = (*has[name], profile)
        wants: dict[str, Any] = {port.name: (port.dtype, port.shape) for port in ports}
        wants |= {name: (*wants[name], tuple(shapes)) for name, shapes in entry.profile.items()}
        if has != wants:
            raise InputError(
                f"{self.path} has {has}, its bundle says {wants}; {_again(entry.precision)} builds it anew"
            )

    def _runtime_config(self) -> Any:
        library = self.library
        config = self.engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(library.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # Lazily, a shape's kernels would change under way, and with them the last bits of the results.
        strategies = library.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        config.set_runtime_cache(config.create_runtime_cache())  # so that the second lane compiles nothing again
        return config


class _Bucket:
    """A context at one batch size, and the CUDA graph of it if there is one."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.graph: cuda.Graph | None = None


class _TensorRtLane(Lane):
    """A context for each batch size that was asked for (a CUDA graph needs one of its own), all in one memory."""

    def __init__(
        self, gpu: cuda.Device, inputs: Sequence[Port], outputs: Sequence[Port], sizes: Sequence[int], engine: _Engine
    ) -> None:
        super().__init__(gpu, inputs, outputs, sizes)
        self._engine = engine
        self._scratch = gpu.empty((engine.scratch,), "uint8")
        self._buckets: dict[int, _Bucket] = {}

    def _execute(self, size: int) -> None:
        bucket = self._buckets.get(size)
        if bucket is None:
            bucket = _Bucket(self._context(size))
            self._enqueue(bucket)  # the warm run: what TensorRT sets up once must not be captured
            if not self._engine.own_graphs:
                bucket.graph = self._captured(bucket)
            self._buckets[size] = bucket
        elif bucket.graph is not None:
            bucket.graph.launch()
        else:
            self._enqueue(bucket)

    def _context(self, size: int) -> Any:
        context = self._engine.context()
        if self._engine.scratch:
            context.set_device_memory(self._scratch.pointer, self._engine.scratch)
        done = [context.set_input_shape(name, (size, *array.shape[1:])) for name, array in self.inputs.items()]
        buffers: Mapping[str, Any] = {**self.inputs, **self.outputs}
        done += [context.set_tensor_address(name, array.pointer) for name, array in buffers.items()]
        if not all(done):
            raise self._engine.refusal(f"does not take a batch of {size}")
        return context

    def _enqueue(self, bucket: _Bucket) -> None:
        if not bucket.context.execute_async_v3(self.stream):
            raise self._engine.refusal("failed to run")

    def _captured(self, bucket: _Bucket) -> cuda.Graph | None:
        try:
            return cuda.Graph(self.stream, lambda: self._enqueue(bucket))
        except (RuntimeError, InputError) as error:
            if not self._engine.said:
                log.warning("%s runs without CUDA graphs, slower: %s", self._engine.path, one_line(error))
            self._engine.said = True
            return None
