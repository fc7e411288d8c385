"""The kernels' public face: each works where its arrays live, in the compiled library of this package.

Arrays are NumPy's, PyTorch's (CPU and CUDA), CuPy's, PyCUDA's, or any with DLPack or `__cuda_array_interface__`; none
is copied, and results come in the library of the first argument, on its device. On CUDA the work is put on `stream` (an
integer or a library's stream object; None: that library's current stream) and has not finished on return; in host
memory it uses up to `threads()` threads, and Python's lock is released meanwhile.

`out` takes the result's memory from the caller: an array of the result's shape and dtype, returned. Errors are
ValueErrors (TypeError: not an array; RuntimeError: CUDA's own; MemoryError) that name the argument, what came and what
was expected. Where the library was not built, NumPy's twins in `cpp_ext.reference` take over, after one warning.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from cpp_ext import reference
from cpp_ext.arrays import empty_like, is_torch, on_cuda, stream_of
from cpp_ext.reference import Layout, Per, Window

try:
    from cpp_ext import _kernels  # type: ignore[attr-defined]

    _missing = ""
except ImportError as error:
    _kernels = None
    _missing = str(error)

_Call = TypeVar("_Call", bound=Callable[..., Any])


def compiled() -> bool:
    """Whether the compiled library is here."""
    return _kernels is not None


def isa() -> str:
    """The instruction set in use: "avx512", "avx2", "neon", "baseline", or "numpy" without the compiled library."""
    return str(_kernels.isa()) if _kernels else "numpy"


def set_isa(name: str) -> None:
    """Use this instruction set ("": the best there is), as AWASE_ISA does. Raises ValueError, RuntimeError."""
    _library().set_isa(name)


def threads() -> int:
    """Most threads that a call uses: AWASE_THREADS, at most (and by default) the cores this process may use."""
    return int(_kernels.threads()) if _kernels else 1


def set_threads(count: int) -> None:
    """Use up to this many threads (0: the default). Raises ValueError, RuntimeError."""
    _library().set_threads(count)


def cuda_devices() -> int:
    """Number of usable CUDA devices. Raises RuntimeError that says why there are none."""
    return int(_library().cuda_devices())


def cmake_dir() -> str:
    """Folder for `-Dawase_DIR=…`, with which C and C++ projects find this library. Raises RuntimeError."""
    return str(_library().__file__).rpartition("/")[0] + "/lib/cmake/awase"


def ort_ops() -> str:
    """Library of custom operators for ONNX Runtime ≥ 1.20: `options.register_custom_ops_library(cpp_ext.ort_ops())`.

    Domain "awase", version 1: LatentBlend, Gram and SSIM; inputs, outputs and attributes are in cpp_ext/README.md.
    Raises RuntimeError where nothing was compiled, ValueError where only these operators were not.
    """
    path = str(_library().__file__).rpartition("/")[0] + "/lib/libawase_ort_ops.so"
    if not os.path.isfile(path):
        raise ValueError(
            f"ort_ops: got no {path}, expected it beside the kernels: it is built where ONNX Runtime's headers are; "
            "set ONNXRUNTIME_ROOT to its SDK, or install npm, and pip install . again"
        )
    return path


def _library() -> Any:
    if _kernels is None:
        raise RuntimeError(f"cpp_ext: the compiled library is not here ({_missing}); pip install . builds it")
    return _kernels


@functools.cache
def _warn() -> None:
    warnings.warn(
        f"cpp_ext: the compiled kernels are not here ({_missing}): NumPy does their work, many times slower; "
        "pip install . builds them",
        RuntimeWarning,
        stacklevel=4,
    )


def _or_twin(call: _Call) -> _Call:
    """The function as it is where the library is here, else its NumPy twin of the same name."""
    if _kernels is not None:
        return call

    @functools.wraps(call)
    def instead(*arguments: Any, out: Any = None, stream: Any = None, **options: Any) -> Any:
        _warn()
        twin = getattr(reference, call.__name__)
        if any(map(on_cuda, arguments)) or on_cuda(out):
            raise RuntimeError(f"cpp_ext: arrays on CUDA need the compiled library, which is not here ({_missing})")
        result = twin(*(np.asarray(a) if is_torch(a) else a for a in arguments), **options)
        if out is not None:
            np.asarray(out)[...] = result
            return out
        first = arguments[0]
        return sys.modules["torch"].from_numpy(result) if is_torch(first) else result

    return instead  # type: ignore[return-value]


# --- SSIM ---


@_or_twin
def ssim(
    a: Any,
    b: Any,
    *,
    window: Window = "uniform",
    data_range: float | None = None,
    layout: Layout = "NHWC",
    per: Per = "image",
    out: Any = None,
    stream: Any = None,
) -> Any:
    """SSIM of a[n] and b[n] (Wang et al. 2004), over the pixels whose window lies inside the image.

    a, b: images [N, H, W, C] (layout "NCHW": [N, C, H, W]) of one shape and dtype, uint8, float32 or, on CUDA, float16;
        any strides. H and W at least the window's.
    window: "uniform" is 7 x 7 with sample covariance (scikit-image's default); "gaussian" is 11 x 11, sigma 1.5, with
        population covariance (the paper's).
    data_range: white minus black (None: 255, for uint8 only).
    per: "image" gives float64 [N], the mean over channels and pixels; "channel" float64 [N, C]; "pixel" the map,
        float32 [N, H - r, W - r, C] (or [N, C, H - r, W - r]) with r = 6 (uniform) or 10 (gaussian).
    Values are in [-1, 1], within 1e-6 of a computation in float64, and 1 for identical images; a NaN makes the values
    it enters NaN and no others. `out`, `stream`, errors: see the module.
    """
    a, b = _array(a), _array(b)
    reach = _reach(window)
    shape = tuple(a.shape)
    if len(shape) == 4 and per == "pixel":
        axes = (1, 2) if _nhwc(layout) else (2, 3)
        shape = tuple(max(0, size - reach) if axis in axes else size for axis, size in enumerate(shape))
    elif len(shape) == 4:
        shape = (shape[0], shape[3 if _nhwc(layout) else 1]) if per == "channel" else shape[:1]
    outputs: dict[str, Any] = {"image": None, "channel": None, "pixel": None}
    if per not in outputs:
        raise ValueError(f"per: got {per!r}, expected 'image', 'channel' or 'pixel'")
    if out is None:
        out = empty_like(a, shape, "float32" if per == "pixel" else "float64")
    outputs[per] = out
    _library().ssim(a, b, window, _range(a, data_range), _nhwc(layout), *outputs.values(), stream_of(a, stream))
    return out


@_or_twin
def ssim_pairs(
    a: Any,
    b: Any,
    i: Any,
    j: Any,
    *,
    window: Window = "uniform",
    data_range: float | None = None,
    layout: Layout = "NHWC",
    out: Any = None,
    stream: Any = None,
) -> Any:
    """SSIM of a[i[m]] and b[j[m]] for each m.

    On a CPU an image's own moments are computed once, however many pairs it is in (on a GPU it costs less to compute
    them again than to read them).

    a [N, ...], b [K, ...]: as in `ssim`, of one image shape and dtype. i, j: integers [M] in host memory, in any order,
    repeated at will. Returns float64 [M]. All else as in `ssim`.
    """
    a, b = _array(a), _array(b)
    i, j = _indices("i", i), _indices("j", j)
    _reach(window)
    if out is None:
        out = empty_like(a, (len(i),), "float64")
    _library().ssim_pairs(a, b, i, j, window, _range(a, data_range), _nhwc(layout), out, stream_of(a, stream))
    return out


def _reach(window: str) -> int:
    if window not in ("uniform", "gaussian"):
        raise ValueError(f"window: got {window!r}, expected 'uniform' or 'gaussian'")
    return 10 if window == "gaussian" else 6


def _nhwc(layout: str) -> bool:
    if layout not in ("NHWC", "NCHW"):
        raise ValueError(f"layout: got {layout!r}, expected 'NHWC' or 'NCHW'")
    return layout == "NHWC"


def _range(images: Any, data_range: float | None) -> float:
    if data_range is not None:
        return float(data_range)
    if str(images.dtype).endswith("uint8"):
        return 255.0
    raise ValueError("data_range: got None, expected white minus black (only for uint8 is it known: 255)")


def _indices(name: str, given: Any) -> Any:
    if on_cuda(given):
        raise ValueError(f"{name}: got an array on CUDA, expected indices in host memory")
    index = np.asarray(given)
    if index.size and index.dtype.kind not in "iu":
        raise ValueError(f"{name}: got {index.dtype} {list(index.shape)}, expected integers [M]")
    return index.astype(np.int64)


def _array(given: Any) -> Any:
    """What is no array yet (a list, say) as NumPy's."""
    return given if hasattr(given, "dtype") and hasattr(given, "shape") else np.asarray(given)


# --- Gram matrices and latents ---


@_or_twin
def gram(f: Any, *, out: Any = None, stream: Any = None) -> Any:
    """Gram matrices of features: f float32 [N, C, H, W] or [N, C, K] → float32 [N, C, C], G = F Fᵀ / (C K), K = H W.

    Exactly symmetric; relative error at most 1e-5 of a computation in float64. (Gatys et al. 2016, with the scale of
    Johnson et al. 2016.) `out`, `stream`, errors: see the module.
    """
    f = _array(f)
    if out is None:
        out = empty_like(f, (*f.shape[:2], *f.shape[1:2]), "float32")
    _library().gram(f, out, stream_of(f, stream))
    return out


@_or_twin
def gram_backward(f: Any, g: Any, *, out: Any = None, stream: Any = None) -> Any:
    """Gradient of `gram`: f as there, g float32 [N, C, C] (∂loss/∂G) → ∂loss/∂f = (g + gᵀ) F / (C K), of f's shape."""
    f = _array(f)
    if out is None:
        out = empty_like(f, f.shape, "float32")
    _library().gram_backward(f, _array(g), out, stream_of(f, stream))
    return out


@_or_twin
def blend(za: Any, zb: Any, weights: Any, parts: Sequence[int], *, out: Any = None, stream: Any = None) -> Any:
    """Latents blended part by part: Λ∘za + (1 - Λ)∘zb, each part of the channels with its own λ.

    za, zb: float32 [N, C, h, w], or one pair [C, h, w] or [1, C, h, w], which is blended under each of L weight rows
        at once (the grid form).
    weights: [P] or [L, P], λ of za; numbers, an array in host memory, or one where za is. A weight of exactly 1 gives
        za's values bit for bit, 0 zb's; outside [0, 1] it extrapolates.
    parts: P channel counts, in order, whose sum is C.
    Returns float32 [N or L, C, h, w]. `out` may be za or zb (not in the grid form); reusing one buffer is much faster
    than making a new result each time. `stream`, errors: see the module.
    """
    za, zb = _array(za), _array(zb)
    if not on_cuda(weights):
        weights = np.asarray(weights, np.float32)
    if out is None:
        one_pair = len(za.shape) == 3 or za.shape[0] == 1
        rows = weights.shape[0] if one_pair and len(weights.shape) == 2 else 1 if one_pair else za.shape[0]
        out = empty_like(za, (rows, *za.shape[-3:]), "float32")
    _library().blend(za, zb, weights, np.asarray(parts, np.int64), out, stream_of(za, stream))
    return out


# --- noise ---


@_or_twin
def noise(seed: int, first: int, count: int, dim: int, *, out: Any = None, stream: Any = None) -> Any:
    """Standard normal noise in which sample k is a function of (seed, k) alone, whatever the batch it is drawn in.

    seed: 0 to 2^64 - 1. first: index of the first sample. Returns float32 [count, dim]: `out` (give one to have it on
    CUDA), else NumPy's. Philox 4x32-10 with key = seed and counter = (block, 0, k low, k high); Box-Muller on
    u = (x + 1/2) 2^-32 in float64, sqrt(-2 ln u0) (cos 2 pi u1, sin 2 pi u1). The compiled library gives the same bits
    on every CPU and GPU, within 1 ulp of the exact transform; NumPy's twin is within 1 ulp of it. Raises ValueError.
    """
    reference.check_address(seed, first, count, dim)
    if out is None:
        out = np.empty((count, dim), np.float32)
    elif tuple(out.shape) != (count, dim):
        raise ValueError(f"out: got shape {list(out.shape)}, expected [{count}, {dim}]")
    _library().noise(seed, first, out, stream_of(out, stream))
    return out


# --- frames: networks speak float NCHW in [-1, 1], pictures are uint8 NHWC ---


@_or_twin
def pack(x: Any, *, alpha: bool = False, out: Any = None, stream: Any = None) -> Any:
    """Float32 (CUDA: also float16) [N, C, H, W] in [-1, 1] → uint8 [N, H, W, C].

    round((x + 1) * 127.5), halves to even, saturating; NaN gives 0.
    alpha: x has 3 channels and the result is RGBA, [N, H, W, 4] with an alpha of 255.
    `out`, `stream`, errors: see the module.
    """
    x = _array(x)
    shape = [x.shape[axis] for axis in (0, 2, 3, 1)] if len(x.shape) == 4 else []
    if alpha:
        if shape[3:] != [3]:
            raise ValueError(f"x: got {x.dtype} {list(x.shape)}, expected float32 [N, 3, H, W] with alpha")
        shape[3] = 4
    if out is None:
        out = empty_like(x, shape, "uint8")
    elif shape and list(getattr(out, "shape", shape)) != shape:
        raise ValueError(f"out: got {out.dtype} {list(out.shape)}, expected uint8 {shape} with alpha={alpha}")
    _library().pack(x, out, stream_of(x, stream))
    return out


@_or_twin
def unpack(u: Any, *, out: Any = None, stream: Any = None) -> Any:
    """uint8 [N, H, W, C] → float32 [N, C, H, W] in [-1, 1]: u / 127.5 - 1. `out`, `stream`, errors: see the module."""
    u = _array(u)
    if out is None:
        out = empty_like(u, [u.shape[axis] for axis in (0, 3, 1, 2)] if len(u.shape) == 4 else (), "float32")
    _library().unpack(u, out, stream_of(u, stream))
    return out
