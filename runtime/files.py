"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from runtime.errors import InputError


@contextlib.contextmanager
def whole(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file to write, beside its place: it takes its place when the block ends, and is removed if an error ends it.

    Args:
        path: where it is to be; a file that is there is replaced. What a link points to is replaced, not the link;
            devices and named pipes are written as they are.
        mode, options: as of `open`.

    Raises:
        InputError: nothing can be written there, which is found before the block begins.
    """
    if path.exists() and not path.is_file():
        with _open(path, path, mode, options) as file:
            yield file
        return
    place = Path(os.path.realpath(path))
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    file = _open(part, path, mode, options)
    try:
        with file:
            yield file
        _replace(part, place)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _open(file: Path, shown: Path, mode: str, options: dict[str, Any]) -> IO[Any]:
    try:
        return file.open(mode, **options)
    except OSError as error:
        raise InputError(f"{shown} cannot be written: {error.strerror}") from None


def _replace(part: Path, place: Path) -> None:
    try:
        part.replace(place)
    except OSError as error:
        raise InputError(f"{place} cannot be written: {error.strerror}") from None
