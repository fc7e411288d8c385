"""An animation: samples melt into one another, in a window or in a video.

    python -m runtime.examples.graphics_loop --out melt.mp4

The noise of two samples is blended under many weights at once, and the model turns the blends into frames.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import cpp_ext
import runtime
from runtime.commands.options import check_numbers, open_for
from runtime.errors import InputError, Parser, cli
from runtime.examples.screen import Screen
from runtime.sheet import CHANNELS

BATCH = 8
"""Frames a run of the model: fewer answer sooner, more are faster."""


@cli
def main(argv: Sequence[str]) -> int:
    """Run the animation; prints its speed as JSON."""
    parser = Parser(prog="python -m runtime.examples.graphics_loop", description=__doc__)
    parser.add_argument("bundle", nargs="?", default="mgan-robot", help="a bundle (default mgan-robot)")
    parser.add_argument("--frames", type=int, default=300, help="how many (default 300)")
    parser.add_argument("--melt", type=int, default=30, help="frames from one sample to the next (default 30)")
    parser.add_argument("--size", type=int, default=512, help="height of the frames in pixels (default 512)")
    parser.add_argument("--rate", type=float, default=30, help="frames a second shown (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, openvino, cuda[:N] or tensorrt[:N]")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="(default fp32)")
    parser.add_argument("--out", type=Path, metavar="FILE.mp4", help="write a video, as fast as it goes, not a window")
    options = parser.parse_args(argv)
    check_numbers(options)
    for name, most in (("melt", 10**4), ("size", 8192), ("rate", 1000)):
        if not 1 <= getattr(options, name) <= most:
            raise InputError(f"--{name} is {getattr(options, name)}, expected 1 to {most}")
    print(json.dumps(run(options), indent=1))
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The loop itself; returns its speed."""
    model = runtime.load(open_for("multimodal", options.bundle), options.device, options.precision)
    print(model.choice, file=sys.stderr)
    image, shown = first_image(model), 0
    with Screen(options.rate, options.out, None if options.out else "melt") as screen:
        started = time.perf_counter()
        for frame in frames(model, image, options.frames, options.melt, options.seed):
            if not options.out:  # a window keeps time
                time.sleep(max(0.0, started + shown / options.rate - time.perf_counter()))
            height, width = frame.shape[:2]
            size = (max(1, options.size * width // height), options.size)
            shown += 1
            if not screen.show(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)):
                break
        seconds = time.perf_counter() - started
    return {
        "frames": shown,
        "seconds": round(seconds, 3),
        "frames_per_second": round(shown / seconds, 1),
        "video": str(options.out) if options.out else None,
    }


def first_image(model: Any) -> str:
    """Name of the first image modality that can be shown."""
    for port in model.modalities:
        if port.kind == "image" and port.shape[0] in CHANNELS:
            return port.name
    have = ", ".join(f"{port.name} {list(port.shape)}" for port in model.modalities)
    raise InputError(f"{model.bundle.path}: expected an image of 1 or 3 channels to show, the bundle has {have}")


def frames(model: Any, image: str, count: int, melt: int, seed: int) -> Iterator[np.ndarray]:
    """Frames uint8 [H, W, 3] of an image modality: sample k of a seed at frame k · melt, blends in between."""
    dim = model.noise.shape[0]
    for number, start in enumerate(range(0, count, melt)):
        a, b = cpp_ext.noise(seed, number, 2, dim)
        z = blends(a, b, min(melt, count - start), melt)  # [frames, dim]
        for first in range(0, len(z), BATCH):
            made = getattr(model.from_noise(z[first : first + BATCH]), image)
            yield from made if made.shape[-1] == 3 else np.repeat(made, 3, axis=-1)


def blends(a: np.ndarray, b: np.ndarray, count: int, melt: int) -> np.ndarray:
    """Noise float32 [count, dim] on the way from a to b [dim], which takes `melt` frames."""
    part = np.arange(count, dtype=np.float32)[:, None] / melt
    weights = 1 - part * part * (3 - 2 * part)  # [count, 1] of a: slow at both ends
    z = cpp_ext.blend(a[None, :, None, None], b[None, :, None, None], weights, [len(a)])[..., 0, 0]
    return z / np.hypot(weights, 1 - weights)  # of variance 1, as the network knows noise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
