"""The figures of a fusion run's report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import cpp_ext
from runtime.errors import InputError
from runtime.sheet import sheet
from trainer import plots
from trainer.recipe import Figure
from trainer.recipes.fusion_metrics import SWEEP

if TYPE_CHECKING:
    from trainer.recipes.fusion import Fusion

GAP = 4
"""Pixels of white between what belongs to different things."""


def figures(
    fusion: Fusion, averaged: dict[str, nn.Module], history: dict[str, list[dict[str, Any]]]
) -> Iterator[Figure]:
    """The paper's rows, one part at a time, the parts' effects, reconstructions, feature maps, curves."""
    size = fusion.options.size
    scale = max(1, round(96 / size))
    yield Figure(
        "sweep", "From A to B", "A and B as they are, then blends with every λ at 1, 0.8, 0.6, 0.4, 0.2, 0 (the "
        "paper's figure 4). Held-out images, not chosen.", enlarge(sweeps(fusion, averaged, 8), scale),
    )  # fmt: skip
    yield Figure(
        "parts", "One part at a time", "Each row moves one λ alone from 1 to 0 in steps of 0.2, all others staying at "
        "1; the last picture of a row is where the row changes the image. A is in the corner above, B beside it.",
        enlarge(one_part_at_a_time(fusion, averaged), scale),
    )  # fmt: skip
    if found := history.get("metric-parts"):
        effects = found[-1]["effects"]
        bars = {name: {f"part {n + 1}": value for n, value in enumerate(values)} for name, values in effects.items()}
        yield Figure(
            "effects", "What each part changes", f"Mean change when one λ alone moves from one end to the other, over "
            f"{found[-1]['pairs']} held-out pairs; the dotted line is a fifth of the parts' mean.",
            plots.bars(bars, 0.2),
        )  # fmt: skip
    yield Figure(
        "reconstructions", "Reconstructions", "Held-out images above what encoder and generator make of them.",
        enlarge(reconstructions(fusion, averaged), scale),
    )  # fmt: skip
    if fusion.options.align:
        yield Figure(
            "alignment", "Aligned before fusing", "The held-out pairs that the aligner moves most: A, B; the blend "
            "with every λ at one half without alignment, and with it. The same pairs, the same networks.",
            enlarge(alignment(fusion, averaged), scale),
        )  # fmt: skip
    maps = feature_maps(fusion)
    if maps is not None:
        layers = ", ".join(fusion.layers)
        yield Figure(
            "features", "What the perceptual network sees", f"The image, then for each layer ({layers}) its first "
            f"sixteen feature maps (the paper's appendix); {fusion.options.perceptual}.", maps,
        )  # fmt: skip
    if stats := history.get("stats"):
        names = sorted({name for line in stats for name in line} - {"images", "kimg"})
        yield Figure(
            "losses", "Losses", "Means between two ticks, unweighted. reconstruction: equation 7; effect_n: what "
            "part n changes, as a fraction of the change from B to A; silent, overlap: the terms on the parts.",
            plots.small_curves(
                [s["kimg"] for s in stats], {n: [s.get(n, math.nan) for s in stats] for n in names}, "kimg"
            ),
        )  # fmt: skip


def sweeps(fusion: Fusion, averaged: dict[str, nn.Module], pairs: int) -> np.ndarray:
    """Rows of A, B and the blends from A to B for held-out pairs, uint8 [H, W, 3]."""
    a, b = example_pairs(fusion, pairs)
    weights = np.repeat(SWEEP[:, None], len(fusion.parts), 1)
    made = fusion.blends(averaged, fusion.encode(averaged, a), fusion.encode(averaged, b), weights)
    rows = [beside([a[k], b[k]], list(made[k])) for k in range(len(a))]
    return np.concatenate(rows)


def one_part_at_a_time(fusion: Fusion, averaged: dict[str, nn.Module]) -> np.ndarray:
    """For one held-out pair: A and B, then a row for each part, uint8 [H, W, 3]."""
    a, b = example_pairs(fusion, 1)
    parts = len(fusion.parts)
    rows = np.ones((parts, len(SWEEP), parts), np.float32)
    rows[np.arange(parts), :, np.arange(parts)] = SWEEP
    made = fusion.blends(averaged, fusion.encode(averaged, a), fusion.encode(averaged, b), rows.reshape(-1, parts))
    made = made.reshape(parts, len(SWEEP), *a.shape[1:])
    change = np.abs(made[:, -1].astype(np.float32) - made[:, 0].astype(np.float32)).mean(-1, keepdims=True)
    shown = (255 * change / max(float(change.max()), 1.0)).astype(np.uint8).repeat(3, -1)
    blank = np.full_like(a[0], 255)
    top = beside([a[0], b[0], *[blank] * (len(SWEEP) - 2)], [blank])
    return np.concatenate([top, *(beside(list(made[n]), [shown[n]]) for n in range(parts))])


def reconstructions(fusion: Fusion, averaged: dict[str, nn.Module]) -> np.ndarray:
    """Held-out images above their reconstructions, ten a row, uint8 [H, W, 3]."""
    images = fusion.examples[:20]
    rebuilt = fusion.decode(averaged, fusion.encode(averaged, images))
    rows = [sheet(x[k : k + 10], 10) for k in range(0, len(images), 10) for x in (images, rebuilt)]
    return np.concatenate(rows)


def alignment(fusion: Fusion, averaged: dict[str, nn.Module], pairs: int = 6) -> np.ndarray:
    """A, B, half of each without and with alignment, for the held-out pairs that the aligner moves most."""
    images = fusion.examples
    a, b = images, np.roll(images, -1, 0)
    half = np.full((1, len(fusion.parts)), 0.5, np.float32)
    plain = fusion.blends(averaged, fusion.encode(averaged, a), fusion.encode(averaged, b), half)[:, 0]
    aligner: Any = averaged["aligner"]
    device = next(aligner.parameters()).device
    with torch.no_grad():
        feeds = [torch.from_numpy(cpp_ext.unpack(np.ascontiguousarray(x))).to(device) for x in (a, b)]
        warped = [x.cpu().numpy() for x in aligner(*feeds, torch.full((len(a), 1), 0.5, device=device))]
        moved = aligner.field(*feeds).square().mean((1, 2, 3)).cpu().numpy()
    za, zb = (fusion.encode(averaged, cpp_ext.pack(np.ascontiguousarray(x))) for x in warped)
    aligned = fusion.blends(averaged, za, zb, half)[:, 0]
    most = np.argsort(-moved)[:pairs]
    return np.concatenate([beside([a[k], b[k]], [plain[k], aligned[k]]) for k in most])


def feature_maps(fusion: Fusion, each: int = 16) -> np.ndarray | None:
    """One example and the first feature maps of each layer of the perceptual network, uint8 [H, W, 3].

    None where its weights are not at hand (a run that was moved to another machine).
    """
    try:
        backbone = fusion.backbone
    except InputError:
        return None
    image = fusion.examples[:1]
    device = next(backbone.parameters()).device
    with torch.no_grad():
        found = backbone(torch.from_numpy(cpp_ext.unpack(image)).to(device), fusion.layers)
    side = 256
    panels = [zoom(image[0], side)]
    for features in found.values():
        maps = features[0, :each].float().cpu().numpy()
        low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
        grey = (255 * (maps - low) / np.maximum(high - low, 1e-6)).astype(np.uint8)[..., None]
        panels.append(zoom(sheet(grey, 4), side))
    return beside(panels, [])


def example_pairs(fusion: Fusion, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of held-out images that travel with the run, each with the next, uint8 [N, S, S, 3] twice."""
    images = fusion.examples
    count = min(count, len(images) // 2)
    return images[: 2 * count : 2], images[1 : 2 * count : 2]


def beside(left: list[np.ndarray], right: list[np.ndarray]) -> np.ndarray:
    """Pictures of one height in a row with white between the two groups and below, uint8 [H, W, 3]."""
    groups = [np.concatenate(group, 1) for group in (left, right) if group]
    white = np.full((groups[0].shape[0], GAP, 3), 255, np.uint8)
    row = np.concatenate([groups[0], *(x for group in groups[1:] for x in (white, group))], 1)
    return np.pad(row, ((0, GAP), (0, 0), (0, 0)), constant_values=255)


def zoom(picture: np.ndarray, side: int) -> np.ndarray:
    """A square picture at `side` pixels, its own pixels staying squares (or left out evenly, if it is larger)."""
    places = np.arange(side) * picture.shape[0] // side
    return picture[places][:, places]


def enlarge(picture: np.ndarray, scale: int) -> np.ndarray:
    """Each pixel `scale` pixels wide and high."""
    return picture.repeat(scale, 0).repeat(scale, 1)
