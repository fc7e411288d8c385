"""Fusion's options and presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtime.errors import InputError
from trainer.networks.autoencoder import DIVISOR, CriticNorm, part_sizes
from trainer.recipe import Options


@dataclass(frozen=True, kw_only=True)
class FusionOptions(Options):
    """Train an encoder and a generator that blend two images part by part."""

    # Data
    data: str = "avatars"
    """What to train on: avatars (drawn here), a folder of images, or celeba:DIR (CelebA as it ships)."""
    size: int = 64
    """Side of the square images, in pixels: a multiple of 32."""
    crop: int = 0
    """Side of the centred square cut out of a file before it is resized, in its own pixels. 0: the largest."""
    avatars: int = 20512
    """How many avatars to draw."""
    count: int = 0
    """How many of a folder's images to use: the first, by name. 0: all."""
    held_out: int = 512
    """How many of them to keep from training, chosen by chance, to measure on."""
    cache: Path = Path("data")
    """Where packed images are kept."""

    # Networks
    width: int = 32
    """Feature maps after the first block; doubled by each of the next up to those of the latent."""
    latent: int = 512
    """Channels of the latent map."""
    parts: int = 5
    """N, the parts that the latent's channels are cut into, each with its own λ."""
    part_sizes: tuple[int, ...] = ()
    """Channels of each part. Default: equal ones, and in the last what is left."""
    critic_width: int = 16
    """Feature maps after the critic's first block; doubled by each of the next."""
    critic_norm: CriticNorm = "layer"
    """What the critic's blocks normalise by. batch is the paper's, and conflicts with the gradient term."""

    # The first stage
    pretrain: float = 0.25
    """Fraction of the training in which encoder and generator are an autoencoder alone."""

    # The networks that images are compared by
    perceptual: Literal["vgg19", "vgg16", "efficientnet-lite0"] = "efficientnet-lite0"
    """Where the features of the content and style losses come from."""
    weights: Path | None = None
    """File of the perceptual network's weights. Default: looked for in the folders of AWASE_WEIGHTS; those of
    EfficientNet-Lite0 come with its Python package."""
    content_layers: tuple[str, ...] = ()
    """Layers of the content loss. Default: conv4_1 conv5_1, or blocks of the same depth."""
    style_layers: tuple[str, ...] = ()
    """Layers of the style loss. Default: conv1_1 conv2_1 conv3_1, or blocks of the same depth."""

    # Losses of the paper (equation 11)
    adversarial: float = 1.0
    """w1, of the adversarial loss."""
    content: float = 1e-6
    """w2, of the content perceptual loss."""
    style: float = 5e-5
    """w3, of the style perceptual loss."""
    reconstruction: float = 30.0
    """w4, of the reconstruction loss."""
    total_variation: float = 1.0
    """w5, of the total variation loss."""
    wasserstein_k: float = 2.0
    """Factor k of WGAN-div's gradient term."""
    wasserstein_p: float = 6.0
    """Power p of WGAN-div's gradient term."""
    binary: float = 0.5
    """Share of the Λ drawn from {0, 1}ᴺ; the others are drawn from [0, 1]ᴺ."""

    # Beyond the paper; 0 or False turns each off
    structure: float = 0.0
    """Weight of 1 − SSIM between an image and its reconstruction, in both stages."""
    content_reconstruction: float = 0.0
    """Weight of the content loss between an image and its reconstruction, in both stages."""
    silent: float = 0.0
    """Weight of the term that lets no part change nothing."""
    overlap: float = 0.0
    """Weight of the term that has each part change another place."""
    align: bool = False
    """Train an aligner too, which brings the shapes of two images together before they are fused."""
    align_width: int = 16
    """Feature maps after the aligner's first block; doubled by each of the next, to at most 4 times."""

    # Optimization
    lr: float = 1e-3
    """Adam's learning rate for encoder and generator."""
    lr_critic: float = 1e-3
    """Adam's learning rate for the critic."""
    lr_aligner: float = 1e-3
    """Adam's learning rate for the aligner (its β₁ is 0.9)."""
    beta1: float = 0.5
    """Adam's β₁."""
    beta2: float = 0.99
    """Adam's β₂."""
    decay_from: float = 1.0
    """Learning rates fall linearly to zero from this fraction of the training on. 1: never."""

    # Evaluation
    lpips: Literal["alex", "vgg"] = "alex"
    """The network of LPIPS. Where AWASE_WEIGHTS does not hold its weights, a distance of EfficientNet's features takes
    its place, under its own name."""
    pairs: int = 200
    """Held-out pairs that blends and the parts' effects are measured on."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each part."""
        return self.part_sizes or part_sizes(self.latent, self.parts)

    def check(self) -> None:
        """Refuse what cannot work, before any work starts.

        Raises:
            InputError: an option is out of its range, or two exclude each other.
        """
        super().check()
        if self.size < DIVISOR or self.size % DIVISOR:
            raise InputError(f"--size is {self.size}, expected a multiple of {DIVISOR}")
        if self.critic_norm == "instance" and self.size < 2 * DIVISOR:
            raise InputError(
                f"--critic-norm instance needs --size {2 * DIVISOR} or more: over one place there is no norm"
            )
        for name, low in (
            ("crop", 0), ("avatars", 4), ("count", 0), ("held_out", 2), ("width", 1), ("critic_width", 1), ("parts", 1),
            ("align_width", 1),
            ("pairs", 1),
        ):  # fmt: skip
            if getattr(self, name) < low:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected at least {low}")
        if self.data == "avatars" and self.count:
            raise InputError(f"--count is {self.count}, but it is about a folder's images; give --avatars {self.count}")
        if self.latent < self.parts:
            raise InputError(f"--latent is {self.latent}, expected at least a channel for each of {self.parts} parts")
        if self.part_sizes:
            sizes = " ".join(map(str, self.part_sizes))
            if len(self.part_sizes) != self.parts or min(self.part_sizes) < 1 or sum(self.part_sizes) != self.latent:
                raise InputError(
                    f"--part-sizes is {sizes}, expected {self.parts} numbers (--parts), each at least 1, whose sum is "
                    f"{self.latent} (--latent)"
                )
        if self.parts < 2 and (self.silent or self.overlap):
            raise InputError("--silent and --overlap compare parts; with --parts 1 set both to 0")
        if self.batch < self.parts and (self.silent or self.overlap):
            raise InputError(f"--batch is {self.batch}, expected at least one image for each of {self.parts} parts")
        for name in (
            "adversarial", "content", "style", "reconstruction", "total_variation", "structure",
            "content_reconstruction", "silent", "overlap", "lr", "lr_critic", "lr_aligner", "wasserstein_k",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected a number ≥ 0")
        for name, least, most in (
            ("pretrain", 0, 1), ("binary", 0, 1), ("decay_from", 0, 1), ("beta1", 0, 0.999), ("beta2", 0, 0.9999),
            ("wasserstein_p", 2, 100),
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise InputError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}, expected a number from {least} to {most}"
                )


# Content and style weigh more than in the paper, by as much as EfficientNet's features are smaller than VGG's.
OURS = FusionOptions(
    threads=1, precision="bf16", batch=16, ema_kimg=3, lr=2e-3, lr_critic=5e-4, decay_from=0.5, content=5e-6,
    style=5e-4, structure=30, silent=5, overlap=2,
)  # fmt: skip
PRESETS: dict[str, Any] = {
    "demo": dataclasses.replace(
        OURS, avatars=3584, total_kimg=18, pretrain=0.6, ema_kimg=1, metric_kimg=10, snapshot_kimg=5, checkpoint_kimg=5,
        tick_kimg=1, pairs=50,
    ),
    "cpu": dataclasses.replace(
        OURS, total_kimg=240, pretrain=0.62, metric_kimg=40, snapshot_kimg=20, checkpoint_kimg=10, tick_kimg=4,
    ),
    "paper": FusionOptions(
        size=128, width=64, latent=1024, critic_width=64, critic_norm="batch", perceptual="vgg19", batch=100,
        held_out=2599, binary=1, beta1=0.9, beta2=0.999, ema_kimg=0, total_kimg=4000, tick_kimg=20, metric_kimg=200,
        snapshot_kimg=200, checkpoint_kimg=100,
    ),
}  # fmt: skip
"""demo: 5 CPU-minutes; cpu: 50 CPU-minutes; paper: the paper's networks, losses, weights and Λ of {0, 1}ᴺ, for as long
as 20 times through CelebA, which the paper does not say: for a GPU. Give --data celeba:DIR and VGG-19's weights."""
