"""Sets of images of one size, packed: avatars, a folder of images, or CelebA, all opened the same way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

if TYPE_CHECKING:
    from trainer.data.folder import File
    from trainer.data.pack import Source

AVATARS = 8000
"""How many avatars there are where no count is given."""
LARGEST = 4096
"""Pixels on a side that a set's images have at most."""


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What is known of each image. names: K attributes. table: uint8 [N, K], 1 where the image has it, else 0."""

    names: tuple[str, ...]
    table: NDArray[np.uint8]

    def column(self, name: str) -> NDArray[np.bool_]:
        """Which images have the attribute, [N]. Raises InputError for a name that is none, with those there are."""
        if name not in self.names:
            raise InputError(f"attribute: got {name!r}, expected one of {', '.join(self.names)}")
        return self.table[:, self.names.index(name)].astype(np.bool_)


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images of one size, packed: training never waits for JPEGs. len() is N.

    images: uint8 [N, S, S, 3] RGB, memory-mapped and read-only. names: each image's file relative to the folder, with
    "/" ("avatar 17" for an avatar). attributes: None where nothing is known.
    description: plain JSON that says what the images are and how they were made: kind ("avatars", "folder", "celeba"),
    count, size, crop, resize filter, attribute names, sha256 of the pixels; for avatars also seed, first, rasteriser
    and library versions. No path of this machine is in it.
    """

    images: NDArray[np.uint8]
    names: tuple[str, ...]
    attributes: Attributes | None
    description: dict[str, Any]

    def __len__(self) -> int:
        return len(self.names)


def open_images(
    data: str, size: int, *, crop: int = 0, count: int = 0, cache: Path, workers: int = 0, seed: int = 0
) -> ImageSet:
    """The images of `data` at size×size pixels, made once and kept in the folder `cache`.

    Args:
        data: "avatars", a folder (read with all the folders in it), or "celeba:DIR" with DIR holding
            img_align_celeba/ and list_attr_celeba.txt.
        size: pixels on a side.
        crop: side in pixels of the centred square that is cut out first; 0 the largest there is. Not for avatars.
        count: how many avatars (0: AVATARS), or how many of a folder's images, the first by name (0: all).
        cache: a folder, made where it is not there. What is kept in it is made anew when a file of the folder, an
            option or a library's version changes, and when it is broken or cut short.
        workers: processes that draw avatars, or threads that read files; 0 one per CPU.
        seed: of the avatars.

    Enlarging goes up to twice (cubic), shrinking averages (area). Shows a bar on stderr while images are made.

    Raises:
        InputError: nothing there, an image that is broken or too small (`python -m trainer data check DIR` lists all),
            a number out of range, a cache that cannot be written.
    """
    from trainer.data import celeba, folder, pack

    if not 1 <= size <= LARGEST:
        raise InputError(f"size: got {size}, expected 1 to {LARGEST} pixels")
    for name, value in (("crop", crop), ("count", count), ("workers", workers)):
        if value < 0:
            raise InputError(f"{name}: got {value}, expected 0 or more")
    if data == "avatars":
        if crop:
            raise InputError(f"crop: got {crop} with avatars, which are square faces already; leave it out")
        return pack.packed(_avatars(seed, count or AVATARS, size, workers), cache)
    if data.startswith(celeba.PREFIX):
        faces = celeba.read(Path(data.removeprefix(celeba.PREFIX)))
        files = folder.first(faces.files, count, data)
        attributes = Attributes(faces.attributes.names, faces.attributes.table[: len(files)])
        return pack.packed(_files("celeba", data, files, attributes, size, crop, workers), cache)
    files = folder.first(folder.find(Path(data)), count, data)
    return pack.packed(_files("folder", data, files, None, size, crop, workers), cache)


def _avatars(seed: int, count: int, size: int, workers: int) -> Source:
    from trainer.data import avatar_art, avatars, pack

    rasteriser = avatar_art.default_rasteriser()
    return pack.Source(
        names=tuple(f"avatar {index}" for index in range(count)),
        attributes=Attributes(avatars.ATTRIBUTES, avatars.table(seed, count)),
        description={
            "kind": "avatars",
            "count": count,
            "size": size,
            "resize": "none" if size >= avatars.SIZE else "area",
            "attributes": list(avatars.ATTRIBUTES),
            "seed": seed,
            "first": 0,
            "rasteriser": rasteriser,
            "libraries": avatar_art.versions(rasteriser),
        },
        stamp=avatars.VERSION,
        read=lambda: avatars.render(seed, count, size, rasteriser=rasteriser, workers=workers),
    )


def _files(
    kind: str, data: str, files: list[File], attributes: Attributes | None, size: int, crop: int, workers: int
) -> Source:
    from trainer.data import folder, pack

    return pack.Source(
        names=tuple(file.name for file in files),
        attributes=attributes,
        description={
            "kind": kind,
            "count": len(files),
            "size": size,
            "crop": crop,
            "resize": "area to shrink, cubic to enlarge",
            "attributes": list(attributes.names) if attributes else [],
        },
        stamp=[[file.name, file.bytes, file.modified] for file in files],
        read=lambda: folder.read(data, files, size, crop, workers),
    )
