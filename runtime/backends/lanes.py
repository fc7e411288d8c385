"""Sessions on a GPU: lanes, each a stream with its own buffers, of which several work at the same time."""

from __future__ import annotations

import contextlib
import queue
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from runtime.backends.cuda import Device
from runtime.backends.device_array import DeviceArray
from runtime.session import Session, Shaped, check_feeds

LANES = 2
"""One copies while the other computes; a third would find nothing left to do."""


LARGEST = 256
"""A GPU is busy with so many images, and a lane has memory for the largest batch."""


def buckets(smallest: int, best: int, largest: int) -> tuple[int, ...]:
    """The batch sizes that are run: the ends and the powers of two between, few, so that each is prepared once.

    Args:
        smallest: least that the graph takes.
        best: what it was made for; larger ones are run up to `LARGEST` only.
        largest: most that it takes.
    """
    largest = min(largest, max(best, LARGEST))
    powers = (1 << k for k in range(largest.bit_length()))
    return tuple(sorted({smallest, largest, *(size for size in powers if smallest <= size <= largest)}))


class Lane(ABC):
    """A stream of one GPU with buffers for one batch. For one thread at a time; its calls enqueue, `wait` finishes.

    Args:
        gpu: the device.
        inputs: the graph's inputs.
        outputs: its outputs.
        sizes: the batch sizes that can be run, rising.

    Raises:
        InputError: the GPU has no room for the buffers.
    """

    def __init__(self, gpu: Device, inputs: Sequence[Shaped], outputs: Sequence[Shaped], sizes: Sequence[int]) -> None:
        self.gpu = gpu
        self.sizes = tuple(sizes)
        self._stream = gpu.stream()
        self.inputs = {port.name: gpu.empty((sizes[-1], *port.shape), port.dtype) for port in inputs}
        """By name, [largest batch, …]: write the first samples, on `stream`, then `run`."""
        self.outputs = {port.name: gpu.empty((sizes[-1], *port.shape), port.dtype) for port in outputs}
        self._host: dict[int, np.ndarray] = {}
        self._extra: dict[str, DeviceArray] = {}

    def __del__(self) -> None:
        gpu = self.__dict__.get("gpu")
        if gpu is not None and not sys.is_finalizing():
            with gpu.current():  # what goes needs it, in whatever thread this is
                self.__dict__.clear()

    @property
    def stream(self) -> int:
        """The stream's handle, for other libraries' `stream=`."""
        return int(self._stream.handle)

    def run(self, count: int) -> dict[str, DeviceArray]:
        """Enqueue the graph for the first `count` samples of `inputs`.

        A batch runs as the smallest bucket that holds it; what the samples beyond it are is of no consequence.

        Returns:
            The outputs by name, [count, …]: views of the lane's own memory, written in stream order and overwritten by
            the next run.
        """
        size = next(size for size in self.sizes if size >= count)
        with self.gpu.current():
            self._execute(size)
        return {name: array[:count] for name, array in self.outputs.items()}

    @abstractmethod
    def _execute(self, size: int) -> None:
        """Enqueue the graph for one of the batch sizes; the context is current."""

    def from_host(self, array: np.ndarray, out: DeviceArray) -> None:
        """Enqueue a copy of a contiguous host array, which overlaps with other work if it is page-locked."""
        assert array.nbytes == out.nbytes
        with self.gpu.current():
            self.gpu.cuda.memcpy_htod_async(out.pointer, array, self._stream)

    def to_host(self, array: DeviceArray, out: np.ndarray) -> None:
        """Enqueue a copy into a contiguous host array, which overlaps with other work if it is page-locked."""
        assert array.nbytes == out.nbytes
        with self.gpu.current():
            self.gpu.cuda.memcpy_dtoh_async(out, array.pointer, self._stream)

    def copy(self, array: DeviceArray, out: DeviceArray) -> None:
        """Enqueue a copy on the device."""
        assert array.nbytes == out.nbytes
        with self.gpu.current():
            self.gpu.cuda.memcpy_dtod_async(out.pointer, array.pointer, array.nbytes, self._stream)

    def extra(self, name: str, shape: Sequence[int], dtype: str) -> DeviceArray:
        """Memory for the largest batch [largest batch, *shape] beside inputs and outputs, the same at every call."""
        if name not in self._extra:
            self._extra[name] = self.gpu.empty((self.sizes[-1], *shape), dtype)
        return self._extra[name]

    def wait(self) -> None:
        """Wait until all that was enqueued is done; other Python threads go on meanwhile."""
        with self.gpu.current():
            self._stream.synchronize()

    def start(self, feeds: Mapping[str, np.ndarray], part: slice) -> dict[str, np.ndarray]:
        """Enqueue the graph for some samples of host arrays: to the device, run, and back.

        Returns:
            The outputs by name: page-locked memory of the lane, filled after `wait` and until the next start.
        """
        count = part.stop - part.start
        for name, array in self.inputs.items():
            staged = self.staged(array)[:count]
            staged[...] = feeds[name][part]
            self.from_host(staged, array[:count])
        results = {}
        for name, array in self.run(count).items():
            results[name] = self.staged(self.outputs[name])[:count]
            self.to_host(array, results[name])
        return results

    def staged(self, array: DeviceArray) -> np.ndarray:
        """The page-locked twin of one of the lane's whole arrays, the same at every call."""
        if array.pointer not in self._host:
            self._host[array.pointer] = self.gpu.pinned(array.shape, array.dtype)
        return self._host[array.pointer]


class DeviceSession(Session):
    """A session whose work is done by lanes.

    Beside what every session offers, `lane` gives what a caller needs to keep data on the GPU.

    Args:
        gpu: the device.
        inputs: the graph's inputs.
        outputs: its outputs.
        where: what messages name, e.g. the graph's file.
        new_lane: makes a lane.

    Raises:
        InputError: the GPU has no room for the lanes.
    """

    def __init__(
        self,
        gpu: Device,
        inputs: Sequence[Shaped],
        outputs: Sequence[Shaped],
        where: str,
        new_lane: Callable[[], Lane],
    ) -> None:
        self.gpu = gpu
        self.device = f"cuda:{gpu.number}"
        self.overlap = LANES
        self.inputs = inputs
        self.outputs = outputs
        self._where = where
        self._free: queue.LifoQueue[Lane] = queue.LifoQueue()
        lanes = [new_lane() for _ in range(LANES)]
        self.largest = lanes[0].sizes[-1]
        """Most samples that a lane takes at once."""
        for lane in lanes:
            self._free.put(lane)

    @contextlib.contextmanager
    def lane(self) -> Iterator[Lane]:
        """A lane for the caller alone, waited for if all are taken; its work is done when it is given back.

        Noise drawn on the device, say, and images packed there:

            with session.lane() as lane:
                cpp_ext.noise(seed, first, count, 32, out=lane.inputs["z"][:count], stream=lane.stream)
                cpp_ext.pack(lane.run(count)["image"], out=frames, stream=lane.stream)
                lane.to_host(frames, host)
        """
        lane = self._free.get()
        try:
            yield lane
        finally:
            self._give_back(lane)

    def pieces(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[slice, Mapping[str, np.ndarray]]]:
        """Run the graph once; see `Session.pieces`. A batch larger than a lane takes both if the other one is free."""
        count = check_feeds(self._where, self.inputs, feeds)
        parts = [slice(start, min(start + self.largest, count)) for start in range(0, count, self.largest)]
        with contextlib.ExitStack() as taken:
            lanes = [self._free.get()]
            taken.callback(self._give_back, lanes[0])
            if len(parts) > 1:
                with contextlib.suppress(queue.Empty):  # never waiting for one while holding another
                    lanes.append(self._free.get_nowait())
                    taken.callback(self._give_back, lanes[1])
            pending: deque[tuple[Lane, slice, dict[str, np.ndarray]]] = deque()
            for number, part in enumerate(parts):
                lane = lanes[number % len(lanes)]
                pending.append((lane, part, lane.start(feeds, part)))
                if len(pending) == len(lanes):
                    yield _finished(*pending.popleft())
            while pending:
                yield _finished(*pending.popleft())

    def _give_back(self, lane: Lane) -> None:
        try:
            lane.wait()
        finally:
            self._free.put(lane)


def _finished(lane: Lane, part: slice, results: dict[str, np.ndarray]) -> tuple[slice, dict[str, np.ndarray]]:
    lane.wait()
    return part, results
