"""A folder of images: finding the files, and reading them as squares of one size.

Read are JPEG, PNG, WebP, BMP, TIFF and GIF files, by their names' endings; hidden files and folders are left out. An
image is turned as its EXIF orientation says; transparent pixels are laid on white; grey, palette and CMYK become RGB;
16 bits become 8; of an animation or a file of several pages the first is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError, one_line
from trainer.data.parallel import in_order, progress, worker_count

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_CHUNK = 16
_ENLARGED = 2  # times at most: what is made larger than that has no more to show


@dataclasses.dataclass(frozen=True)
class File:
    """An image file. name: its path relative to the folder, with "/". bytes, modified (ns): its size and time."""

    name: str
    path: Path
    bytes: int
    modified: int


class BadImage(Exception):
    """An image that cannot be used; the message says why, without the file's name."""


def find(path: Path) -> list[File]:
    """Every image file in the folder and the folders in it, links followed, sorted by name.

    Raises:
        InputError: no such folder, or no image in it.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "no such folder"
        raise InputError(f"{path}: {what}, expected `avatars`, a folder of images, or celeba:DIR")
    files: list[File] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [
            describe(Path(folder, name), path)
            for name in names
            if name.lower().endswith(ENDINGS) and not name.startswith(".")
        ]
    if not files:
        raise InputError(f"{path}: no images in it, expected files ending in {', '.join(ENDINGS)}")
    return sorted(files, key=lambda file: file.name)


def describe(path: Path, folder: Path) -> File:
    """The file's size and time; -1 for a link to nothing, which reading will complain of."""
    try:
        status = path.stat()
        return File(path.relative_to(folder).as_posix(), path, status.st_size, status.st_mtime_ns)
    except OSError:
        return File(path.relative_to(folder).as_posix(), path, -1, -1)


def first(files: list[File], count: int, data: str) -> list[File]:
    """The first `count` files (0: all). Raises InputError where there are fewer."""
    if count > len(files):
        raise InputError(f"{data}: got {count} images to take, there are {len(files)}; take fewer, or 0 for all")
    return files[:count] if count else files


def quiet() -> None:
    """No more warnings of Pillow's about odd metadata, which is not used: they would run through the bar."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def load(path: Path) -> Image.Image:
    """The file's first image, every pixel read, in the mode that it is stored in and not yet turned.

    Raises:
        BadImage: it cannot be read to its end.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(path.read_bytes()))
        image.load()
        return image
    except MemoryError:
        raise
    except OSError as error:
        reason = "it is no image that can be read" if type(error).__name__ == "UnidentifiedImageError" else ""
        raise BadImage(reason or error.strerror or one_line(error)) from None
    except Exception as error:  # a broken file brings up whatever its decoder stumbles on
        raise BadImage(one_line(error)) from None


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """A loaded image as it is to be seen: uint8 [H, W, 3] RGB. Raises BadImage for pixels that have no set range."""
    from PIL import Image, ImageOps

    with contextlib.suppress(Exception):  # an orientation that cannot be read is none
        image = ImageOps.exif_transpose(image)
    try:
        if image.mode.startswith("I"):
            grey = np.asarray(image).astype(np.int64)
            if grey.min() < 0 or grey.max() > 65535:
                raise BadImage("pixels of 32 bits, expected 8 or 16")
            image = Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
        elif image.mode == "F":
            raise BadImage("pixels of floating point, expected 8 or 16 bits")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return np.array(image.convert("RGB"))
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # a colour space that cannot be converted
        raise BadImage(one_line(error)) from None


def too_small(width: int, height: int, size: int, crop: int) -> str:
    """Why an image of these pixels cannot be cropped and resized to `size`, or "" where it can."""
    side = min(width, height)
    if crop > side:
        return f"too small: {width}x{height} pixels, expected at least the crop's {crop} on each side"
    if (crop or side) * _ENLARGED < size:
        least, what = -(-size // _ENLARGED), f"a crop of {crop}" if crop else f"{width}x{height}"
        return f"too small: {what} pixels, expected at least {least} on each side to make {size} of"
    return ""


def square(image: NDArray[np.uint8], size: int, crop: int = 0) -> NDArray[np.uint8]:
    """The centred square of `crop` pixels (0: the largest) of uint8 [H, W, 3], at size×size pixels."""
    import cv2

    height, width = image.shape[:2]
    side = crop or min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = image[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(cut)
    return cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)


def read(data: str, files: Sequence[File], size: int, crop: int, workers: int = 0) -> Iterator[NDArray[np.uint8]]:
    """All the files in order, in chunks uint8 [n, size, size, 3], read by `workers` threads (0: one per CPU).

    Shows a bar on stderr.

    Raises:
        InputError: after all have been read, where any cannot be used; says how many, and names the first.
    """
    bad: list[tuple[str, str]] = []
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    workers = worker_count(workers)
    with progress("reading images", len(files)) as advance, ThreadPoolExecutor(workers) as pool:
        for chunk, results in zip(
            chunks, in_order(pool, partial(_squares, size, crop), chunks, 4 * workers), strict=True
        ):
            bad += [(file.name, got) for file, got in zip(chunk, results, strict=True) if isinstance(got, str)]
            if not bad:
                yield np.stack([got for got in results if not isinstance(got, str)])
            advance(len(chunk))
    if bad:
        name, reason = bad[0]
        raise InputError(
            f"{data}: {len(bad)} of {len(files)} images cannot be used, the first is {name} ({reason}); "
            f"`python -m trainer data check {data} --size {size}{f' --crop {crop}' if crop else ''}` lists them all"
        )


def _squares(size: int, crop: int, files: Sequence[File]) -> list[NDArray[np.uint8] | str]:
    """Each file's square, or why there is none."""
    return [_square_of(file, size, crop) for file in files]


def _square_of(file: File, size: int, crop: int) -> NDArray[np.uint8] | str:
    try:
        image = pixels(load(file.path))
    except BadImage as error:
        return str(error)
    return too_small(image.shape[1], image.shape[0], size, crop) or square(image, size, crop)
