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
        path: where it is to be; what is there is replaced.
        mode, options: as of `open`.

    Raises:
        InputError: nothing can be written there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            file = part.open(mode, **options)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        with file:
            yield file
        try:
            part.replace(path)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
