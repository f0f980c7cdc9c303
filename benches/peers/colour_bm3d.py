"""PyPI's bm3d under NumPy 2; imported by the scripts beside it."""

import bm3d
import numpy as np

# bm3d 4.0.3 calls by its old name what NumPy 2 calls trapezoid.
np.trapz = np.trapezoid


def denoised(picture, sigma):
    """Colour BM3D of `picture`, `[H, W, 3]` in levels, with white noise of `sigma` levels."""
    return 255 * bm3d.bm3d_rgb(picture / 255, sigma / 255)


def deblurred(plane, sigma, kernel):
    """BM3D deblurring of a plane in [0, 1] with noise of `sigma` levels; it wraps around."""
    return np.squeeze(bm3d.bm3d_deblurring(plane, sigma / 255, kernel))
