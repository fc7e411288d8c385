"""Structural similarity as a loss (Wang et al. 2004; as a loss: Zhao et al. 2017), differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from trainer.losses.precision import precise

WINDOW = 11
"""Pixels; an image must be at least as large."""
SIGMA = 1.5
"""Of the Gaussian window, in pixels."""


def structure(x: Tensor, y: Tensor) -> Tensor:
    """1 − mean SSIM of images, a float32 scalar in [0, 2].

    The measure of `cpp_ext.ssim(window="gaussian")`: an 11×11 Gaussian window of σ 1.5 wherever it fits into the image,
    population covariance, K1 = 0.01, K2 = 0.03; of each channel, mean over all.

    x, y: images [N, C, H, W] in [-1, 1], H and W at least 11. float64 gives float64.
    """
    x, y = precise(x) + 1, precise(y) + 1  # white less black is 2, and black must be 0
    channels = x.shape[1]
    ramp = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - (WINDOW - 1) / 2
    window = torch.exp(-ramp.square() / (2 * SIGMA**2))
    window = (window / window.sum()).expand(5 * channels, 1, WINDOW)

    stacked = torch.cat([x, y, x * x, y * y, x * y], 1).contiguous()
    with torch.autocast(x.device.type, enabled=False):  # variances are small differences of large means
        means = conv2d(stacked, window[..., None], groups=5 * channels)
        means = conv2d(means, window[..., None, :], groups=5 * channels)
    mx, my, mxx, myy, mxy = means.chunk(5, 1)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    score = (2 * mx * my + c1) * (2 * (mxy - mx * my) + c2)
    score = score / ((mx * mx + my * my + c1) * (mxx - mx * mx + myy - my * my + c2))
    return 1 - score.mean()
