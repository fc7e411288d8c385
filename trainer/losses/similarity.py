"""How alike two images are, differentiably."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

WINDOW = 7


@functools.lru_cache
def _windows(side: int, stride: int, device: torch.device) -> Tensor:
    """Averages over every `stride`-th window along one side, as a matrix [windows, side]."""
    starts = range(0, side - WINDOW + 1, stride)
    matrix = torch.zeros(len(starts), side)
    for row, start in enumerate(starts):
        matrix[row, start : start + WINDOW] = 1 / WINDOW
    return matrix.to(device)


def ssim(a: Tensor, b: Tensor, stride: int = 2) -> Tensor:
    """Mean structural similarity of two batches [N, C, H, W] in [-1, 1], a scalar.

    Wang et al. 2004 with a uniform 7×7 window and sample covariance, at every `stride`-th position. Windows are two
    matrix products: the backward pass of average pooling is ten times slower on a CPU.
    """
    a, b = a.float(), b.float()
    rows, columns = _windows(a.shape[2], stride, a.device), _windows(a.shape[3], stride, a.device)

    def mean(x: Tensor) -> Tensor:
        return rows @ x.contiguous() @ columns.T

    sample = WINDOW**2 / (WINDOW**2 - 1)
    mean_a, mean_b = mean(a), mean(b)
    variance_a = sample * (mean(a * a) - mean_a * mean_a)
    variance_b = sample * (mean(b * b) - mean_b * mean_b)
    covariance = sample * (mean(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (likeness / ((mean_a * mean_a + mean_b * mean_b + c1) * (variance_a + variance_b + c2))).mean()


def image_distance(a: Tensor, b: Tensor, structure: float) -> Tensor:
    """Mean absolute difference + `structure` · (1 − SSIM) of two batches [N, C, H, W] in [-1, 1], a scalar."""
    distance = (a.float() - b.float()).abs().mean()
    return distance + structure * (1 - ssim(a, b)) if structure else distance
