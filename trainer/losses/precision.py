"""The precision losses are computed in, whatever the networks ran in."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(x: Tensor) -> Tensor:
    """`x` as float32; float64, for checking gradients, stays."""
    return x if x.dtype == torch.float64 else x.float()
