"""SSIM: pairs scored per second, against scikit-image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from cpp_ext import ssim, ssim_pairs
from cpp_ext.reference import Window

Case = tuple[str, Callable[[], Any], str, Callable[[], Any] | None, int]

_WINDOWS: dict[Window, dict[str, Any]] = {
    "uniform": {},
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
}


def cases() -> list[Case]:
    """Images of 80 and of 256 pixels, each window; and MGAN's evaluation: 100 matched and 1000 random pairs."""
    generator = np.random.default_rng(0)
    out: list[Case] = []
    for size, count in ((80, 32), (256, 4)):
        a, b = generator.integers(0, 256, (2, count, size, size, 3), np.uint8)
        for window in _WINDOWS:
            out.append(
                (
                    f"ssim {window} {size}x{size}x3 uint8",
                    partial(ssim, a, b, window=window),
                    "skimage",
                    _peer(a, b, np.arange(count), np.arange(count), window),
                    count,
                )
            )
    a, b = generator.integers(0, 256, (2, 100, 80, 80, 3), np.uint8)
    own = np.arange(100)
    i, j = (np.concatenate([own, generator.integers(0, 100, 1000)]) for _ in range(2))
    out.append(("ssim_pairs 100 + 1000", lambda: ssim_pairs(a, b, i, j), "skimage", _peer(a, b, i, j, "uniform"), 1100))
    return out


def _peer(a: Any, b: Any, i: Any, j: Any, window: Window) -> Callable[[], Any] | None:
    """scikit-image on the same pairs, or None where it is not installed."""
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        return None
    options = {"channel_axis": 2, "data_range": 255, **_WINDOWS[window]}
    return lambda: [structural_similarity(a[m], b[n], **options) for m, n in zip(i, j, strict=True)]
