"""Frames: networks speak float NCHW in [-1, 1], pictures are uint8 NHWC."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pack(x: ArrayLike, *, alpha: bool = False) -> NDArray[np.uint8]:
    """Float [N, C, H, W] in [-1, 1] → uint8 [N, H, W, C]: round((x + 1) * 127.5), saturating; NaN gives 0.

    alpha: x has 3 channels and the result 4, the last of them 255.
    """
    array = np.asarray(x)
    if array.ndim != 4 or not np.issubdtype(array.dtype, np.floating) or (alpha and array.shape[1] != 3):
        expected = "[N, 3, H, W] with alpha" if alpha else "[N, C, H, W]"
        raise ValueError(f"x: got {array.dtype} {list(array.shape)}, expected float {expected}")
    # fmax ignores a NaN, so that it lands on the lower bound rather than on an undefined conversion.
    scaled = (np.fmin(np.fmax(array, -1), 1) + 1) * array.dtype.type(127.5)
    pixels = np.rint(scaled).astype(np.uint8).transpose(0, 2, 3, 1)
    if alpha:
        pixels = np.concatenate([pixels, np.full((*pixels.shape[:3], 1), 255, np.uint8)], axis=3)
    return np.ascontiguousarray(pixels)


def unpack(u: ArrayLike) -> NDArray[np.float32]:
    """uint8 [N, H, W, C] → float32 [N, C, H, W] in [-1, 1]: u / 127.5 - 1."""
    array = np.asarray(u)
    if array.ndim != 4 or array.dtype != np.uint8:
        raise ValueError(f"u: got {array.dtype} {list(array.shape)}, expected uint8 [N, H, W, C]")
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(127.5) - np.float32(1)
