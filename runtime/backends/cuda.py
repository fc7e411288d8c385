"""A GPU as the backends use it: memory and streams through PyCUDA, and CUDA graphs, which PyCUDA lacks.

The device's primary context is used, the one that PyTorch, ONNX Runtime and Awase's kernels share, and it is current
in a thread only while a call of ours lasts.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from runtime.backends.device_array import CUDA, DeviceArray
from runtime.errors import InputError, one_line


@functools.cache
def device(number: int) -> Device:
    """The GPU of this number, opened once in a process.

    Raises:
        InputError: PyCUDA or the driver is missing, or there is no such GPU; the message says which.
    """
    return Device(number)


_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING."""


class Device:
    """One GPU.

    Args:
        number: CUDA's number of it.

    Raises:
        InputError: as `device`.
    """

    def __init__(self, number: int) -> None:
        self.cuda = _pycuda()
        try:
            self.cuda.init()
            count = self.cuda.Device.count()
        except self.cuda.Error as error:
            raise InputError(f"device cuda:{number}: the NVIDIA driver finds no GPU ({one_line(error)})") from None
        if number >= count:
            raise InputError(f"there is no cuda:{number}: this machine has {count} GPU(s), numbered from 0")
        chosen = self.cuda.Device(number)
        self.number = number
        self.name = str(chosen.name())
        self.capability = "SM{}{}".format(*chosen.compute_capability())
        """Its generation, e.g. "SM89"."""
        self._context = chosen.retain_primary_context()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Have this device's context current in this thread."""
        self._context.push()
        try:
            yield
        finally:
            self.cuda.Context.pop()

    def stream(self) -> Any:
        """A new PyCUDA stream, which neither waits for the default stream nor is waited for by it."""
        with self.current():
            return self.cuda.Stream(_NON_BLOCKING)

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """New device memory, zeroed.

        Raises:
            InputError: there is not enough of it.
        """
        size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
        try:
            with self.current():
                memory = _Memory(self, self.cuda.mem_alloc(size))
                # On a stream of its own: to wait for all of the device would break the capture of another lane's graph.
                stream = self.cuda.Stream(_NON_BLOCKING)
                self.cuda.memset_d8_async(int(memory.allocation), 0, size, stream)
                stream.synchronize()
                del stream  # while the context is current: PyCUDA cannot free it elsewhere
        except self.cuda.MemoryError:
            raise InputError(f"{self.name}: no room for {size / 1e6:,.0f} MB more; use a smaller batch") from None
        return DeviceArray(memory, int(memory.allocation), shape, dtype, (CUDA, self.number))

    def pinned(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """A new page-locked host array, which copies to and from the device need to overlap with other work.

        Raises:
            InputError: there is not enough memory.
        """
        try:
            with self.current():
                array: np.ndarray = self.cuda.pagelocked_empty(tuple(shape), np.dtype(dtype))
        except self.cuda.MemoryError:
            raise InputError(
                f"no room for {math.prod(shape) / 1e6:,.0f} million values of page-locked memory; use a smaller batch"
            ) from None
        return array


class _Memory:
    """An allocation that any thread may free: PyCUDA leaks one freed in a thread where its context is not current."""

    def __init__(self, owner: Device, allocation: Any) -> None:
        self.owner = owner
        self.allocation = allocation

    def __del__(self) -> None:
        if not sys.is_finalizing():  # the driver frees all at the process's end
            with self.owner.current():
                self.allocation.free()


def check_driver() -> None:
    """Refuse a GPU where there is no driver for one.

    Raises:
        InputError: NVIDIA's driver library is not here.
    """
    try:
        _driver()
    except OSError:
        raise InputError("no NVIDIA driver (libcuda.so.1) is here, which a GPU needs; use openvino or cpu") from None


def _pycuda() -> Any:
    check_driver()
    try:
        import pycuda.driver
    except ImportError as error:
        if (error.name or "").startswith("pycuda") and "pycuda" not in sys.modules:
            raise InputError("pycuda is not installed; `pip install awase[gpu]`") from None
        raise InputError(
            f"pycuda cannot be imported ({one_line(error)}); build it against this driver's CUDA"
        ) from None
    return pycuda.driver


# --- CUDA graphs, by the driver's C interface ---


@functools.cache
def _driver() -> Any:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


_THIS_THREAD_ONLY = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not break the capture."""


class Graph:
    """Work captured from a stream, to be launched as one.

    Args:
        stream: handle of the stream, which must not be the default one.
        enqueue: puts the work on the stream.

    Raises:
        RuntimeError: the work cannot be captured. The stream is usable all the same.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        self._stream = ctypes.c_void_p(stream)
        self._launchable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        _call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THIS_THREAD_ONLY))
        failed: Exception | None = None
        try:
            enqueue()
        except Exception as error:
            failed = error
        try:
            _call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        except RuntimeError as error:
            failed = failed or error
        try:
            if failed is not None:
                raise RuntimeError(one_line(failed)) from failed
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._launchable), graph, ctypes.c_ulonglong(0))
        finally:
            if graph:
                _driver().cuGraphDestroy(graph)

    def launch(self) -> None:
        """Enqueue it again."""
        _call("cuGraphLaunch", self._launchable, self._stream)

    def __del__(self) -> None:
        if self._launchable and not sys.is_finalizing():
            _driver().cuGraphExecDestroy(self._launchable)


def _call(function: str, *arguments: Any) -> None:
    status = getattr(_driver(), function)(*arguments)
    if status:
        name = ctypes.c_char_p()
        _driver().cuGetErrorName(ctypes.c_int(status), ctypes.byref(name))
        raise RuntimeError(f"{function}: {name.value.decode() if name.value else f'CUDA error {status}'}")
