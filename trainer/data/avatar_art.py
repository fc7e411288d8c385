"""Avatars as pictures: python_avatars' parts put together as SVG, and made pixels by skia or resvg.

Left out of python_avatars' parts: hair whose colour is fixed (shaved sides, chef's cap) or that has no place for a
beard (loose hair, curly 2, long curly hair, astronaut, hijab), what is neither bald nor not (sides), glasses through
which eyes are half seen, mouths that could be smiles, and novelties.

Both rasterisers read the same SVG; antialiasing differs, and skia leaves out some faint shades (below the chin).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

if TYPE_CHECKING:
    from trainer.data.avatars import Face

CHOICES: dict[str, tuple[str, ...]] = {
    "hat": ("TURBAN", "WINTER_HAT_1", "WINTER_HAT_2", "WINTER_HAT_3", "WINTER_HAT_4"),
    "long": (
        *("BIG_HAIR", "BOB", "CURLY", "CURVY", "DREADS", "FRO", "LONG_NOT_TOO_LONG", "MIA_WALLACE"),
        *("STRAIGHT_1", "STRAIGHT_2", "STRAIGHT_STRAND"),
    ),
    "short": (
        *("BUN", "BUZZCUT", "CAESAR", "CAESAR_SIDE_PART", "PIXIE", "POMPADOUR", "QUIFF", "SHAGGY", "SHORT_CURLY"),
        *("SHORT_DREADS_1", "SHORT_DREADS_2", "SHORT_FLAT", "SHORT_ROUND", "SHORT_WAVED"),
    ),
    "beard": ("BEARD_LIGHT", "BEARD_MEDIUM", "BEARD_MAGESTIC"),
    "moustache": ("MOUSTACHE_FANCY", "MOUSTACHE_MAGNUM"),
    "clear": ("PRESCRIPTION_1", "PRESCRIPTION_2", "ROUND"),
    "dark": ("KURT", "SUNGLASSES", "WAYFARERS"),
    "smile open": ("SMILE", "BIG_SMILE"),
    "smile shut": ("TWINKLE",),
    "open": ("CONCERNED", "DISBELIEF", "SCREAM_OPEN"),
    "shut": ("SAD", "SERIOUS"),
    "eyes open": ("DEFAULT", "SIDE", "SQUINT", "SURPRISED", "WINK"),
    "eyes closed": ("CLOSED", "HAPPY"),
    "brows": (
        *("ANGRY_NATURAL", "DEFAULT", "DEFAULT_NATURAL", "FLAT_NATURAL", "RAISED_EXCITED", "RAISED_EXCITED_NATURAL"),
        *("SAD_CONCERNED_NATURAL", "UNIBROW_NATURAL", "UP_DOWN", "UP_DOWN_NATURAL"),
    ),
    "nose": ("DEFAULT", "SMALL", "WIDE"),
    "clothes": (
        *("BLAZER_SHIRT", "BLAZER_SWEATER", "COLLAR_SWEATER", "HOODIE", "OVERALL", "SHIRT_CREW_NECK"),
        *("SHIRT_SCOOP_NECK", "SHIRT_V_NECK"),
    ),
    "skin": ("LIGHT", "TANNED", "BROWN", "DARK_BROWN", "BLACK"),  # where it is not pale
}
"""The parts that an avatar's are picked from, by place; python_avatars' names."""

RGB = tuple[int, int, int]
_SKIN: dict[str, RGB] = {
    "PALE": (0xFF, 0xDB, 0xB4),
    "LIGHT": (0xED, 0xB9, 0x8A),
    "TANNED": (0xE0, 0xA0, 0x70),
    "BROWN": (0xD0, 0x8B, 0x5B),
    "DARK_BROWN": (0xAE, 0x5D, 0x29),
    "BLACK": (0x61, 0x43, 0x35),
}
_HAIR: dict[str, RGB] = {
    "Black_Hair": (0x2C, 0x1B, 0x18),
    "Brown_Hair": (0x72, 0x41, 0x33),
    "Blond_Hair": (0xD6, 0xB3, 0x70),
    "Red_Hair": (0xC9, 0x33, 0x05),
    "Gray_Hair": (0xB9, 0xB2, 0xAE),
}
# The square of python_avatars' drawing (264×280) that shows the face: its middle, and its side.
_MIDDLE, _SIDE = (132, 122), 200


@dataclasses.dataclass(frozen=True)
class Art:
    """What an avatar looks like beyond its attributes.

    picks: a part for each place in CHOICES, shown or not. skin_shift, hair_shift: added to the colour, [-12, 12].
    turn: degrees. zoom: a factor. shift: (right, down) in 1/128 of the picture's side.
    """

    picks: Mapping[str, str]
    skin_shift: RGB
    hair_shift: RGB
    cloth: RGB
    hat: RGB
    background: RGB
    turn: float
    zoom: float
    shift: tuple[float, float]


def svg(face: Face, size: int) -> str:
    """The face as SVG text, size×size pixels, opaque."""
    pa = _library()
    art, pick = face.art, face.art.picks
    hair = _hex(_HAIR[face.colours[0]], art.hair_shift)
    if face.top == "hat":
        top = pa.HatType[pick["hat"]]
    else:
        top = pa.HairType.NONE if face.top == "bald" else pa.HairType[pick["long" if face.long else "short"]]
    mouth = ("smile " if face.smiling else "") + ("open" if face.mouth_open else "shut")
    # resvg's dark glasses let a little through, skia's nothing: eyes behind them are always open.
    closed = face.eyes_closed and face.glasses != "dark"
    drawing = pa.Avatar(
        style=pa.AvatarStyle.TRANSPARENT,
        top=top,
        hat_color=_hex(art.hat),
        hair_color=hair,
        eyebrows=pa.EyebrowType[pick["brows"]],
        eyes=pa.EyeType[pick["eyes closed" if closed else "eyes open"]],
        nose=pa.NoseType[pick["nose"]],
        mouth=pa.MouthType[pick[mouth]],
        facial_hair=pa.FacialHairType["NONE" if face.facial == "none" else pick[face.facial]],
        facial_hair_color=hair,
        skin_color=_hex(_SKIN["PALE" if face.pale else pick["skin"]], art.skin_shift),
        accessory=pa.AccessoryType["NONE" if face.glasses == "none" else pick[face.glasses]],
        clothing=pa.ClothingType[pick["clothes"]],
        clothing_color=_hex(art.cloth),
    ).render()
    moves = (
        f"translate({64 + art.shift[0]:.4f} {64 + art.shift[1]:.4f}) rotate({art.turn:.4f}) "
        f"scale({art.zoom * 128 / _SIDE:.6f}) translate({-_MIDDLE[0]} {-_MIDDLE[1]})"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{size}" '
        f'height="{size}" viewBox="0 0 128 128"><rect width="128" height="128" fill="{_hex(art.background)}"/>'
        f'<g transform="{moves}">{drawing}</g></svg>'
    )


def rasterise(drawing: str, size: int, rasteriser: str = "") -> NDArray[np.uint8]:
    """SVG text of size×size pixels as uint8 [size, size, 3] RGB. rasteriser: "skia", "resvg" or "" the default."""
    name = rasteriser or default_rasteriser()
    if name not in _RASTERISERS:
        raise InputError(f"rasteriser: got {rasteriser!r}, expected one of {', '.join(_RASTERISERS)}")
    return _RASTERISERS[name](drawing, size)


@functools.cache
def default_rasteriser() -> str:
    """The first of skia and resvg that works here. skia is faster and needs the system's libGL, libEGL and libX11.

    Raises:
        InputError: neither does.
    """
    blank = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8" fill="#fff"/></svg>'
    )
    for name, rasteriser in _RASTERISERS.items():
        try:
            if (rasteriser(blank, 8) == 255).all():
                return name
        except Exception:  # whatever an absent system library brings: the next one may do
            continue
    raise InputError("avatars: neither resvg_py nor skia-python works here; `pip install resvg_py`")


def versions(rasteriser: str) -> dict[str, str]:
    """The libraries that the pixels come from, and their versions."""
    packages = {"skia": "skia-python", "resvg": "resvg_py"}
    return {name: importlib.metadata.version(name) for name in ("python_avatars", packages[rasteriser])}


def _skia(drawing: str, size: int) -> NDArray[np.uint8]:
    import skia

    pixels = np.zeros((size, size, 4), np.uint8)
    surface = skia.Surface(pixels, colorType=skia.kRGBA_8888_ColorType)
    stream = skia.MemoryStream(drawing.encode(), True)  # True: copied, since skia does not keep the bytes alive
    document = skia.SVGDOM.MakeFromStream(stream)
    document.setContainerSize(skia.Size(size, size))
    document.render(surface.getCanvas())
    surface.flushAndSubmit()
    return np.ascontiguousarray(pixels[..., :3])


def _resvg(drawing: str, size: int) -> NDArray[np.uint8]:
    import cv2
    import resvg_py

    png = np.frombuffer(bytes(resvg_py.svg_to_bytes(svg_string=drawing, width=size, skip_system_fonts=True)), np.uint8)
    image = cv2.imdecode(png, cv2.IMREAD_COLOR)
    assert image is not None  # resvg_py raises where it fails
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


_RASTERISERS = {"skia": _skia, "resvg": _resvg}


def _hex(colour: RGB, shift: RGB = (0, 0, 0)) -> str:
    return "#" + "".join(f"{min(max(c + s, 0), 255):02x}" for c, s in zip(colour, shift, strict=True))


@functools.cache
def _library() -> Any:
    """python_avatars, whose reader of parts keeps what it has read: it would read every file again for each avatar."""
    import python_avatars
    import python_avatars.avatar as module

    read = functools.cache(python_avatars.svg_parser.SVGParser)

    class Part(python_avatars.svg_parser.SVGParser):
        """A part's tree, copied from the one that was read."""

        def __init__(self, path: str | None = None, svg: Any = None) -> None:
            if path is None:
                super().__init__(svg=svg)
            else:
                self.prefix, self.tree = read(path).prefix, copy.deepcopy(read(path).tree)

    module.SVGParser = Part
    return python_avatars
