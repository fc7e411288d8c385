"""Reference twins of the kernels, in plain numpy: the definition that every faster form is tested against.

Errors here are `ValueError`s that name the argument, what came and what was expected.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Window = Literal["uniform", "gaussian"]

# --- Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) ---

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


def _unit(stream: int, seed: int, first: int, count: int, blocks: int) -> NDArray[np.float64]:
    """float64 [count, blocks, 4] in (0, 1), u = (x + 1/2) / 2^32, for samples first … first + count - 1."""
    for name, value, lowest, highest in (
        ("seed", seed, 0, 2**64 - 1),
        ("first", first, 0, 2**64 - 1),
        ("count", count, 0, 2**64 - first),
        ("dim", blocks, 0, 2**32),
    ):
        if not lowest <= value <= highest:
            raise ValueError(f"{name}: got {value}, expected {lowest} to {highest}")
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
    blocks = -(-dim // 4)
    u = _unit(_NORMAL_STREAM, seed, first, count, blocks)
    radius = np.sqrt(-2.0 * np.log(u[..., 0::2]))
    angle = 2.0 * np.pi * u[..., 1::2]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return normal.reshape(count, 4 * blocks)[:, :dim].astype(np.float32)


def uniform(seed: int, first: int, count: int, dim: int) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), float64 [count, dim], addressed like `noise` but from a stream of their own."""
    blocks = -(-dim // 4)
    return _unit(_UNIFORM_STREAM, seed, first, count, blocks).reshape(count, 4 * blocks)[:, :dim]


# --- SSIM (Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004) ---

# Images are filtered this many at a time, so that the work of one block stays in a core's cache.
_BLOCK = 4


def _taps(window: str) -> tuple[NDArray[np.float64], float]:
    """The window along one axis (sum 1) and the factor from population to the covariance that the window uses."""
    if window == "uniform":
        return np.full(7, 1 / 7), 49 / 48
    if window == "gaussian":
        weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
        return weights / weights.sum(), 1.0
    raise ValueError(f"window: got {window!r}, expected 'uniform' or 'gaussian'")


def _along(x: NDArray[Any], taps: NDArray[np.float64], axis: int) -> NDArray[Any]:
    """Filter x [..., H, W, C] along one axis, valid region only. The uniform window leaves sums, not means."""
    length = x.shape[axis] - len(taps) + 1

    def at(y: NDArray[Any], k: int, size: int = length) -> NDArray[Any]:
        index: list[slice] = [slice(None)] * x.ndim
        index[axis] = slice(k, k + size)
        return y[tuple(index)]

    if len(taps) == 7:  # 4 additions for 7 equal taps: pairs, then fours
        pairs = at(x, 0, length + 5) + at(x, 1, length + 5)
        total = at(pairs, 0) + at(pairs, 2)
        total += at(pairs, 4)
        total += at(x, 6)
        return total
    total = at(x, 5) * taps[5]
    for k in range(5):
        total += (at(x, k) + at(x, 10 - k)) * taps[k]
    return total


def _mean(x: NDArray[Any], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Windowed mean of x [N, H, W, C] over the valid region, float64."""
    filtered = _along(_along(x, taps, 1), taps, 2)
    return np.multiply(filtered, 1 / 49 if len(taps) == 7 else 1.0, dtype=np.float64)


def _working(x: NDArray[Any], window: str) -> NDArray[Any]:
    """float32 where sums stay exact (uint8 under the uniform window: at most 49 * 255^2 < 2^24), else float64."""
    return x.astype(np.float32 if x.dtype == np.uint8 and window == "uniform" else np.float64)


def _images(name: str, x: ArrayLike, taps: NDArray[np.float64]) -> NDArray[Any]:
    array = np.asarray(x)
    if array.ndim != 4 or array.dtype not in (np.uint8, np.float32, np.float64):
        raise ValueError(f"{name}: got {array.dtype} {list(array.shape)}, expected uint8 or float32 [N, H, W, C]")
    if min(array.shape[1:3]) < len(taps) or array.shape[3] < 1:
        raise ValueError(f"{name}: got images of {array.shape[1:]}, expected at least {len(taps)} x {len(taps)} pixels")
    return array


def _check_range(a: NDArray[Any], b: NDArray[Any], data_range: float | None) -> float:
    if data_range is None:
        if a.dtype == np.uint8 and b.dtype == np.uint8:
            return 255.0
        raise ValueError("data_range: float images need it given (the difference between white and black)")
    if not data_range > 0:
        raise ValueError(f"data_range: got {data_range}, expected a positive number")
    return float(data_range)


def ssim(
    a: ArrayLike, b: ArrayLike, *, window: Window = "uniform", data_range: float | None = None
) -> NDArray[np.float64]:
    """SSIM of a[n] and b[n], mean over channels and over the pixels whose window lies inside the image.

    a, b: uint8 or float32 [N, H, W, C] of one shape. data_range: white minus black (None: 255, uint8 only).
    window: "uniform" is 7 x 7 with sample covariance (scikit-image's default); "gaussian" is 11 x 11, sigma 1.5, with
    population covariance (the paper's). Returns float64 [N] in [-1, 1]. Raises ValueError.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise ValueError(f"b: got shape {list(b.shape)}, expected a's {list(a.shape)}")
    taps, _ = _taps(window)
    a, b = _images("a", a, taps), _images("b", b, taps)
    data_range = _check_range(a, b, data_range)
    scores = np.empty(len(a))
    for n in range(len(a)):  # one at a time: the arrays stay small enough to be reused from the cache
        scores[n] = ssim_pairs(a[n : n + 1], b[n : n + 1], [0], [0], window=window, data_range=data_range)[0]
    return scores


def ssim_pairs(
    a: ArrayLike,
    b: ArrayLike,
    i: ArrayLike,
    j: ArrayLike,
    *,
    window: Window = "uniform",
    data_range: float | None = None,
) -> NDArray[np.float64]:
    """SSIM of a[i[m]] and b[j[m]] for each m; an image's own moments are computed once, however many pairs it is in.

    a [N, H, W, C], b [K, H, W, C]: as in `ssim`, of one image shape. i, j: integers [M]. Returns float64 [M].
    """
    taps, unbias = _taps(window)
    a, b = _images("a", a, taps), _images("b", b, taps)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"b: got images of {b.shape[1:]}, expected a's {a.shape[1:]}")
    data_range = _check_range(a, b, data_range)
    i, j = _indices("i", i, len(a)), _indices("j", j, len(b))
    if i.shape != j.shape:
        raise ValueError(f"j: got {len(j)} indices, expected as many as i's {len(i)}")
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    used_a, i = np.unique(i, return_inverse=True)
    used_b, j = np.unique(j, return_inverse=True)
    a, mean_a, variance_a = _moments(a[used_a], taps, unbias, window)
    b, mean_b, variance_b = _moments(b[used_b], taps, unbias, window)
    scores = np.empty(len(i))
    for start in range(0, len(i), _BLOCK):
        m, n = i[start : start + _BLOCK], j[start : start + _BLOCK]
        ma, mb = mean_a[m], mean_b[n]
        product = ma * mb
        covariance = _mean(a[m] * b[n], taps)
        covariance -= product
        covariance *= 2 * unbias
        covariance += c2
        squares = ma * ma
        squares += mb * mb
        squares += c1
        spread = variance_a[m] + variance_b[n]
        spread += c2
        product *= 2
        product += c1
        product *= covariance  # (2 mu_a mu_b + c1) (2 sigma_ab + c2)
        squares *= spread  # (mu_a^2 + mu_b^2 + c1) (sigma_a^2 + sigma_b^2 + c2)
        product /= squares
        scores[start : start + _BLOCK] = product.mean(axis=(1, 2, 3))
    return scores


def _indices(name: str, index: ArrayLike, size: int) -> NDArray[np.intp]:
    array = np.asarray(index)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name}: got {array.dtype} {list(array.shape)}, expected integers [M]")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise ValueError(f"{name}: got indices {array.min()} to {array.max()}, expected 0 to {size - 1}")
    return array.astype(np.intp)


def _moments(
    x: NDArray[Any], taps: NDArray[np.float64], unbias: float, window: str
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """x in its working type, and its windowed mean and variance [N, H - r, W - r, C]."""
    count, height, width, channels = x.shape
    valid = (count, height - len(taps) + 1, width - len(taps) + 1, channels)
    working = _working(x, window)
    mean, variance = np.empty(valid), np.empty(valid)
    for start in range(0, count, _BLOCK):
        part = slice(start, start + _BLOCK)
        mean[part] = _mean(working[part], taps)
        variance[part] = (_mean(working[part] * working[part], taps) - mean[part] ** 2) * unbias
    return working, mean, variance


# --- frames: networks speak float NCHW in [-1, 1], pictures are uint8 NHWC ---


def pack(x: ArrayLike) -> NDArray[np.uint8]:
    """Float [N, C, H, W] in [-1, 1] → uint8 [N, H, W, C]: round((x + 1) * 127.5), saturating; NaN gives 0."""
    array = np.asarray(x)
    if array.ndim != 4 or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"x: got {array.dtype} {list(array.shape)}, expected float [N, C, H, W]")
    # fmax ignores a NaN, so that it lands on the lower bound rather than on an undefined conversion.
    scaled = (np.fmin(np.fmax(array, -1), 1) + 1) * array.dtype.type(127.5)
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint8).transpose(0, 2, 3, 1))


def unpack(u: ArrayLike) -> NDArray[np.float32]:
    """uint8 [N, H, W, C] → float32 [N, C, H, W] in [-1, 1]: u / 127.5 - 1."""
    array = np.asarray(u)
    if array.ndim != 4 or array.dtype != np.uint8:
        raise ValueError(f"u: got {array.dtype} {list(array.shape)}, expected uint8 [N, H, W, C]")
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(127.5) - np.float32(1)
