"""Looks for seams: mean absolute difference of neighbouring pixels across window borders, and elsewhere.

    python benches/peers/seams.py RESTORED.png TRUTH.png [--window 256] [--overlap 32]

Prints, for columns and rows, the mean at the borders divided by the mean elsewhere: of the restored photo, of the truth
(whose content also differs from place to place), and the quotient of the two, which is 1 where there is no seam.
"""

import argparse
import math

import numpy as np
from PIL import Image

Image.MAX_IMAGE_PIXELS = None


def borders(size, window, overlap):
    """First pixels of the windows, and of what follows their ends: src/priors/tiled.rs, `Axis::new`."""
    if size <= window:
        return []

    def starts(window, overlap):
        count = max(math.ceil((size - overlap) / (window - overlap)), 2)
        return [(i * (size - window) + (count - 1) // 2) // (count - 1) for i in range(count)]

    count = len(starts(window, overlap))
    least = math.ceil((size + (count - 1) * overlap) / count)
    window = min(-(-least // 8) * 8, window)
    edges = {s for s in starts(window, overlap)} | {s + window for s in starts(window, overlap)}
    return sorted(e for e in edges if 0 < e < size)


def ratio(image, axis, edges):
    steps = np.abs(np.diff(image, axis=axis)).mean(axis=(1 - axis, 2))
    at = np.zeros(len(steps), bool)
    at[[edge - 1 for edge in edges]] = True
    return steps[at].mean() / steps[~at].mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("restored")
    parser.add_argument("truth")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=32)
    arguments = parser.parse_args()
    restored, truth = (
        np.asarray(Image.open(path).convert("RGB")).astype(np.float32) for path in (arguments.restored, arguments.truth)
    )
    for axis, name in ((1, "columns"), (0, "rows")):
        edges = borders(truth.shape[axis], arguments.window, arguments.overlap)
        if not edges:
            print(f"{name}: one window")
            continue
        ours, theirs = ratio(restored, axis, edges), ratio(truth, axis, edges)
        print(f"{name}: {len(edges)} borders, restored {ours:.4f}, truth {theirs:.4f}, quotient {ours / theirs:.4f}")


if __name__ == "__main__":
    main()
