"""What we read from a URDF file ourselves: its joints, their limits, and whether it stands alone."""

from __future__ import annotations

import hashlib
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError


class Urdf:
    """A URDF text: `joints` maps each joint's name to its element, `links` lists the links.

    `files` are the names of the other files (meshes, textures) that it refers to; where there are any, its text alone
    cannot rebuild it.
    """

    def __init__(self, text: str, source: str) -> None:
        """Parse `text`; `source` names it in errors. Raises InputError when it is not a URDF."""
        self.text, self.source = text, source
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise InputError(f"{source}: not a readable URDF: {error}") from None
        if root.tag != "robot":
            raise InputError(f"{source}: got a <{root.tag}> document, expected a URDF <robot>")
        self.joints = {joint.get("name", ""): joint for joint in root.findall("joint")}
        self.links = [link.get("name", "") for link in root.findall("link")]
        named = {element.get("filename", "") for element in root.iter() if element.tag != "plugin"}
        self.files = tuple(sorted(named - {""}))
        if not self.links:
            raise InputError(f"{source}: got a URDF without links, expected at least one")

    @classmethod
    def read(cls, path: Path) -> Urdf:
        """Read a file. Raises InputError when it is missing or not a URDF."""
        try:
            return cls(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise InputError(f"{path}: cannot read the URDF: {reason}") from None

    def files_sha256(self, path: Path) -> str:
        """SHA-256 over the contents of the files that this URDF, lying at `path`, refers to, in hexadecimal.

        With them the materials that a Wavefront mesh names, and the textures that those name. Raises InputError when
        one is there and cannot be read; one that is not there is the simulator's to miss, for it does not need all.
        """
        digest = hashlib.sha256()
        # A name is looked for as pybullet does: beside the URDF, in the folders above, and where we are.
        found = [_find(name, [*path.parents, *map(Path, (".", "..", "../.."))]) for name in self.files]
        seen = set()
        while found:
            file = found.pop(0)
            if file is None or file in seen:
                continue
            seen.add(file)
            try:
                content = file.read_bytes()
            except OSError as error:
                raise InputError(f"{file}: cannot be read: {error.strerror}") from None
            digest.update(hashlib.sha256(content).digest())
            found += [_find(name, [file.parent]) for name in _named_in(file, content)]
        return digest.hexdigest()

    def movable(self) -> tuple[str, ...]:
        """The revolute joints with limits, in the file's order."""
        return tuple(name for name in self.joints if self._why_not(name) is None)

    def limits(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Lower and upper angle of each named joint, float32 [D, 2] rad. Raises InputError naming the joint."""
        for name in names:
            if name not in self.joints:
                known = ", ".join(self.movable()) or "none with limits"
                raise InputError(f"{self.source}: no joint {name!r}; its joints are {known}")
            reason = self._why_not(name)
            if reason:
                raise InputError(
                    f"{self.source}: joint {name!r} {reason}; give other joints, or add limits to the URDF"
                )
        if len(set(names)) < len(names):
            raise InputError(f"joints: got {', '.join(names)}, expected each name once")
        return np.array([self._range(name) for name in names], np.float32).reshape(-1, 2)

    def _range(self, name: str) -> tuple[float, float]:
        limit = self.joints[name].find("limit")
        if limit is None:
            return 0.0, 0.0
        try:
            return float(limit.get("lower", 0)), float(limit.get("upper", 0))
        except ValueError:
            return math.nan, math.nan

    def _why_not(self, name: str) -> str | None:
        """Why a joint cannot be an output in radians between limits, or None."""
        kind = self.joints[name].get("type", "")
        if kind == "continuous":
            return "is continuous: it has no limits"
        if kind != "revolute":
            return f"is {kind or 'without a type'}, expected revolute"
        if self.joints[name].find("mimic") is not None:
            return "only mimics another joint"
        lower, upper = self._range(name)
        if not -math.inf < lower < upper < math.inf:
            return f"has no limits (lower {lower:g}, upper {upper:g} rad; expected lower < upper)"
        return None


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of that name in the first of the folders that has it."""
    name = name.removeprefix("package://").removeprefix("model://")
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _named_in(file: Path, content: bytes) -> list[str]:
    """The material files that a Wavefront mesh names, or the textures that such a material file names."""
    key = {".obj": b"mtllib", ".mtl": b"map_Kd"}.get(file.suffix.lower())
    lines = [line.split(maxsplit=1) for line in content.splitlines()] if key else []
    return [words[1].strip().decode(errors="replace") for words in lines if len(words) == 2 and words[0] == key]
