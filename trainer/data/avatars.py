"""Avatars: drawn faces with sixteen attributes, each a pure function of (seed, index). No data to fetch.

The names are CelebA's where it has the attribute, and mean what they mean there:

- No_Beard is 1 where there is no facial hair at all. A moustache alone is 0 too, as in 97 % of CelebA's moustaches.
- Mustache is 1 for a moustache alone; a full beard is No_Beard 0, Mustache 0.
- Eyeglasses is 1 for sunglasses too.
- Bald, Long_Hair and the hair colours are 0 under a hat, and a bald head has no hair colour: only what is seen counts.
- Pale_Skin is 1 for the palest of six skins.

Sunglasses, Long_Hair, Red_Hair and Eyes_Closed (both, and seen: 0 behind sunglasses) are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from trainer.data import avatar_art
from trainer.data.parallel import in_order, progress, start_worker, worker_count

HAIR_COLOURS = {"Black_Hair": 0.3, "Brown_Hair": 0.3, "Blond_Hair": 0.18, "Red_Hair": 0.08, "Gray_Hair": 0.14}
"""How often each is drawn."""
ATTRIBUTES = (
    *("Bald", "No_Beard", "Mustache", "Eyeglasses", "Sunglasses", "Wearing_Hat", "Smiling", "Mouth_Slightly_Open"),
    *("Long_Hair", *HAIR_COLOURS, "Pale_Skin", "Eyes_Closed"),
)
SIZE = 128
"""Pixels on a side that avatars are drawn at; larger ones are drawn at their own size."""
VERSION = 1
"""Changes when the same (seed, index) gives another face."""
_CHUNK = 64
_DRAWS = 64  # uniform numbers of one avatar; more than are used, so that a new part moves no other

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Face:
    """What is on an avatar. Alternatives that do not show are drawn all the same: forcing one moves nothing else."""

    top: Literal["hat", "bald", "hair"]
    bald_below: bool  # what taking the hat off shows
    long: bool
    colours: tuple[str, ...]  # hair colours, the preferred one first
    facial: Literal["none", "beard", "moustache"]
    facial_else: Literal["beard", "moustache"]  # what there is if there has to be some
    glasses: Literal["none", "clear", "dark"]
    smiling: bool
    mouth_open: bool
    eyes_closed: bool
    pale: bool
    art: avatar_art.Art


class _Draws:
    """Uniform numbers, one for each thing decided, whatever came out before."""

    def __init__(self, seed: int, index: int) -> None:
        for name, value in (("seed", seed), ("index", index)):
            if not 0 <= value < 2**64:
                raise InputError(f"avatars: got {name} {value}, expected 0 to 2^64 - 1")
        key = np.array([seed, index], np.uint64)
        self._numbers = iter(np.random.Generator(np.random.Philox(key=key)).random(_DRAWS).tolist())

    def coin(self, chance: float) -> bool:
        return next(self._numbers) < chance

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._numbers)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(next(self._numbers) * len(choices))]

    def order(self, chances: Mapping[str, float]) -> tuple[str, ...]:
        """All the names; each comes first as often as its chance says, then next among those left."""
        keys = {name: -np.log1p(-next(self._numbers)) / chance for name, chance in chances.items()}
        return tuple(sorted(keys, key=keys.__getitem__))

    def colour(self, low: int, high: int) -> tuple[int, int, int]:
        red, green, blue = (int(self.between(low, high)) for _ in range(3))
        return red, green, blue


def draw(seed: int, index: int) -> Face:
    """The face of (seed, index). Raises InputError for a negative number."""
    from_ = _Draws(seed, index)
    hat, bald, long = from_.coin(0.1), from_.coin(0.15), from_.coin(0.45)
    beard, moustache = from_.coin(0.35), from_.coin(0.25)
    rare = from_.coin(0.1)  # long hair and facial hair seldom meet, as in CelebA
    clear, dark = from_.coin(0.25), from_.coin(0.12)
    some: Literal["beard", "moustache"] = "beard" if beard or not moustache else "moustache"
    return Face(
        top="hat" if hat else "bald" if bald else "hair",
        bald_below=bald,
        long=long,
        colours=from_.order(HAIR_COLOURS),
        facial=some if (beard or moustache) and (rare or not long or hat or bald) else "none",
        facial_else=some,
        glasses="dark" if dark else "clear" if clear else "none",
        smiling=from_.coin(0.5),
        mouth_open=from_.coin(0.45),
        eyes_closed=from_.coin(0.12),
        pale=from_.coin(0.25),
        art=avatar_art.Art(
            picks={name: from_.pick(choices) for name, choices in avatar_art.CHOICES.items()},
            skin_shift=from_.colour(-12, 13),
            hair_shift=from_.colour(-12, 13),
            cloth=from_.colour(40, 235),
            hat=from_.colour(40, 235),
            background=from_.colour(90, 245),
            turn=from_.between(-7, 7),
            zoom=from_.between(0.94, 1.06),
            shift=(from_.between(-3.5, 3.5), from_.between(-3.5, 3.5)),
        ),
    )


def attributes(face: Face) -> dict[str, int]:
    """The face's attributes: 0 or 1 by each name of ATTRIBUTES, in that order."""
    hair = face.top == "hair"
    present = {
        "Bald": face.top == "bald",
        "No_Beard": face.facial == "none",
        "Mustache": face.facial == "moustache",
        "Eyeglasses": face.glasses != "none",
        "Sunglasses": face.glasses == "dark",
        "Wearing_Hat": face.top == "hat",
        "Smiling": face.smiling,
        "Mouth_Slightly_Open": face.mouth_open,
        "Long_Hair": hair and face.long,
        **{colour: hair and colour == face.colours[0] for colour in HAIR_COLOURS},
        "Pale_Skin": face.pale,
        "Eyes_Closed": face.eyes_closed and face.glasses != "dark",
    }
    return {name: int(present[name]) for name in ATTRIBUTES}


def force(face: Face, wanted: Mapping[str, int]) -> Face:
    """The face with these attributes forced to 0 or 1, and nothing else changed but what cannot be beside them.

    A hat, a bald head and each thing about hair take each other's place, so do the hair colours, a moustache and no
    facial hair, sunglasses and closed eyes.

    Raises:
        InputError: an attribute or value that is none, or attributes that exclude each other.
    """
    for name, value in wanted.items():
        if name not in ATTRIBUTES:
            raise InputError(f"avatars: got attribute {name!r}, expected one of {', '.join(ATTRIBUTES)}")
        if value not in (0, 1):
            raise InputError(f"avatars: {name}: got {value!r}, expected 0 or 1")
    given: dict[str, Any] = {}  # the fields that change
    want = {name: bool(value) for name, value in wanted.items()}
    shown = attributes(face)
    # What is on the head: the hat first, since taking it off shows what is below.
    top = face.top
    if "Wearing_Hat" in want:
        top = "hat" if want["Wearing_Hat"] else ("bald" if face.bald_below else "hair") if top == "hat" else top
    if "Bald" in want:
        top = "bald" if want["Bald"] else "hair" if top == "bald" else top
    if "Long_Hair" in want:
        given["long"] = want["Long_Hair"]
    colours = [name for name in face.colours if want.get(name, True)]
    colours.sort(key=lambda name: not want.get(name, False))  # stable: forced to 1 first
    given["colours"] = (*colours, *(name for name in face.colours if name not in colours))
    if any(want.get(name) for name in ("Long_Hair", *HAIR_COLOURS)):
        top = "hair"
    given["top"] = top
    facial = face.facial
    if "No_Beard" in want and want["No_Beard"] != bool(shown["No_Beard"]):
        facial = "none" if want["No_Beard"] else face.facial_else
    if "Mustache" in want and want["Mustache"] != (facial == "moustache"):
        facial = "moustache" if want["Mustache"] else "beard"  # which leaves No_Beard as it is
    given["facial"] = facial
    glasses = face.glasses
    if "Eyeglasses" in want and want["Eyeglasses"] != bool(shown["Eyeglasses"]):
        glasses = "clear" if want["Eyeglasses"] else "none"
    if "Sunglasses" in want and want["Sunglasses"] != (glasses == "dark"):
        glasses = "dark" if want["Sunglasses"] else "clear"
    if want.get("Eyes_Closed") and glasses == "dark":
        glasses = "clear"
    given["glasses"] = glasses
    for name, field in (
        *(("Smiling", "smiling"), ("Mouth_Slightly_Open", "mouth_open")),
        *(("Eyes_Closed", "eyes_closed"), ("Pale_Skin", "pale")),
    ):
        if name in want:
            given[field] = want[name]
    face = dataclasses.replace(face, **given)
    made = attributes(face)
    if missed := [name for name in want if made[name] != want[name]]:
        asked = ", ".join(f"{name}={int(value)}" for name, value in want.items())
        raise InputError(f"avatars: {asked} cannot be together on one face ({missed[0]} comes out {made[missed[0]]})")
    return face


def avatar(
    seed: int, index: int, /, size: int = SIZE, rasteriser: str = "", **forced: int
) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Avatar `index` of `seed`: uint8 [size, size, 3] RGB, and its attributes, 0 or 1 by name.

    The same wherever it is drawn; the two rasterisers ("skia", "resvg"; "" the faster of those that work here) give
    the same attributes and parts; antialiasing and faint shades differ. forced: attributes it must have, as Bald=1.
    Raises InputError.
    """
    face = force(draw(seed, index), forced)
    image = avatar_art.rasterise(avatar_art.svg(face, max(size, SIZE)), max(size, SIZE), rasteriser)
    if size < SIZE:
        import cv2

        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return image, attributes(face)


def table(seed: int, count: int, first: int = 0) -> NDArray[np.uint8]:
    """Attributes of the avatars first … first + count - 1: uint8 [count, 16], 0 or 1, columns as ATTRIBUTES."""
    rows = [list(attributes(draw(seed, index)).values()) for index in range(first, first + count)]
    return np.array(rows, np.uint8).reshape(count, len(ATTRIBUTES))


def render(
    seed: int, count: int, size: int, *, first: int = 0, rasteriser: str = "", workers: int = 0
) -> Iterator[NDArray[np.uint8]]:
    """The avatars first … first + count - 1 in chunks uint8 [n, size, size, 3], drawn by `workers` processes.

    workers: 0 one per CPU, 1 draws in this process. Shows a bar on stderr. Raises InputError.
    """
    name = rasteriser or avatar_art.default_rasteriser()
    last = first + count
    chunks = [range(start, min(start + _CHUNK, last)) for start in range(first, last, _CHUNK)]
    work = partial(_render_chunk, seed, size, name)
    workers = min(worker_count(workers), len(chunks))
    with progress("drawing avatars", count) as advance:
        for chunk in map(work, chunks) if workers <= 1 else _in_processes(work, chunks, workers):
            advance(len(chunk))
            yield chunk


def _render_chunk(seed: int, size: int, rasteriser: str, indices: range) -> NDArray[np.uint8]:
    return np.stack([avatar(seed, index, size, rasteriser)[0] for index in indices])


def _in_processes(
    work: partial[NDArray[np.uint8]], chunks: Sequence[range], workers: int
) -> Iterator[NDArray[np.uint8]]:
    # spawn, not fork: a forked child would share the locks of the parent's threads.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker)
    try:
        yield from in_order(pool, work, chunks, ahead=4 * workers)
    except BrokenProcessPool:
        raise InputError(
            f"one of {workers} drawing processes died: out of memory, or a script without "
            f"`if __name__ == '__main__':` around its work; try workers=1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
