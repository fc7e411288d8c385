"""Kernels: SSIM, Gram matrices, latent blending, counter-based noise, frame packing.

Knows nothing of the other packages and needs only NumPy. `cpp_ext.reference` holds the twins that define the results;
C and C++ use the same kernels through include/awase/awase.h.
"""

from cpp_ext.kernels import (
    blend,
    cmake_dir,
    compiled,
    cuda_devices,
    gram,
    gram_backward,
    isa,
    noise,
    ort_ops,
    pack,
    set_isa,
    set_threads,
    ssim,
    ssim_pairs,
    threads,
    unpack,
)
from cpp_ext.reference import philox, uniform

__all__ = [
    "blend",
    "cmake_dir",
    "compiled",
    "cuda_devices",
    "gram",
    "gram_backward",
    "isa",
    "noise",
    "ort_ops",
    "pack",
    "philox",
    "set_isa",
    "set_threads",
    "ssim",
    "ssim_pairs",
    "threads",
    "uniform",
    "unpack",
]
