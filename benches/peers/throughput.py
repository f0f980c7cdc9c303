"""Times forward + adjoint of tweedie's operators beside deepinv's, in turns: a table of milliseconds and ratios.

    cargo build --release -p tweedie-operators --example throughput
    RAYON_NUM_THREADS=2 python benches/peers/throughput.py [--threads 2] [--rounds 3] [NAME ...]

Both sides compute in f32 on images of 3 x 1024 x 1024 unless the table says otherwise.
"""

import argparse
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import deepinv.physics as physics
from deepinv.physics.blur import bicubic_filter, gaussian_blur

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/examples/throughput"
SIZE = (3, 1024, 1024)


def motion(size):
    """A line of 45 degrees, as a full kernel that no rank-one trick can take apart."""
    kernel = torch.zeros(1, 1, size, size)
    for i in range(size):
        kernel[0, 0, size - 1 - i, i] = 1.0
    return kernel / kernel.sum()


def rows(kernel):
    lines = [[float(value) for value in line] for line in kernel[0, 0]]
    return "[" + ", ".join("[" + ", ".join(f"{value:.9e}" for value in line) + "]" for line in lines) + "]"


def four(kernel):
    return kernel.reshape(1, 1, *kernel.shape[-2:])


def blur(kernel, padding):
    theirs = {"zero": "constant"}.get(padding, padding)
    make = physics.BlurFFT(img_size=SIZE, filter=kernel) if theirs == "fft" else physics.Blur(filter=kernel, padding=theirs)
    ours = "circular" if padding == "fft" else padding
    return make, "blur", f'kernel = {{ shape = "values", rows = {rows(kernel)} }}\npadding = "{ours}"'


def downsampling(kernel, factor, padding):
    theirs = physics.Downsampling(img_size=SIZE, filter=kernel, factor=factor, padding=padding)
    settings = f'kernel = "bicubic"\nfactor = {factor}\npadding = "{padding}"'
    return theirs, "downsample_kernel", settings


def cases():
    """Name: deepinv's operator, its input, the name of ours, its settings, the size of ours."""
    x = torch.randn(1, *SIZE)
    gaussian = four(gaussian_blur(sigma=3.0))
    line = motion(61)
    mask = (torch.rand(1, 1, *SIZE[1:]) > 0.7).float()
    yield "mask, 70 % missing", physics.Inpainting(SIZE, mask=mask), x, "inpaint_random", "missing = 0.7", SIZE
    for padding in ["reflect", "zero", "valid", "circular"]:
        yield f"Gaussian blur σ 3 (23²), {padding}", *insert(blur(gaussian, padding), x)
    yield "Gaussian blur σ 3 (23²), circular, deepinv's FFT", *insert(blur(gaussian, "fft"), x)
    for padding in ["reflect", "circular"]:
        yield f"motion blur 61², {padding}", *insert(blur(line, padding), x)
    yield "motion blur 61², circular, deepinv's FFT", *insert(blur(line, "fft"), x)
    bicubic = four(bicubic_filter(4))
    for padding in ["circular", "reflect"]:
        yield f"bicubic filter ×4, {padding}", *insert(downsampling(bicubic, 4, padding), x)
    yield "bicubic ×4, MATLAB", physics.DownsamplingMatlab(img_size=SIZE, factor=4), x, "downsample", "factor = 4", SIZE
    yield "grey", physics.Decolorize(), x, "grayscale", "", SIZE
    yield "Bayer mosaic", physics.Demosaicing(img_size=SIZE), x, "bayer", 'pattern = "rggb"', SIZE
    yield (
        "Walsh–Hadamard, a quarter kept",
        physics.SinglePixelCamera(m=SIZE[1] * SIZE[2] // 4, img_size=SIZE, fast=True),
        x,
        "compressed_sensing",
        "keep = 0.25",
        SIZE,
    )
    small = (3, 32, 32)
    dense = physics.CompressedSensing(m=768, img_size=small)
    yield "dense Gaussian matrix, 768 × 3072", dense, torch.randn(1, *small), "gaussian_matrix", "keep = 0.25", small
    planes = torch.randn(3, 2, *SIZE[1:])
    mri = physics.MRI(mask=mask, img_size=SIZE[1:])
    yield "Fourier samples (deepinv's image is complex)", mri, planes, "fourier_subsample", "keep = 0.3", SIZE
    radon = (3, 256, 256)
    tomography = physics.Tomography(angles=180, img_width=256, circle=False, normalize=False)
    yield "Radon transform, 180 angles, 256²", tomography, torch.randn(1, *radon), "radon", "angles = 180", radon
    yield "space-varying blur, 4 kernels of 15²", *varying(x)


def insert(made, x):
    theirs, name, settings = made
    return theirs, x, name, settings, SIZE


def varying(x):
    sigmas = [1.0, 1.5, 2.0, 2.4]
    kernels = []
    for sigma in sigmas:
        axis = torch.exp(-torch.arange(-7.0, 8.0) ** 2 / (2 * sigma**2))
        axis = axis / axis.sum()
        kernels.append(torch.outer(axis, axis)[None, None])
    filters = torch.stack(kernels, 2)
    across = torch.linspace(0, 1, SIZE[2]).expand(SIZE[1], SIZE[2])
    down = torch.linspace(0, 1, SIZE[1])[:, None].expand(SIZE[1], SIZE[2])
    weights = torch.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
    theirs = physics.SpaceVaryingBlur(filters=filters, multipliers=weights[None, None], padding="reflect")
    ours = ", ".join(f'{{ shape = "values", rows = {rows(kernel)} }}' for kernel in kernels)
    return theirs, x, "blur_varying", f'kernels = [{ours}]\ngrid = [2, 2]\npadding = "reflect"', SIZE


def times_of_theirs(operator, x, seconds):
    with torch.no_grad():
        operator.A_adjoint(operator.A(x))
        times, start = [], time.perf_counter()
        while time.perf_counter() - start < seconds:
            call = time.perf_counter()
            operator.A_adjoint(operator.A(x))
            times.append(1e3 * (time.perf_counter() - call))
    return times


def times_of_ours(name, settings, size, seconds):
    command = [PROGRAM, name, settings, "x".join(map(str, size)), str(seconds)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"throughput.py: {name}: {result.stderr.strip()}")
    return [float(line) for line in result.stdout.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side and round")
    parser.add_argument("names", nargs="*", help="parts of the names of cases; all by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| operator | tweedie ms | deepinv ms | ratio |\n| --- | --- | --- | --- |", flush=True)
    ratios = []
    for label, theirs, x, name, settings, size in cases():
        if arguments.names and not any(part in label for part in arguments.names):
            continue
        ours_ms, theirs_ms = [], []
        for _ in range(arguments.rounds):
            ours_ms += times_of_ours(name, settings, size, arguments.seconds)
            theirs_ms += times_of_theirs(theirs, x, arguments.seconds)
        ours_ms, theirs_ms = statistics.median(ours_ms), statistics.median(theirs_ms)
        ratios.append(ours_ms / theirs_ms)
        print(f"| {label} | {ours_ms:.2f} | {theirs_ms:.2f} | {ratios[-1]:.2f} |", flush=True)
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"\ngeometric mean {mean:.2f}, largest {max(ratios):.2f}, {len(ratios)} operators")


if __name__ == "__main__":
    main()
