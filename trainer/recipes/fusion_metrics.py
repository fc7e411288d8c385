"""What a fusion run is measured by, on held-out images: reconstructions, sweeps between pairs, each part's effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from trainer.metrics import reconstruction

if TYPE_CHECKING:
    from trainer.recipes.fusion import Fusion

SWEEP = np.linspace(1, 0, 6, dtype=np.float32)
"""λ of all parts along the paper's row: from A to B in steps of 0.2."""


def metrics(fusion: Fusion, averaged: dict[str, nn.Module], images: np.ndarray) -> Iterator[tuple[str, dict[str, Any]]]:
    """reconstruction: held-out images against themselves rebuilt. sweep: how Λ leads from B to A. parts: what each λ
    alone changes.

    images: uint8 [K, S, S, 3], held out.
    """
    z = fusion.encode(averaged, images)
    rebuilt = fusion.decode(averaged, z)
    yield "reconstruction", reconstruction.evaluate(images, rebuilt, fusion.distance)

    # Each held-out image with the next: as many pairs as asked for, or as there are images.
    count = min(fusion.options.pairs, len(images))
    za, zb = z[:count], z.roll(-1, 0)[:count]
    yield "sweep", sweep(fusion, averaged, za, zb, rebuilt)
    yield "parts", part_effects(fusion, averaged, za, zb)


def sweep(
    fusion: Fusion, averaged: dict[str, nn.Module], za: torch.Tensor, zb: torch.Tensor, rebuilt: np.ndarray
) -> dict[str, Any]:
    """How often the distance to A's reconstruction falls at every step of λ from 0 to 1, and how often an end is exact.

    za, zb: latents of pairs [M, Z, h, w]; rebuilt: uint8 [K, S, S, 3], the reconstructions, of which pair m is m and
    the next. A step that changes nothing is not a fall.
    """
    parts, count = len(fusion.parts), len(za)
    made = fusion.blends(averaged, za, zb, np.repeat(SWEEP[:, None], parts, 1))  # [M, 6, S, S, 3]
    pixel = np.abs(made.astype(np.float32) - made[:, :1].astype(np.float32)).mean((2, 3, 4)) / 127.5
    steps = made.shape[1]
    far = fusion.distance.of_pictures(
        made.reshape(-1, *made.shape[2:]), made[:, :1].repeat(steps, 1).reshape(-1, *made.shape[2:])
    )
    ends = np.roll(rebuilt, -1, 0)[:count]
    return {
        "monotone": float((np.diff(pixel, axis=1) > 0).all(1).mean()),
        f"monotone_{fusion.distance.name}": float((np.diff(far.reshape(count, steps), axis=1) > 0).all(1).mean()),
        "exact_ends": float(
            (made[:, 0] == rebuilt[:count]).all((1, 2, 3)).mean() / 2 + (made[:, -1] == ends).all((1, 2, 3)).mean() / 2
        ),
        "pairs": count,
        "protocol": {
            "lambda": SWEEP.tolist(), "monotone": "share of pairs whose distance to the reconstruction of A rises at "
            "every step from A to B: mean absolute difference of pixels; the same by the perceptual distance",
            "exact_ends": "share of ends that are the reconstruction of A or B in every byte",
        },
        "direction": "higher is better",
    }  # fmt: skip


def part_effects(fusion: Fusion, averaged: dict[str, nn.Module], za: torch.Tensor, zb: torch.Tensor) -> dict[str, Any]:
    """What the image changes when one λ alone goes from 1 to 0, from A and from B: by pixels and by the distance.

    za, zb: latents of pairs [M, Z, h, w].
    """
    parts = len(fusion.parts)
    one = np.eye(parts, dtype=np.float32)
    rows = np.concatenate([np.ones((1, parts), np.float32), 1 - one, np.zeros((1, parts), np.float32), one])
    made = fusion.blends(averaged, za, zb, rows)  # A, A with one part of B …, B, B with one part of A …
    shape = made.shape[2:]
    effects: dict[str, list[float]] = {"pixels": [], fusion.distance.name: []}
    maps = []
    for n in range(parts):
        start = np.concatenate([made[:, 0], made[:, parts + 1]])
        end = np.concatenate([made[:, n + 1], made[:, parts + 2 + n]])
        difference = np.abs(end.astype(np.float32) - start.astype(np.float32)).mean(3) / 127.5
        maps.append(difference.reshape(len(difference), -1))
        effects["pixels"].append(float(difference.mean()))
        effects[fusion.distance.name].append(float(fusion.distance.of_pictures(start.reshape(-1, *shape), end).mean()))
    weakest = {name: min(values) / max(float(np.mean(values)), 1e-12) for name, values in effects.items()}
    unit = [m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-6) for m in maps]
    overlaps = [float((unit[n] * unit[m]).sum(1).mean()) for n in range(parts) for m in range(n)]
    return {
        "weakest": min(weakest.values()),
        **{f"weakest_{name}": value for name, value in weakest.items()},
        "overlap": float(np.mean(overlaps)) if overlaps else 0.0,
        "effects": effects,
        "pairs": len(za),
        "protocol": "one λ alone moved from 1 to 0 from A, and from 0 to 1 from B; effect: mean change; weakest: the "
        "smallest part's effect over the parts' mean; overlap: mean cosine of two parts' maps of change",
        "direction": {"weakest": "higher is better, at most 1", "overlap": "lower is better"},
    }
