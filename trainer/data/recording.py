"""A recording: samples that each hold several modalities, such as a camera frame and the joint angles behind it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from trainer.data import readers

# Values this far outside a limit are taken for rounding in the file, and clipped.
TOLERANCE = 1e-4
SMALLEST = 8
"""Pixels that an image has at least on each side, as the simulator's camera has."""


@dataclasses.dataclass(frozen=True)
class Modality:
    """One of the things recorded together.

    kind: "image" (shape [C, H, W], RGB) or "vector" (shape [D]). names: a vector's components. limits: their lower and
    upper values in `unit`. limits_from: "file", "robot" or "data" (the recorded minimum and maximum).
    """

    name: str
    kind: Literal["image", "vector"]
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    limits: tuple[tuple[float, float], ...] | None = None
    unit: str = ""
    limits_from: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON that `from_json` turns back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Modality:
        """The inverse of `to_json`, also after JSON has made lists of tuples."""
        limits = plain["limits"] and tuple((low, high) for low, high in plain["limits"])
        return cls(**dict(plain) | {"shape": tuple(plain["shape"]), "names": tuple(plain["names"]), "limits": limits})


@dataclasses.dataclass(frozen=True)
class Recording:
    """Modalities and their samples, row n of each belonging together.

    arrays: by modality name, uint8 [N, H, W, 3] for an image, float32 [N, D] in its unit for a vector.
    robot: the `Robot.description()` that the data came from, or None. len() is N.
    """

    modalities: tuple[Modality, ...]
    arrays: Mapping[str, NDArray[Any]]
    robot: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.arrays[self.modalities[0].name])

    def modality(self, name: str) -> Modality:
        """The modality of that name. Raises InputError naming the ones there are."""
        for modality in self.modalities:
            if modality.name == name:
                return modality
        raise InputError(f"no modality {name!r}; the data has {', '.join(m.name for m in self.modalities)}")

    @classmethod
    def read(cls, path: str | Path, robot: Mapping[str, Any] | None = None) -> Recording:
        """Read a folder or an .npz file and check every sample.

        Folder: each sub-folder of PNGs is an image modality (`images` gives "image"), and each NAME.csv with a header
        of component names is a vector modality (rad); NAME.limits.csv (header, lower row, upper row) gives its limits.
        Row n of a table belongs to the n-th image by name, numbers in names being counted: 2.png is before 10.png.
        .npz: uint8 [N, H, W, 3] arrays are images, float [N, D] arrays vectors, with optional NAME_names, NAME_limits
        [D, 2], NAME_unit, and `robot`, a description as JSON text.
        A modality's name is of small letters, digits and _, and none that Python or PyTorch has a use for.
        robot: a `Robot.description()`. Limits come from the file, else from the robot whose joints bear these names,
        else from the data's own minimum and maximum.
        Raises InputError naming the file and row of the first thing that is wrong.
        """
        path = Path(path)
        if path.is_dir():
            columns, recorded = readers.read_folder(path), None
        elif path.suffix == ".npz":
            columns, recorded = readers.read_npz(path)
        elif path.exists():
            raise InputError(f"{path}: got a {path.suffix or 'plain'} file, expected a folder or an .npz file")
        else:
            raise InputError(f"{path}: no such file or folder")
        description = dict(robot) if robot is not None else recorded
        if not columns:
            raise InputError(f"{path}: no data in it, expected images/*.png and joints.csv (or arrays of an .npz)")
        first = columns[0]
        for column in columns:
            if len(column.values) != len(first.values):
                raise InputError(
                    f"{first.source} has {len(first.values)} samples and {column.source} has "
                    f"{len(column.values)}, expected as many of both"
                )
        if len(first.values) < 2:
            raise InputError(f"{path}: got {len(first.values)} samples, expected at least 2")
        columns.sort(key=lambda column: (column.kind != "image", column.name))
        modalities = tuple(_check(column, description) for column in columns)
        return cls(modalities, {column.name: column.values for column in columns}, description)

    def save(self, path: str | Path) -> None:
        """Write an .npz that `read` gives back equal; a crash leaves either the old file or the new one."""
        path = Path(path)
        content: dict[str, Any] = {}
        for modality in self.modalities:
            content[modality.name] = self.arrays[modality.name]
            if modality.kind == "vector":
                content[f"{modality.name}_names"] = np.array(modality.names)
                content[f"{modality.name}_unit"] = np.array(modality.unit)
                content[f"{modality.name}_limits_from"] = np.array(modality.limits_from)
                content[f"{modality.name}_limits"] = np.array(modality.limits, np.float64)
        if self.robot is not None:
            content["robot"] = np.array(json.dumps(self.robot))
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    np.savez(file, allow_pickle=False, **content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _check(column: readers.Column, robot: Mapping[str, Any] | None) -> Modality:
    """The modality of a column; its vector values are checked against their limits and clipped to them."""
    values = column.values
    if column.kind == "image":
        count, height, width, channels = values.shape
        if min(height, width) < SMALLEST:
            raise InputError(
                f"{column.source}: got images of {width}x{height} pixels, expected at least {SMALLEST} on each side; "
                f"enlarge them, or leave them out"
            )
        return Modality(column.name, "image", (channels, height, width))
    rows = np.argwhere(~np.isfinite(values))
    if len(rows):
        row, d = rows[0]
        raise InputError(f"{column.at(row)}, {column.names[d]}: got {values[row, d]}, expected a finite number")
    limits, origin = _limits(column, robot)
    lower, upper = limits.astype(np.float32).T
    rows = np.argwhere((values < lower - TOLERANCE) | (values > upper + TOLERANCE))
    if len(rows):
        row, d = rows[0]
        raise InputError(
            f"{column.at(row)}, {column.names[d]}: got {values[row, d]:g} {column.unit}, expected "
            f"{lower[d]:g} to {upper[d]:g} {column.unit} (limits of the {origin})"
        )
    np.clip(values, lower, upper, out=values)
    pairs = tuple((float(low), float(high)) for low, high in limits)
    return Modality(column.name, "vector", values.shape[1:], column.names, pairs, column.unit, origin)


def _limits(column: readers.Column, robot: Mapping[str, Any] | None) -> tuple[NDArray[np.float64], str]:
    """Limits [D, 2] of a vector and where they come from."""
    if column.limits is not None:
        return column.limits, column.limits_from or "file"
    known = dict(zip(robot["joints"], robot["limits"], strict=True)) if robot else {}
    if set(column.names) <= set(known):
        return np.array([known[name] for name in column.names], np.float64), "robot"
    if column.name == "joints" and column.unit == "rad" and np.abs(column.values).max() > 2 * np.pi:
        largest = np.abs(column.values).max()
        raise InputError(
            f"{column.source}: got angles up to {largest:g}, which look like degrees; expected rad, or limits in "
            "joints.limits.csv if a joint truly turns that far"
        )
    limits = np.stack([column.values.min(axis=0), column.values.max(axis=0)], axis=1).astype(np.float64)
    still = np.flatnonzero(limits[:, 0] == limits[:, 1])
    if len(still):
        raise InputError(
            f"{column.source}: {column.names[still[0]]} does not change (as float32) and has no limits; "
            f"drop it, or give limits in {column.name}.limits.csv"
        )
    return limits, "data"
