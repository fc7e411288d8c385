"""What the task-level models share: checks of their arguments, and images as they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

import cpp_ext
from runtime.errors import InputError

if TYPE_CHECKING:
    from runtime.bundle import Port

Form = Literal["uint8", "float"]
FORMS = ("uint8", "float")


def one_of(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse a word that is not among the known ones."""
    if value not in known:
        raise InputError(f"{name} is {value!r}, expected {' or '.join(known)}")


def whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}, expected a whole number from {low} to {high}")


def shown(port: Port, count: int, form: Form) -> tuple[tuple[int, ...], str]:
    """Shape and type of `count` samples of an image or a vector: images in form "uint8" have their channels last."""
    if port.kind == "image" and form == "uint8":
        channels, height, width = port.shape
        return (count, height, width, channels), "uint8"
    return (count, *port.shape), "float32"


def show(images: np.ndarray, out: np.ndarray, form: Form) -> None:
    """Write images float32 [N, C, H, W] in [-1, 1] into `out`, which is as `shown` says: packed, or as they are."""
    if form == "uint8":
        cpp_ext.pack(images, out=out)
    else:
        out[...] = images
