"""Gram matrices with gradients, on the project's own kernels (forward and backward)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

import cpp_ext
from cpp_ext import reference


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        if features.dtype == torch.float64:
            return torch.from_numpy(reference.gram(features.detach().numpy()))
        return cpp_ext.gram(features.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        if features.dtype == torch.float64:
            return torch.from_numpy(reference.gram_backward(features.detach().numpy(), gradient.detach().numpy()))
        # One product with the symmetric G + Gᵀ, where autograd of F Fᵀ would make two.
        return cpp_ext.gram_backward(features.detach(), gradient.detach())


def gram(features: Tensor) -> Tensor:
    """Gram matrices F Fᵀ / (C K), K = H W, of each image's features; differentiable once.

    features: [N, C, H, W] or [N, C, K], on a CPU or CUDA; half precision is taken as float32 (a sum of K products does
    not fit it). float64 is for checking gradients: it goes through the NumPy twins, on a CPU. Returns float32 [N, C, C]
    (float64 for float64).
    """
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    if features.dim() == 4:
        features = features.flatten(2)
    return _Gram.apply(features)
