#!/usr/bin/env python3
"""Scores classical inpainting and PNG files made by tweedie on the same photos and masks.

    pip install -r benches/peers/requirements.txt
    python benches/peers/inpaint.py FOLDER --cache CACHE --json scores.json
    python benches/peers/inpaint.py FOLDER --cache CACHE --restored OUTPUTS

FOLDER holds NAME.png and NAME.KIND.mask.png, white = missing. CACHE keeps what the classical methods made and the
seconds it took; delete it to run them again. OUTPUTS holds NAME.KIND-0000.png (one sample), NAME.KIND-mean.png
(posterior mean), or both.

OpenCV's radius is 3: on astronaut, chelsea and rocket with text, scratch and random70 it gives Telea 0.51 dB and
Navier–Stokes 0.07 dB more than radius 5 on average (5 is better by up to 0.16 dB on the scratches of rocket).

Metrics, all on 8-bit RGB:
  PSNR  10 log10(255² / MSE), the MSE over the masked pixels or over the whole image, all channels together
  SSIM  mean of the RGB SSIM map (Gaussian window 11, sigma 1.5, population covariance, range 255) over the masked
        pixels or over the whole image, borders included

Methods that leave the known pixels alone differ by the same number of dB over the masked pixels and over the whole
image, so differences are given once. The best classical method is chosen per case, by PSNR.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity
from skimage.restoration import inpaint_biharmonic

IMAGES = ["astronaut", "chelsea", "rocket"]
MASKS = ["text", "scratch", "box", "random70"]
AVERAGED = ["text", "scratch", "random70"]
RESTORED = {"0000": "one sample", "mean": "mean"}


@dataclass
class Score:
    """One method on one case; PSNR in dB, `None` where it is infinite; seconds are `None` where nothing was timed."""

    image: str
    mask: str
    method: str
    classical: bool
    psnr_masked: float | None
    ssim_masked: float
    psnr: float | None
    ssim: float
    known_pixels_changed: int
    seconds: float | None
    cpu_seconds: float | None


def fail(message):
    sys.exit(f"inpaint.py: {message}")


def load_rgb(path):
    with Image.open(path) as image:
        if image.mode != "RGB":
            fail(f"{path} has mode {image.mode}, expected 8-bit RGB")
        return np.asarray(image)


def load_mask(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L")) > 127


def psnr(reference, image):
    mse = np.mean((reference.astype(np.float64) - image.astype(np.float64)) ** 2)
    return None if mse == 0 else float(10 * np.log10(255**2 / mse))


def ssim_map(reference, image):
    _, values = structural_similarity(
        reference,
        image,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return values


def score(case, method, clean, mask, restored, classical, seconds=None, cpu_seconds=None):
    if restored.shape != clean.shape:
        fail(f"{method} of {'.'.join(case)} has shape {restored.shape}, the photo has {clean.shape}")
    values = ssim_map(clean, restored)
    return Score(
        image=case[0],
        mask=case[1],
        method=method,
        classical=classical,
        psnr_masked=psnr(clean[mask], restored[mask]),
        ssim_masked=float(values[mask].mean()),
        psnr=psnr(clean, restored),
        ssim=float(values.mean()),
        known_pixels_changed=int(np.any(clean != restored, axis=2)[~mask].sum()),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
    )


def classical_methods(radius):
    """Name in tables, stem in the cache, function of the damaged photo and the mask."""

    def opencv(flag):
        return lambda damaged, mask: cv2.inpaint(damaged, mask.astype(np.uint8) * 255, radius, flag)

    def biharmonic(damaged, mask):
        filled = inpaint_biharmonic(damaged, mask, channel_axis=-1)
        return np.clip(np.rint(filled * 255), 0, 255).astype(np.uint8)

    return [
        (f"Telea, radius {radius}", f"telea{radius}", opencv(cv2.INPAINT_TELEA)),
        (f"Navier–Stokes, radius {radius}", f"navier-stokes{radius}", opencv(cv2.INPAINT_NS)),
        ("biharmonic", "biharmonic", biharmonic),
    ]


def restore_or_load(cache, stem, restore, clean, mask):
    """The restored photo and its wall and CPU seconds, from the cache if it is there."""
    picture, timing = cache / f"{stem}.png", cache / f"{stem}.json"
    if picture.exists() and timing.exists():
        times = json.loads(timing.read_text())
        return load_rgb(picture), times["seconds"], times["cpu_seconds"]
    print(f"running {stem}", file=sys.stderr, flush=True)
    # What is under the mask is blacked out, so that no method can look at it.
    damaged = np.where(mask[:, :, None], np.uint8(0), clean)
    wall, cpu = time.perf_counter(), time.process_time()
    restored = restore(damaged, mask)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    Image.fromarray(restored).save(picture)
    timing.write_text(json.dumps({"seconds": wall, "cpu_seconds": cpu}))
    return restored, wall, cpu


def decibel(value):
    return "∞" if value is None else f"{value:.2f}"


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def methods_of(scores):
    return list(dict.fromkeys(s.method for s in scores))


def cases_of(scores):
    return list(dict.fromkeys((s.image, s.mask) for s in scores))


def best_classical(scores, case):
    return max((s for s in scores if s.classical and (s.image, s.mask) == case), key=lambda s: finite(s.psnr))


def finite(value):
    return float("inf") if value is None else value


def print_scores(scores):
    metrics = ["PSNR masked", "SSIM masked", "PSNR", "SSIM"]
    header = ["image", "mask", "method", *metrics, "seconds", "known pixels changed"]
    rows = [
        [
            s.image,
            s.mask,
            s.method,
            decibel(s.psnr_masked),
            f"{s.ssim_masked:.4f}",
            decibel(s.psnr),
            f"{s.ssim:.4f}",
            "–" if s.seconds is None else f"{s.seconds:.2f}",
            str(s.known_pixels_changed),
        ]
        for s in scores
    ]
    table(header, rows)


def print_differences(scores):
    restored = [s for s in scores if not s.classical]
    header = ["image", "mask", "best classical", "PSNR", *methods_of(restored)]
    rows = []
    for case in cases_of(scores):
        best = best_classical(scores, case)
        found = {s.method: s for s in restored if (s.image, s.mask) == case}
        cells = [
            f"{finite(found[method].psnr) - finite(best.psnr):+.2f}" if method in found else "–"
            for method in methods_of(restored)
        ]
        rows.append([*case, best.method, decibel(best.psnr), *cells])
    table(header, rows)


def averages(scores, masks):
    """Per method, over the cases with these masks that it has: means, and the mean difference to the best classical."""
    result = []
    for method in methods_of(scores):
        chosen = [s for s in scores if s.method == method and s.mask in masks]
        if not chosen:
            continue
        differences = [finite(s.psnr) - finite(best_classical(scores, (s.image, s.mask)).psnr) for s in chosen]
        result.append(
            {
                "method": method,
                "cases": len(chosen),
                "psnr_masked": float(np.mean([finite(s.psnr_masked) for s in chosen])),
                "ssim_masked": float(np.mean([s.ssim_masked for s in chosen])),
                "psnr": float(np.mean([finite(s.psnr) for s in chosen])),
                "ssim": float(np.mean([s.ssim for s in chosen])),
                "difference": float(np.mean(differences)),
            }
        )
    return result


def print_averages(rows, masks, cases):
    print(f"Average over {', '.join(masks)} ({cases} cases); difference to the best classical method of each case.\n")
    header = ["method", "cases", "PSNR masked", "SSIM masked", "PSNR", "SSIM", "difference, dB"]
    table(
        header,
        [
            [
                row["method"],
                str(row["cases"]),
                f"{row['psnr_masked']:.2f}",
                f"{row['ssim_masked']:.4f}",
                f"{row['psnr']:.2f}",
                f"{row['ssim']:.4f}",
                f"{row['difference']:+.2f}",
            ]
            for row in rows
        ],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="photos and masks")
    parser.add_argument("--images", nargs="+", default=IMAGES, metavar="NAME", help="default: %(default)s")
    parser.add_argument("--masks", nargs="+", default=MASKS, metavar="KIND", help="default: %(default)s")
    parser.add_argument("--average", nargs="+", default=AVERAGED, metavar="KIND", help="default: %(default)s")
    parser.add_argument("--radius", type=int, default=3, help="pixels, of OpenCV's methods, default: %(default)s")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="where the classical results are kept")
    parser.add_argument("--restored", type=Path, action="append", default=[], metavar="DIR", help="may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE")
    arguments = parser.parse_args()

    arguments.cache.mkdir(parents=True, exist_ok=True)
    scores, absent = [], []
    for case in [(image, mask) for image in arguments.images for mask in arguments.masks]:
        stem = ".".join(case)
        clean = load_rgb(arguments.folder / f"{case[0]}.png")
        mask = load_mask(arguments.folder / f"{stem}.mask.png")
        if mask.shape != clean.shape[:2]:
            fail(f"the mask of {stem} has shape {mask.shape}, the photo has {clean.shape[:2]}")
        for method, suffix, restore in classical_methods(arguments.radius):
            restored, wall, cpu = restore_or_load(arguments.cache, f"{stem}.{suffix}", restore, clean, mask)
            scores.append(score(case, method, clean, mask, restored, True, wall, cpu))
        for folder in arguments.restored:
            for ending, label in RESTORED.items():
                path = folder / f"{stem}-{ending}.png"
                if path.exists():
                    label = f"{folder.name}: {label}" if len(arguments.restored) > 1 else f"tweedie, {label}"
                    scores.append(score(case, label, clean, mask, load_rgb(path), False))
                else:
                    absent.append(str(path))

    if arguments.restored and all(s.classical for s in scores):
        fail(f"no restored photo was found; the first name looked for was {absent[0]}")
    for path in absent:
        print(f"inpaint.py: not found, left out: {path}", file=sys.stderr)

    averaged = [mask for mask in arguments.masks if mask in arguments.average]
    print_scores(scores)
    if arguments.restored:
        print("PSNR of the whole image, difference to the best classical method of the case.\n")
        print_differences(scores)
    means = averages(scores, averaged)
    if averaged:
        print_averages(means, averaged, len(arguments.images) * len(averaged))
    if arguments.json:
        versions = {name: version(name) for name in ["numpy", "opencv-python-headless", "scikit-image", "pillow"]}
        document = {
            "versions": versions,
            "radius": arguments.radius,
            "scores": [asdict(s) for s in scores],
            "averaged_masks": averaged,
            "averages": means,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
