"""What one would write in PyTorch instead, on any device and into buffers made beforehand: name → call."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

Calls = dict[str, Callable[[], Tensor]]


def gram(f: Tensor) -> Calls:
    """F Fᵀ / (C K) of f [N, C, K]: scaled afterwards, or by the product itself."""
    scale = 1 / (f.shape[1] * f.shape[2])
    out = f.new_empty(f.shape[0], f.shape[1], f.shape[1])
    return {
        "torch.bmm": lambda: torch.bmm(f, f.mT, out=out).mul_(scale),
        "torch.baddbmm": lambda: torch.baddbmm(out, f, f.mT, beta=0, alpha=scale, out=out),
    }


def gram_backward(f: Tensor, g: Tensor) -> Calls:
    """(g + gᵀ) F / (C K)."""
    scale = 1 / (f.shape[1] * f.shape[2])
    out = torch.empty_like(f)
    return {"torch.bmm": lambda: torch.bmm((g + g.mT).mul_(scale), f, out=out)}


def gram_with_gradient(f: Tensor, g: Tensor) -> Calls:
    """∂/∂F by autograd, the forward pass included."""
    leaf = f.clone().requires_grad_()
    scale = 1 / (f.shape[1] * f.shape[2])
    nothing = f.new_zeros(())

    def bmm() -> Tensor:
        return torch.autograd.grad(torch.bmm(leaf, leaf.mT) * scale, leaf, g)[0]

    def baddbmm() -> Tensor:
        return torch.autograd.grad(torch.baddbmm(nothing, leaf, leaf.mT, beta=0, alpha=scale), leaf, g)[0]

    return {"autograd of torch.bmm": bmm, "autograd of torch.baddbmm": baddbmm}


def lerp(za: Tensor, zb: Tensor, weights: Tensor, parts: tuple[int, ...]) -> Calls:
    """torch.lerp, the weights [L, P] spread over the channels beforehand; za, zb [L or 1, C, h, w]."""
    spread = weights.repeat_interleave(torch.tensor(parts, device=weights.device), dim=1)[:, :, None, None]
    out = za.new_empty(len(weights), *za.shape[1:])
    return {"torch.lerp": lambda: torch.lerp(zb, za, spread, out=out)}


def matmul_grid(za: Tensor, zb: Tensor, weights: Tensor, parts: tuple[int, ...]) -> Calls:
    """[λ, 1 - λ] @ [za; zb] of one pair [C, h, w]: a product for each part, or a batch with one for each channel."""
    rows, channels, pixels = len(weights), len(za), za[0].numel()
    both = torch.stack([weights, 1 - weights], dim=-1)  # [L, P, 2]
    pair = torch.stack([za, zb]).reshape(2, -1)
    out = za.new_empty(rows, *za.shape)
    ends = [end * pixels for end in accumulate(parts)]
    columns = [slice(end - part * pixels, end) for end, part in zip(ends, parts, strict=True)]
    pieces = [
        (both[:, p].contiguous(), pair[:, where], out.view(rows, -1)[:, where]) for p, where in enumerate(columns)
    ]
    spread = both.repeat_interleave(torch.tensor(parts, device=both.device), dim=1).transpose(0, 1).contiguous()
    stacked = pair.view(2, channels, pixels).transpose(0, 1).contiguous()
    by_channel = za.new_empty(channels, rows, pixels)

    def mm() -> Tensor:
        for left, right, into in pieces:
            torch.mm(left, right, out=into)
        return out

    def bmm() -> Tensor:  # gives [C, L, h w], seen as [L, C, h, w]
        return torch.bmm(spread, stacked, out=by_channel).transpose(0, 1).view(out.shape)

    return {"mm of each part": mm, "bmm of each channel": bmm}


def pack(x: Tensor) -> Calls:
    """[-1, 1] float [N, C, H, W] → uint8 [N, H, W, C]."""
    scaled, nchw = torch.empty_like(x), torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    nhwc = nchw.new_empty([x.shape[axis] for axis in (0, 2, 3, 1)])

    def scale() -> Tensor:
        return torch.add(x, 1, out=scaled).mul_(127.5).round_().clamp_(0, 255)

    return {
        "torch (converted, permuted)": lambda: nhwc.copy_(nchw.copy_(scale()).permute(0, 2, 3, 1)),
        "torch (permuted, converted)": lambda: nhwc.copy_(scale().permute(0, 2, 3, 1)),
        "torch (textbook)": lambda: (
            x.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        ),
    }


def unpack(u: Tensor) -> Calls:
    """uint8 [N, H, W, C] → [-1, 1] float32 [N, C, H, W]."""
    out = torch.empty([u.shape[axis] for axis in (0, 3, 1, 2)], device=u.device)
    return {
        "torch (out=)": lambda: out.copy_(u.permute(0, 3, 1, 2)).div_(127.5).sub_(1),
        "torch (textbook)": lambda: u.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1,
    }


def ssim(a: Tensor, b: Tensor, data_range: float, window: str) -> Calls:
    """Five planes through a separable depthwise convolution; a, b [N, C, H, W]. Gives [N]."""
    if window == "gaussian":
        taps = torch.exp(-0.5 * (torch.arange(-5, 6, device=a.device) / 1.5) ** 2)
        unbias = 1.0
    else:
        taps, unbias = torch.ones(7, device=a.device), 49 / 48
    taps = (taps / taps.sum()).float()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def mean(planes: Tensor) -> Tensor:
        flat = planes.flatten(0, 1)[:, None]
        return functional.conv2d(functional.conv2d(flat, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))

    def call() -> Tensor:
        x, y = a.float() - data_range / 2, b.float() - data_range / 2
        mx, my = mean(x), mean(y)
        vx, vy = (mean(p * p).sub_(m * m).mul_(unbias) for p, m in ((x, mx), (y, my)))
        vxy = mean(x * y).sub_(mx * my).mul_(unbias)
        mx, my = mx + data_range / 2, my + data_range / 2
        score = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        return score.view(len(a), -1).mean(dim=1)

    return {"torch": call}
