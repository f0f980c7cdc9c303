"""Compares phase_retrieval and its derivative with numpy's Fourier transform on a photo.

numpy pads the image, moves its middle to the origin and transforms in float64; ours runs in float32 and in float64.
"""

import argparse

import numpy as np

from operators import APPLY, apply, photo, relative_error


def reference(x, v, oversample, unit):
    pads = [int(oversample / 8 * size) for size in x.shape[-2:]]
    image = (x + 1) / 2 if unit else x
    padded = np.pad(image, [(0, 0), (0, 0), *((pad, pad) for pad in pads)])
    axes = (-2, -1)
    z = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(padded, axes), norm="ortho"), axes)
    length = np.abs(z)
    phase = np.divide(z, length, out=np.zeros_like(z), where=length > 0)
    back = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(v * phase, axes), norm="ortho"), axes).real
    inner = back[..., pads[0] : pads[0] + x.shape[-2], pads[1] : pads[1] + x.shape[-1]]
    return length, inner / 2 if unit else inner


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--apply", default=APPLY, help="command that applies an operator (default: %(default)s)")
    arguments = parser.parse_args()

    x = photo(arguments.photo, arguments.size)[None]
    print("| oversample | range | type | error of y | error of vjp |\n| --- | --- | --- | --- | --- |")
    for oversample, name in ((2.0, "signed"), (2.0, "unit"), (1.0, "signed"), (0.0, "signed")):
        side = arguments.size + 2 * int(oversample / 8 * arguments.size)
        v = np.random.default_rng(0).standard_normal((1, 3, side, side))
        y, back = reference(x, v, oversample, name == "unit")
        for dtype in (np.float32, np.float64):
            settings = f"oversample = {oversample}\nrange = '{name}'"
            ours = apply(arguments.apply, "phase_retrieval", settings, x=x.astype(dtype), v=v.astype(dtype))
            errors = relative_error(ours["y"], y), relative_error(ours["vjp"], back)
            print(f"| {oversample} | {name} | {np.dtype(dtype).name} | {errors[0]:.1e} | {errors[1]:.1e} |")


if __name__ == "__main__":
    main()
