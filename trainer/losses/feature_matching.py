"""Feature matching: the generator's batch should look like the data's batch to the discriminator, on the mean."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.distributed import batch_mean


def feature_matching(real: Mapping[str, Tensor], fake: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ_m w_m ‖E[f_m(x)] − E[f_m(g(z))]‖², MGAN's equations 2 and 3: a scalar.

    real, fake: features [N, F_m] by modality; expectations are over the global batch. weights: w_m (the paper's a, b):
    a larger one favours its modality. No gradient flows to `real`.
    """
    terms = []
    for name, weight in weights.items():
        difference = batch_mean(real[name].detach().float()) - batch_mean(fake[name].float())
        terms.append(weight * difference.square().sum())
    return torch.stack(terms).sum()


def moment_matching(fake: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Mean over components of (mean − data's)² + (standard deviation − data's)², a scalar.

    fake: generated vectors [N, D], taken over the global batch. mean, deviation: the data's, [D].
    """
    fake = fake.float()
    centre = batch_mean(fake)
    spread = (batch_mean(fake.square()) - centre.square()).clamp_min(1e-8).sqrt()
    return ((centre - mean).square() + (spread - deviation).square()).mean()
