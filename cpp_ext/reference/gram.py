"""Gram matrices of features (Gatys et al. 2016, with the scale of Johnson et al. 2016), and their gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def gram(f: ArrayLike) -> NDArray[Any]:
    """Gram matrices G = F Fᵀ / (C K): f float32 [N, C, H, W] or [N, C, K], K = H W → float32 [N, C, C].

    Computed in float64 and rounded; float64 features give float64. Raises ValueError.
    """
    features = _features(f)
    rows, scale = _rows(features)
    return (rows @ rows.transpose(0, 2, 1) * scale).astype(features.dtype)


def gram_backward(f: ArrayLike, g: ArrayLike) -> NDArray[Any]:
    """Gradient of `gram`: f as there, g [N, C, C] (∂loss/∂G) of f's dtype → ∂loss/∂f = (g + gᵀ) F / (C K), like f.

    Computed in float64 and rounded. Raises ValueError.
    """
    features, gradient = _features(f), np.asarray(g)
    expected = (*features.shape[:2], features.shape[1])
    if gradient.dtype != features.dtype or gradient.shape != expected:
        got = f"{gradient.dtype} {list(gradient.shape)}"
        raise ValueError(f"g: got {got}, expected {features.dtype} {list(expected)}, a square matrix for each of f")
    rows, scale = _rows(features)
    symmetric = gradient.astype(np.float64)
    symmetric = symmetric + symmetric.transpose(0, 2, 1)
    return (symmetric @ rows * scale).reshape(features.shape).astype(features.dtype)


def _features(f: ArrayLike) -> NDArray[Any]:
    array = np.asarray(f)
    known = array.dtype in (np.float32, np.float64)
    if not known or array.ndim not in (3, 4) or (array.size == 0 and array.shape[0] * array.shape[1] > 0):
        expected = "float32 [N, C, H, W] or [N, C, K] with at least one value in a channel"
        raise ValueError(f"f: got {array.dtype} {list(array.shape)}, expected {expected}")
    return array


def _rows(features: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
    """float64 [N, C, K], and 1 / (C K)."""
    count, channels = features.shape[:2]
    size = int(np.prod(features.shape[2:]))
    return features.reshape(count, channels, size).astype(np.float64), 1.0 / max(1, channels * size)
