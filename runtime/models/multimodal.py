"""A generator of matching modalities: one noise vector gives, say, a camera image and the joints that pose it."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import cpp_ext
from runtime.backends import drawn
from runtime.errors import InputError
from runtime.models.common import FORMS, Form, one_of, show, shown, whole
from runtime.session import Hint, Session, check_feeds, open_session
from runtime.stream import ahead

if TYPE_CHECKING:
    from runtime.backends.lanes import DeviceSession
    from runtime.bundle import Bundle, Port, Precision

GRAPH = "generator"
Place = Literal["host", "device"]


class Multimodal:
    """Draws samples of all modalities together. One model may be used from several threads at once.

    Args:
        bundle: the bundle it came from.
        session: its graph `generator`, opened.
        choice: one line on what runs it and why.

    Raises:
        InputError: the bundle's graph is not one noise input to images in [-1, 1] and vectors.
    """

    def __init__(self, bundle: Bundle, session: Session, choice: str = "") -> None:
        graph = bundle.graph(GRAPH, session.precision)
        if len(graph.inputs) != 1 or graph.inputs[0].kind != "noise":
            raise InputError(f"{bundle.path}: graph {GRAPH} must have one input of kind noise")
        for port in graph.outputs:
            if port.kind not in ("image", "vector") or (port.kind == "image" and port.range != (-1.0, 1.0)):
                raise InputError(f"{bundle.path}: output {port.name} must be an image in [-1, 1] or a vector")
        self.bundle = bundle
        self.session = session
        self.choice = choice
        """What runs it and, if that was chosen by itself, why nothing else: one line."""
        self.noise = graph.inputs[0]
        self.modalities: tuple[Port, ...] = graph.outputs
        """What a sample is made of, in order: names, shapes, units, limits."""
        self._sample = namedtuple("Sample", [port.name for port in graph.outputs])  # type: ignore[misc]
        self._limits = {port.name: _inner_limits(port) for port in graph.outputs if port.kind != "image"}
        self._on_gpu: DeviceSession | None = session if drawn.can_fill(session) else None  # type: ignore[assignment]

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        device: str = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
        hint: Hint = "latency",
    ) -> Multimodal:
        """Open the bundle's graph on a device; see `runtime.load`."""
        return cls(bundle, *open_session(bundle, GRAPH, device, precision, threads, hint))

    def generate(
        self,
        count: int,
        seed: int = 0,
        first: int = 0,
        batch: int = 64,
        form: Form = "uint8",
        place: Place = "host",
    ) -> Any:
        """Samples first … first + count - 1 of a seed.

        Sample k of seed s depends on (s, k) alone: generation can be split, resumed and spread over machines. On one
        machine and backend any split gives the same bytes.

        Args:
            count: how many samples.
            seed: 0 … 2^64 - 1.
            first: number of the first sample.
            batch: samples a run of the graph; only speed and memory depend on it.
            form: "uint8": images as they are shown; "float": as the network made them.
            place: "host": NumPy arrays; "device": arrays in the memory of the GPU that made them, which other libraries
                take as they are (`torch.from_dlpack`). Where no GPU makes them, that is the host's memory too.

        Returns:
            A named tuple with one array per modality: an image as uint8 [count, H, W, C] in 0 … 255 (RGB) or, in form
            "float", float32 [count, C, H, W] in [-1, 1]; a vector as float32 [count, D] in its unit and within its
            limits. `images, joints = model.generate(64)`.

        Raises:
            InputError: an argument is not a whole number or out of its range.
        """
        self._check(count, seed, first, batch, form, place)
        sample = self._new(count, form, place)
        for start in range(0, count, batch):
            size = min(batch, count - start)
            self._fill([array[start : start + size] for array in sample], seed, first + start, form)
        return sample

    def stream(
        self,
        count: int,
        batch: int = 64,
        seed: int = 0,
        first: int = 0,
        form: Form = "uint8",
        place: Place = "host",
    ) -> Iterator[Any]:
        """The samples of `generate`, batch by batch, the next ones being made while a batch is used.

        Args:
            count, batch, seed, first, form, place: as in `generate`.

        Yields:
            Named tuples as `generate` gives, of `batch` samples (the last may be smaller). Their arrays are used again:
            they are valid until the next but one is asked for. Copy what is to be kept.

        Raises:
            InputError: an argument is not a whole number or out of its range.
        """
        self._check(count, seed, first, batch, form, place)
        starts = range(0, count, batch)

        def make(sample: Any, number: int) -> Any:
            size = min(batch, count - starts[number])
            part = sample if size == batch else self._sample(*(array[:size] for array in sample))
            self._fill(part, seed, first + starts[number], form)
            return part

        return ahead(make, len(starts), partial(self._new, min(batch, count), form, place), self.session.overlap)

    def from_noise(self, z: np.ndarray, form: Form = "uint8") -> Any:
        """Samples from noise of one's own, e.g. blended between two samples' noise.

        Args:
            z: float32 [N, dim].
            form: as in `generate`.

        Returns:
            A named tuple as `generate` gives it.

        Raises:
            InputError: `z` is of another type or shape.
        """
        one_of("form", form, FORMS)
        check_feeds("from_noise", [self.noise], {self.noise.name: z})
        sample = self._new(len(z), form)
        self._run(z, sample, form)
        return sample

    def _fill(self, sample: Sequence[np.ndarray], seed: int, first: int, form: Form) -> None:
        """Write samples first … of a seed into `sample`, as many as it holds."""
        if self._on_gpu is not None:
            names = [port.name for port in self.modalities]
            drawn.fill(self._on_gpu, dict(zip(names, sample, strict=True)), self._limits, seed, first)
            return
        self._run(cpp_ext.noise(seed, first, len(sample[0]), self.noise.shape[0]), sample, form)

    def _run(self, z: np.ndarray, sample: Sequence[np.ndarray], form: Form) -> None:
        for part, outputs in self.session.pieces({self.noise.name: z}):
            for port, array in zip(self.modalities, sample, strict=True):
                values = outputs[port.name]
                if port.kind != "image":
                    low, high = self._limits[port.name]
                    np.minimum(np.maximum(values, low), high, out=array[part])
                else:
                    show(values, array[part], form)

    def _new(self, count: int, form: Form, place: Place = "host") -> Any:
        new: Any = self._on_gpu.gpu.empty if self._on_gpu is not None and place == "device" else np.empty
        try:
            return self._sample(*(new(*shown(port, count, form)) for port in self.modalities))
        except (MemoryError, OverflowError, ValueError) as error:
            raise InputError(f"{count} samples at once do not fit into memory ({error}); use stream") from None

    @staticmethod
    def _check(count: int, seed: int, first: int, batch: int, form: Form, place: Place) -> None:
        whole("count", count, 1, 2**63)
        whole("seed", seed, 0, 2**64 - 1)
        whole("first", first, 0, 2**64 - count)
        whole("batch", batch, 1, 2**31 - 1)
        one_of("form", form, FORMS)
        one_of("place", place, ("host", "device"))


def _inner_limits(port: Port) -> tuple[np.ndarray, np.ndarray]:
    """Limits rounded to float32 towards the inside: the nearest float32 of a limit can lie just beyond it."""
    if port.limits is None:
        return np.float32(-np.inf), np.float32(np.inf)  # type: ignore[return-value]
    exact = np.asarray(port.limits, np.float64)
    low, high = exact.astype(np.float32).T
    low = np.where(low < exact[:, 0], np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > exact[:, 1], np.nextafter(high, np.float32(-np.inf)), high)
    return low, high
