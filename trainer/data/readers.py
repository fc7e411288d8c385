"""Reading recorded files into plain columns; every error names the file and the row."""

from __future__ import annotations

import csv
import dataclasses
import json
import keyword
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from runtime.errors import InputError

# PNG colour types (the byte after the bit depth in a file's header chunk)
_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_PNG = b"\x89PNG\r\n\x1a\n"
# A modality's name becomes a field of a named tuple, an entry of a ModuleDict and an output of the graph beside its
# input z; an .npz file keeps the robot's description under `robot`.
_TAKEN = {*keyword.kwlist, *dir(nn.ModuleDict()), "z", "robot"}


@dataclasses.dataclass
class Column:
    """One modality as it was read.

    values: uint8 [N, H, W, 3] or float32 [N, D]. source: what it was read from. at: names a row, for errors.
    limits: float64 [D, 2], or None where nothing was recorded.
    """

    name: str
    kind: Literal["image", "vector"]
    values: NDArray[Any]
    source: str
    at: Callable[[int], str]
    names: tuple[str, ...] = ()
    limits: NDArray[np.float64] | None = None
    limits_from: str = ""
    unit: str = ""


def read_folder(path: Path) -> list[Column]:
    """Every sub-folder with PNGs, then every CSV file. Raises InputError."""
    columns = []
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        files = sorted(folder.glob("*.png"), key=_natural)
        if files:
            columns.append(_read_images(folder, files))
    tables = sorted(file for file in path.glob("*.csv") if not file.name.startswith("."))
    for file in tables:
        if not file.name.endswith(".limits.csv"):
            columns.append(_read_vector(file))
        elif not file.with_name(file.name.removesuffix(".limits.csv") + ".csv").exists():
            raise InputError(f"{file}: limits of a file that is not there, expected the .csv beside it")
    _check_names(columns, str(path))
    return columns


def read_npz(path: Path) -> tuple[list[Column], dict[str, Any] | None]:
    """The arrays of an .npz file, and the robot's description where it has one. Raises InputError."""
    try:
        with zipfile.ZipFile(path):  # np.load would take a lone array or a pickle for what they are
            pass
        with np.load(path, allow_pickle=False) as file:
            content = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, struct.error, KeyError) as error:
        raise InputError(f"{path}: cannot be read, broken or cut short ({error})") from None
    robot = None
    if "robot" in content:
        try:
            robot = json.loads(str(content.pop("robot")))
            if not {"joints", "limits"} <= set(robot):
                raise ValueError
        except (ValueError, TypeError):
            raise InputError(f"{path}: robot: got unreadable text, expected a robot's description as JSON") from None
    extra = ("_names", "_limits", "_unit", "_limits_from")
    beside = {name + suffix for name in content for suffix in extra}
    # A single number is no modality: generated files say their seed and the first sample's number.
    columns = [_npz_column(path, name, content) for name in content if name not in beside and content[name].ndim]
    _check_names(columns, str(path))
    return columns, robot


def _check_names(columns: list[Column], source: str) -> None:
    names = [column.name for column in columns]
    for name, column in zip(names, columns, strict=True):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise InputError(
                f"{column.source}: cannot be a modality called {name!r}, expected small letters, digits and _, "
                f"a letter first; rename it, for instance to left_eye"
            )
        if name in _TAKEN:
            raise InputError(
                f"{column.source}: cannot be a modality called {name!r}, a word with a meaning of its own in Python, "
                f"PyTorch or here; rename it, for instance to {name}_1"
            )
        if names.count(name) > 1:
            raise InputError(f"{source}: two modalities are called {name!r}; rename one")


def _modality_name(folder: str) -> str:
    return "image" if folder == "images" else folder


def _natural(file: Path) -> tuple[list[str | int], str]:
    """Sorts 2.png before 10.png: digits are compared as numbers, what is between them as text."""
    parts = re.split(r"([0-9]+)", file.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], file.name


# --- images ---


def _read_images(folder: Path, files: list[Path]) -> Column:
    import cv2

    width, height = _check_png(files[0], _bytes(files[0]))
    values = np.empty((len(files), height, width, 3), np.uint8)
    for row, file in enumerate(files):
        content = _bytes(file)
        size = _check_png(file, content)
        if size != (width, height):
            raise InputError(f"{file}: got {size[0]}x{size[1]} pixels, expected {width}x{height} like {files[0].name}")
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        if image is None:
            raise InputError(f"{file}: broken image: its pixels cannot be decoded")
        values[row] = image[..., ::-1]  # OpenCV gives BGR
    return Column(_modality_name(folder.name), "image", values, str(folder), lambda row: str(files[row]))


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def _check_png(file: Path, content: bytes) -> tuple[int, int]:
    """Width and height. Raises InputError unless it is a whole RGB PNG of 8 bits a channel.

    Every chunk's checksum is compared here, because image decoders pass over damage and give grey areas.
    """
    if not content.startswith(_PNG) or content[12:16] != b"IHDR":
        raise InputError(f"{file}: broken image: not a PNG file, or cut short")
    start, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", content[start : start + 8].ljust(8, b"\0"))
        checksum = content[start + 8 + length : start + 12 + length]
        if checksum != struct.pack(">I", zlib.crc32(content[start + 4 : start + 8 + length])):
            raise InputError(f"{file}: broken image: damaged or cut short at byte {start} of {len(content)}")
        start += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    if (depth, colour) != (8, 2):
        kind_of = _COLOURS.get(colour, f"colour type {colour}")
        raise InputError(
            f"{file}: got {kind_of} of {depth} bits, expected RGB of 8 bits; convert it, as with "
            f"`mogrify -alpha off -depth 8 -define png:color-type=2`"
        )
    return width, height


# --- vectors ---


def _read_vector(file: Path) -> Column:
    names, rows, lines = _read_table(file)
    limits_file = file.with_name(f"{file.stem}.limits.csv")
    limits = _read_limits(limits_file, names) if limits_file.exists() else None
    values = np.array(rows, np.float32).reshape(len(rows), len(names))
    return Column(
        file.stem, "vector", values, str(file), lambda row: f"{file} line {lines[row]}", names, limits, unit="rad"
    )


def _read_limits(file: Path, names: tuple[str, ...]) -> NDArray[np.float64]:
    header, rows, _ = _read_table(file)
    if sorted(header) != sorted(names) or len(rows) != 2:
        raise InputError(
            f"{file}: got columns {', '.join(header)} and {len(rows)} rows, expected {', '.join(names)} "
            f"and two rows, lower and upper"
        )
    limits = np.array(rows, np.float64).T[[header.index(name) for name in names]]
    return _check_limits(limits, names, str(file))


def _check_limits(limits: NDArray[np.float64], names: tuple[str, ...], source: str) -> NDArray[np.float64]:
    for name, (lower, upper) in zip(names, limits, strict=True):
        if not -math.inf < lower < upper < math.inf:
            raise InputError(f"{source}: {name}: got limits {lower:g} to {upper:g}, expected lower < upper")
    return limits


def _read_table(file: Path) -> tuple[tuple[str, ...], list[list[float]], list[int]]:
    """Header, rows of numbers, and each row's line in the file."""
    rows: list[list[float]] = []
    lines: list[int] = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened)
            names = tuple(cell.strip() for cell in next(reader, []))
            _check_header(file, names)
            for cells in reader:
                if not cells:  # an empty line
                    continue
                if len(cells) != len(names):
                    raise InputError(f"{file} line {reader.line_num}: got {len(cells)} cells, expected {len(names)}")
                rows.append([_number(file, reader.line_num, *pair) for pair in zip(names, cells, strict=True)])
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    return names, rows, lines


def _check_header(file: Path, names: tuple[str, ...]) -> None:
    if not names or all(_is_number(name) for name in names):
        raise InputError(f"{file} line 1: got no header, expected a line with the components' names")
    for name in names:
        if not name:
            raise InputError(f"{file} line 1: got an empty column name, expected one for each column")
        if names.count(name) > 1:
            raise InputError(f"{file} line 1: got column {name!r} twice, expected each name once")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(file: Path, line: int, name: str, text: str) -> float:
    if not _is_number(text):
        raise InputError(f"{file} line {line}, {name}: got {text!r}, expected a number")
    return float(text)


# --- .npz ---


def _npz_column(path: Path, name: str, content: dict[str, NDArray[Any]]) -> Column:
    array = content[name]
    source = f"{path}: {name}"

    def at(row: int) -> str:
        return f"{source} row {row}"

    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3 and min(array.shape[1:3]) > 0:
        return Column(_modality_name(name), "image", array, source, at)
    if not (np.issubdtype(array.dtype, np.floating) and array.ndim == 2 and array.shape[1] > 0):
        raise InputError(
            f"{source}: got {array.dtype} {list(array.shape)}, expected uint8 [N, H, W, 3] or float [N, D]"
        )
    size = array.shape[1]
    names = tuple(str(n) for n in np.atleast_1d(content.get(f"{name}_names", [f"{name}{d}" for d in range(size)])))
    if len(names) != size or len(set(names)) != size:
        raise InputError(f"{path}: {name}_names: got {', '.join(names)}, expected {size} different names")
    limits = content.get(f"{name}_limits")
    if limits is not None:
        if limits.shape != (size, 2) or not np.issubdtype(limits.dtype, np.number):
            raise InputError(f"{path}: {name}_limits: got {list(limits.shape)}, expected [{size}, 2] lower, upper")
        limits = _check_limits(limits.astype(np.float64), names, f"{path}: {name}_limits")
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, which is reported with its row
        values = array.astype(np.float32)
    origin, unit = str(content.get(f"{name}_limits_from", "")), str(content.get(f"{name}_unit", "rad"))
    return Column(name, "vector", values, source, at, names, limits, origin, unit)
