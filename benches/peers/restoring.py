#!/usr/bin/env python3
"""Damages photos with `tweedie degrade`, restores them with tweedie and with classical methods, prints time and PSNR.

    pip install -r benches/peers/requirements.txt bm3d
    cargo build --release
    python benches/peers/restoring.py FOLDER [--photos astronaut chelsea rocket] [--tasks denoise deblur …] [--keep OUT]

FOLDER holds NAME.png. Everybody gets the same 8-bit picture. PSNR in dB over the whole 8-bit RGB photo, cropped to
multiples of 4,
10 log10(255² / MSE). Seconds are wall-clock: for tweedie those of the whole command, its start and the files included; for
the others those of the call alone.

  denoise   white Gaussian noise of 25 levels; BM3D (its colour version) is told the level, as tweedie is
  deblur    Gaussian blur of σ = 2 pixels, reflecting borders, noise of 2 levels; Wiener's filter (scikit-image, the best of
            seven regularisations by its PSNR, chosen with the original: an advantage for it), BM3D deblurring
  upscale   bicubic by 4 (anti-aliased), shown as 8-bit; bicubic and Lanczos interpolation of OpenCV
  colorize  the luma alone, and 200 dots of 5 x 5 pixels with the true colour; the grey photo is the baseline
  restore   horizontal motion blur of 9 pixels, then 30 % of the pixels lost, noise of 3 levels; the damaged picture with its
            holes filled by OpenCV's Telea and Wiener's filter
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage.restoration import wiener

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/tweedie"
TASKS = ["denoise", "deblur", "upscale", "colorize", "restore"]
OPERATORS = {
    "denoise": '[operator]\nname = "identity"\n[noise]\nname = "gaussian"\nsigma = 0.19607843\n',
    "deblur": '[operator]\nname = "blur"\nkernel = { shape = "gaussian", sigma = 2.0 }\npadding = "reflect"\n'
    '[noise]\nname = "gaussian"\nsigma = 0.015686275\n',
    "upscale": '[operator]\nname = "downsample"\nfactor = 4\nkernel = "bicubic"\n',
    "colorize": '[operator]\nname = "grayscale"\n',
    "restore": '[operator]\nname = "compose"\n[[operator.operators]]\nname = "blur"\n'
    'kernel = { shape = "line", length = 9, angle = 0 }\npadding = "reflect"\n'
    '[[operator.operators]]\nname = "inpaint_random"\nmissing = 0.3\nseed = 1\n'
    '[noise]\nname = "gaussian"\nsigma = 0.023529412\n',
}


def read(path):
    return np.asarray(Image.open(path).convert("RGB"), np.float64)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((np.clip(np.round(a), 0, 255) - b) ** 2))


def tweedie(*arguments):
    start = time.perf_counter()
    result = subprocess.run([PROGRAM, *map(str, arguments)], check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"restoring.py: {arguments}: {result.stderr.strip()}")
    return time.perf_counter() - start


def gaussian(sigma):
    radius = int(np.ceil(4 * sigma))
    axis = np.exp(-np.arange(-radius, radius + 1.0) ** 2 / (2 * sigma**2))
    return np.outer(axis / axis.sum(), axis / axis.sum())


def best_wiener(picture, kernel, truth):
    """Each balance is tried, the best by PSNR returned, with the seconds of one call."""
    best = (-np.inf, None, 0)
    pad = 24
    padded = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="reflect") / 255
    for balance in [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]:
        start = time.perf_counter()
        planes = [wiener(padded[..., c], kernel, balance, clip=False)[pad:-pad, pad:-pad] for c in range(3)]
        seconds = time.perf_counter() - start
        restored = 255 * np.stack(planes, -1)
        best = max(best, (psnr(restored, truth), restored, seconds), key=lambda entry: entry[0])
    return best[1], best[2]


def classical(task, picture, truth, folder):
    """Yields name, picture, seconds of the other methods."""
    import colour_bm3d

    if task == "denoise":
        start = time.perf_counter()
        yield "BM3D", colour_bm3d.denoised(picture, 25), time.perf_counter() - start
    if task == "deblur":
        kernel = gaussian(2.0)
        restored, seconds = best_wiener(picture, kernel, truth)
        yield "Wiener", restored, seconds
        start = time.perf_counter()
        # It wraps around.
        pad = 24
        padded = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="reflect") / 255
        planes = [colour_bm3d.deblurred(padded[..., c : c + 1], 2, kernel) for c in range(3)]
        planes = [plane[pad:-pad, pad:-pad] for plane in planes]
        yield "BM3D", 255 * np.stack(planes, -1), time.perf_counter() - start
    if task == "upscale":
        size = truth.shape[1::-1]
        for name, how in [("bicubic", cv2.INTER_CUBIC), ("Lanczos", cv2.INTER_LANCZOS4)]:
            start = time.perf_counter()
            yield name, cv2.resize(picture, size, interpolation=how), time.perf_counter() - start
    if task == "restore":
        start = time.perf_counter()
        holes = np.asarray(Image.open(folder / "restore.holes.png").convert("L"))
        filled = cv2.inpaint(picture.astype(np.uint8), holes, 3, cv2.INPAINT_TELEA).astype(np.float64)
        seconds = time.perf_counter() - start
        kernel = np.full((1, 9), 1 / 9)
        restored, more = best_wiener(filled, kernel, truth)
        yield "Telea, then Wiener", restored, seconds + more


def hints(truth, path):
    """200 dots of the true colour on transparent ground."""
    generator = np.random.default_rng(0)
    height, width = truth.shape[:2]
    layer = np.zeros((height, width, 4), np.uint8)
    for y, x in zip(generator.integers(0, height - 5, 200), generator.integers(0, width - 5, 200)):
        layer[y : y + 5, x : x + 5, :3] = truth[y : y + 5, x : x + 5]
        layer[y : y + 5, x : x + 5, 3] = 255
    Image.fromarray(layer).save(path)


def lost_pixels(truth, folder):
    """The pixels that `restore` loses, white: those that the same mask takes from a white photo."""
    white, toml = folder / "white.png", folder / "mask.toml"
    Image.fromarray(np.full(truth.shape, 255, np.uint8)).save(white)
    toml.write_text('[operator]\nname = "inpaint_random"\nmissing = 0.3\nseed = 1\n')
    tweedie("degrade", white, "--operator", toml, "-o", folder / "kept.png", "-f", "-q")
    kept = read(folder / "kept.png")[..., 0] == 255
    Image.fromarray((255 * ~kept).astype(np.uint8)).save(folder / "restore.holes.png")


def ours(task, damaged, folder, out):
    """Yields name, path, seconds of tweedie's commands."""
    commands = {
        "denoise": ["denoise", damaged, "--noise", 25],
        "deblur": ["deblur", damaged, "--kernel", "gaussian:2", "--noise", 2],
        "upscale": ["upscale", damaged, "--scale", 4],
        "colorize": ["colorize", damaged],
        "restore": ["restore", damaged, "--operator", folder / "restore.toml"],
    }
    command = commands[task]
    yield "tweedie", out, tweedie(*command, "-o", out, "-f", "-q")
    if task == "colorize":
        out = out.with_name(out.stem + ".hints.png")
        yield "tweedie, 200 dots", out, tweedie(*command, "--hints", folder / "hints.png", "-o", out, "-f", "-q")
    else:
        several = out.with_name(out.stem + ".mean8") / out.name
        several.parent.mkdir(exist_ok=True)
        seconds = tweedie(*command, "--samples", 8, "--mean", "-o", several, "-f", "-q")
        yield "tweedie, mean of 8", several.with_name(several.stem + "-mean.png"), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", nargs="+", default=["astronaut", "chelsea", "rocket"])
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--keep", type=Path, help="folder for all pictures")
    parser.add_argument("--only-one-sample", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.keep or Path(temporary)
        out.mkdir(exist_ok=True, parents=True)
        print("| task | photo | method | PSNR | seconds |\n| --- | --- | --- | --- | --- |", flush=True)
        for task in arguments.tasks:
            toml = out / f"{task}.toml"
            toml.write_text(OPERATORS[task])
            for photo in arguments.photos:
                original = out / f"{photo}.png"
                truth = read(arguments.folder / f"{photo}.png")
                # So that a quarter of its size is whole.
                truth = truth[: truth.shape[0] // 4 * 4, : truth.shape[1] // 4 * 4]
                Image.fromarray(truth.astype(np.uint8)).save(original)
                damaged = out / f"{photo}.{task}.damaged.png"
                tweedie("degrade", original, "--operator", toml, "-o", damaged, "-f", "-q")
                picture = read(damaged)
                if task == "colorize":
                    hints(truth, out / "hints.png")
                if task == "restore":
                    lost_pixels(truth, out)

                def row(method, restored, seconds):
                    print(f"| {task} | {photo} | {method} | {psnr(restored, truth):.2f} | {seconds:.2f} |", flush=True)

                if picture.shape == truth.shape:
                    row("as damaged", picture, 0)
                for method, path, seconds in ours(task, damaged, out, out / f"{photo}.{task}.png"):
                    row(method, read(path), seconds)
                    if arguments.only_one_sample:
                        break
                for method, restored, seconds in classical(task, picture, truth, out):
                    row(method, restored, seconds)


if __name__ == "__main__":
    main()
