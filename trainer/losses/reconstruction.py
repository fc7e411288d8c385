"""Losses on pixels: how far a reconstruction is from its image, and how rough an image is."""

from __future__ import annotations

from torch import Tensor

from trainer.losses.precision import precise


def absolute(x: Tensor, y: Tensor) -> Tensor:
    """‖x − y‖₁ as a mean over batch, channels and pixels (fusion's equations 7 and 10): a float32 scalar.

    x, y: images [N, C, H, W] of one shape and range; in [−1, 1] the loss is in [0, 2]. float64 gives float64.
    """
    return (precise(x) - precise(y)).abs().mean()


def total_variation(x: Tensor) -> Tensor:
    """φ(x) = Σ_ij (x_i,j+1 − x_i,j)² + (x_i+1,j − x_i,j)² (fusion's equation 8), per pixel: a float32 scalar.

    The sum over positions and channels is divided by the image's H W pixels, and averaged over the batch. The paper
    prints the bare sum; but that grows with the image, and beside a reconstruction loss that is a mean, its weight of 1
    would leave nothing but flat images.

    x: images [N, C, H, W]; in [−1, 1] the loss is in [0, 8 C]. float64 gives float64.
    """
    x = precise(x)
    right = (x[..., :, 1:] - x[..., :, :-1]).square().sum()
    down = (x[..., 1:, :] - x[..., :-1, :]).square().sum()
    return (right + down) / (x.shape[0] * x.shape[2] * x.shape[3])
