"""Our kernels on the CPU against the fastest others known, on one thread and on all that may be used.

Peers are called at their best: of several ways to call one, the fastest on this machine. Values are compared first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import cpp_ext
from benchmarks import peers, torch_peers
from benchmarks.compare import Case, Way, fastest
from trainer.losses.gram import gram as gram_with_gradient

SIZES = {80: 64, 128: 32, 256: 8}
"""Pixels → images at once."""


def skipped() -> str | None:
    """Why nothing here can be measured, if so."""
    return None if cpp_ext.compiled() else "the compiled kernels are not here (pip install . builds them)"


def cases() -> Iterator[Case]:
    """One case after another, so that each one's arrays go before the next one's come."""
    best = cpp_ext.threads()
    for threads in sorted({1, best}):
        yield from ssim_gaussian(threads)
        yield from ssim_uniform(threads)
        yield from ssim_pairs(threads)
        yield from gram(threads)
        yield from blend(threads)
        yield from noise(threads)
        yield from frames(threads)
    if best > 1:
        yield from two_threads()


# --- SSIM ---


def images(count: int, size: int, dtype: str, nchw: bool, seed: int = 0) -> NDArray[Any]:
    """Smooth pictures with noise on them, [count, size, size, 3] or [count, 3, size, size]: uint8, or float32 to 1."""
    generator = np.random.default_rng(seed)
    place = np.linspace(0, 2 * np.pi, size)
    waves = generator.uniform(0.5, 3, (2, count, 1, 1, 3))
    picture = np.sin(waves[0] * place[:, None, None]) * np.cos(waves[1] * place[:, None])
    picture = 127 + 80 * picture + generator.normal(0, 20, picture.shape)
    pixels = np.clip(picture, 0, 255).astype(np.uint8)
    if nchw:
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return pixels if dtype == "uint8" else (pixels / np.float32(255)).astype(np.float32)


def _pair(count: int, size: int, dtype: str, nchw: bool) -> tuple[NDArray[Any], NDArray[Any], float]:
    a, b = (images(count, size, dtype, nchw, seed) for seed in (0, 1))
    return a, b, 255.0 if dtype == "uint8" else 1.0


def ssim_gaussian(threads: int) -> Iterator[Case]:
    for size, count in SIZES.items():
        for dtype in ("float32", "uint8"):
            a, b, data_range = _pair(count, size, dtype, nchw=True)
            ours = partial(cpp_ext.ssim, a, b, window="gaussian", data_range=data_range, layout="NCHW")
            ways = peers.frame_analytics(a, b, data_range, threads, nchw=True)
            best = 4.5 if dtype == "uint8" else 4.0
            for isa in _instruction_sets():
                bar = None if size > 128 else {"avx512": best, "avx2": 2.5}.get(isa)
                name = f"ssim gaussian {dtype} {size} px, {isa}"
                yield _case(name, threads, ours, "frame_analytics", ways, count, bar, 1e-6, isa=isa)
    a, b, data_range = _pair(SIZES[80], 80, "uint8", nchw=False)
    ours = partial(cpp_ext.ssim, a, b, window="gaussian")
    name = "ssim gaussian uint8 80 px NHWC"
    ways = peers.frame_analytics(a, b, data_range, threads, nchw=False)
    yield _case(name, threads, ours, "frame_analytics", ways, len(a), None, 1e-6)
    if threads == 1:
        yield _case(name, 1, ours, "skimage", peers.skimage(a, b, 255, "gaussian"), len(a), None, 1e-6)
        ways = peers.pytorch_msssim(a, b, 255, 1)
        yield _case(name, 1, ours, "pytorch_msssim", ways, len(a), None, 1e-4)


def _instruction_sets() -> list[str]:
    """The one in use; and AVX2 where that is AVX-512."""
    return ["avx512", "avx2"] if cpp_ext.isa() == "avx512" else [cpp_ext.isa()]


def ssim_uniform(threads: int) -> Iterator[Case]:
    for size, count in SIZES.items():
        for dtype in ("float32", "uint8"):
            a, b, data_range = _pair(count, size, dtype, nchw=False)
            ours = partial(cpp_ext.ssim, a, b, data_range=data_range)
            name = f"ssim uniform {dtype} {size} px NHWC"
            yield _case(name, threads, ours, "fast_ssim", peers.fast_ssim(a, b, data_range, threads), count, 3.3, 1e-4)
            if size == 80 and threads == 1:
                ways = peers.skimage(a, b, data_range, "uniform")
                yield _case(name, 1, ours, "skimage", ways, count, None, 1e-5 if dtype == "float32" else 1e-6)


def ssim_pairs(threads: int) -> Iterator[Case]:
    """MGAN's evaluation, 100 matched and 1000 random pairs of 100 images, against the same kernel without reuse."""
    generator = np.random.default_rng(0)
    own = np.arange(100)
    i, j = (np.concatenate([own, generator.integers(0, 100, 1000)]) for _ in range(2))
    for window in ("uniform", "gaussian"):
        for size in (80, 128):
            for dtype in ("uint8", "float32"):
                a, b, data_range = _pair(100, size, dtype, nchw=False)
                options: dict[str, Any] = {"window": window, "data_range": data_range}
                gathered = partial(cpp_ext.ssim, a[i], b[j], **options)
                yield _case(
                    f"ssim_pairs {window} {dtype} {size} px NHWC",
                    threads,
                    partial(cpp_ext.ssim_pairs, a, b, i, j, **options),
                    "ssim of the gathered pairs",
                    [Way("ssim of the gathered pairs", gathered, peers.ours(threads))],
                    len(i),
                    1.8,
                    1e-6,
                )


# --- Gram matrices: [N, C, K] ---


def gram(threads: int) -> Iterator[Case]:
    shapes = ((16, 64, 1024), (4, 32, 16384), (4, 64, 16384), (4, 128, 4096), (8, 256, 1024), (1, 256, 4096))
    for shape in (*shapes, (8, 512, 256), (4, 512, 1024)):
        count, channels, size = shape
        f = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        out = torch.empty(count, channels, channels)
        name = f"gram {list(shape)}"
        bar = 1.7 if channels <= 256 else 1.0
        ways = _torch(torch_peers.gram(f), threads)
        yield _case(name, threads, partial(cpp_ext.gram, f, out=out), "torch.bmm", ways, count, bar, 1e-5)
        yield _with_gradient(f, threads, 2.0)


def _with_gradient(f: torch.Tensor, threads: int, bar: float) -> Case:
    count, channels, _ = f.shape
    leaf = f.clone().requires_grad_()
    g = torch.randn(count, channels, channels, generator=torch.Generator().manual_seed(1))

    def ours() -> torch.Tensor:
        return torch.autograd.grad(gram_with_gradient(leaf), leaf, g)[0]

    ways = _torch(torch_peers.gram_with_gradient(f, g), threads)
    return _case(f"gram + gradient {list(f.shape)}", threads, ours, "autograd", ways, count, bar, 1e-5)


# --- latents ---

PARTS = (204, 204, 204, 204, 208)


def blend(threads: int) -> Iterator[Case]:
    generator = np.random.default_rng(0)
    for count, side in ((100, 4), (64, 8)):
        za, zb = generator.standard_normal((2, count, sum(PARTS), side, side), np.float32)
        weights = generator.random((count, len(PARTS)), np.float32)
        out = np.empty_like(za)
        ours = partial(cpp_ext.blend, za, zb, weights, PARTS, out=out)
        a, b, w = map(torch.from_numpy, (za, zb, weights))
        ways = _torch(torch_peers.lerp(a, b, w, PARTS), threads)
        yield _case(f"blend {list(za.shape)}", threads, ours, "torch.lerp", ways, count, 1.0, 1e-6)
    for rows, side in ((6, 4), (36, 4), (64, 4), (64, 8)):
        za, zb = generator.standard_normal((2, sum(PARTS), side, side), np.float32)
        weights = generator.random((rows, len(PARTS)), np.float32)
        out = np.empty((rows, *za.shape), np.float32)
        ours = partial(cpp_ext.blend, za, zb, weights, PARTS, out=out)
        name = f"blend grid of {rows} over {list(za.shape)}"
        a, b, w = map(torch.from_numpy, (za, zb, weights))
        ways = _torch(torch_peers.matmul_grid(a, b, w, PARTS), threads)
        yield _case(name, threads, ours, "matmul", ways, rows, 1.2, 1e-5)
        ways = _torch(torch_peers.lerp(a[None], b[None], w, PARTS), threads)
        yield _case(name, threads, ours, "torch.lerp", ways, rows, 1.0, 1e-6)


# --- noise and frames ---


def noise(threads: int) -> Iterator[Case]:
    count, dim = 8192, 64
    out, numpys = np.empty((2, count, dim), np.float32)
    theirs = torch.empty(count, dim)
    ours = partial(cpp_ext.noise, 0, 0, count, dim, out=out)
    torchs = _torch({"torch.randn": lambda: torch.randn(count, dim, out=theirs)}, threads)
    yield _case("noise [8192, 64] (numbers)", threads, ours, "torch.randn", torchs, count * dim, None, None)
    if threads == 1:
        generator = np.random.default_rng(0)
        ways = [Way("numpy", lambda: generator.standard_normal(dtype=np.float32, out=numpys))]
        yield _case("noise [8192, 64] (numbers)", 1, ours, "numpy", ways, count * dim, None, None)


def frames(threads: int) -> Iterator[Case]:
    for count, size in ((64, 80), (16, 256)):
        x = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2.2 - 1.1
        u = torch.empty(count, size, size, 3, dtype=torch.uint8)
        ours = partial(cpp_ext.pack, x.numpy(), out=u.numpy())
        name = f"pack [{count}, 3, {size}, {size}]"
        # A level more or less where the rounding of (x + 1) * 127.5 differs.
        yield _case(name, threads, ours, "torch", _torch(torch_peers.pack(x), threads), count, None, 1.01 / 255)
        y = torch.empty_like(x)
        given = torch.randint(0, 256, u.shape, dtype=torch.uint8)
        ours = partial(cpp_ext.unpack, given.numpy(), out=y.numpy())
        name = f"unpack [{count}, {size}, {size}, 3]"
        yield _case(name, threads, ours, "torch", _torch(torch_peers.unpack(given), threads), count, None, 1e-6)


# --- one thread more ---


def two_threads() -> Iterator[Case]:
    """Two threads against one, of each kernel."""
    generator = np.random.default_rng(0)
    a, b, _ = _pair(64, 128, "float32", nchw=True)
    options: dict[str, Any] = {"window": "gaussian", "data_range": 1.0, "layout": "NCHW"}
    yield _twice("ssim gaussian float32 128 px", partial(cpp_ext.ssim, a, b, **options), 64)
    a, b, _ = _pair(128, 80, "uint8", nchw=False)
    yield _twice("ssim uniform uint8 80 px NHWC", partial(cpp_ext.ssim, a, b), 128)
    i, j = generator.integers(0, 100, (2, 1100))
    yield _twice("ssim_pairs uniform uint8 80 px NHWC", partial(cpp_ext.ssim_pairs, a, b, i, j), 1100)
    for shape in ((8, 256, 1024), (1, 256, 4096), (4, 512, 1024)):
        f = torch.randn(shape)
        g = torch.randn(*shape[:2], shape[1])
        yield _twice(f"gram {list(shape)}", partial(cpp_ext.gram, f, out=torch.empty_like(g)), shape[0])
        backward = partial(cpp_ext.gram_backward, f, g, out=torch.empty_like(f))
        yield _twice(f"gram_backward {list(shape)}", backward, shape[0])
    za, zb = generator.standard_normal((2, 64, 1024, 8, 8), np.float32)
    weights = generator.random((64, 5), np.float32)
    yield _twice("blend [64, 1024, 8, 8]", partial(cpp_ext.blend, za, zb, weights, PARTS, out=np.empty_like(za)), 64)
    out = np.empty((8192, 64), np.float32)
    yield _twice("noise [8192, 64] (numbers)", partial(cpp_ext.noise, 0, 0, 8192, 64, out=out), out.size)
    x = generator.uniform(-1, 1, (64, 3, 128, 128)).astype(np.float32)
    u = np.empty((64, 128, 128, 3), np.uint8)
    yield _twice("pack [64, 3, 128, 128]", partial(cpp_ext.pack, x, out=u), 64)
    yield _twice("unpack [64, 128, 128, 3]", partial(cpp_ext.unpack, u, out=x.copy()), 64)


def _twice(name: str, call: Callable[[], Any], units: int) -> Case:
    setting = peers.ours
    return Case(f"{name}, 2 threads", call, "1 thread", call, units, 1.8, 0.0, setting(2), setting(1))


def _case(
    name: str,
    threads: int,
    ours: Callable[[], Any],
    peer_name: str,
    ways: Sequence[Way],
    units: int,
    bar: float | None,
    tolerance: float | None,
    isa: str | None = None,
) -> Case:
    """A case against the fastest way of calling the peer; no ways: it is not installed."""
    name = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
    setting = peers.ours(threads, isa)
    if not ways:
        return Case(name, ours, peer_name, None, units, bar, tolerance, setting)
    way = fastest(ways)
    return Case(name, ours, way.name, way.call, units, bar, tolerance, setting, way.setting)


def _torch(calls: torch_peers.Calls, threads: int) -> list[Way]:
    """Each call on so many threads; where they are several, on one too, which is faster for small arrays."""
    ways = [Way(name, call, peers.torch_threads(threads)) for name, call in calls.items()]
    return ways if threads == 1 else ways + [_on_one_thread(way) for way in _torch(calls, 1)]


def _on_one_thread(way: Way) -> Way:
    return way._replace(name=f"{way.name} (1 thread)")
