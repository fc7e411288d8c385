"""Pictures of any size and format, as a model takes them: RGB, 8 bits, a square of the model's size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError, one_line

Picture = str | Path | np.ndarray
"""A file that OpenCV reads, or an array uint8 or uint16 [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA)."""

_JPEG = b"\xff\xd8"


def read_picture(path: str | Path) -> np.ndarray:
    """A picture's file as RGB, turned upright as its EXIF orientation says, with white where it is transparent.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP or whatever else this OpenCV reads, grey or coloured, with 8 or 16 bits a
            channel. Of an animation, the first picture.

    Returns:
        uint8 [H, W, 3].

    Raises:
        InputError: there is no such file, or it is no such picture.
    """
    import cv2

    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing, expected a picture's file") from None
    except (OSError, ValueError) as error:  # a ValueError: a name that no file can have
        reason = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
        raise InputError(f"{str(path)[:300]!r} cannot be read: {reason}") from None
    seen = _decoded(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if seen is None:
        raise InputError(
            f"{path} is no whole picture of a format that OpenCV reads; convert it to PNG or JPEG, or export it again"
        )
    if not data.startswith(_JPEG):  # which is never transparent
        stored = _decoded(data, cv2.IMREAD_UNCHANGED)
        if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
            seen = _turned(stored, seen)
    order = [2, 1, 0, 3] if seen.shape[2] == 4 else [2, 1, 0]  # OpenCV's is BGR
    return as_rgb(seen[..., order], str(path))


def as_rgb(picture: np.ndarray, what: str = "the picture") -> np.ndarray:
    """A picture's array as RGB: grey repeated, 16 bits rounded to 8, laid on white where it is transparent.

    Args:
        picture: uint8 or uint16 [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA).
        what: what the message names.

    Returns:
        uint8 [H, W, 3]; a view where nothing had to be changed.

    Raises:
        InputError: it is no such array.
    """
    shape: tuple[int, ...] = picture.shape if picture.ndim == 3 else (*picture.shape, 1)
    fits = picture.ndim in (2, 3) and shape[2] in (1, 3, 4) and min(shape) > 0
    if not fits or picture.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{what} is {picture.dtype} {list(picture.shape)}, expected uint8 (or uint16) [H, W], [H, W, 3] (RGB) or "
            f"[H, W, 4] (RGBA)"
        )
    pixels = picture.reshape(shape)
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if shape[2] == 4:
        colour, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
        pixels = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """The largest square in a picture's middle, resized: by areas where it shrinks, by bicubic interpolation where it
    grows.

    Args:
        picture: uint8 [H, W, 3].
        size: side of the result in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    import cv2

    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    if side == size:
        return square
    way = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=way)


def fitted(pictures: Sequence[Picture], size: int, first: int = 0) -> np.ndarray:
    """Pictures as a model takes them.

    Args:
        pictures: at least one.
        size: side of the results in pixels.
        first: pictures that came before these, for messages.

    Returns:
        uint8 [N, size, size, 3].

    Raises:
        InputError: one of them is no picture; the message says which.
    """
    images = np.empty((len(pictures), size, size, 3), np.uint8)
    for number, picture in enumerate(pictures):
        if isinstance(picture, str | Path):
            rgb = read_picture(picture)
        elif isinstance(picture, np.ndarray):
            rgb = as_rgb(picture, f"picture {first + number + 1}")
        else:
            raise InputError(
                f"picture {first + number + 1} is a {type(picture).__name__}, expected a file's path or an array"
            )
        images[number] = fit(rgb, size)
    return images


def several(pictures: Any) -> tuple[Any, bool]:
    """Pictures as a sequence, and whether it was one that was given.

    Raises:
        InputError: it is neither a picture nor a sequence of some.
    """
    alone = isinstance(pictures, str | Path) or (isinstance(pictures, np.ndarray) and pictures.ndim < 4)
    found: Any = [pictures] if alone else pictures
    if not isinstance(found, list | tuple | np.ndarray) or not len(found):
        raise InputError(f"pictures are {pictures!r:.80}, expected a path, an array [H, W, C] or several of these")
    return found, alone


def _decoded(data: bytes, how: int) -> np.ndarray | None:
    """What OpenCV makes of a file's bytes, or None: it raises for some of what it cannot read."""
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        return None


def _turned(stored: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """A transparent picture as stored, turned as `seen` is: OpenCV turns upright only what it leaves without alpha."""
    for flipped in (stored, stored[:, ::-1]):
        for quarters in range(4):
            turned = np.rot90(flipped, quarters)
            if np.array_equal(turned[..., :3], seen):
                return turned
    return stored
