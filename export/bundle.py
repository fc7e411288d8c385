"""Writes a folder, such as a bundle: all of it or nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.bundle import MANIFEST, Manifest
from runtime.errors import InputError


def check_target(target: Path) -> None:
    """Refuse to replace anything but a bundle.

    Raises:
        InputError: `target` exists and is no bundle.
    """
    with alone(target):
        bad = target.exists() and not (target / MANIFEST).is_file()
    if bad:
        raise InputError(f"{target} exists and is no bundle, so it stays; move it away or choose another --out")


@contextmanager
def writing(target: Path, check: Callable[[Path], None] = check_target) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and vanishes when it does not.

    What was at `target` is replaced only then. For a bundle, write the graph files inside and call `write_manifest`.

    Args:
        target: the folder to write; if it is a link, what it leads to is replaced and the link stays.
        check: raises if what is at `target` must not be replaced.

    Raises:
        InputError: `check` says so, or `target`'s parent cannot be written.
    """
    check(target)
    target = Path(os.path.realpath(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target.parent} cannot be written: {error.strerror}") from None
    try:
        folder.chmod(0o777 & ~_umask())  # mkdtemp makes it private; a bundle is for others too
        yield folder
        for path in (*folder.rglob("*"), folder):
            _sync(path)
        with alone(target):
            _replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Keep other exports from replacing `target` meanwhile: between two renames it is not there."""
    try:
        # The parent itself is locked, so that no lock file stays behind.
        descriptor = os.open(Path(os.path.realpath(target)).parent, os.O_RDONLY)
    except OSError:  # there is no parent, and nothing in it
        yield
        return
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `bundle.json`; last, so that a folder that has one is whole."""
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def _replace(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`. A folder cannot be renamed over a full one, so the old one steps aside first."""
    old = folder.with_name(folder.name.removesuffix(".part") + ".old")
    if target.exists():
        target.rename(old)
    try:
        folder.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Have a file or folder on the disk before the rename: a power cut must not leave a bundle of empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
