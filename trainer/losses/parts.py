"""Every part of a latent should change something, and something in another place than the others.

The paper reports parts whose λ changes nothing. Beyond it: move one part alone from one image to the other and look at
where the generated image changes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.distributed import batch_mean


class PartTerms(NamedTuple):
    """The two terms, scalars; and each part's effect [P] on this batch, without gradient."""

    silent: Tensor
    overlap: Tensor
    effects: Tensor


def change(before: Tensor, after: Tensor) -> Tensor:
    """Where and how much an image changes: |after − before|, mean over channels; [N, C, H, W] twice → [N, H, W]."""
    return (after.float() - before.float()).abs().mean(1)


def part_terms(first: Tensor, second: Tensor, whole: Tensor, moved: Tensor, parts: int) -> PartTerms:
    """Two changes a sample, each made by one part alone, against the change that all parts make together.

    silent: mean over parts of max(0, 1 − P·e_p)². e_p, a part's effect, is the mean change it makes as a fraction of
        the mean change from one image to the other, over the global batch. All parts together make at least the whole
        change, so P·e_p ≥ 1 can hold for every part: none may be silent. The mean over a batch, not a sample: where
        two images agree in what a part holds, it has nothing to change.
    overlap: mean over samples of the cosine between the two maps: 0 if the two parts change different places, 1 if the
        same. Places, because a place is what one can name a slider by ("eyes", "hair"), and what the paper's authors
        wish for ("to fuse the eyes only"); colour and outline are told apart by the style and content losses already.

    Args:
        first, second: change maps [N, H, W] of two different parts, as if the part's λ moved by 1.
        whole: change maps [N, H, W] from one image to the other. No gradient flows to them.
        moved: the two parts' numbers, int64 [2, N]; over the global batch each part is among them.
        parts: P.
    """
    maps = torch.stack([first, second])
    size = maps.mean((2, 3))
    every = torch.nn.functional.one_hot(moved, parts).to(size.dtype)
    possible = batch_mean((every * whole.detach().mean((1, 2))[None, :, None]).sum(0))
    effects = batch_mean((every * size[..., None]).sum(0)) / possible.clamp_min(1e-12)
    silent = (1 - parts * effects).clamp_min(0).square().mean()
    flat = maps.flatten(2)
    overlap = torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=1, eps=1e-6).mean()
    return PartTerms(silent, overlap, effects.detach())
