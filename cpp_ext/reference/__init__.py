"""Reference twins of the kernels, in plain NumPy: the definition that every faster form is tested against.

Errors here are `ValueError`s that name the argument, what came and what was expected.
"""

from cpp_ext.reference.frames import pack, unpack
from cpp_ext.reference.gram import gram, gram_backward
from cpp_ext.reference.latents import blend
from cpp_ext.reference.noise import check_address, noise, philox, uniform
from cpp_ext.reference.ssim import Layout, Per, Window, ssim, ssim_pairs

__all__ = [
    "Layout",
    "Per",
    "Window",
    "blend",
    "check_address",
    "gram",
    "gram_backward",
    "noise",
    "pack",
    "philox",
    "ssim",
    "ssim_pairs",
    "uniform",
    "unpack",
]
