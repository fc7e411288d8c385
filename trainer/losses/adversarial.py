"""Adversarial losses: cross-entropy on logits, and the Wasserstein divergence on a critic's scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from trainer.losses.precision import precise


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of `logits` [N] against one `target` in [0, 1] for all, a scalar.

    MGAN's equation 1: the discriminator takes target 1 for real tuples (less with one-sided label smoothing) and 0 for
    generated ones; the generator, in the non-saturating form, takes 1 for its own.
    """
    return binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, target, dtype=torch.float32))


def wasserstein_generator(scores: Tensor) -> Tensor:
    """−E[D(G(Z))], what the generator (and encoder) minimise, a scalar: their share of fusion's L_A (equation 2).

    scores: the critic's, of generated images, [N] or [N, 1]; higher is more real.
    """
    return -precise(scores).mean()


def wasserstein_divergence(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor, k: float = 2.0, p: float = 6.0
) -> tuple[Tensor, Tensor]:
    """The critic's loss by the Wasserstein divergence (WGAN-div, Wu et al. 2018, arXiv 1712.01026).

        E[D(fake)] − E[D(real)] + k E‖∇D(x̂)‖^p,   x̂ = u real + (1 − u) fake

    Fusion's equation 2, L_A = E[D(I)] − E[D(G(Z_C))], is what the critic makes large, so its negative is minimised
    here; the penalty, which the paper names and does not print, is added. The norm is Euclidean over all of an image.

    critic: images [N, C, H, W] → scores [N] or [N, 1], higher is more real, differentiable twice. It must score each
        image by itself: with batch norm, ∇D(x̂) of one image is mixed with what it does to the others' scores.
    k, p: the penalty's weight and power, p at least 2.
    real, fake: images of one shape. mix: u, one number in [0, 1] an image [N], drawn by the caller.

    Returns two float32 scalars (float64 for float64 images): the loss, and the penalty within it. Their gradients
    reach the critic's parameters and neither `real` nor `fake`.
    """
    real, fake = real.detach(), fake.detach()
    scores = precise(critic(fake)).mean() - precise(critic(real)).mean()
    between = torch.lerp(precise(fake), precise(real), precise(mix).view(-1, *[1] * (real.dim() - 1)))
    between.requires_grad_()
    # The sum's gradient at image n is that of its own score alone; create_graph, for the penalty is differentiated too.
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    # (‖·‖²)^(p/2): the norm itself has no gradient where a critic is flat.
    penalty = k * precise(slope).flatten(1).square().sum(1).pow(p / 2).mean()
    return scores + penalty, penalty
