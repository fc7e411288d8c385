"""How many threads and which instructions a side uses, and the SSIM of others, each called at its best."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cpp_ext
from benchmarks.compare import Setting, Way

# --- settings: entered before a timing, left after it ---


def ours(threads: int, isa: str | None = None) -> Setting:
    """Our kernels with so many threads and this instruction set (None: the one in use)."""
    return partial(_ours, threads, isa)


@contextmanager
def _ours(threads: int, isa: str | None) -> Iterator[None]:
    before = cpp_ext.threads(), cpp_ext.isa()
    cpp_ext.set_threads(threads)
    cpp_ext.set_isa(isa or before[1])
    try:
        yield
    finally:
        cpp_ext.set_threads(before[0])
        cpp_ext.set_isa(before[1])


def torch_threads(threads: int) -> Setting:
    """PyTorch with so many threads."""
    return partial(_torch_threads, threads)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_core() -> Iterator[None]:
    """All threads of this process on one core: for a library whose number of threads cannot be chosen."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    _pin({max(before)})
    try:
        yield
    finally:
        _pin(before)


def _pin(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except ProcessLookupError:  # it ended meanwhile
            continue


# --- SSIM of others: a, b [N, H, W, C] in host memory, uint8 or float32; each gives [N] ---


def frame_analytics(a: NDArray[Any], b: NDArray[Any], data_range: float, threads: int, nchw: bool) -> list[Way]:
    """frame_analytics (PyTorch's layout): the batch, eights of it, single images. No ways where it is not installed.

    `nchw`: the images are [N, C, H, W] as it wants them; otherwise it gets a view of them and makes its own copy.
    """
    try:
        import frame_analytics
        import torch
        from frame_analytics import backend
    except ImportError:
        return []
    if backend.load() is None:
        return []
    x, y = (torch.from_numpy(images if nchw else images.transpose(0, 3, 1, 2)) for images in (a, b))

    def batches(size: int) -> Any:
        parts = [
            frame_analytics.ssim(p, q, data_range=data_range, reduction="none")
            for p, q in zip(x.split(size), y.split(size), strict=True)
        ]
        return torch.cat(parts)

    sizes = sorted({size for size in (1, 8, len(a)) if size <= len(a)})
    return [
        Way(f"frame_analytics ({size} at once)", partial(batches, size), partial(_frame_analytics_threads, threads))
        for size in sizes
    ]


@contextmanager
def _frame_analytics_threads(threads: int) -> Iterator[None]:
    """Its number of threads is fixed by its first call, so each number gets a copy of its library of its own."""
    from frame_analytics import backend

    native = backend.load()
    assert native is not None
    before, native.cpu = native.cpu, _frame_analytics_library(threads)
    try:
        yield
    finally:
        native.cpu = before


@cache
def _frame_analytics_library(threads: int) -> Any:
    from frame_analytics import _cabi

    loaded, _, _ = _cabi.load_cpu()  # the build for this CPU
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(loaded._name, Path(folder) / f"{threads}.so")
        library = _cabi._bind_cpu(_cabi._dlopen(Path(copy)))
    library.fa_cpu_set_num_threads(threads)
    if library.fa_cpu_num_threads() != threads:
        raise RuntimeError(f"frame_analytics runs {library.fa_cpu_num_threads()} threads, expected {threads}")
    return library


def fast_ssim(a: NDArray[Any], b: NDArray[Any], data_range: float, threads: int) -> list[Way]:
    """fast_ssim, an image a call. Its pool has as many threads as there are cores, which seldom helps small images."""
    try:
        import fast_ssim
    except ImportError:
        return []
    level = int(data_range) if a.dtype == np.uint8 else data_range

    def images() -> list[float]:
        return [fast_ssim.ssim(x, y, data_range=level) for x, y in zip(a, b, strict=True)]

    on_one_core = Way("fast_ssim (on one core)", images, one_core)
    return [on_one_core] if threads == 1 else [on_one_core, Way("fast_ssim", images)]


def skimage(a: NDArray[Any], b: NDArray[Any], data_range: float, window: str) -> list[Way]:
    """scikit-image, an image a call (it takes no more), on one thread."""
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        return []
    options: dict[str, Any] = {"channel_axis": 2, "data_range": data_range}
    if window == "gaussian":
        options |= {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return [Way("skimage", lambda: [structural_similarity(x, y, **options) for x, y in zip(a, b, strict=True)])]


def pytorch_msssim(a: NDArray[Any], b: NDArray[Any], data_range: float, threads: int) -> list[Way]:
    """pytorch-msssim's gaussian window: float32 [N, C, H, W], the batch or single images."""
    try:
        import pytorch_msssim
        import torch
    except ImportError:
        return []
    x, y = (torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() for images in (a, b))

    def batches(size: int) -> Any:
        parts = [
            pytorch_msssim.ssim(p, q, data_range=data_range, size_average=False)
            for p, q in zip(x.split(size), y.split(size), strict=True)
        ]
        return torch.cat(parts)

    return [
        Way(f"pytorch_msssim ({size} at once)", partial(batches, size), torch_threads(threads))
        for size in sorted({1, len(a)})
    ]
