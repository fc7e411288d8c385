"""CelebA as it ships: img_align_celeba/ and its table of attributes, list_attr_celeba.txt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from trainer.data import folder
from trainer.data.images import Attributes

PREFIX = "celeba:"
IMAGES, TABLE = "img_align_celeba", "list_attr_celeba.txt"


@dataclasses.dataclass(frozen=True)
class Faces:
    """The images that are both in the folder and in the table, by name.

    attributes: row n belongs to files[n]. unlisted: images that have no row. missing: rows that have no image.
    """

    files: list[folder.File]
    attributes: Attributes
    unlisted: list[str]
    missing: list[str]


def read(path: Path) -> Faces:
    """CelebA in the folder `path`; where images and rows are not the same, those that have both, said on stderr.

    Raises:
        InputError: the folder or the table is not there, is broken, or they have no image in common.
    """
    from rich.console import Console

    faces = match(path)
    if not faces.files:
        raise InputError(
            f"{path}: none of the {len(faces.unlisted)} images in {IMAGES} is in {TABLE}, whose first is "
            f"{faces.missing[0] if faces.missing else 'not there'}; expected the same names in both"
        )
    if faces.unlisted or faces.missing:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(
            f"{path}: {len(faces.files)} images are used; {len(faces.unlisted)} have no row in {TABLE}, "
            f"{len(faces.missing)} rows have no image"
        )
    return faces


def match(path: Path) -> Faces:
    """As `read`, also where nothing matches, and saying nothing. Raises InputError for what is not there or broken."""
    images, table = path / IMAGES, path / TABLE
    if not images.is_dir() or not table.is_file():
        lacking = IMAGES + "/" if not images.is_dir() else TABLE
        raise InputError(
            f"{path}: no {lacking} in it, expected CelebA as it ships: {IMAGES}/ and {TABLE}; for a plain folder of "
            f"images leave `{PREFIX}` out"
        )
    names, rows = read_table(table)
    files = folder.find(images)
    listed = [file for file in files if file.name in rows]
    values = np.array([rows[file.name] for file in listed], np.uint8).reshape(len(listed), len(names))
    there = {file.name for file in files}
    return Faces(
        files=listed,
        attributes=Attributes(names, values),
        unlisted=[file.name for file in files if file.name not in rows],
        missing=[name for name in rows if name not in there],
    )


def read_table(path: Path) -> tuple[tuple[str, ...], dict[str, list[bool]]]:
    """The attributes' names, and by image name which of them it has.

    The file: how many rows there are; the names; then rows of an image's name and 1 or -1 for each attribute.
    Raises InputError naming the line that is otherwise.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    head = lines[0].strip() if lines else ""
    if not head.isdecimal():
        raise InputError(f"{path} line 1: got {head[:40]!r}, expected how many rows there are")
    names = tuple(lines[1].split()) if len(lines) > 1 else ()
    if not names or len(set(names)) != len(names):
        raise InputError(f"{path} line 2: got {len(names)} attributes, expected the names of all, each once")
    value = {"1": True, "-1": False}
    rows: dict[str, list[bool]] = {}
    for number, line in enumerate(lines[2:], start=3):
        image, *cells = line.split() or [""]
        if not image:
            continue
        if len(cells) != len(names):
            raise InputError(f"{path} line {number}: got {len(cells)} values, expected {len(names)}")
        if image in rows:
            raise InputError(f"{path} line {number}: got {image} a second time, expected each image once")
        try:
            rows[image] = [value[cell] for cell in cells]
        except KeyError as error:
            raise InputError(f"{path} line {number}: got {error}, expected 1 or -1") from None
    if len(rows) != int(head):
        raise InputError(f"{path}: got {len(rows)} rows, line 1 says {head}; is the file cut short?")
    return names, rows
