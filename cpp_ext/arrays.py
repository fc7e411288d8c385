"""What array libraries differ in: how to make an array beside another one, and which CUDA stream is theirs.

No library is imported here: an array of a library can only come from where that library is loaded already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np


def _is(array: Any, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(array, getattr(loaded, name))


def is_torch(array: Any) -> bool:
    """Whether this is a PyTorch tensor."""
    return _is(array, "torch", "Tensor")


def on_cuda(array: Any) -> bool:
    """Whether the array is in a CUDA device's memory."""
    if is_torch(array):
        return bool(array.is_cuda)
    return hasattr(array, "__cuda_array_interface__")


def empty_like(array: Any, shape: Sequence[int], dtype: str) -> Any:
    """An uninitialised array of `array`'s library, on its device.

    Raises ValueError for a library on CUDA whose arrays cannot be made here: then `out` must be given.
    """
    if is_torch(array):
        return array.new_empty(tuple(shape), dtype=getattr(sys.modules["torch"], dtype))
    if _is(array, "cupy", "ndarray"):
        with array.device:
            return sys.modules["cupy"].empty(tuple(shape), dtype)
    if _is(array, "pycuda.gpuarray", "GPUArray"):
        return sys.modules["pycuda.gpuarray"].empty(tuple(shape), np.dtype(dtype))
    if on_cuda(array):
        kind = f"{type(array).__module__}.{type(array).__qualname__}"
        raise ValueError(f"out: got None for an input of {kind}, expected an array to write to")
    return np.empty(tuple(shape), dtype)


def stream_of(array: Any, stream: Any) -> int:
    """The cudaStream_t to work on: `stream` (an integer or a library's stream object), else the library's current one.

    0, the default stream, for libraries that have no current stream (PyCUDA), and in host memory.
    """
    if stream is not None:
        for name in ("cuda_stream", "ptr", "handle"):  # PyTorch, CuPy, PyCUDA
            stream = getattr(stream, name, stream)
        return int(stream)
    if is_torch(array) and array.is_cuda:
        return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream)
    if _is(array, "cupy", "ndarray"):
        return int(sys.modules["cupy"].cuda.get_current_stream().ptr)
    return 0
