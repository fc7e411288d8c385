"""Networks of image fusion: an encoder to a latent map, a generator back from it, and a critic.

Images [N, 3, S, S] in [-1, 1], S a multiple of 32; latent maps [N, Z, S/32, S/32].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.distributed import BatchNorm

BLOCKS = 5
"""Blocks of each network (paper, table 1); each but the critic's last layer halves or doubles the size."""
DIVISOR = 2**BLOCKS
"""An image's side is a multiple of this."""

CriticNorm = Literal["layer", "instance", "batch", "none"]


def channels(width: int, latent: int) -> list[int]:
    """Feature maps after each of the encoder's blocks: doubling from `width`, the last has the latent's."""
    return [min(width * 2**k, latent) for k in range(BLOCKS - 1)] + [latent]


class Encoder(nn.Module):
    """Images → latent maps: five blocks of convolution, batch norm and leaky ReLU, the first without batch norm."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for k, after in enumerate(channels(width, latent)):
            # No bias before a batch norm: its gradient is rounding noise, which Adam would blow up to full steps.
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=k == 0))
            layers += [BatchNorm(after)] if k else []
            layers.append(nn.LeakyReLU(0.2))
            before = after
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] in [-1, 1] → latent maps [N, Z, S/32, S/32]."""
        return self.layers(images)


class Generator(nn.Module):
    """Latent maps → images: four blocks of transposed convolution, batch norm and ReLU, then one with tanh alone."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = latent
        for after in reversed(channels(width, latent)[:-1]):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), BatchNorm(after), nn.ReLU()]
            before = after
        layers += [nn.ConvTranspose2d(before, 3, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Latent maps [N, Z, S/32, S/32] → images [N, 3, S, S] in (-1, 1)."""
        return self.layers(z)


class Critic(nn.Module):
    """Images → one number each, the higher the more real: the encoder's blocks, then a fully connected layer.

    norm: what the blocks but the first normalise by. "batch" is the paper's; it lets one image's score depend on the
    others of its batch, while the gradient term of WGAN-div is about one image at a time, so that the penalised
    gradient is not the one meant. "layer" (over an image's channels and places) and "instance" (over places) do not mix
    images.
    """

    def __init__(self, size: int, width: int, norm: CriticNorm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for k, after in enumerate(channels(width, width * 16)):
            plain = k == 0 or norm == "none"
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=plain))
            layers += [] if plain else [_norm(norm, after)]
            layers.append(nn.LeakyReLU(0.2))
            before = after
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(before * (size // DIVISOR) ** 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] in [-1, 1] → scores [N], of any sign and size."""
        return self.score(self.layers(images).flatten(1)).squeeze(1)


def _norm(kind: CriticNorm, features: int) -> nn.Module:
    if kind == "batch":
        return BatchNorm(features)
    return nn.GroupNorm(1 if kind == "layer" else features, features)


def part_sizes(latent: int, parts: int) -> tuple[int, ...]:
    """The channels of each of N parts: as many in each, and in the last what is left (204, 204, 204, 204, 208)."""
    each = latent // parts
    return (*[each] * (parts - 1), latent - each * (parts - 1))


def blend(za: Tensor, zb: Tensor, weights: Tensor, parts: Sequence[int]) -> Tensor:
    """Equation 1, Λ∘Z_A + (1 − Λ)∘Z_B, each part of the channels with its own λ; differentiable.

    za, zb: latent maps [N, Z, h, w]. weights: [N, P], λ of za. parts: P channel counts whose sum is Z. A weight of
    exactly 1 gives za's values bit for bit, and 0 zb's (for finite latents), as `cpp_ext.blend` does.
    """
    sizes = torch.tensor(parts, device=weights.device)
    share = weights.repeat_interleave(sizes, 1, output_size=sum(parts))[:, :, None, None].to(za.dtype)
    return share * za + (1 - share) * zb
