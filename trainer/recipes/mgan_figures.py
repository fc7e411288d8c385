"""The figures of an MGAN run's report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from runtime.sheet import sheet
from trainer import plots
from trainer.recipe import Figure
from trainer.recipes.mgan_options import METRIC_SEED

if TYPE_CHECKING:
    from trainer.recipes.mgan import Mgan


def figures(mgan: Mgan, averaged: dict[str, nn.Module], history: dict[str, list[dict[str, Any]]]) -> Iterator[Figure]:
    """Pairs over reproductions, SSIM curves, losses, a walk through the latent space, joint histograms."""
    if mgan.images:
        yield pairs(mgan, averaged)
    if gaps := history.get("metric-ssim_gap"):
        yield ssim_curves(gaps)
    if stats := history.get("stats"):
        names = [name for name in stats[-1] if name not in ("images", "kimg")]
        yield Figure(
            "losses", "Losses", "Means between two ticks. D: discriminator; G: the generator's adversarial part; "
            "matching: feature matching (paper, eq. 3); artist, reader: what the consistency networks reach on real "
            "pairs; draw, read: the generator's pairs seen through them.",
            plots.small_curves([s["kimg"] for s in stats], {n: [s[n] for s in stats] for n in names}, "kimg"),
        )  # fmt: skip
    if mgan.images:
        yield walk(mgan, averaged)
    for vector in mgan.vectors:
        yield joint_histograms(mgan, averaged, vector.name)


def pairs(mgan: Mgan, averaged: dict[str, nn.Module]) -> Figure:
    """Generated images above what the simulated robot's camera sees when its joints are set as generated with them."""
    samples = mgan.generate(averaged, 16)
    pictures = [samples[m.name] for m in mgan.images]
    caption = "Fresh noise, not chosen."
    if (replays := mgan.replay(samples)) is not None:
        pictures.append(replays)
        caption = (
            "Upper of each two rows: generated images. Lower: the joints generated with them, set on the simulated "
            "robot and rendered. " + caption
        )
    rows = [picture[start : start + 8] for start in (0, 8) for picture in pictures]
    return Figure("pairs", "Generated images above their reproductions", caption, stack(rows, 2))


def ssim_curves(gaps: list[dict[str, Any]]) -> Figure:
    """matched, random and gap over the training, as in the paper's figure 4."""
    last = gaps[-1]
    caption = (
        f"{last['matched_count']} matched pairs and {last['random_count']} random pairings an evaluation, "
        f"{last['ssim']}. gap = matched − random; higher is better. A perfect model on this robot reaches "
        f"{last['reachable']:.3f}."
    )
    lines = {name: [g[name] for g in gaps] for name in ("matched", "random", "gap")}
    level = ("reachable gap", last["reachable"])
    return Figure(
        "ssim", "SSIM over training", caption, plots.curves([g["kimg"] for g in gaps], lines, "kimg", "SSIM", level)
    )


def walk(mgan: Mgan, averaged: dict[str, nn.Module]) -> Figure:
    """A way through the latent space on the sphere: image and pose move together."""
    anchors, between = mgan.noise(100, 4, seed=METRIC_SEED), 8
    rows = []
    for start, end in zip(anchors[:-1], anchors[1:], strict=True):
        angle = torch.acos(torch.clamp(torch.dot(start, end) / (start.norm() * end.norm()), -1, 1))
        t = torch.linspace(0, 1, between)[:, None]
        z = (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle)
        samples = mgan.decode(averaged, z)
        rows += [samples[m.name] for m in mgan.images]
        if (replays := mgan.replay(samples)) is not None:
            rows.append(replays)
    caption = "From one noise vector to the next in eight steps along the sphere"
    caption += ": generated image above, the robot in the generated pose below." if mgan.simulator is not None else "."
    return Figure("walk", "A walk through the latent space", caption, stack(rows, 2))


def joint_histograms(mgan: Mgan, averaged: dict[str, nn.Module], name: str) -> Figure:
    """Each component's distribution, generated against the data's."""
    modality = next(m for m in mgan.vectors if m.name == name)
    made = mgan.generate(averaged, 2000)[name]
    real = np.asarray(mgan.description["quantiles"][name])
    panels = {component: {"data": real[:, k], "generated": made[:, k]} for k, component in enumerate(modality.names)}
    bounds = dict(zip(modality.names, modality.limits or (), strict=True))
    ratio = made.std(0) / np.maximum(np.asarray(mgan.description["spread"][name]), 1e-12)
    caption = (f"2,000 generated samples. Standard deviation relative to the data's: lowest {ratio.min():.2f}, "
               f"mean {ratio.mean():.2f}.")  # fmt: skip
    return Figure(f"histograms-{name}", f"Spread of {name}, generated against data", caption,
                  plots.histograms(panels, bounds, modality.unit))  # fmt: skip


def stack(rows: list[np.ndarray], scale: int) -> np.ndarray:
    """Rows of images [K, H, W, C] uint8 as one picture, each pixel `scale` wide. Rows of other sizes are padded."""
    sheets = [sheet(row, len(row)) for row in rows]
    width = max(s.shape[1] for s in sheets)
    padded = [np.pad(s, ((0, 2), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets]
    return np.concatenate(padded).repeat(scale, 0).repeat(scale, 1)
