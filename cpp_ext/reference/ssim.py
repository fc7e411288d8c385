"""SSIM (Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Window = Literal["uniform", "gaussian"]
Layout = Literal["NHWC", "NCHW"]
Per = Literal["image", "channel", "pixel"]
Float64 = NDArray[np.float64]


def ssim(
    a: ArrayLike,
    b: ArrayLike,
    *,
    window: Window = "uniform",
    data_range: float | None = None,
    layout: Layout = "NHWC",
    per: Per = "image",
) -> NDArray[Any]:
    """SSIM of a[n] and b[n] over the pixels whose window lies inside the image. All as in `cpp_ext.ssim`.

    Takes NumPy's uint8, float32 and float64; computes in float64.
    """
    taps, unbias = _taps(window)
    x, y = _images("a", a, taps, layout), _images("b", b, taps, layout)
    if x.shape != y.shape:
        raise ValueError(f"b: got shape {list(np.shape(b))}, expected a's {list(np.shape(a))}")
    c1, c2 = _constants(x, y, data_range)
    count, height, width, channels = x.shape
    reach = len(taps) - 1
    maps = np.empty((count, height - reach, width - reach, channels))
    for n in range(count):  # one at a time: the arrays stay small enough to be reused from the cache
        maps[n] = _map(x[n], _moments(x[n], taps, unbias), y[n], _moments(y[n], taps, unbias), taps, unbias, c1, c2)
    if per == "image":
        return maps.mean(axis=(1, 2, 3))
    if per == "channel":
        return maps.mean(axis=(1, 2))
    if per == "pixel":
        return (maps if layout == "NHWC" else maps.transpose(0, 3, 1, 2)).astype(np.float32)
    raise ValueError(f"per: got {per!r}, expected 'image', 'channel' or 'pixel'")


def ssim_pairs(
    a: ArrayLike,
    b: ArrayLike,
    i: ArrayLike,
    j: ArrayLike,
    *,
    window: Window = "uniform",
    data_range: float | None = None,
    layout: Layout = "NHWC",
) -> Float64:
    """SSIM of a[i[m]] and b[j[m]] for each m, as in `cpp_ext.ssim_pairs`: an image's moments are computed once."""
    taps, unbias = _taps(window)
    x, y = _images("a", a, taps, layout), _images("b", b, taps, layout)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"b: got images of {list(np.shape(b))[1:]}, expected a's {list(np.shape(a))[1:]}")
    c1, c2 = _constants(x, y, data_range)
    i, j = _indices("i", i, len(x)), _indices("j", j, len(y))
    if i.shape != j.shape:
        raise ValueError(f"j: got {len(j)} indices, expected as many as i's {len(i)}")
    of_x = {n: _moments(x[n], taps, unbias) for n in np.unique(i)}
    of_y = {n: _moments(y[n], taps, unbias) for n in np.unique(j)}
    pairs = zip(i, j, strict=True)
    scores = [_map(x[m], of_x[m], y[n], of_y[n], taps, unbias, c1, c2).mean() for m, n in pairs]
    return np.array(scores, np.float64)


# --- windows and moments, of one image [H, W, C] ---


class Moments(NamedTuple):
    """Windowed mean and variance, float64 [H - r, W - r, C]."""

    mean: Float64
    variance: Float64


def _taps(window: str) -> tuple[Float64, float]:
    """The window along one axis (sum 1) and the factor from population to the covariance that the window uses."""
    if window == "uniform":
        return np.full(7, 1 / 7), 49 / 48
    if window == "gaussian":
        weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
        return weights / weights.sum(), 1.0
    raise ValueError(f"window: got {window!r}, expected 'uniform' or 'gaussian'")


def _mean(x: Float64, taps: Float64) -> Float64:
    """Windowed mean over the valid region: along the rows, then along the columns."""
    height, width = x.shape[0] - len(taps) + 1, x.shape[1] - len(taps) + 1
    rows = sum(tap * x[k : k + height] for k, tap in enumerate(taps))
    return sum(tap * rows[:, k : k + width] for k, tap in enumerate(taps))


def _moments(x: NDArray[Any], taps: Float64, unbias: float) -> Moments:
    x = x.astype(np.float64)
    mean = _mean(x, taps)
    return Moments(mean, (_mean(x * x, taps) - mean * mean) * unbias)


def _map(
    x: NDArray[Any],
    of_x: Moments,
    y: NDArray[Any],
    of_y: Moments,
    taps: Float64,
    unbias: float,
    c1: float,
    c2: float,
) -> Float64:
    """Equation 13 at each pixel."""
    covariance = (_mean(x.astype(np.float64) * y, taps) - of_x.mean * of_y.mean) * unbias
    above = (2 * of_x.mean * of_y.mean + c1) * (2 * covariance + c2)
    return above / ((of_x.mean**2 + of_y.mean**2 + c1) * (of_x.variance + of_y.variance + c2))


# --- arguments ---


def _images(name: str, x: ArrayLike, taps: Float64, layout: str) -> NDArray[Any]:
    """The images as [N, H, W, C]."""
    array = np.asarray(x)
    if layout not in ("NHWC", "NCHW"):
        raise ValueError(f"layout: got {layout!r}, expected 'NHWC' or 'NCHW'")
    if array.ndim != 4 or array.dtype not in (np.uint8, np.float32, np.float64):
        axes = ", ".join(layout)
        raise ValueError(f"{name}: got {array.dtype} {list(array.shape)}, expected uint8 or float32 images [{axes}]")
    if layout == "NCHW":
        array = array.transpose(0, 2, 3, 1)
    if min(array.shape[1:3]) < len(taps) or array.shape[3] < 1:
        raise ValueError(f"{name}: got images of {array.shape[1:]}, expected at least {len(taps)} x {len(taps)} pixels")
    return array


def _constants(a: NDArray[Any], b: NDArray[Any], data_range: float | None) -> tuple[float, float]:
    """C1 and C2."""
    if a.dtype != b.dtype:
        raise ValueError(f"b: got {b.dtype}, expected the dtype of a, {a.dtype}")
    if data_range is None:
        if a.dtype != np.uint8:
            raise ValueError("data_range: got None, expected white minus black (only for uint8 is it known: 255)")
        data_range = 255.0
    if not data_range > 0:
        raise ValueError(f"data_range: got {data_range}, expected a positive number (white minus black)")
    return (0.01 * data_range) ** 2, (0.03 * data_range) ** 2


def _indices(name: str, index: ArrayLike, size: int) -> NDArray[np.intp]:
    array = np.asarray(index)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name}: got {array.dtype} {list(array.shape)}, expected integers [M]")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise ValueError(f"{name}: got indices {array.min()} to {array.max()}, expected 0 to {size - 1}")
    return array.astype(np.intp)
