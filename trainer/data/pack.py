"""Packed images: one .npy file that is memory-mapped, and beside it a .json that says what is in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.files import whole
from trainer.data.images import Attributes, ImageSet

_VERSION = 1  # of these files


@dataclasses.dataclass(frozen=True)
class Source:
    """Images that can be made, and all that they depend on.

    description: plain JSON with "count" and "size". stamp: plain JSON that changes when the pixels may.
    read: gives all the images in order, in chunks uint8 [n, size, size, 3].
    """

    names: tuple[str, ...]
    attributes: Attributes | None
    description: dict[str, Any]
    stamp: Any
    read: Callable[[], Iterator[NDArray[np.uint8]]]


def packed(source: Source, cache: Path) -> ImageSet:
    """The source's images from the folder `cache`, made and kept there where they are not, or are not whole.

    Raises:
        InputError: the cache cannot be written, which is found before anything is made; or what `source.read` raises.
    """
    key = hashlib.sha256(json.dumps([_VERSION, source.description, source.stamp], sort_keys=True).encode()).hexdigest()
    pixels = cache / f"{source.description['kind']}-{key[:16]}.npy"
    said = pixels.with_suffix(".json")
    if (found := _open(pixels, said, source)) is not None:
        return found
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise InputError(f"{cache}: cannot keep packed images there: {error.strerror}; give another --cache") from None
    digest = _write(pixels, source)
    # The description comes last: without it the pixels do not count.
    with whole(said, "w", encoding="utf-8") as file:
        json.dump(source.description | {"sha256": digest}, file, indent=1)
    made = _open(pixels, said, source)
    if made is None:
        raise InputError(f"{pixels}: reads other than it was written; is the disk in order? give another --cache")
    return made


def _open(pixels: Path, said: Path, source: Source) -> ImageSet | None:
    """What was kept, or None where it is not there or not whole: every pixel is read against its checksum."""
    try:
        description = json.loads(said.read_text(encoding="utf-8"))
        images = np.load(pixels, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(description, dict) or images.dtype != np.uint8 or images.shape != _shape(source):
        return None
    digest = hashlib.sha256(images).hexdigest() if images.flags.c_contiguous else ""
    if description != source.description | {"sha256": digest}:
        return None
    return ImageSet(images, source.names, source.attributes, description)


def _write(path: Path, source: Source) -> str:
    """Write the images, whole or not at all; returns the sha256 of the pixels."""
    shape, digest, count = _shape(source), hashlib.sha256(), 0
    with whole(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for chunk in source.read():
            assert chunk.dtype == np.uint8 and chunk.shape[1:] == shape[1:], (chunk.dtype, chunk.shape)
            content = np.ascontiguousarray(chunk).data
            digest.update(content)
            file.write(content)
            count += len(chunk)
        assert count == shape[0], (count, shape)
    return digest.hexdigest()


def _shape(source: Source) -> tuple[int, int, int, int]:
    size = source.description["size"]
    return len(source.names), size, size, 3
