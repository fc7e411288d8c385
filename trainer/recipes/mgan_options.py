"""MGAN's options and presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from trainer.recipe import Options

METRIC_SEED = 2**32
"""Seed of the noise for metrics, snapshots and figures: training seeds are below it."""


@dataclass(frozen=True, kw_only=True)
class MganOptions(Options):
    """Train a multimodal GAN on a robot's camera images and joint angles, simulated or recorded."""

    # Data
    data: Path | None = None
    """Recorded data: a folder (images/*.png, joints.csv) or an .npz. Default: simulate the robot."""
    robot: Path | None = None
    """Your robot's URDF. Default: our own two-armed robot. With --data: the robot that was recorded, for limits and for
    replaying generated joints; its camera must be the one that recorded."""
    camera: tuple[str, ...] = ()
    """Your robot's camera, e.g. position=.06,0,.36 target=.22,0,0 fov=66 size=80 link=head (m, degrees, pixels)."""
    joints: tuple[str, ...] = ()
    """The joints to learn, by name. Default: every joint of the URDF that moves and has limits."""
    frames: int = 8000
    """How many frames to simulate."""
    cache: Path = Path("data")
    """Where simulated frames are kept."""

    # Networks
    z_dim: int = 16
    """Size of the noise vector."""
    width: int = 16
    """Feature maps next to the image; doubled at every halving of its size."""
    d_width: int = 8
    """The same in the discriminator and the reader."""
    hidden: int = 128
    """Width of the fully connected layers."""

    # Losses of the paper
    feature_matching: float = 0.08
    """Weight w_m of feature matching for every modality not named in --modality-weights (the paper's a and b)."""
    modality_weights: dict[str, float] = field(default_factory=dict)
    """Weights w_m by modality, e.g. --modality-weights image 0.1 joints 0.05. A larger one favours its modality."""

    # Beyond the paper; 0 (or 1 for real_target) turns each off
    real_target: float = 0.9
    """The discriminator's target for real tuples: below 1 is one-sided label smoothing."""
    mismatch: float = 1.0
    """A real image with another sample's vectors counts as fake, this much: it teaches D that the modalities belong
    together."""
    read: float = 0.0
    """Cross-modal consistency, image → vectors: a reader learns it on real pairs (mean squared error) and the
    generator's own pairs are scored through it."""
    draw: float = 20.0
    """Cross-modal consistency, vectors → image: an artist learns it on real pairs (mean absolute error) and the
    generator's image should look as drawn from its vectors."""
    moments: float = 10.0
    """The mean and standard deviation of every vector component over a batch should be the data's: keeps the poses
    from narrowing to those that are easy to draw."""
    margin: float = 0.9
    """Vectors are scaled so that their limits lie at ± this in tanh's (−1, 1): angles at a limit stay reachable."""

    # Optimization
    lr: float = 2e-3
    """Adam's learning rate for the generator."""
    lr_d: float = 5e-4
    """Adam's learning rate for the discriminator."""
    lr_consistency: float = 2e-3
    """Adam's learning rate for reader and artist."""
    beta1: float = 0.5
    """Adam's β₁ for generator and discriminator."""
    beta2: float = 0.99
    """Adam's β₂."""
    decay_from: float = 0.5
    """Learning rates fall linearly to zero from this fraction of the training on. 1: never."""

    # Evaluation
    matched: int = 100
    """Pairs in each evaluation (the paper's 100)."""
    random: int = 1000
    """Random pairings in each evaluation (the paper's 1000)."""

    def check(self) -> None:
        """Refuse what cannot work, before any work starts.

        Raises:
            InputError: an option is out of its range, or two exclude each other.
        """
        super().check()
        for name in (
            "feature_matching",
            "mismatch",
            "read",
            "draw",
            "moments",
            "lr",
            "lr_d",
            "lr_consistency",
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected a number ≥ 0")
        for name, weight in self.modality_weights.items():
            if not 0 <= weight < float("inf"):
                raise InputError(f"--modality-weights gives {name} {weight}, expected a number ≥ 0")
        if self.data is not None and (self.camera or self.joints) and self.robot is None:
            raise InputError("--camera and --joints belong to a robot: with --data give its URDF too (--robot)")
        for name, low, high in (
            ("real_target", 0.5, 1),
            ("margin", 0.1, 1),
            ("decay_from", 0, 1),
            ("beta1", 0, 0.999),
            ("beta2", 0, 0.9999),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}, expected a number from {low} to {high}"
                )
        for name, low in (
            ("z_dim", 1),
            ("width", 1),
            ("d_width", 1),
            ("hidden", 1),
            ("frames", 2),
            ("matched", 2),
            ("random", 1),
        ):
            if getattr(self, name) < low:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected at least {low}")


BASE = MganOptions(threads=1, ema_kimg=4.4)
PAPER: Any = {"real_target": 1.0, "mismatch": 0.0, "draw": 0.0, "moments": 0.0}
LONG: Any = {
    "total_kimg": 720, "metric_kimg": 40, "snapshot_kimg": 80, "checkpoint_kimg": 20, "ema_kimg": 11.0, "frames": 20000,
}  # fmt: skip
PRESETS = {
    "demo": dataclasses.replace(BASE, total_kimg=52, metric_kimg=8, snapshot_kimg=16, checkpoint_kimg=8),
    "cpu": dataclasses.replace(BASE, **LONG),
    "gpu": dataclasses.replace(
        BASE, **LONG | {"total_kimg": 8000, "frames": 50000}, width=32, d_width=32, threads=0, device="cuda"
    ),
    "paper": dataclasses.replace(BASE, **LONG | PAPER),
}
"""demo: 5 CPU-minutes; cpu: 60 CPU-minutes; gpu: one GPU, an error without one (--device cpu goes on all the same);
paper: as long as cpu, with the paper's losses alone."""
