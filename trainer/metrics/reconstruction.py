"""How well images come back from an autoencoder: SSIM and a perceptual distance of held-out images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpp_ext import ssim
from runtime.errors import InputError
from runtime.metrics.ssim_gap import SSIM
from trainer.metrics.lpips import Distance


def evaluate(images: NDArray[np.uint8], rebuilt: NDArray[np.uint8], distance: Distance) -> dict[str, Any]:
    """Mean SSIM and mean perceptual distance of images[n] and rebuilt[n], with their protocol.

    images, rebuilt: uint8 RGB [N, H, W, 3], N at least 2, H and W at least 32.

    Returns:
        ssim and, under its own name, the distance (lpips_alex, …), each a mean with its `_standard_error` over images;
        count; size, [H, W]; what each was computed with (`protocol`) and which way is better (`direction`).

    Raises:
        InputError: shapes or types are others.
    """
    if images.shape != rebuilt.shape or images.ndim != 4 or images.shape[3] != 3 or len(images) < 2:
        shapes = f"{list(images.shape)} and {list(rebuilt.shape)}"
        raise InputError(f"reconstruction: got images {shapes}, expected both alike, [N, H, W, 3] with N at least 2")
    if images.dtype != np.uint8 or rebuilt.dtype != np.uint8:
        raise InputError(f"reconstruction: got {images.dtype} and {rebuilt.dtype}, expected uint8")
    scores = {"ssim": ssim(images, rebuilt), distance.name: distance.of_pictures(images, rebuilt)}
    result: dict[str, Any] = {}
    for name, values in scores.items():
        result[name] = float(values.mean(dtype=np.float64))
        result[f"{name}_standard_error"] = float(values.std(ddof=1, dtype=np.float64) / np.sqrt(len(values)))
    return result | {
        "count": len(images),
        "size": list(images.shape[1:3]),
        "protocol": {"ssim": SSIM, distance.name: {"layers": list(distance.layers)} | distance.source},
        "direction": {"ssim": "higher is better", distance.name: "lower is better"},
    }
