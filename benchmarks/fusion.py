"""Fusion on the CPU: what blending costs beside the generator, and an animation beside the same loop in PyTorch.

The networks are those of trainer/networks/autoencoder.py with random weights, which their speed does not depend on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import runtime
from benchmarks.compare import Case, Way, fastest
from benchmarks.peers import torch_threads
from export.pipeline import export_run
from runtime.bundle import Bundle, Port
from runtime.machine import usable_cores
from runtime.models import Fuser
from trainer.networks.autoencoder import DIVISOR, Encoder, Generator, blend, part_sizes
from trainer.recipe import Graph

GRID_BAR = 1 / 1.1
"""A grid takes at most 1.1 times what its generator takes alone."""
ANIMATION_BAR = 2.0
"""How many times as fast as PyTorch eager an animation is in int8."""
CLOSE = 1.5 / 128
"""Largest difference of frames from PyTorch's, over the largest value (above 128): a step, where a value lies between
two."""


@dataclass(frozen=True)
class Size:
    """Networks of one size."""

    name: str
    side: int
    width: int
    latent: int
    parts: int = 5
    levels: int = 0
    """Of each λ in the grid; 0: no grid is timed."""
    frames: int = 60
    """Of the animation; 0: none is timed."""


SIZES = (Size("64x64", 64, 32, 512, levels=5, frames=0), Size("128x128 (paper)", 128, 64, 1024))


def cases() -> Iterator[Case]:
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            yield from _of_size(size, _Run(size), Path(folder) / "bundle")


def _of_size(size: Size, run: _Run, folder: Path) -> Iterator[Case]:
    bundle = Bundle.open(export_run(run, folder, precisions=("fp32", "int8")).path)
    latents = run.latents(0, 2)
    for precision in ("fp32", "int8") if size.levels else ():
        fuse = runtime.load(bundle, precision=precision)
        yield _grid(f"{size.name}: grid, {_runs(fuse)}", fuse, latents, size.levels)
    if not size.frames:
        return
    torch_way = _fastest_torch(run, latents, size.frames)
    for device, precision in (("openvino", "fp32"), ("cpu", "fp32"), ("openvino", "int8")):
        fuse = runtime.load(bundle, device, precision)
        exact = precision == "fp32"
        yield Case(
            f"{size.name}: animation of {size.frames} frames, {_runs(fuse)}",
            partial(_animation, fuse, latents, size.frames),
            torch_way.name,
            torch_way.call,
            size.frames,
            None if exact else ANIMATION_BAR,
            CLOSE if exact else None,
            peer_setting=torch_way.setting,
        )


def _runs(fuse: Fuser) -> str:
    return f"{fuse.session.precision} by {fuse.session.backend}"


def _grid(name: str, fuse: Fuser, latents: np.ndarray, levels: int) -> Case:
    """All combinations of λ as uint8 pictures, against the generator alone on as many latents, its floats left."""
    count = levels ** len(fuse.parts)
    z = {"z": np.ascontiguousarray(np.repeat(latents[:1], 32, axis=0))}
    rest = {"z": z["z"][: count % 32]}

    def alone() -> None:
        for _ in range(count // 32):
            _exhaust(fuse.generator.pieces(z))
        if count % 32:
            _exhaust(fuse.generator.pieces(rest))

    return Case(name, partial(fuse.grid, *latents, levels), "the generator alone", alone, count, GRID_BAR)


def _exhaust(pieces: Iterator[Any]) -> None:
    for _ in pieces:
        pass


def _animation(fuse: Fuser, latents: np.ndarray, frames: int) -> np.ndarray:
    return np.stack(list(fuse.animate(*latents, frames, ease="linear")))


def _fastest_torch(run: _Run, latents: np.ndarray, frames: int) -> Way:
    """The same loop in PyTorch eager, a frame or some frames a run, whichever is faster."""
    threads = torch_threads(usable_cores())
    ways = [
        Way(f"torch eager, {batch} a run", partial(_torch_animation, run, latents, frames, batch), threads)
        for batch in (1, 8)
    ]
    return fastest(ways, rounds=3)


def _torch_animation(run: _Run, latents: np.ndarray, frames: int, batch: int) -> np.ndarray:
    za, zb = (torch.from_numpy(z[None]) for z in latents)
    shares = torch.linspace(1, 0, frames)[:, None].expand(-1, len(run.parts))
    with torch.inference_mode():
        made = []
        for some in shares.split(batch):
            z = blend(za.expand(len(some), -1, -1, -1), zb.expand(len(some), -1, -1, -1), some, run.parts)
            images = run.generator(z).add_(1).mul_(127.5).round_().clamp_(0, 255)
            made += list(images.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
    return np.stack(made)


class _Run:
    """A run for export: an encoder and a generator whose batch norms have their statistics."""

    recipe_name, model, robot = "fusion", "fuser", None
    summary: dict[str, Any] = {}

    def __init__(self, size: Size) -> None:
        torch.manual_seed(0)
        self.size, self.parts = size, part_sizes(size.latent, size.parts)
        self.encoder, self.generator = Encoder(size.width, size.latent), Generator(size.width, size.latent)
        with torch.no_grad():
            for _ in range(5):
                self.generator.train()(self.encoder.train()(self._images(0, 8)))
        for network in (self.encoder, self.generator):
            network.eval().requires_grad_(False)

    def graphs(self) -> list[Graph]:
        side = self.size.side // DIVISOR
        image = Port(name="image", kind="image", shape=(3, self.size.side, self.size.side), range=(-1.0, 1.0))
        z = Port(name="z", kind="latent", shape=(self.size.latent, side, side), parts=self.parts)
        return [
            Graph("encoder", _Outputs(self.encoder), (image,), (z,), self._examples),
            Graph("generator", _Outputs(self.generator), (z,), (image,), self._examples),
        ]

    def latents(self, seed: int, count: int) -> np.ndarray:
        """Of random pictures, float32 [count, Z, h, w]."""
        with torch.no_grad():
            return self.encoder(self._images(seed, count)).numpy()

    def _examples(self, seed: int, count: int) -> dict[str, np.ndarray]:
        return {"image": self._images(seed, count).numpy(), "z": self.latents(seed, count)}

    def _images(self, seed: int, count: int) -> Tensor:
        """Soft blotches, [count, 3, S, S] in [-1, 1]."""
        noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        return torch.tanh(nn.functional.interpolate(noise, size=self.size.side, mode="bilinear"))


class _Outputs(nn.Module):
    """The module as a graph is: it returns its outputs, in order."""

    def __init__(self, module: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.module(x),)
