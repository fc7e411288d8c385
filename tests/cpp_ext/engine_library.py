"""The engine's C interface through ctypes, as a C program would use it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import cpp_ext

OK, INVALID, UNAVAILABLE, OUT_OF_MEMORY = 0, 1, 2, 3
DTYPES = [np.uint8, np.float16, np.float32, np.float64, np.int64]
KINDS = ["noise", "image", "vector", "latent"]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 4),
        ("strides", ctypes.c_int64 * 4),
    ]


class Port(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("kind", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 3),
        ("unit", ctypes.c_char_p),
        ("names", ctypes.POINTER(ctypes.c_char_p)),
        ("limits", ctypes.POINTER(ctypes.c_double * 2)),
        ("range", ctypes.POINTER(ctypes.c_double)),
        ("parts", ctypes.POINTER(ctypes.c_int64)),
        ("part_count", ctypes.c_int32),
    ]


class Graph(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("input_count", ctypes.c_int32),
        ("output_count", ctypes.c_int32),
        ("precision_count", ctypes.c_int32),
        ("inputs", ctypes.POINTER(Port)),
        ("outputs", ctypes.POINTER(Port)),
        ("precisions", ctypes.POINTER(ctypes.c_char_p)),
    ]


class SessionOptions(ctypes.Structure):
    _fields_ = [
        ("graph", ctypes.c_char_p),
        ("precision", ctypes.c_char_p),
        ("device", ctypes.c_char_p),
        ("threads", ctypes.c_int32),
        ("onnxruntime", ctypes.c_char_p),
        ("tensorrt", ctypes.c_char_p),
    ]


class StreamOptions(ctypes.Structure):
    _fields_ = [
        ("seed", ctypes.c_uint64),
        ("first", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("batch", ctypes.c_int64),
    ]


class EngineError(Exception):
    """A status that was not AWASE_OK, with its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def installed() -> Path:
    """Where the engine's library is, or would be."""
    return Path(cpp_ext.cmake_dir()).parents[1] / "libawase_engine.so"


def available() -> bool:
    return cpp_ext.compiled() and installed().exists()


def tensor(array: np.ndarray, **fields: int) -> Tensor:
    """An awase_tensor over an array's memory, with some fields changed."""
    t = Tensor(array.ctypes.data, DTYPES.index(array.dtype.type), -1, array.ndim)
    t.shape[: array.ndim] = array.shape
    t.strides[: array.ndim] = [size // array.itemsize for size in array.strides]
    for name, value in fields.items():
        setattr(t, name, value)
    return t


def tensors(arrays: list[Any]) -> Any:
    """Arrays (or Tensors) as the interface takes them: one after another."""
    made = [item if isinstance(item, Tensor) else tensor(item) for item in arrays]
    return (Tensor * len(made))(*made)


def array_of(t: Tensor) -> np.ndarray:
    """A copy of the memory of a contiguous tensor."""
    shape, dtype = t.shape[: t.rank], np.dtype(DTYPES[t.dtype])
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(t.data, size), dtype).reshape(shape)


class Engine:
    """The library. Handles are closed where a `with` ends."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.awase_engine_last_error.restype = ctypes.c_char_p
        self.c.awase_bundle_name.restype = ctypes.c_char_p
        self.c.awase_bundle_name.argtypes = [ctypes.c_void_p]
        self.c.awase_bundle_graphs.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.POINTER(Graph))]
        for name in ("bundle", "session", "stream"):
            getattr(self.c, f"awase_{name}_close").argtypes = [ctypes.c_void_p]

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.c, name)(*arguments)
        if status != OK:
            raise EngineError(status, self.c.awase_engine_last_error().decode())

    @contextmanager
    def _opened(self, kind: str, *arguments: Any) -> Iterator[ctypes.c_void_p]:
        handle = ctypes.c_void_p()
        self.call(f"awase_{kind}_open", *arguments, ctypes.byref(handle))
        try:
            yield handle
        finally:
            getattr(self.c, f"awase_{kind}_close")(handle)

    def bundle(self, folder: Path | str) -> Any:
        return self._opened("bundle", str(folder).encode())

    def session(self, bundle: ctypes.c_void_p, **options: Any) -> Any:
        encoded = {name: value.encode() if isinstance(value, str) else value for name, value in options.items()}
        return self._opened("session", bundle, ctypes.byref(SessionOptions(**encoded)))

    def stream(self, session: ctypes.c_void_p, **options: int) -> Any:
        return self._opened("stream", session, ctypes.byref(StreamOptions(**options)))

    def graphs(self, bundle: ctypes.c_void_p) -> list[dict[str, Any]]:
        """What the bundle says of its graphs, as plain Python values."""
        pointer = ctypes.POINTER(Graph)()
        count = self.c.awase_bundle_graphs(bundle, ctypes.byref(pointer))
        return [
            {
                "name": graph.name.decode(),
                "inputs": [_port(graph.inputs[k]) for k in range(graph.input_count)],
                "outputs": [_port(graph.outputs[k]) for k in range(graph.output_count)],
                "precisions": [graph.precisions[k].decode() for k in range(graph.precision_count)],
            }
            for graph in pointer[:count]
        ]

    def run(self, session: ctypes.c_void_p, inputs: list[Any], outputs: list[Any]) -> None:
        given = (tensors(inputs), len(inputs), tensors(outputs), len(outputs))
        self.call("awase_session_run", session, *given)

    def generate(self, session: ctypes.c_void_p, outputs: list[Any], seed: int = 0, first: int = 0) -> None:
        whole = (ctypes.c_uint64(seed), ctypes.c_uint64(first))
        self.call("awase_session_generate", session, *whole, tensors(outputs), len(outputs))

    def next(self, stream: ctypes.c_void_p, outputs: int = 2) -> list[np.ndarray]:
        """Copies of the next batch's arrays; none after the last."""
        pointer, count = ctypes.POINTER(Tensor)(), ctypes.c_int64(-1)
        self.call("awase_stream_next", stream, ctypes.byref(pointer), ctypes.byref(count))
        return [array_of(pointer[k]) for k in range(outputs)] if count.value else []


def _port(port: Port) -> dict[str, Any]:
    width = port.shape[0]
    return {
        "name": port.name.decode(),
        "kind": KINDS[port.kind],
        "dtype": np.dtype(DTYPES[port.dtype]).name,
        "shape": tuple(port.shape[: port.rank]),
        "unit": port.unit.decode(),
        "names": tuple(port.names[k].decode() for k in range(width)) if port.names else (),
        "limits": tuple(tuple(port.limits[k]) for k in range(width)) if port.limits else None,
        "range": tuple(port.range[:2]) if port.range else None,
        "parts": tuple(port.parts[: port.part_count]) if port.parts else (),
    }


def load() -> Engine:
    """The installed library. ONNX Runtime is this Python's, if it is not where the engine looks by itself."""
    import onnxruntime

    here = Path(onnxruntime.__file__).parent
    if here.parent != installed().parents[2]:
        os.environ["AWASE_ONNXRUNTIME"] = str(next((here / "capi").glob("libonnxruntime.so.*")))
    return Engine(installed())
