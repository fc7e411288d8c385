"""What we read from a URDF file ourselves: its joints, their limits, and whether it stands alone."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError


class Urdf:
    """A URDF text: `joints` maps each joint's name to its element, `links` lists the links.

    `standalone` is False when it refers to other files (meshes, textures), so that its text alone cannot rebuild it.
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
        self.standalone = not any(element.get("filename") for element in root.iter() if element.tag != "plugin")
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
