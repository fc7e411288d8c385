"""A folder of small pictures, and a fusion small enough for tests."""

from pathlib import Path

import cv2
import numpy as np

from trainer.recipes.fusion import Fusion
from trainer.recipes.fusion_options import FusionOptions

SIZE = 32


def tiny_pictures(folder: Path, count: int = 40) -> Path:
    """Pictures of 40×36 pixels: a disc and a bar of some colour and place on a ground of some colour."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        picture = np.full((36, 40, 3), rng.integers(60, 200, 3), np.uint8)
        centre = tuple(int(v) for v in rng.integers(12, 26, 2))
        cv2.circle(picture, centre, 8, tuple(int(v) for v in rng.integers(0, 255, 3)), -1)
        cv2.rectangle(picture, (4, 28), (36, 33), tuple(int(v) for v in rng.integers(0, 255, 3)), -1)
        cv2.imwrite(str(folder / f"{k:02d}.png"), picture)
    return folder


def tiny_options(data: Path | str, runs: Path, **changes) -> FusionOptions:
    """Options of a run of some seconds, with every term on."""
    plain = {
        "name": "tiny", "data": str(data), "runs": runs, "cache": runs / "cache", "size": SIZE, "held_out": 8,
        "batch": 8, "total_kimg": 0.16, "tick_kimg": 0.024, "metric_kimg": 0.08, "snapshot_kimg": 0.08,
        "checkpoint_kimg": 0.04, "ema_kimg": 0.05, "width": 4, "latent": 22, "critic_width": 4, "pretrain": 0.4,
        "structure": 1.0, "content_reconstruction": 1e-6, "silent": 1.0, "overlap": 1.0, "pairs": 8, "threads": 1,
        "device": "cpu",
    }  # fmt: skip
    return FusionOptions(**plain | changes)


def recipe_of(options: FusionOptions) -> Fusion:
    """The recipe with fresh networks, and its data."""
    data = Fusion.dataset(options)
    recipe = Fusion(options, data.description)
    recipe.data = data
    return recipe
