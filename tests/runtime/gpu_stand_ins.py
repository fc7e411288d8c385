"""Stand-ins for a GPU, PyCUDA, the driver's CUDA graphs and our own kernels, for machines without a GPU.

Device memory is host memory; a stream does nothing before it is synchronised, so that what is not waited for is not
there. What a real GPU would punish with garbage or a crash is an assertion here: a call without a current context, an
address outside live memory, a copy from memory that is not page-locked, a run before all shapes and addresses are set.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import weakref
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

import cpp_ext

Work = Callable[[], None]


class Gpu:
    """One machine's GPUs, and all that happened: `events` such as ("execute", stream, batch)."""

    def __init__(self, capability: tuple[int, int] = (8, 9), count: int = 1, room: int = 2**30) -> None:
        self.capability, self.count, self.room = capability, count, room
        self.events: list[tuple[Any, ...]] = []
        self.live: dict[int, np.ndarray] = {}
        self.pinned: list[tuple[int, int]] = []
        self.streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self.leaks = 0
        self.graphs: dict[int, list[Work]] = {}
        self.handles = itertools.count(1000)
        self._stacks = threading.local()

    @property
    def stack(self) -> list[Any]:
        if not hasattr(self._stacks, "stack"):
            self._stacks.stack = []
        return self._stacks.stack

    def check_current(self) -> None:
        assert self.stack, "no context is current in this thread"

    def memory(self, pointer: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The live memory at an address, as an array."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        for start, buffer in self.live.items():
            if start <= pointer and pointer + size <= start + buffer.nbytes:
                return buffer[pointer - start : pointer - start + size].view(dtype).reshape(shape)
        raise AssertionError(f"{pointer:#x} + {size} is outside live device memory")


class Stream:
    def __init__(self, gpu: Gpu, flags: int) -> None:
        gpu.check_current()
        assert flags == 1, "a stream that waits for the default one"
        self.gpu, self.handle = gpu, next(gpu.handles)
        self.queue: list[Work] = []
        self.capture: list[Work] | None = None
        gpu.streams[self.handle] = self

    def __del__(self) -> None:
        self.gpu.leaks += not self.gpu.stack  # PyCUDA cannot free it then

    def enqueue(self, work: Work) -> None:
        (self.queue if self.capture is None else self.capture).append(work)

    def synchronize(self) -> None:
        self.gpu.check_current()
        assert self.capture is None
        self.gpu.events.append(("wait", self.handle))
        while self.queue:
            self.queue.pop(0)()


class Allocation:
    def __init__(self, gpu: Gpu, size: int) -> None:
        gpu.check_current()
        self.gpu = gpu
        buffer = np.full(size, 0xFF, np.uint8)  # NaN as a float
        self.pointer = buffer.ctypes.data
        gpu.live[self.pointer] = buffer

    def __int__(self) -> int:
        return self.pointer

    def free(self) -> None:
        self.gpu.check_current()
        del self.gpu.live[self.pointer]


def pycuda(gpu: Gpu) -> dict[str, ModuleType]:
    """Modules `pycuda` and `pycuda.driver`."""
    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")

    class Error(Exception):
        pass

    class MemoryError_(Error):
        pass

    class Context:
        def push(self) -> None:
            gpu.stack.append(self)

        @staticmethod
        def pop() -> None:
            gpu.stack.pop()

        @staticmethod
        def synchronize() -> None:
            gpu.check_current()
            assert all(stream.capture is None for stream in gpu.streams.values()), "this breaks a capture"

    class Device:
        count = staticmethod(lambda: gpu.count)

        def __init__(self, number: int) -> None:
            assert 0 <= number < gpu.count

        name = staticmethod(lambda: "Stand-in GPU")
        compute_capability = staticmethod(lambda: gpu.capability)
        retain_primary_context = staticmethod(Context)

    def init() -> None:
        if not gpu.count:
            raise Error("cuInit failed: no CUDA-capable device is detected")

    def mem_alloc(size: int) -> Allocation:
        if sum(buffer.nbytes for buffer in gpu.live.values()) + size > gpu.room:
            raise MemoryError_("cuMemAlloc failed: out of memory")
        return Allocation(gpu, size)

    def memset_d8_async(pointer: int, value: int, size: int, stream: Stream) -> None:
        gpu.check_current()

        def work() -> None:
            gpu.memory(pointer, (size,), np.uint8)[...] = value

        stream.enqueue(work)

    def pagelocked_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        gpu.check_current()
        array = np.full(shape, 77, dtype)
        gpu.pinned.append((array.ctypes.data, array.ctypes.data + array.nbytes))
        return array

    def copy(host: np.ndarray, pointer: int, stream: Stream, to_device: bool) -> None:
        gpu.check_current()
        assert host.flags.c_contiguous
        start = host.ctypes.data
        assert any(low <= start and start + host.nbytes <= high for low, high in gpu.pinned), "not page-locked"

        def work() -> None:
            device = gpu.memory(pointer, host.shape, host.dtype)
            if to_device:
                device[...] = host
            else:
                host[...] = device

        gpu.events.append(("to device" if to_device else "to host", stream.handle, len(host)))
        stream.enqueue(work)

    def copy_there(out: int, pointer: int, size: int, stream: Stream) -> None:
        gpu.check_current()

        def work() -> None:
            gpu.memory(out, (size,), np.uint8)[...] = gpu.memory(pointer, (size,), np.uint8)

        stream.enqueue(work)

    driver.__dict__.update(
        Error=Error,
        MemoryError=MemoryError_,
        Context=Context,
        Device=Device,
        Stream=lambda flags: Stream(gpu, flags),
        init=init,
        mem_alloc=mem_alloc,
        memset_d8_async=memset_d8_async,
        pagelocked_empty=pagelocked_empty,
        memcpy_dtod_async=copy_there,
        memcpy_htod_async=lambda pointer, host, stream: copy(host, pointer, stream, True),
        memcpy_dtoh_async=lambda host, pointer, stream: copy(host, pointer, stream, False),
    )
    package.driver = driver  # type: ignore[attr-defined]
    package.__spec__ = ModuleSpec("pycuda", None)
    return {"pycuda": package, "pycuda.driver": driver}


class Driver:
    """The functions of libcuda that CUDA graphs need. `refuses`: the function that fails."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.refuses = ""

    def _call(self, name: str) -> int:
        self.gpu.check_current()
        self.gpu.events.append((name,))
        return 900 if name == self.refuses else 0

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: ctypes.c_int) -> int:
        assert mode.value == 1
        if status := self._call("cuStreamBeginCapture_v2"):
            return status
        self.gpu.streams[stream.value or 0].capture = []
        return 0

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:
        captured, owner = self.gpu.streams[stream.value or 0].capture, self.gpu.streams[stream.value or 0]
        assert captured is not None
        owner.capture = None
        if status := self._call("cuStreamEndCapture"):
            return status
        graph._obj.value = next(self.gpu.handles)
        self.gpu.graphs[graph._obj.value] = captured
        return 0

    def cuGraphInstantiateWithFlags(self, launchable: Any, graph: ctypes.c_void_p, flags: ctypes.c_ulonglong) -> int:
        assert flags.value == 0
        if status := self._call("cuGraphInstantiateWithFlags"):
            return status
        launchable._obj.value = next(self.gpu.handles)
        self.gpu.graphs[launchable._obj.value] = self.gpu.graphs[graph.value or 0]
        return 0

    def cuGraphLaunch(self, launchable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        if status := self._call("cuGraphLaunch"):
            return status
        for work in self.gpu.graphs[launchable.value or 0]:
            self.gpu.streams[stream.value or 0].enqueue(work)
        return 0

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        del self.gpu.graphs[graph.value or 0]
        return 0

    def cuGraphExecDestroy(self, launchable: ctypes.c_void_p) -> int:
        del self.gpu.graphs[launchable.value or 0]
        return 0

    def cuGetErrorName(self, status: ctypes.c_int, name: Any) -> int:
        name._obj.value = b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
        return 0


def kernels(gpu: Gpu) -> SimpleNamespace:
    """`cpp_ext` with CUDA: its kernels put on a stand-in's stream."""

    def enqueue(stream: int, work: Work) -> None:
        gpu.streams[stream].enqueue(work)

    def noise(seed: int, first: int, count: int, dim: int, *, out: Any, stream: int) -> None:
        assert out.shape == (count, dim)

        def work() -> None:
            gpu.memory(out.pointer, out.shape, out.dtype)[...] = cpp_ext.noise(seed, first, count, dim)

        enqueue(stream, work)

    def pack(x: Any, *, out: Any, stream: int) -> None:
        def work() -> None:
            values = gpu.memory(x.pointer, x.shape, x.dtype)
            gpu.memory(out.pointer, out.shape, out.dtype)[...] = cpp_ext.pack(values)

        enqueue(stream, work)

    return SimpleNamespace(noise=noise, pack=pack, cuda_devices=lambda: gpu.count)
