"""Adversarial losses on logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of `logits` [N] against one `target` in [0, 1] for all, a scalar.

    MGAN's equation 1: the discriminator takes target 1 for real tuples (less with one-sided label smoothing) and 0 for
    generated ones; the generator, in the non-saturating form, takes 1 for its own.
    """
    return binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, target, dtype=torch.float32))
