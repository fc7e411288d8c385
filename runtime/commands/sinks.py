"""Where generated samples go: a folder of PNG and CSV files, an .npz file, raw frames.

Each is a context manager that yields `write(number, sample)`: `sample` holds the arrays of some samples by modality,
`number` is that of the first. What an error or Ctrl-C ends leaves no file in part.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from runtime.files import whole
from runtime.machine import usable_cores
from runtime.sheet import sheet, write_png

if TYPE_CHECKING:
    from runtime.bundle import Manifest, Port

Write = Callable[[int, Any], None]

SHEET = 64
"""Images on a contact sheet, at most."""
PNG_THREADS = min(8, usable_cores())
"""Encoding a PNG takes as long as making a small image, and OpenCV lets other threads run meanwhile."""
PNGS = 8
"""PNG files that a thread writes at a time."""


def names_of(port: Port) -> tuple[str, ...]:
    """Names of a vector's components: its own, or NAME_0, NAME_1, …"""
    return port.names or tuple(f"{port.name}_{index}" for index in range(port.shape[0]))


def sheet_name(port: Port, ports: Sequence[Port]) -> str:
    """File of an image modality's contact sheet: the first one's is sheet.png."""
    images = [other.name for other in ports if other.kind == "image"]
    return "sheet.png" if port.name == images[0] else f"sheet-{port.name}.png"


def names_in_folder(ports: Sequence[Port]) -> set[str]:
    """All that `folder` puts directly into its folder."""
    names = set()
    for port in ports:
        names |= {port.name, sheet_name(port, ports)} if port.kind == "image" else {f"{port.name}.csv"}
        if port.kind != "image" and port.limits is not None:
            names.add(f"{port.name}.limits.csv")
    return names


@contextlib.contextmanager
def folder(out: Path, ports: Sequence[Port]) -> Iterator[Write]:
    """PNG files MODALITY/NUMBER.png and a contact sheet of each image; a CSV file of each vector, and of its limits.

    Args:
        out: the folder; it and those of the image modalities are there.
        ports: the modalities.
    """
    images = [port for port in ports if port.kind == "image"]
    tops: dict[str, list[np.ndarray]] = {port.name: [] for port in images}  # for the sheets
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(PNG_THREADS) as pool, contextlib.ExitStack() as files:
        tables = {}
        for port in ports:
            if port.kind != "image":
                file = files.enter_context(whole(out / f"{port.name}.csv", "w", newline="", encoding="utf-8"))
                tables[port.name] = csv.writer(file, lineterminator="\n")
                tables[port.name].writerow(names_of(port))

        def write(number: int, sample: Any) -> None:
            jobs = []
            for port in ports:
                values = getattr(sample, port.name)
                if port.kind != "image":
                    _rows(tables[port.name], values)
                    continue
                room = SHEET - sum(map(len, tops[port.name]))
                if room > 0:
                    tops[port.name].append(values[:room].copy())
                for start in range(0, len(values), PNGS):
                    part = values[start : start + PNGS]
                    jobs.append(pool.submit(_pngs, out / port.name, number + start, part))
            # The arrays of one part stay as they are while the next is made, and no longer.
            _wait(pending)
            pending[:] = jobs

        yield write
        _wait(pending)
        for port in ports:
            if port.kind == "image":
                write_png(out / sheet_name(port, ports), sheet(np.concatenate(tops[port.name])))
            elif port.limits is not None:
                with whole(out / f"{port.name}.limits.csv", "w", newline="", encoding="utf-8") as file:
                    table = csv.writer(file, lineterminator="\n")
                    table.writerow(names_of(port))
                    _rows(table, np.asarray(port.limits).T)


def _pngs(place: Path, number: int, images: np.ndarray) -> None:
    for offset, image in enumerate(images):
        write_png(place / f"{number + offset:06d}.png", image)


def _wait(jobs: Sequence[Future[None]]) -> None:
    for job in jobs:
        job.result()


def _rows(table: Any, values: np.ndarray) -> None:
    """One row a sample; each number in the fewest digits that give it back exactly."""
    table.writerows([[str(value) for value in row] for row in values])


@contextlib.contextmanager
def npz(path: Path, manifest: Manifest, ports: Sequence[Port], count: int, seed: int, first: int) -> Iterator[Write]:
    """One .npz file, as `numpy.load` reads it, that is never in memory as a whole.

    It holds an array for each modality (uint8 [N, H, W, C] or float32 [N, D]), `NAME_names`, `NAME_unit` and
    `NAME_limits` of each vector, the bundle's `robot` (JSON text), and the numbers `seed` and `first`.
    """
    main, *others = ports
    with (
        whole(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        contextlib.ExitStack() as stack,
    ):
        # A zip file is written one member at a time: the first modality goes straight in, the others wait their turn.
        waiting = {port.name: stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for port in others}
        with _member(archive, main.name) as member:
            _header(member, main, count)

            def write(number: int, sample: Any) -> None:
                for port in ports:
                    _values(waiting.get(port.name, member), getattr(sample, port.name))

            yield write
        for port in others:
            with _member(archive, port.name) as member:
                _header(member, port, count)
                waiting[port.name].seek(0)
                shutil.copyfileobj(waiting[port.name], member, 2**20)
        for name, value in _notes(manifest, ports, seed, first).items():
            with _member(archive, name) as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def _notes(manifest: Manifest, ports: Sequence[Port], seed: int, first: int) -> dict[str, Any]:
    notes: dict[str, Any] = {"seed": np.uint64(seed), "first": np.uint64(first)}
    for port in ports:
        if port.kind != "image":
            notes[f"{port.name}_names"] = names_of(port)
            notes[f"{port.name}_unit"] = port.unit
            if port.limits is not None:
                notes[f"{port.name}_limits"] = np.asarray(port.limits, np.float64)
    return notes | ({} if manifest.robot is None else {"robot": json.dumps(manifest.robot)})


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(f"{name}.npy", "w", force_zip64=True)  # it may be larger than 4 GB


def _header(member: IO[bytes], port: Port, count: int) -> None:
    image = port.kind == "image"
    shape = (*port.shape[1:], port.shape[0]) if image else port.shape  # [C, H, W] is packed as [H, W, C]
    np.lib.format.write_array_header_1_0(
        member, {"descr": "|u1" if image else "<f4", "fortran_order": False, "shape": (count, *shape)}
    )


def _values(file: IO[bytes], values: np.ndarray) -> None:
    file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def raw(target: str, port: Port, alone: bool = True) -> Iterator[Write]:
    """Frames of one image modality one after another, RGB24: rows from the top, three bytes a pixel, nothing between.

    Args:
        target: a file's path, or "-" for stdout. A named pipe is written as it is.
        port: the modality; one of a single channel is grey.
        alone: nothing else is written, so that BrokenPipeError is raised when the reader goes away. Otherwise the
            frames end there, which one line on stderr says at the end.
    """
    ended = None  # why there are no more frames

    with contextlib.ExitStack() as stack:
        file: IO[bytes] = sys.stdout.buffer if target == "-" else stack.enter_context(whole(Path(target)))

        def put(*frames: np.ndarray) -> None:
            nonlocal ended
            try:
                for part in frames if ended is None else ():
                    _values(file, part)
                file.flush()
            except BrokenPipeError as error:
                _to_nowhere(file)
                if alone:
                    raise
                ended = error

        def write(number: int, sample: Any) -> None:
            images = getattr(sample, port.name)
            put(images if images.shape[-1] == 3 else np.repeat(images, 3, axis=-1))

        yield write
        put()
    if ended is not None:
        print(f"--raw {target} ended early: its reader went away; all else is whole", file=sys.stderr)


def _to_nowhere(file: IO[bytes]) -> None:
    """Let what a file still holds for a reader that is gone be lost without another error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)
