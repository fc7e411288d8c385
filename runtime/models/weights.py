"""The weights of a fusion: checked, and laid out as the blend kernel takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from runtime.errors import InputError
from runtime.models.common import whole

Ease = Literal["smooth", "linear"]
EASES = ("smooth", "linear")
STEPS = 2**16
"""Levels of one λ, at most."""
TOLERANCE = 1e-3
"""How far the shares of several pictures may be from a sum of 1: 0.333 three times is meant to be thirds."""


def rows(weights: ArrayLike, parts: int, extrapolate: bool = False, what: str = "weights") -> np.ndarray:
    """Rows of λ, one for each part.

    Args:
        weights: a number for all parts, [P], or [L, P].
        parts: P.
        extrapolate: λ may lie outside [0, 1].
        what: what the message names.

    Returns:
        float32 [L, P], or [P] if one row was given.

    Raises:
        InputError: another count, not numbers, NaN or infinite, or outside [0, 1] without `extrapolate`.
    """
    given = _numbers(weights, what, f"a number, or {parts} of them, one for each part")
    if given.ndim > 2 or not given.size or (given.ndim and given.shape[-1] != parts):
        raise InputError(
            f"{what} {_shape(given)}, expected {parts}, one for each part, or [L, {parts}], or one for all parts"
        )
    if not extrapolate and not ((given >= 0) & (given <= 1)).all():
        outside = given[(given < 0) | (given > 1)].flat[0]
        raise InputError(f"{what} hold {outside:g}, expected 0 to 1 (others only if asked to extrapolate)")
    with np.errstate(over="ignore"):
        single = given.astype(np.float32)
    if not np.isfinite(single).all():
        raise InputError(f"{what} hold {given[~np.isfinite(single)].flat[0]:g}, expected numbers that float32 holds")
    return np.full(parts, single) if given.ndim == 0 else single


def folds(weights: ArrayLike, pictures: int, parts: int) -> np.ndarray:
    """Shares of K pictures as the λ of K - 1 blends: what was blended so far, against the next picture.

    With shares w and their running sums S, blend k has λ = S[k - 1] / S[k]; after the last, picture k has w[k] of the
    result. A share of exactly 0 leaves no trace of its picture, one of exactly 1 nothing but it.

    Args:
        weights: [K], [K, P] or [L, K, P], at least 0, summing to 1 over the pictures.
        pictures: K, at least 2.
        parts: P.

    Returns:
        float32 [L, K - 1, P], or [K - 1, P] if one set of shares was given.

    Raises:
        InputError: another shape, not numbers, or not such shares.
    """
    expected = f"[{pictures}], [{pictures}, {parts}] or [L, {pictures}, {parts}], shares of {pictures} pictures"
    given = _numbers(weights, "weights", expected)
    if given.ndim == 1 and len(given) == pictures:
        given = np.repeat(given[:, None], parts, axis=1)
    if given.ndim not in (2, 3) or given.shape[-2:] != (pictures, parts) or not given.size:
        raise InputError(f"weights {_shape(given)}, expected {expected}")
    if (given < 0).any():
        raise InputError(f"weights hold {given.min():g}, expected shares of at least 0")
    sums = given.sum(axis=-2)
    worst = sums.flat[np.abs(sums - 1).argmax()]
    if abs(worst - 1) > TOLERANCE:
        raise InputError(f"weights sum to {worst:g} over the pictures, expected 1 (of each part)")
    running = given.cumsum(axis=-2)
    before, after = running[..., :-1, :], running[..., 1:, :]
    # Where nothing has a share yet, whatever is taken leaves no trace.
    return np.divide(before, after, out=np.ones_like(after), where=after > 0).astype(np.float32)


def passed(keys: ArrayLike, parts: int, extrapolate: bool = False) -> np.ndarray:
    """The keys of an animation, [K] for all parts or [K, P], as rows of λ float32 [K, P].

    Raises:
        InputError: as `rows`.
    """
    expected = f"numbers [K] or [K, {parts}]"
    given = _numbers(keys, "keys", expected)
    if given.ndim == 1:
        given = np.repeat(given[:, None], parts, axis=1)
    if given.ndim != 2 or not given.size:
        raise InputError(f"keys {_shape(given)}, expected {expected}")
    return rows(given, parts, extrapolate, "keys")


def levels(steps: int) -> np.ndarray:
    """λ from 1 to 0, evenly spaced, float32 [steps].

    Raises:
        InputError: `steps` is below 2.
    """
    whole("steps", steps, 2, STEPS)
    return np.linspace(1, 0, steps).astype(np.float32)


def sweep(steps: int, parts: int) -> np.ndarray:
    """All λ together from 1 to 0, float32 [steps, P]."""
    return np.repeat(levels(steps)[:, None], parts, axis=1)


def per_part(steps: int, parts: int, others: float = 1.0) -> np.ndarray:
    """Part by part: each λ alone from 1 to 0, the rest at `others`; float32 [P, steps, P].

    Raises:
        InputError: `steps` is below 2, or `others` outside [0, 1].
    """
    alone = levels(steps)
    made = np.tile(rows(others, parts, what="others"), (parts, steps, 1))
    made[np.arange(parts), :, np.arange(parts)] = alone
    return made


def combinations(steps: int, parts: int, vary: Sequence[int], others: float = 1.0) -> Callable[[slice], np.ndarray]:
    """Every combination of the λ of some parts, the last one changing fastest, the rest at `others`.

    Returns:
        A function that gives those of a slice, float32 [L, P]: all at once may be too many.

    Raises:
        InputError: `steps` is below 2, `vary` names no parts, or `others` is outside [0, 1].
    """
    axes = list(vary)
    if not axes or len(set(axes)) < len(axes) or not all(isinstance(k, int) and 0 <= k < parts for k in axes):
        raise InputError(f"vary is {axes!r:.80}, expected different parts from 0 to {parts - 1}")
    level, rest, shape = levels(steps), rows(others, parts, what="others"), (steps,) * len(axes)

    def some(part: slice) -> np.ndarray:
        made = np.tile(rest, (part.stop - part.start, 1))
        made[:, axes] = level[np.stack(np.unravel_index(np.arange(part.start, part.stop), shape), axis=1)]
        return made

    return some


def tween(keys: np.ndarray, frames: int, part: slice, ease: Ease) -> np.ndarray:
    """λ of some frames of an animation that passes keys evenly spaced in time, the first and the last at its ends.

    Args:
        keys: float32 [K, P].
        frames: F, how many frames there are in all.
        part: which of them.
        ease: "smooth": slow at each key (3t² - 2t³); "linear": at one speed between two keys.

    Returns:
        float32 [frames of `part`, P]; at a key, its very values.
    """
    place = np.arange(part.start, part.stop) * (len(keys) - 1) / max(frames - 1, 1)
    number = np.minimum(place.astype(int), max(len(keys) - 2, 0))
    t = (place - number)[:, None]
    if ease == "smooth":
        t = t * t * (3 - 2 * t)
    later = np.minimum(number + 1, len(keys) - 1)
    return ((1 - t) * keys[number].astype(np.float64) + t * keys[later].astype(np.float64)).astype(np.float32)


def _numbers(weights: ArrayLike, what: str, expected: str) -> np.ndarray:
    """As float64, none of them NaN or infinite."""
    try:
        given = np.asarray(weights)
        if given.dtype.kind not in "fiub":
            raise TypeError
        given = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} are {weights!r:.100}, expected {expected}") from None
    if not np.isfinite(given).all():
        raise InputError(f"{what} hold {given[~np.isfinite(given)].flat[0]}, expected numbers")
    return given


def _shape(given: np.ndarray) -> str:
    """How many came, for the message."""
    return f"are {given.size} numbers" if given.ndim == 1 else f"have the shape {list(given.shape)}"


def described(array: np.ndarray) -> list[Sequence[float]]:
    """Rows of λ for a JSON: as few digits as give the float32 back."""
    return [[float(str(value)) for value in row] for row in array]
