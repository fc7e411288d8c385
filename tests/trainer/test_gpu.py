"""Training on a GPU: `make gpu` runs these."""

import dataclasses

import numpy as np
import pytest
import torch
from train_tiny import OPTIONS

from trainer import loop, run
from trainer.recipes.mgan import METRIC_SEED, Mgan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that works with PyTorch"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_trains_on_cuda_and_generates_the_same_on_the_cpu(tiny, tmp_path, precision):
    options = dataclasses.replace(OPTIONS, data=tiny, runs=tmp_path, device="cuda", precision=precision)
    path = loop.train(Mgan, options)
    finished = run.open_run(path)
    z = finished.recipe.noise(0, 16, seed=METRIC_SEED)
    on_cpu = finished.recipe.decode(finished.averaged, z)
    on_gpu = finished.recipe.decode({n: m.cuda() for n, m in finished.averaged.items()}, z)
    assert np.abs(on_cpu["joints"] - on_gpu["joints"]).max() < 1e-2
    assert np.abs(on_cpu["image"].astype(int) - on_gpu["image"].astype(int)).mean() < 1
