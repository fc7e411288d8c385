"""Counter-based noise: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MULTIPLY = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

_NORMAL_STREAM = 0
_UNIFORM_STREAM = 1


def philox(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Philox 4x32-10: 128 random bits for each 128-bit counter.

    counter: uint32 [..., 4], word 0 first. key: two 32-bit words. Returns uint32 of counter's shape.
    """
    c0, c1, c2, c3 = (counter[..., word].astype(np.uint64) for word in range(4))
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLY[0], c2 * _MULTIPLY[1]
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def check_address(seed: int, first: int, count: int, dim: int) -> None:
    """Raise ValueError unless samples first … first + count - 1 of `seed` can be drawn with `dim` components."""
    for name, value, lowest, highest in (
        ("seed", seed, 0, 2**64 - 1),
        ("first", first, 0, 2**64 - 1),
        ("count", count, 0, 2**64 - first),
        ("dim", dim, 0, 2**34),
    ):
        if not lowest <= value <= highest:
            raise ValueError(f"{name}: got {value}, expected {lowest} to {highest}")


def _unit(stream: int, seed: int, first: int, count: int, blocks: int) -> NDArray[np.float64]:
    """float64 [count, blocks, 4] in (0, 1), u = (x + 1/2) / 2^32, for samples first … first + count - 1."""
    sample = np.arange(count, dtype=np.uint64) + np.uint64(first)
    counter = np.empty((count, blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks, dtype=np.uint32)
    counter[..., 1] = stream
    counter[..., 2] = (sample & _LOW)[:, None]
    counter[..., 3] = (sample >> _HALF)[:, None]
    bits = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return (bits.astype(np.float64) + 0.5) * 2.0**-32


def noise(seed: int, first: int, count: int, dim: int) -> NDArray[np.float32]:
    """Standard normal noise in which sample k is a function of (seed, k) alone, whatever the batch it is drawn in.

    seed: 0 to 2^64 - 1. first: index of the first sample. Returns float32 [count, dim].
    Philox with key = seed and counter = (block, 0, k low, k high) gives four words a block; each two become two normals
    by Box-Muller in float64: sqrt(-2 ln u0) (cos 2 pi u1, sin 2 pi u1).
    """
    check_address(seed, first, count, dim)
    blocks = -(-dim // 4)
    u = _unit(_NORMAL_STREAM, seed, first, count, blocks)
    radius = np.sqrt(-2.0 * np.log(u[..., 0::2]))
    angle = 2.0 * np.pi * u[..., 1::2]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return normal.reshape(count, 4 * blocks)[:, :dim].astype(np.float32)


def uniform(seed: int, first: int, count: int, dim: int) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), float64 [count, dim], addressed like `noise` but from a stream of their own."""
    check_address(seed, first, count, dim)
    blocks = -(-dim // 4)
    return _unit(_UNIFORM_STREAM, seed, first, count, blocks).reshape(count, 4 * blocks)[:, :dim]
