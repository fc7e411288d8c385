"""What the tests of the kernels on a GPU share."""

import numpy as np
import torch

from cpp_ext import reference

DEVICE = "cuda"


def there(array):
    """A NumPy array on the GPU, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(DEVICE)


def back(tensor):
    return tensor.cpu().numpy()


def pictures(shape, dtype, seed=0):
    """A smooth picture with noise on it in every image [N, H, W, C], values to 255 (uint8) or 1."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.linspace(0, 6, size) for size in shape[1:3])
    x = 0.5 + 0.3 * np.sin(rows)[:, None, None] * np.cos(columns)[:, None] + 0.08 * rng.standard_normal(shape)
    x = x.clip(0, 1)
    return (x * 255).astype(np.uint8) if dtype == "uint8" else x.astype(dtype)


def floats(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def exact_ssim(a, b, **options):
    """The twin in float64 (uint8 stays)."""
    return reference.ssim(*(x if x.dtype == np.uint8 else x.astype(np.float64) for x in (a, b)), **options)


def relative(value, expected):
    """Largest error by the largest value."""
    assert value.shape == expected.shape
    return np.abs(value - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-30)


def range_of(dtype):
    return 255.0 if dtype == "uint8" else 1.0
