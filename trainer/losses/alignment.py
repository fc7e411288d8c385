"""What the aligner learns from, without labels: warped onto each other, two images agree, and the way is smooth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from trainer.losses.precision import precise
from trainer.networks.aligner import Aligner, warp

SIDE = 64
"""Larger images are compared at this many pixels a side or, where that does not divide, up to twice as many."""
SCALES = 2
"""Images are compared at that size and at half of it: fine features, and those that are still far apart."""
WINDOW = 9
"""Pixels a side of the window of the correlation, at either scale."""
FLOOR = 0.01
"""Variance below which a window counts as flat, for values in [-1, 1]: noise on a wall has nothing to say."""
SMOOTHNESS = 0.3
"""Weight of the roughness of the way, beside a mismatch in [0, 2]."""


def alignment_loss(aligner: Aligner, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """The loss's terms by name, float32 scalars; their sum is what to minimise.

    mismatch: 1 less the local correlation of a with b warped onto it and of b with a warped onto it.
    roughness: SMOOTHNESS times the roughness of the velocities.

    a, b: images [N, 3, S, S] in [-1, 1].
    """
    v = aligner.velocity(a, b)
    ones = torch.ones_like(a[:, 0, 0, :1])
    there, back = (warp(x, aligner.displacement(v, time)) for x, time in ((b, ones), (a, -ones)))
    x, y = (luminance(torch.cat(images)) for images in ((a, b), (there, back)))
    x, y = (avg_pool2d(each, max(1, aligner.size // SIDE)) for each in (x, y))
    correlations = []
    for _ in range(SCALES):
        correlations.append(local_correlation(x, y))
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    return {"mismatch": 1 - torch.stack(correlations).mean(), "roughness": SMOOTHNESS * roughness(v)}


def luminance(images: Tensor) -> Tensor:
    """RGB images [N, 3, H, W] → [N, 1, H, W] of the same range, by the weights of ITU-R BT.601."""
    images = precise(images)
    return (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def local_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Mean over all windows of cov(x, y) / sqrt((var x + FLOOR) (var y + FLOOR)): a scalar in [-1, 1].

    It asks where edges and patches lie, not how bright they are: two faces rarely share skin, hair and light. The sign
    counts (the usual squared form would match an edge to its negative). At the border a window is what of it is inside.

    x, y: [N, 1, H, W] in [-1, 1].
    """

    def mean(values: Tensor) -> Tensor:
        return avg_pool2d(values, WINDOW, 1, WINDOW // 2, count_include_pad=False)

    mean_x, mean_y = mean(x), mean(y)
    covariance = mean(x * y) - mean_x * mean_y
    # Rounding can bring a flat window's variance below 0.
    spread_x, spread_y = (mean(v * v) - m * m for v, m in ((x, mean_x), (y, mean_y)))
    scale = (spread_x.clamp_min(0) + FLOOR) * (spread_y.clamp_min(0) + FLOOR)
    return (covariance * scale.rsqrt()).mean()


def roughness(velocity: Tensor) -> Tensor:
    """Mean squared slope along x plus that along y, per unit of length (the image's side is 2): a scalar.

    velocity: [N, 2, h, w], in the same unit.
    """
    height, width = velocity.shape[2:]
    down = (velocity[:, :, 1:] - velocity[:, :, :-1]) * (height / 2)
    right = (velocity[:, :, :, 1:] - velocity[:, :, :, :-1]) * (width / 2)
    return down.square().mean() + right.square().mean()
