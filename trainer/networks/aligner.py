"""A network that brings two images' shapes together, so that a frontal face and a profile can be fused.

Places and displacements are in `grid_sample`'s coordinates: an image reaches from -1 to 1 on both axes, whatever its
size, so that its side is 2 long. Channel 0 of a field is x, to the right; channel 1 is y, down.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate

from trainer.networks.autoencoder import BLOCKS

FINEST = 2
"""Velocities are predicted at S / 2^FINEST nodes a side and are smooth in between."""
REACH = 0.4
"""No velocity, and so no displacement, is longer than this along an axis: a fifth of the image's side."""
DOUBLINGS = 4
"""exp of a velocity is made of 2^DOUBLINGS equal steps, by as many doublings."""


class Aligner(nn.Module):
    """Two images → both with the same shapes, anywhere on the way from the second's shapes to the first's.

    A pyramid of features of each image, from the same weights, meets in a head that predicts a stationary velocity
    field v, as in the diffeomorphic VoxelMorph (Dalca et al. 2018). To move an image along v for the time s is to
    sample it at exp(s v). The head holds v(b, a) = -v(a, b) exactly, and that gives what a plain field of displacements
    lacks: the way back is the inverse of the way there, nothing folds, and images that meet at one end of the way meet
    all along it: where a = b∘exp(v), a∘exp(-(1 - t) v) = b∘exp(t v) for every t. (All but for what a grid of nodes and
    a finite number of steps round off.)
    """

    def __init__(self, size: int, width: int) -> None:
        """size: side S of the images, a multiple of 32. width: feature maps at S/2, doubling to at most 4 times."""
        super().__init__()
        self.size = size
        maps = [width * min(2**k, 4) for k in range(BLOCKS)]
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2))
            for before, after in zip([3, *maps[:-1]], maps, strict=True)
        )
        # From the smallest maps up: both images' features of a level beside what comes from the level below.
        met = maps[FINEST - 1 :][::-1]
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(below + 2 * own, own, 3, 1, 1), nn.LeakyReLU(0.2))
            for below, own in zip([0, *met[:-1]], met, strict=True)
        )
        self.head = nn.Conv2d(met[-1], 2, 3, 1, 1, bias=False)  # a bias would cancel in the difference
        with torch.no_grad():
            self.head.weight.mul_(0.1)  # training starts near the identity

    def velocity(self, a: Tensor, b: Tensor) -> Tensor:
        """v(a, b), float32 [N, 2, S/4, S/4] in (-REACH, REACH). a, b: images [N, 3, S, S] in [-1, 1]."""
        count = a.shape[0]
        x = torch.cat([a, b])
        pyramid: list[Tensor] = []
        for block in self.down:
            x = block(x)
            # Beside each image's features its partner's: the pairs (a, b), then (b, a).
            pyramid.append(torch.cat([x, torch.cat([x[count:], x[:count]])], 1))
        x = self.up[0](pyramid.pop())
        for block in self.up[1:]:
            x = block(torch.cat([interpolate(x, scale_factor=2.0, mode="nearest"), pyramid.pop()], 1))
        x = self.head(x).float()
        return REACH * torch.tanh(x[:count] - x[count:])

    def displacement(self, velocity: Tensor, time: Tensor) -> Tensor:
        """exp(time v) less the identity, [N, 2, S, S], from v [N, 2, h, w] and time [N, 1] in [-1, 1]."""
        field = velocity * (time / 2**DOUBLINGS)[:, :, None, None]
        for _ in range(DOUBLINGS):
            field = field + warp(field, field)
        return interpolate(field, size=(self.size, self.size), mode="bilinear", align_corners=False)

    def field(self, a: Tensor, b: Tensor) -> Tensor:
        """Displacements [N, 2, S, S] that bring b onto a: `warp(b, field(a, b))` has a's shapes.

        a, b: images [N, 3, S, S] in [-1, 1].
        """
        return self.displacement(self.velocity(a, b), torch.ones_like(a[:, 0, 0, :1]))

    def forward(self, a: Tensor, b: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Both images, warped to the shapes that lie t of the way from b's to a's.

        Args:
            a, b: images [N, 3, S, S] in [-1, 1].
            t: [N, 1] in [0, 1]. At 1, a is left as it is, bit for bit; at 0, b.

        Returns:
            a and b, warped: of their shape and range.
        """
        v = self.velocity(a, b)
        to_a, to_b = t[:, :, None, None] == 1, t[:, :, None, None] == 0
        a_warped = torch.where(to_a, a, warp(a, self.displacement(v, t - 1)))
        b_warped = torch.where(to_b, b, warp(b, self.displacement(v, t)))
        return a_warped, b_warped


def warp(x: Tensor, field: Tensor) -> Tensor:
    """x [N, C, h, w] sampled bilinearly at every place plus its displacement, field [N, 2, h, w]; [N, C, h, w].

    Beyond its border, x is what it is at the border.
    """
    rows, columns = (torch.arange(1 - side, side, 2, device=x.device).to(field.dtype) / side for side in x.shape[2:])
    identity = torch.stack([columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns))], -1)
    places = identity + field.permute(0, 2, 3, 1)
    return grid_sample(x, places, mode="bilinear", padding_mode="border", align_corners=False)
