"""Runs an ONNX graph with OpenVINO on the CPU.

OpenVINO may choose other kernels for other batch sizes, and with them other last bits. So a batch is run in buckets of
fixed sizes, and a bucket is used only if it gives the same bits as the smaller ones: a sample never depends on the
batch it was made in. Fixed sizes are also faster than an open one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import cpp_ext
from runtime.errors import InputError, one_line
from runtime.session import Hint, Session, Shaped, Slot, check_feeds, check_results

if TYPE_CHECKING:
    from runtime.bundle import Precision

BUCKETS = (1, 8, 32)
"""Batch sizes that are compiled, each when it is first needed. Larger ones are hardly faster and wait longer."""


class OpenVinoSession(Session):
    """One ONNX file opened by OpenVINO.

    Args:
        path: the ONNX file.
        threads: CPU threads for one run; None: all cores.
        precision: what the file's precision is called; the arithmetic is the file's own, never bf16 for float32.
        hint: "latency" (all threads work on one run) or "throughput" (fewer threads a run, for callers that keep
            several runs under way at once).

    Raises:
        InputError: OpenVINO is not installed, cannot open the file, or threads is below 1.
    """

    backend = "openvino"
    device = "cpu"

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        precision: Precision = "fp32",
        hint: Hint = "latency",
    ) -> None:
        try:
            import openvino
        except ImportError:
            raise InputError("openvino is not installed; `pip install awase[cpu]`") from None
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, expected at least 1 or None")
        self.precision = precision
        self.path = Path(path)
        self._core = openvino.Core()
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": hint.upper()}
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        try:
            # Not read_model(): it would try a damaged file as every other format it knows.
            reader = openvino.frontend.FrontEndManager().load_by_framework("onnx")
            self._model = reader.convert(reader.load(self.path))
        except Exception as error:  # it has no exception types of its own
            raise InputError(f"{path}: openvino cannot open it: {_words(error)}") from error
        self.inputs = [_slot(port, self.path) for port in self._model.inputs]
        self.outputs = [_slot(port, self.path) for port in self._model.outputs]
        self._making = threading.RLock()
        self._single = self._compile(1)
        # One run's results are read, and packed, while the next ones compute.
        self.overlap = 1 + self._single.streams
        self._buckets: dict[int, _Bucket | None] = {}

    def pieces(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[slice, Mapping[str, np.ndarray]]]:
        """Run the graph once; see `Session.pieces`."""
        return self._pieces(feeds, check_feeds(str(self.path), self.inputs, feeds), BUCKETS[-1])

    def _pieces(
        self, feeds: Mapping[str, np.ndarray], count: int, largest: int
    ) -> Iterator[tuple[slice, Mapping[str, np.ndarray]]]:
        start = 0
        while start < count:
            bucket = self._fitting(min(count - start, largest))
            part = slice(start, start + bucket.size)
            request = bucket.take()
            try:
                for name, view in request.inputs.items():
                    view[...] = feeds[name][part]
                request.run()
                yield part, request.outputs
            finally:
                bucket.give_back(request)
            start += bucket.size

    def _fitting(self, count: int) -> _Bucket:
        """The largest bucket of at most `count` samples."""
        for size in reversed(BUCKETS[1:]):
            if size <= count and (bucket := self._bucket(size)) is not None:
                return bucket
        return self._single

    def _bucket(self, size: int) -> _Bucket | None:
        """The bucket of one size, made when first asked for; None if its bits are not those of the smaller ones."""
        if size not in self._buckets:
            with self._making:
                if size not in self._buckets:
                    self._buckets[size] = self._checked_bucket(size)
        return self._buckets[size]

    def _checked_bucket(self, size: int) -> _Bucket | None:
        bucket = self._compile(size)
        probe = {slot.name: _probe(slot, size) for slot in self.inputs}
        request = bucket.take()
        for name, view in request.inputs.items():
            view[...] = probe[name]
        request.run()
        same = all(
            np.array_equal(request.outputs[name][part], array, equal_nan=True)
            for part, arrays in self._pieces(probe, size, size - 1)
            for name, array in arrays.items()
        )
        bucket.give_back(request)
        return bucket if same else None

    def _compile(self, size: int) -> _Bucket:
        try:
            model = self._model.clone()
            model.reshape({slot.name: [size, *slot.shape] for slot in self.inputs})
            bucket = _Bucket(size, self._core.compile_model(model, "CPU", self._settings))
            request = bucket.take()
        except Exception as error:  # RuntimeErrors, as above
            raise InputError(f"{self.path}: openvino cannot run it: {_words(error)}") from error
        check_results(str(self.path), self.outputs, request.outputs, size)
        bucket.give_back(request)
        return bucket


class _Bucket:
    """The graph compiled for one batch size, and requests to run it with: as many as there are runs at once."""

    def __init__(self, size: int, compiled: Any) -> None:
        self.size = size
        self.streams = int(compiled.get_property("NUM_STREAMS"))
        """How many runs OpenVINO works on at once."""
        self._compiled = compiled
        self._free: list[_Request] = []

    def take(self) -> _Request:
        try:
            return self._free.pop()  # one step for the interpreter: no other thread gets the same
        except IndexError:
            return _Request(self._compiled)

    def give_back(self, request: _Request) -> None:
        self._free.append(request)


class _Request:
    """One run's memory: write `inputs`, call `run`, read `outputs`."""

    def __init__(self, compiled: Any) -> None:
        request = compiled.create_infer_request()
        self._request = request
        self.inputs: dict[str, np.ndarray] = {port.any_name: request.get_tensor(port).data for port in compiled.inputs}
        self.outputs: dict[str, np.ndarray] = {
            port.any_name: request.get_tensor(port).data for port in compiled.outputs
        }

    def run(self) -> None:
        # Not infer(): its Python part takes longer than a small graph.
        self._request.start_async()
        self._request.wait()


def _slot(port: Any, path: Path) -> Slot:
    shape = port.get_partial_shape()
    axes = [shape[axis] for axis in range(len(shape))] if shape.rank.is_static else []
    if not axes or any(axis.is_dynamic for axis in axes[1:]):
        raise InputError(f"{path}: {port.any_name} has shape {shape}, expected open sizes in the batch axis only")
    return Slot(
        port.any_name, np.dtype(port.get_element_type().to_dtype()).name, tuple(a.get_length() for a in axes[1:])
    )


def _probe(slot: Shaped, count: int) -> np.ndarray:
    """Inputs of one slot that look like its own: [count, *shape]."""
    size = int(np.prod(slot.shape, dtype=int))
    values = cpp_ext.noise(0, 0, count, max(size, 1))[:, :size].reshape(count, *slot.shape)
    return (values if slot.dtype.startswith("float") else np.abs(values)).astype(slot.dtype)


def _words(error: Exception) -> str:
    """What OpenVINO says: many lines of which the last ones name the cause."""
    return one_line(error)[-400:]
