#!/usr/bin/env python3
"""Writes tests/data/metrics: small pictures, and the figures that scikit-image and piq give them.

    pip install -r benches/peers/requirements-metrics.txt
    python benches/peers/metrics.py examples/photos/chelsea.png tests/data/metrics

The pictures are crops of the photo: one as it is (`truth`), one blurred by a mean of 3×3 pixels, one with noise, one with a
grey box. Each case compares `truth` with `w · picture + (1 − w) · truth`, which is not rounded unless w is 1.

PSNR and SSIM are scikit-image's (Gaussian weights of sigma 1.5, population covariance, range 255), SSIM also as the mean of
its map over a mask, borders of five pixels left out; GMSD is piq's, of values divided by 255, in double precision.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import piq
import torch
from PIL import Image
from scipy.ndimage import uniform_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

SIZES = {"even": (48, 40), "odd": (37, 43)}
WEIGHTS = [1.0, 0.3]
REACH = 5


def masked(height: int, width: int) -> np.ndarray:
    """A rectangle that reaches over the border of the windows."""
    mask = np.zeros((height, width), bool)
    mask[: height // 2, width // 4 : width // 2] = True
    return mask


def figures(truth: np.ndarray, picture: np.ndarray) -> dict[str, float]:
    ssim, full = structural_similarity(
        truth,
        picture,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
        full=True,
    )
    inside = np.zeros(truth.shape[:2], bool)
    inside[REACH:-REACH, REACH:-REACH] = True
    planes = [torch.from_numpy(x.transpose(2, 0, 1)[None].copy()) for x in (picture, truth)]
    return {
        "psnr": float(peak_signal_noise_ratio(truth, picture, data_range=255)),
        "ssim": float(ssim),
        "ssim_masked": float(full[inside & masked(*truth.shape[:2])].mean()),
        "gmsd": float(piq.gmsd(*planes, data_range=255)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    photo = np.asarray(Image.open(arguments.photo).convert("RGB"))
    rng = np.random.default_rng(0)
    cases = []
    for size, (height, width) in SIZES.items():
        truth = photo[90 : 90 + height, 180 : 180 + width].astype(np.float64)
        box = truth.copy()
        box[10:25, 8:20] = 128
        pictures = {
            "blur": uniform_filter(truth, (3, 3, 1)),
            "noise": truth + 20 * rng.standard_normal(truth.shape),
            "box": box,
        }
        pictures = {name: np.clip(np.rint(picture), 0, 255) for name, picture in pictures.items()}
        for name, picture in {"truth": truth, **pictures}.items():
            Image.fromarray(picture.astype(np.uint8)).save(arguments.folder / f"{size}.{name}.png", optimize=True)
        for name, picture in pictures.items():
            for weight in WEIGHTS:
                found = figures(truth, weight * picture + (1 - weight) * truth)
                cases.append({"size": size, "picture": name, "weight": weight, **found})
    (arguments.folder / "figures.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
