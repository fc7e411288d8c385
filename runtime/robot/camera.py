"""Where the robot's camera is and what it sees."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.errors import InputError

Vector = tuple[float, float, float]

_EXAMPLE = "write for instance --camera position=.06,0,.36 target=.22,0,0 fov=66 size=80"


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera; the defaults are the view from our own robot's head.

    position, target, up: metres, in the world's frame (the robot's base), or in the frame of `link` when it is given.
    fov: vertical angle, degrees. near, far: clipping distances, metres. width, height: pixels.
    Raises InputError where these make no view.
    """

    position: Vector = (0.06, 0.0, 0.36)
    target: Vector = (0.22, 0.0, 0.0)
    up: Vector = (0.0, 0.0, 1.0)
    fov: float = 66.0
    near: float = 0.02
    far: float = 3.0
    width: int = 80
    height: int = 80
    link: str | None = None

    def __post_init__(self) -> None:
        for name in ("position", "target", "up"):
            vector = tuple(float(value) for value in getattr(self, name))
            if len(vector) != 3 or not all(map(math.isfinite, vector)):
                raise InputError(f"camera {name}: got {vector}, expected three finite numbers (metres)")
            object.__setattr__(self, name, vector)
        if not 0 < self.fov < 180:
            raise InputError(f"camera fov: got {self.fov}, expected degrees between 0 and 180")
        if not 0 < self.near < self.far < math.inf:
            raise InputError(f"camera near, far: got {self.near}, {self.far}, expected 0 < near < far (metres)")
        for name in ("width", "height"):
            pixels = getattr(self, name)
            if not isinstance(pixels, int) or not 8 <= pixels <= 2048:
                raise InputError(f"camera {name}: got {pixels}, expected 8 to 2048 pixels")
        sight = [t - p for t, p in zip(self.target, self.position, strict=True)]
        if not any(sight):
            raise InputError(f"camera target: got {self.target}, which is the position itself; give a point to look at")
        (a, b, c), (d, e, f) = sight, self.up
        if math.hypot(b * f - c * e, c * d - a * f, a * e - b * d) < 1e-6 * math.hypot(*sight):
            raise InputError(f"camera up: got {self.up}, which is along the line of sight; give another, as up=1,0,0")

    @classmethod
    def parse(cls, words: Sequence[str], base: Camera | None = None, complete: bool = False) -> Camera:
        """Read `key=value` words, as in `position=.06,0,.36 target=.22,0,0 fov=66 size=160x120 link=head`.

        What is left out is as in `base` (default: our own robot's camera). complete: position and target may not be
        left out, since another robot's say nothing. Raises InputError for an unknown key or an unreadable value.
        """
        given: dict[str, Any] = {}
        for word in words:
            key, equals, value = word.partition("=")
            try:
                if not equals:
                    raise ValueError
                if key in ("position", "target", "up"):
                    given[key] = tuple(float(part) for part in value.split(","))
                elif key in ("fov", "near", "far"):
                    given[key] = float(value)
                elif key == "size":
                    width, by, height = value.partition("x")
                    given["width"], given["height"] = int(width), int(height if by else width)
                elif key == "link":
                    given[key] = value
                else:
                    keys = "position, target, up, fov, near, far, size, link"
                    raise InputError(f"camera: got {word!r}, expected one of {keys}; {_EXAMPLE}")
            except InputError:
                raise
            except ValueError:
                raise InputError(f"camera: cannot read {word!r}; {_EXAMPLE}") from None
        for key in ("position", "target") if complete else ():
            if key not in given:
                raise InputError(f"camera: got no {key}, which your own robot's camera needs; {_EXAMPLE}")
        return dataclasses.replace(base or cls(), **given)

    def to_json(self) -> dict[str, Any]:
        """Plain dict for JSON; `from_json` reads it back to an equal camera."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Camera:
        """The camera that `to_json` wrote. Raises InputError for unknown or unreadable fields."""
        try:
            fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in plain.items()}
            return cls(**fields)
        except (TypeError, AttributeError) as error:
            raise InputError(f"camera: cannot read {dict(plain)}: {error}") from None
