"""Latents blended part by part: Λ∘Z_A + (1 - Λ)∘Z_B, with a λ of its own for each part of the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def blend(
    za: ArrayLike,
    zb: ArrayLike,
    weights: ArrayLike,
    parts: Sequence[int],
    *,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Latents blended part by part, out[l, c] = λ[l, p(c)] za[l, c] + (1 - λ[l, p(c)]) zb[l, c].

    za, zb: float32 [N, C, h, w]; or one pair, [C, h, w] or [1, C, h, w], which is blended under each row of weights.
    weights: λ, [P], or [L, P] with L = N unless za and zb are one pair. Exactly 1 gives za's values, whatever zb's are,
        and 0 zb's; weights outside [0, 1] extrapolate.
    parts: P channel counts, in order, whose sum is C.
    out: float32 of the result's shape, or None; it may be za or zb. Returns float32 [N or L, C, h, w], `out` if given.
    Raises ValueError.
    """
    a, b = _latents("za", za), _latents("zb", zb)
    if a.shape != b.shape:
        raise ValueError(f"zb: got shape {list(np.shape(zb))}, expected za's {list(np.shape(za))}")
    counts = _counts(parts, a.shape[1])
    given = np.asarray(weights)
    rows = given.astype(np.float32) if given.dtype.kind in "fiu" else np.empty((0, 0, 0), np.float32)
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or rows.shape[1] != len(counts) or (len(a) != 1 and len(rows) not in (1, len(a))):
        expected = f"numbers [{len(counts)}] or [{'L' if len(a) == 1 else len(a)}, {len(counts)}]"
        raise ValueError(f"weights: got {given.dtype} {list(given.shape)}, expected {expected}: a λ for each part")
    shape = (len(rows) if len(a) == 1 else len(a), *a.shape[1:])

    lam = np.repeat(rows, counts, axis=1)[:, :, None, None]
    with np.errstate(invalid="ignore", over="ignore"):
        mixed = lam.astype(np.float64) * a + (1 - lam.astype(np.float64)) * b
        result = np.where(lam == 1, a, np.where(lam == 0, b, mixed.astype(np.float32)))
    result = np.ascontiguousarray(np.broadcast_to(result, shape))
    if out is None:
        return result
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape or not out.flags.writeable:
        got = f"{getattr(out, 'dtype', type(out).__name__)} {list(np.shape(out))}"
        raise ValueError(f"out: got {got}, expected a writable float32 {list(shape)}")
    out[...] = result
    return out


def _latents(name: str, z: ArrayLike) -> NDArray[Any]:
    """z as [N, C, h, w]."""
    array = np.asarray(z)
    if array.dtype != np.float32 or array.ndim not in (3, 4):
        got = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"{name}: got {got}, expected float32 [N, C, h, w], or one pair of [C, h, w]")
    return array if array.ndim == 4 else array[None]


def _counts(parts: Sequence[int], channels: int) -> NDArray[np.int64]:
    array = np.asarray(parts)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"parts: got {parts!r}, expected channel counts [P]")
    if (array < 1).any() or array.sum() != channels:
        total = f"{[int(count) for count in array]}, {int(array.sum())} channels in all"
        raise ValueError(f"parts: got {total}, expected counts of at least 1 whose sum is the latents' {channels}")
    return array.astype(np.int64)
