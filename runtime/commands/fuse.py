"""Fuses pictures part by part: a picture, a sheet of many, a video."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.commands.options import add_engine, load, progress
from runtime.errors import InputError

if TYPE_CHECKING:
    import numpy as np

STEPS = 6
"""λ of 1, 0.8, … 0."""


def configure(command: argparse.ArgumentParser) -> None:
    """Add the options of `fuse`."""
    command.add_argument(
        "pictures", nargs="+", type=Path, metavar="PICTURE", help="A and B, of any size and format; or more of them"
    )
    shown = command.add_mutually_exclusive_group()
    shown.add_argument(
        "--weights",
        metavar="W,…",
        help="one picture: the share of A in each part, or in all, as in 1,0.8,0.5,0.2,0; of more than two pictures "
        "the share of each, as in 0.5,0.3,0.2",
    )
    shown.add_argument(
        "--sweep",
        type=int,
        nargs="?",
        const=STEPS,
        metavar="STEPS",
        help=f"a row: A, B, then all parts from A to B together (the default, of {STEPS} steps)",
    )
    shown.add_argument(
        "--per-part",
        type=int,
        nargs="?",
        const=STEPS,
        metavar="STEPS",
        help=f"a row for each part, which goes from A to B alone (default {STEPS} steps)",
    )
    command.add_argument(
        "--extrapolate", action="store_true", help="weights may lie outside 0 to 1, as in --weights=-0.2,1,1,1,1.5"
    )
    command.add_argument(
        "--align", action="store_true", help="bring the shapes of A and B together first (of a bundle that can)"
    )
    command.add_argument("--out", type=Path, metavar="FILE.png", help="the picture, or the sheet of them")
    command.add_argument("--video", type=Path, metavar="FILE.mp4", help="an animation from A to B, .mp4 or .avi")
    command.add_argument("--frames", type=int, default=60, help="of the video (default 60)")
    command.add_argument("--fps", type=float, default=30, help="frames a second of the video (default 30)")
    command.add_argument("--overwrite", action="store_true", help="replace files that are there")
    add_engine(command)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Fuse two pictures part by part, or blend more of them: a picture, a sheet, a video."""
    _check(options)
    weights = _numbers(options.weights) if options.weights is not None else None
    model = load(options, "fuser")
    started = time.monotonic()
    pictures = [str(path) for path in options.pictures]
    latents = pictures if options.align else model.encode(pictures)
    result = {
        "bundle": str(model.bundle.path),
        "backend": model.session.backend,
        "device": model.session.device,
        "precision": model.session.precision,
        "pictures": pictures,
        "size": f"{model.size}x{model.size}",
        "parts": list(model.parts),
    }
    if options.out:
        image, told = _image(model, options, latents, weights)
        result |= told | {"out": str(options.out)}
    if options.video:
        _video(model, options, latents)
        result["video"] = {"file": str(options.video), "frames": options.frames, "fps": options.fps}
    if options.out:
        from runtime.sheet import write_png

        write_png(options.out, image)
    return result | {"seconds": round(time.monotonic() - started, 3)}


def _check(options: argparse.Namespace) -> None:
    """Refuse options that make no sense together, and places that cannot be written to."""
    modes = [name for name in ("weights", "sweep", "per_part") if getattr(options, name) is not None]
    if not (options.out or options.video):
        raise InputError("nothing to write to; give --out FILE.png or --video FILE.mp4")
    if modes and not options.out:
        raise InputError(f"--{modes[0].replace('_', '-')} says what --out shows; give --out FILE.png too")
    if len(options.pictures) < 2:
        raise InputError(f"one picture ({options.pictures[0]}), expected two or more to fuse")
    if len(options.pictures) > 2 and (modes != ["weights"] or options.video or options.extrapolate):
        raise InputError(
            f"{len(options.pictures)} pictures, expected two; more are blended by --weights with a share of each, "
            f"into --out alone"
        )
    if options.align and (options.per_part is not None or len(options.pictures) > 2):
        raise InputError("--align is about two pictures under --weights, --sweep or --video")
    if options.extrapolate and modes != ["weights"]:
        raise InputError("--extrapolate is about --weights; give --weights too")
    if options.out and options.out.suffix != ".png":
        raise InputError(f"--out {options.out}, expected a name that ends in .png")
    if not (math.isfinite(options.fps) and 0 < options.fps <= 1000):
        raise InputError(f"--fps is {options.fps:g}, expected more than 0, up to 1000")
    if options.video:
        from runtime.video import Video

        Video(options.video, options.fps, "--video")  # which refuses what it cannot write
    given = {os.path.realpath(path) for path in options.pictures}
    for name in ("out", "video"):
        path: Path | None = getattr(options, name)
        if path is None:
            continue
        if os.path.realpath(path) in given:
            raise InputError(f"--{name} {path} is one of the pictures; give another name")
        if path.is_dir() or not path.parent.is_dir():
            raise InputError(f"--{name} {path} cannot be written: expected a file in a folder that is there")
        if path.is_file() and not options.overwrite:
            raise InputError(f"--{name} {path} is there already; give a new name, or --overwrite to replace it")


def _numbers(text: str) -> list[float] | float:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"--weights is {text!r:.100}, expected numbers as in 1,0.8,0.5,0.2,0") from None
    return numbers if len(numbers) > 1 else numbers[0]


def _image(
    model: Any, options: argparse.Namespace, latents: Sequence[Any] | np.ndarray, weights: list[float] | float | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """What --out shows, and what the result says of it."""
    import numpy as np

    from runtime.images import fitted
    from runtime.models import weights as lambdas
    from runtime.sheet import sheet

    if weights is not None:
        if len(latents) > 2:
            return model.blend(latents, weights), {"weights": weights}
        image = model(*latents, weights, extrapolate=options.extrapolate, align=options.align)
        return image, {"weights": weights}
    if options.per_part is None:
        rows = lambdas.sweep(options.sweep or STEPS, len(model.parts))
        images = model.sweep(*latents, len(rows), align=options.align)[None]
    else:
        rows = lambdas.per_part(options.per_part, len(model.parts)).reshape(-1, len(model.parts))
        images = model.per_part(*latents, options.per_part)
    pair = fitted(options.pictures, model.size)  # as the model sees them, at the head of each line
    cells = np.concatenate([np.broadcast_to(pair, (len(images), *pair.shape)), images], axis=1)
    told = {"weights": lambdas.described(rows), "sheet": {"rows": len(cells), "columns": cells.shape[1]}}
    return sheet(cells.reshape(-1, *cells.shape[2:]), cells.shape[1]), told


def _video(model: Any, options: argparse.Namespace, latents: Sequence[Any] | np.ndarray) -> None:
    """The animation from A to B."""
    from runtime.video import Video

    with Video(options.video, options.fps, "--video") as video, progress("frames/s") as bar:
        frames = model.animate(*latents, options.frames, align=options.align)
        for frame in bar.track(frames, options.frames, description="animating"):
            video.write(frame)
