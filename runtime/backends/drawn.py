"""Samples drawn, made and packed on the GPU: no noise is sent there, and only what is asked for comes back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import cpp_ext
from runtime.backends.device_array import DeviceArray
from runtime.backends.lanes import DeviceSession, Lane

Array = np.ndarray | DeviceArray
Limits = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Lowest and highest value of a vector's components, by name."""


def can_fill(session: object) -> bool:
    """Whether `fill` works with a session: it runs in lanes, and the kernels were built with CUDA."""
    if not isinstance(session, DeviceSession):
        return False
    try:
        return cpp_ext.cuda_devices() > session.gpu.number
    except RuntimeError:  # built without CUDA, or not at all
        return False


def fill(session: DeviceSession, sample: Mapping[str, Array], limits: Limits, seed: int, first: int) -> None:
    """Write samples first, first + 1, … of a seed; all is done on return.

    Noise and packed images have the CPU's very bits; what lies between is the GPU's arithmetic.

    Args:
        session: of a graph with one noise input.
        sample: by output name, arrays in host memory or on the session's GPU: an image as uint8 [N, H, W, C] or float32
            [N, C, H, W], a vector as float32 [N, D].
        limits: of the vectors, which are clipped to them.
        seed: 0 … 2^64 - 1.
        first: number of the first sample.
    """
    (noise,) = session.inputs
    count = len(next(iter(sample.values())))
    for start in range(0, count, session.largest):
        size = min(session.largest, count - start)
        part = {name: array[start : start + size] for name, array in sample.items()}
        with session.lane() as lane:
            z = lane.inputs[noise.name][:size]
            cpp_ext.noise(seed, first + start, size, noise.shape[0], out=z, stream=lane.stream)
            lane.run(size)
            _deliver(lane, {name: _as_wanted(lane, name, array) for name, array in part.items()}, part, limits)


def _as_wanted(lane: Lane, name: str, wanted: Array) -> DeviceArray:
    """Where an output lies, for the largest batch, once it is as it is wanted: images in uint8 are packed."""
    made, size = lane.outputs[name], len(wanted)
    if wanted.dtype == made.dtype:
        return made
    frames = lane.extra(name, wanted.shape[1:], "uint8")
    cpp_ext.pack(made[:size], out=frames[:size], stream=lane.stream)
    return frames


def _deliver(lane: Lane, made: Mapping[str, DeviceArray], wanted: Mapping[str, Array], limits: Limits) -> None:
    """Copy the first samples; vectors, which are small, by way of the host, where they are clipped."""
    staged = {}
    for name, array in wanted.items():
        there = made[name][: len(array)]
        if isinstance(array, DeviceArray) and name not in limits:
            lane.copy(there, array)
        else:
            staged[name] = lane.staged(made[name])[: len(array)]
            lane.to_host(there, staged[name])
    lane.wait()
    for name, values in staged.items():
        if name in limits:
            low, high = limits[name]
            np.minimum(np.maximum(values, low), high, out=values)
        array = wanted[name]
        if isinstance(array, DeviceArray):
            lane.from_host(values, array)
        else:
            array[...] = values
