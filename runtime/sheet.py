"""Contact sheets and PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.files import whole

CHANNELS = (1, 3)
"""Of the images that can be shown: grey and RGB."""


def sheet(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images side by side, row by row, with nothing between them.

    Args:
        images: uint8 [N, H, W, C], C of 1 or 3 (RGB).
        columns: images a row; None: about as many as there are rows.

    Returns:
        uint8 [rows·H, columns·W, 3]; places left over are black.
    """
    count, height, width, channels = images.shape
    columns = columns or max(1, int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, height, width, 3), np.uint8)
    grid[:count] = images if channels == 3 else images[..., :1]
    return grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def encode_png(image: np.ndarray) -> bytes:
    """An image uint8 [H, W, C], C of 1 or 3 (RGB), as the bytes of a PNG file.

    Raises:
        InputError: it is no such image.
    """
    import cv2

    if image.shape[-1] not in CHANNELS or image.dtype != np.uint8:
        raise InputError(f"an image of {image.dtype} {list(image.shape)} cannot be PNG, expected uint8 [H, W, 1 or 3]")

    ordered = image[..., ::-1] if image.shape[-1] == 3 else image  # OpenCV writes BGR
    done, data = cv2.imencode(".png", np.ascontiguousarray(ordered))
    if not done:
        raise InputError(f"an image of {image.dtype} {list(image.shape)} cannot be written as PNG")
    return data.tobytes()


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image uint8 [H, W, C], C of 1 or 3 (RGB), as a PNG file, which is never there in part.

    Raises:
        InputError: the file cannot be written.
    """
    data = encode_png(image)
    with whole(path) as file:
        file.write(data)
