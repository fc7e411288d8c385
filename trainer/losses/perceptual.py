"""Perceptual losses (Johnson et al. 2016): distances between features of a frozen network.

A blended image C has two targets, A and B. The fusion paper gives only λ = 1 (the distance to A) and λ = 0 (to B); a
mixed Λ weighs both distances by the share of A, s = the mean of the sample's λ over the parts:

    s d(C, A) + (1 − s) d(C, B)

The features of C are computed once by the caller, and those of A and B with no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from trainer.losses.gram import gram
from trainer.losses.precision import precise

Features = Mapping[str, Tensor]


def content(blend: Features, a: Features, b: Features, share: Tensor, layers: Sequence[str] | None = None) -> Tensor:
    """L_c = Σ_l ‖P_l(C) − P_l(A)‖² for λ = 1, to B for λ = 0 (equation 4): a float32 scalar.

    The squares are summed over a layer's channels and positions and over the layers, and averaged over the batch.

    blend, a, b: features P_l [N, C_l, H_l, W_l] of C, A and B by layer. share: s, [N] in [0, 1]. layers: which of
    `blend`'s layers count; None: all. No gradient flows to `a` and `b`. Half precision is taken as float32; float64
    features give float64.
    """
    return _between(lambda features: features, blend, a, b, share, layers)


def style(blend: Features, a: Features, b: Features, share: Tensor, layers: Sequence[str] | None = None) -> Tensor:
    """L_s = Σ_l ‖ψ_l(C) − ψ_l(A)‖²_F for λ = 1, to B for λ = 0 (equation 5): a float32 scalar.

    ψ_l = P_l P_lᵀ / (C_l H_l W_l), the Gram matrix of a layer's channels (equation 6), by the project's own kernel. The
    squares are summed over the matrix and over the layers, and averaged over the batch. Arguments as in `content`.
    """
    return _between(gram, blend, a, b, share, layers)


def _between(
    describe: Callable[[Tensor], Tensor],
    blend: Features,
    a: Features,
    b: Features,
    share: Tensor,
    layers: Sequence[str] | None,
) -> Tensor:
    terms = []
    for layer in blend if layers is None else layers:
        made = describe(precise(blend[layer]))
        targets = [describe(precise(features[layer].detach())) for features in (a, b)]
        to_a, to_b = ((made - target).square().flatten(1).sum(1) for target in targets)
        terms.append((share * to_a + (1 - share) * to_b).mean())
    return torch.stack(terms).sum()
