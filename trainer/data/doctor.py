"""`python -m trainer data check DIR`: reads every image once and lists what is wrong with any, by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import InputError, Parser, one_line
from trainer.data import celeba, folder
from trainer.data.images import LARGEST
from trainer.data.parallel import in_order, progress, worker_count

if TYPE_CHECKING:
    from PIL import Image

PROBLEMS = {
    "broken": "cannot be read to the end",
    "too_small": "smaller than the crop, or than half the size",
    "grey": "no colour in it",
    "cmyk": "stored for print; read as RGB, colours may be off",
    "sixteen_bit": "read as 8 bits",
    "animated": "several pictures in the file; the first is read",
    "duplicate": "the same pixels as another image",
    "unlisted": "no row in the table; not read",
    "missing": "in the table, and no such image",
}
"""What is looked for, and what it means. The last two only for CelebA."""


def check(data: str, size: int = 64, crop: int = 0, workers: int = 0) -> dict[str, Any]:
    """Everything wrong with the images of a folder or of celeba:DIR, each read once, in `workers` threads.

    size, crop: pixels, as of `open_images`: what is too small for them is found. workers: 0 one per CPU.

    Returns:
        plain JSON: images (how many were read), size, crop, counts by problem, and problems: lists by problem of
        {"name": the file relative to the folder, "what": a few words}, a duplicate's also with "of", the first image
        by name that has its pixels. A problem of PROBLEMS is there with an empty list if no image has it.

    Raises:
        InputError: no such folder, nothing in it, or a table that cannot be read.
    """
    problems: dict[str, list[dict[str, str]]] = {name: [] for name in PROBLEMS}
    if data.startswith(celeba.PREFIX):
        path = Path(data.removeprefix(celeba.PREFIX))
        faces = celeba.match(path)
        files = folder.find(path / celeba.IMAGES)
        problems["unlisted"] = [{"name": name, "what": f"not in {celeba.TABLE}"} for name in faces.unlisted]
        problems["missing"] = [{"name": name, "what": f"in {celeba.TABLE}, no such image"} for name in faces.missing]
    else:
        files = folder.find(Path(data))
    first_with: dict[str, str] = {}
    folder.quiet()
    workers = worker_count(workers)
    with progress("checking images", len(files)) as advance, ThreadPoolExecutor(workers) as pool:
        results = in_order(pool, partial(_examine, size, crop), files, ahead=16 * workers)
        for file, (found, digest) in zip(files, results, strict=True):
            for problem, what in found.items():
                problems[problem].append({"name": file.name, "what": what})
            if digest and (first := first_with.setdefault(digest, file.name)) != file.name:
                problems["duplicate"].append({"name": file.name, "what": f"the same as {first}", "of": first})
            advance(1)
    counts = {name: len(entries) for name, entries in problems.items()}
    return {"images": len(files), "size": size, "crop": crop, "counts": counts, "problems": problems}


def main(argv: Sequence[str]) -> int:
    """The command `data check`: JSON on stdout, a list on stderr; 0 if all is well, 1 if something was found."""
    parser = Parser(prog="python -m trainer data", description="Look after folders of images.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="check")
    command = commands.add_parser(
        "check", help="list every broken, small, grey, CMYK, 16-bit, animated or duplicate image"
    )
    command.add_argument("data", metavar="DIR", help="a folder of images, or celeba:DIR")
    command.add_argument("--size", type=int, default=64, help="pixels on a side to train at (default: 64)")
    command.add_argument(
        "--crop", type=int, default=0, help="side of the centred square cut out first (default: largest)"
    )
    command.add_argument("--workers", type=int, default=0, help="threads that read (default: one per CPU)")
    options = parser.parse_args(list(argv))
    for name, least in (("size", 1), ("crop", 0)):
        if not least <= getattr(options, name) <= LARGEST:
            raise InputError(f"--{name}: got {getattr(options, name)}, expected {least} to {LARGEST} pixels")
    report = check(options.data, options.size, options.crop, options.workers)
    _say(report)
    print(json.dumps(report, indent=1))
    return 1 if any(report["counts"].values()) else 0


def _examine(size: int, crop: int, file: folder.File) -> tuple[dict[str, str], str]:
    """The problems of one image, what is to say of each, and a digest of its pixels ("" where there are none)."""
    try:
        image = folder.load(file.path)
        found = _stored(image, file.path)
        pixels = folder.pixels(image)
    except folder.BadImage as error:
        return {"broken": str(error)}, ""
    height, width = pixels.shape[:2]
    if reason := folder.too_small(width, height, size, crop):
        found["too_small"] = reason.removeprefix("too small: ")
    red, green, blue = (pixels[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        found["grey"] = "no colour in it"
    return found, hashlib.sha256(b"%d %d " % (height, width) + pixels.tobytes()).hexdigest()


def _stored(image: Image.Image, path: Path) -> dict[str, str]:
    """What is unusual about how a loaded image is stored."""
    found: dict[str, str] = {}
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception as error:  # Pillow reads on to count them
        raise folder.BadImage(f"its first picture can be read, not those after it: {one_line(error)}") from None
    if frames > 1 and image.format != "MPO":  # a telephone's JPEG with another view: a plain photograph
        found["animated"] = f"{frames} pictures in one file"
    if image.mode == "CMYK":
        found["cmyk"] = "stored as CMYK"
    if _bits(image, path) > 8:
        found["sixteen_bit"] = "16 bits a channel"
    return found


def _bits(image: Image.Image, path: Path) -> int:
    """Bits of each channel as stored: Pillow gives 8 for colours of 16, so the file is asked."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]  # the depth in a PNG's header
    if image.format == "TIFF":
        return int(np.max(getattr(image, "tag_v2", {}).get(258, 8)))  # BitsPerSample, one or one for each channel
    return 16 if image.mode.startswith("I") else 8


def _say(report: dict[str, Any]) -> None:
    """The lists and a summary on stderr."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for problem, entries in report["problems"].items():
        for entry in entries:
            console.print(f"{problem.replace('_', ' ')}: {entry['name']}: {entry['what']}")
    found = ", ".join(f"{count} {problem.replace('_', ' ')}" for problem, count in report["counts"].items() if count)
    console.print(f"{report['images']} images read: {found or 'all well'}")
