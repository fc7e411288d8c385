"""Kernels: counter-based noise, SSIM, frame packing. Knows nothing of the other packages and needs only numpy."""

from cpp_ext.reference import noise, pack, philox, ssim, ssim_pairs, uniform, unpack

__all__ = ["noise", "pack", "philox", "ssim", "ssim_pairs", "uniform", "unpack"]
