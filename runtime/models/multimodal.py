"""A generator of matching modalities: one noise vector gives, say, a camera image and the joints that pose it."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

import numpy as np

import cpp_ext
from runtime.errors import InputError
from runtime.session import Session, open_session

if TYPE_CHECKING:
    from runtime.bundle import Bundle, Port

GRAPH = "generator"


class Multimodal:
    """Draws samples of all modalities together.

    Args:
        bundle: the bundle it came from.
        session: its graph `generator`, opened.

    Raises:
        InputError: the bundle's graph is not one noise input to images in [-1, 1] and vectors.
    """

    def __init__(self, bundle: Bundle, session: Session) -> None:
        graph = bundle.graph(GRAPH)
        if len(graph.inputs) != 1 or graph.inputs[0].kind != "noise":
            raise InputError(f"{bundle.path}: graph {GRAPH} must have one input of kind noise")
        for port in graph.outputs:
            if port.kind == "noise" or (port.kind == "image" and port.range != (-1.0, 1.0)):
                raise InputError(f"{bundle.path}: output {port.name} must be an image in [-1, 1] or a vector")
        self.bundle = bundle
        self.session = session
        self.noise = graph.inputs[0]
        self.modalities: tuple[Port, ...] = graph.outputs
        """What a sample is made of, in order: names, shapes, units, limits."""
        self._sample = namedtuple("Sample", [port.name for port in graph.outputs])  # type: ignore[misc]
        self._limits = {port.name: _inner_limits(port) for port in graph.outputs}

    @classmethod
    def load(cls, bundle: Bundle, device: str = "cpu", threads: int | None = None) -> Multimodal:
        """Open the bundle's graph on a device; see `runtime.load`."""
        return cls(bundle, open_session(bundle, GRAPH, device, threads))

    def generate(self, count: int, seed: int = 0, first: int = 0, batch: int = 64) -> Any:
        """Samples first … first + count - 1 of a seed.

        Sample k of seed s depends on (s, k) alone: generation can be split, resumed and spread over machines. On one
        machine any split gives the same bytes.

        Args:
            count: how many samples.
            seed: 0 … 2^64 - 1.
            first: number of the first sample.
            batch: samples a run of the graph; only speed and memory depend on it.

        Returns:
            A named tuple with one array per modality: an image as uint8 [count, H, W, C] in 0 … 255 (RGB), a vector as
            float32 [count, D] in its unit and within its limits. `images, joints = model.generate(64)`.

        Raises:
            InputError: an argument is not a whole number or out of its range.
        """
        _whole("count", count, 1, 2**63)
        _whole("seed", seed, 0, 2**64 - 1)
        _whole("first", first, 0, 2**64 - count)
        _whole("batch", batch, 1, 2**31 - 1)
        arrays = [self._empty(port, count) for port in self.modalities]
        for start in range(0, count, batch):
            size = min(batch, count - start)
            z = cpp_ext.noise(seed, first + start, size, self.noise.shape[0])  # [size, dim]
            outputs = self.session.run({self.noise.name: z})
            for port, array in zip(self.modalities, arrays, strict=True):
                values = outputs[port.name]
                if port.kind == "image":
                    cpp_ext.pack(values, out=array[start : start + size])
                else:
                    low, high = self._limits[port.name]
                    array[start : start + size] = np.clip(values, low, high)
        return self._sample(*arrays)

    @staticmethod
    def _empty(port: Port, count: int) -> np.ndarray:
        if port.kind == "image":
            channels, height, width = port.shape
            return np.empty((count, height, width, channels), np.uint8)
        return np.empty((count, *port.shape), np.float32)


def _inner_limits(port: Port) -> tuple[np.ndarray, np.ndarray]:
    """Limits rounded to float32 towards the inside: the nearest float32 of a limit can lie just beyond it."""
    if port.limits is None:
        return np.float32(-np.inf), np.float32(np.inf)  # type: ignore[return-value]
    exact = np.asarray(port.limits, np.float64)
    low, high = exact.astype(np.float32).T
    low = np.where(low < exact[:, 0], np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > exact[:, 1], np.nextafter(high, np.float32(-np.inf)), high)
    return low, high


def _whole(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}, expected a whole number from {low} to {high}")
