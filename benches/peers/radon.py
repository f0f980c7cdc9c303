"""Compares radon with scikit-image's `radon(circle=False)` on a smooth phantom and on a photo.

scikit-image turns the image with bilinear interpolation and adds up its rows, ours is Joseph's method: both are linear
interpolations, so they agree on smooth images and differ at edges. For the phantom, a sum of Gaussian blobs, the projections
are known in closed form, and both are compared with them. Filtered back-projection is run by both on their own projections.
"""

import argparse
import time

import numpy as np
from skimage.transform import iradon, radon

from operators import APPLY, apply, photo, relative_error

# Row, column and width in parts of the side, and height.
BLOBS = ((0.5, 0.45, 0.12, 1.0), (0.35, 0.6, 0.05, 0.7), (0.65, 0.62, 0.035, -0.5), (0.55, 0.3, 0.025, 0.4))


def phantom(size, degrees, detectors):
    """Image and exact projections `[angles, detectors]`."""
    row, column = np.mgrid[:size, :size] - size // 2
    angle = np.deg2rad(degrees)[:, None]
    t = (np.arange(detectors) - detectors // 2)[None]
    image, projections = 0, 0
    for y, x, width, height in BLOBS:
        y, x, width = (y - 0.5) * size, (x - 0.5) * size, width * size
        image = image + height * np.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * width**2))
        distance = t - (x * np.cos(angle) - y * np.sin(angle))
        projections = projections + height * width * np.sqrt(2 * np.pi) * np.exp(-(distance**2) / (2 * width**2))
    return image, projections


def theirs_of(x, degrees):
    start = time.perf_counter()
    y = np.stack([radon(plane, degrees, circle=False).T for plane in x])
    middle = time.perf_counter()
    image = np.stack([iradon(plane.T, degrees, circle=False, output_size=x.shape[-1]) for plane in y])
    return y, image, middle - start, time.perf_counter() - middle


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--angles", type=int, default=180)
    parser.add_argument("--apply", default=APPLY, help="command that applies an operator (default: %(default)s)")
    parser.add_argument("--reconstruct", help="the same for the example filtered_back_projection")
    arguments = parser.parse_args()
    reconstruct = arguments.reconstruct or arguments.apply.replace("example apply", "example filtered_back_projection")

    size = arguments.size
    degrees = 180 * np.arange(arguments.angles) / arguments.angles
    smooth, exact = phantom(size, degrees, int(np.ceil(np.sqrt(2) * size)))
    print("| image | ours and theirs | ours, exact | theirs, exact | FBP error, ours | FBP error, theirs | s, theirs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, x, known in (("phantom", smooth[None], exact), ("photo", photo(arguments.photo, size), None)):
        settings = f"angles = {arguments.angles}"
        ours = apply(arguments.apply, "radon", settings, x=x[None])["y"]
        back = apply(reconstruct, str(size), str(size), x=ours, degrees=degrees)["x"][0]
        theirs, their_image, *seconds = theirs_of(x, degrees)
        errors = [relative_error(ours[0], theirs)]
        errors += [relative_error(y[0], known) if known is not None else None for y in (ours[0], theirs)]
        errors += [relative_error(image, x) for image in (back, their_image)]
        cells = ["" if error is None else f"{error:.2e}" for error in errors]
        print(f"| {name} | {' | '.join(cells)} | {seconds[0]:.1f} + {seconds[1]:.1f} |")


if __name__ == "__main__":
    main()
