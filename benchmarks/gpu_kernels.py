"""What is measured on a GPU: each kernel at the sizes that fill one, the work it has to do, and who else does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import cpp_ext
from benchmarks import roofline, torch_peers
from benchmarks.roofline import Work
from trainer.losses.gram import gram as gram_with_gradient

PARTS = (204, 204, 204, 204, 208)


class Kernel(NamedTuple):
    """One kernel at one size. `twin(samples)`: what the CPU kernel gives for some of the samples."""

    name: str
    ours: Callable[[], Tensor]
    twin: Callable[[slice], Tensor]
    tolerance: float
    work: Work
    target: float | None
    peers: Mapping[str, Callable[[], Any] | str]


def kernels(device: torch.device, small: bool = False) -> Iterator[Kernel]:
    """One after another, so that each one's arrays go before the next one's come."""
    few = 4 if small else 1000
    large = 64 if small else 256
    for window in ("gaussian", "uniform"):
        for size, dtypes in ((large, ("float32", "uint8", "float16")), (80, ("float32", "uint8"))):
            for dtype in dtypes:
                if dtype == "float16" and device.type == "cpu":
                    continue
                yield ssim(device, few, size, dtype, window, "NCHW")
    yield ssim(device, few, 80, "uint8", "uniform", "NHWC")
    for size, dtype in ((80, "uint8"), (128, "float32")):
        yield ssim_pairs(device, 10 if small else 100, 110 if small else 1100, size, dtype)
    yield ssim_pairs(device, 10 if small else 1000, 110 if small else 20000, 80, "uint8")
    for shape in ((8, 64, 65536), (8, 128, 16384), (8, 256, 4096), (8, 512, 1024), (64, 64, 4096), (1, 256, 16384)):
        shape = (2, shape[1] // 8, shape[2] // 64) if small else shape
        yield gram(device, shape)
        yield gram_backward(device, shape)
        yield gram_and_gradient(device, shape)
    count = 4 if small else 1024
    yield blend(device, 100 // (20 if small else 1), 4)
    yield blend(device, count, 8)
    yield blend_grid(device, 64 // (8 if small else 1), 4, target=None)
    yield blend_grid(device, count, 8, target=85)
    yield pack(device, 4 if small else 512, large, torch.float32)
    if device.type == "cuda":
        yield pack(device, 4 if small else 512, large, torch.float16)
    yield unpack(device, 4 if small else 512, large)
    yield noise(device, 64 if small else 1 << 21, 64)


def _random(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device).to(dtype)


def _pictures(shape: tuple[int, ...], device: torch.device, dtype: str, seed: int) -> Tensor:
    """Smooth pictures with noise on them; a pair of different seeds has the same smooth part."""
    rows, columns = (torch.linspace(0, 9, size, device=device) for size in shape[1:3])
    smooth = 0.5 + 0.3 * torch.sin(rows)[:, None] * torch.cos(columns)
    x = _random(shape, device, seed=seed).mul_(0.08).add_(smooth[:, :, None]).clamp_(0, 1)
    return x.mul_(255).round_().to(torch.uint8) if dtype == "uint8" else x.to(getattr(torch, dtype))


def _on_cpu(x: Tensor) -> Tensor:
    return x.cpu().float() if x.dtype == torch.float16 else x.cpu()


def ssim(device: torch.device, count: int, size: int, dtype: str, window: Any, layout: Any) -> Kernel:
    a, b = (_pictures((count, size, size, 3), device, dtype, seed) for seed in (0, 1))
    if layout == "NCHW":
        a, b = (x.permute(0, 3, 1, 2).contiguous() for x in (a, b))
    data_range = 255.0 if dtype == "uint8" else 1.0
    call = partial(cpp_ext.ssim, window=window, data_range=data_range, layout=layout)
    x, y = (a, b) if layout == "NCHW" else (a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2))
    peers: dict[str, Callable[[], Any] | str] = dict(torch_peers.ssim(x, y, data_range, window))
    if window == "gaussian":
        peers |= {"torchmetrics": _torchmetrics(x, y, data_range)}
        peers |= {"frame_analytics": _frame_analytics(x, y, data_range)}
    return Kernel(
        f"ssim {window} {dtype} {count}x3x{size}x{size}{' NHWC' if layout == 'NHWC' else ''}",
        partial(call, a, b),
        lambda samples: call(_on_cpu(a[samples]), _on_cpu(b[samples])),
        2e-6,  # each is within 1e-6 of float64
        roofline.ssim(count, 3, size, size, a.element_size(), window),
        75 if window == "gaussian" and size == 256 else None,
        peers,
    )


def _torchmetrics(x: Tensor, y: Tensor, data_range: float) -> Callable[[], Any] | str:
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure as measure_of
    except ImportError:
        return "not installed"
    return lambda: measure_of(x.float(), y.float(), data_range=data_range, reduction="none")


def _frame_analytics(x: Tensor, y: Tensor, data_range: float) -> Callable[[], Any] | str:
    try:
        import frame_analytics
        from frame_analytics import backend
    except ImportError:
        return "not installed"
    if x.is_cuda and not backend.status()["cuda"]:
        return "has no CUDA kernels here"
    return lambda: frame_analytics.ssim(x, y, data_range=data_range, reduction="none")


def ssim_pairs(device: torch.device, count: int, pairs: int, size: int, dtype: str) -> Kernel:
    """MGAN's evaluation in its layout: matched pairs, then random ones; against the same kernel without reuse."""
    a, b = (_pictures((count, size, size, 3), device, dtype, seed) for seed in (0, 1))
    generator = np.random.default_rng(0)
    i, j = (np.concatenate([np.arange(count), generator.integers(0, count, pairs - count)]) for _ in range(2))
    data_range = 255.0 if dtype == "uint8" else 1.0
    call = partial(cpp_ext.ssim_pairs, data_range=data_range)
    gathered = a[torch.from_numpy(i)], b[torch.from_numpy(j)]
    return Kernel(
        f"ssim_pairs uniform {dtype} {pairs} of {count}x{size}x{size}x3",
        partial(call, a, b, i, j),
        lambda samples: call(_on_cpu(a), _on_cpu(b), i[samples], j[samples]),
        2e-6,
        roofline.ssim_pairs(count, pairs, 3, size, size, a.element_size(), "uniform"),
        None,
        {"ssim of the gathered pairs": lambda: cpp_ext.ssim(*gathered, data_range=data_range)},
    )


def gram(device: torch.device, shape: tuple[int, ...]) -> Kernel:
    f = _random(shape, device)
    out = f.new_empty(shape[0], shape[1], shape[1])
    ours, work = partial(cpp_ext.gram, f, out=out), roofline.gram(*shape)
    return Kernel(f"gram {list(shape)}", ours, lambda n: cpp_ext.gram(f[n].cpu()), 2e-5, work, 80, torch_peers.gram(f))


def gram_backward(device: torch.device, shape: tuple[int, ...]) -> Kernel:
    f, g = _random(shape, device), _random((shape[0], shape[1], shape[1]), device, seed=1)
    return Kernel(
        f"gram_backward {list(shape)}",
        partial(cpp_ext.gram_backward, f, g, out=torch.empty_like(f)),
        lambda samples: cpp_ext.gram_backward(f[samples].cpu(), g[samples].cpu()),
        2e-5,
        roofline.gram_backward(*shape),
        80,
        torch_peers.gram_backward(f, g),
    )


def gram_and_gradient(device: torch.device, shape: tuple[int, ...]) -> Kernel:
    """As the trainer calls it."""
    f, g = _random(shape, device).requires_grad_(), _random((shape[0], shape[1], shape[1]), device, seed=1)
    forward, backward = roofline.gram(*shape), roofline.gram_backward(*shape)
    return Kernel(
        f"gram + gradient {list(shape)}",
        lambda: torch.autograd.grad(gram_with_gradient(f), f, g)[0],
        lambda samples: cpp_ext.gram_backward(f.detach()[samples].cpu(), g[samples].cpu()),
        2e-5,
        Work(*(ours + theirs for ours, theirs in zip(forward, backward, strict=True))),
        None,
        torch_peers.gram_with_gradient(f.detach(), g),
    )


def blend(device: torch.device, count: int, side: int) -> Kernel:
    shape = (count, sum(PARTS), side, side)
    za, zb = _random(shape, device), _random(shape, device, seed=1)
    weights = torch.rand(count, len(PARTS), device=device)
    size = 4.0 * za.numel()
    return Kernel(
        f"blend {list(shape)}",
        partial(cpp_ext.blend, za, zb, weights, PARTS, out=torch.empty_like(za)),
        lambda samples: cpp_ext.blend(za[samples].cpu(), zb[samples].cpu(), weights[samples].cpu(), PARTS),
        1e-6,
        Work(2 * size, size),
        None,
        torch_peers.lerp(za, zb, weights, PARTS),
    )


def blend_grid(device: torch.device, rows: int, side: int, target: float | None) -> Kernel:
    shape = (sum(PARTS), side, side)
    za, zb = _random(shape, device), _random(shape, device, seed=1)
    weights = torch.rand(rows, len(PARTS), device=device)
    out = za.new_empty(rows, *shape)
    return Kernel(
        f"blend grid of {rows} over {list(shape)}",
        partial(cpp_ext.blend, za, zb, weights, PARTS, out=out),
        lambda samples: cpp_ext.blend(za.cpu(), zb.cpu(), weights[samples].cpu(), PARTS),
        1e-6,
        Work(8.0 * za.numel(), 4.0 * out.numel()),
        target,
        torch_peers.lerp(za[None], zb[None], weights, PARTS) | torch_peers.matmul_grid(za, zb, weights, PARTS),
    )


def pack(device: torch.device, count: int, size: int, dtype: torch.dtype) -> Kernel:
    x = _random((count, 3, size, size), device, dtype)
    out = torch.empty(count, size, size, 3, dtype=torch.uint8, device=device)
    return Kernel(
        f"pack {str(dtype).removeprefix('torch.')} {list(x.shape)}",
        partial(cpp_ext.pack, x, out=out),
        lambda samples: cpp_ext.pack(_on_cpu(x[samples])),
        1.01 / 255 if dtype == torch.float16 else 0.0,
        Work(float(x.element_size()) * x.numel(), float(out.numel())),
        85,
        torch_peers.pack(x),
    )


def unpack(device: torch.device, count: int, size: int) -> Kernel:
    u = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, device=device)
    ours = partial(cpp_ext.unpack, u, out=torch.empty(count, 3, size, size, device=device))
    work = Work(float(u.numel()), 4.0 * u.numel())
    peers = torch_peers.unpack(u)
    return Kernel(f"unpack {list(u.shape)}", ours, lambda n: cpp_ext.unpack(u[n].cpu()), 0.0, work, 85, peers)


def noise(device: torch.device, count: int, dim: int) -> Kernel:
    out, theirs = (torch.empty(count, dim, device=device) for _ in range(2))

    def twin(samples: slice) -> Tensor:
        return torch.from_numpy(cpp_ext.noise(7, 5 + samples.start, min(samples.stop, count) - samples.start, dim))

    return Kernel(
        f"noise [{count}, {dim}]",
        partial(cpp_ext.noise, 7, 5, count, dim, out=out),
        twin,
        0.0,  # the same bits
        Work(0, 4.0 * out.numel()),
        None,
        {"torch.randn": lambda: torch.randn(count, dim, device=device, out=theirs)},
    )
