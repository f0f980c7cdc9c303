#!/usr/bin/env python3
"""DPS, DDRM and DiffPIR of deepinv beside tweedie's: same weights, same measurements, same number of network evaluations.

    pip install -r benches/peers/requirements-restoration.txt
    cargo build --release
    python benches/peers/posterior.py MODEL PHOTO… [--steps 100] [--crop 256] [--tasks sr4 deblur random70] [--table OUT.md]

MODEL is a diffusers folder (see network.py), which both load. The central crop of every photo is measured once by
`tweedie degrade`; its y, noise included, goes to everybody. All noise has σ = 0.05 on [-1, 1].

  sr4       every fourth pixel of a bicubic-filtered image, circular borders (deepinv's Downsampling)
  deblur    Gaussian blur of σ = 3 pixels, circular borders (deepinv's BlurFFT)
  random70  70 % of the pixels missing

deepinv's DDRM needs a singular value decomposition, which its Downsampling does not have. PSNR in dB over the crop in 8 bits;
seconds of sampling with --threads threads, PyTorch in f32 and in bf16 (autocast) whichever --precision says, taken one after
another: deepinv's from the measurement to the photo, tweedie's as it reports itself.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import deepinv
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from denoiser import Denoiser, Variant

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("TWEEDIE", ROOT / "target/release/tweedie"))
SIGMA = 0.05
NOISE = f'[noise]\nname = "gaussian"\nsigma = {SIGMA}\n'
OPERATORS = {
    "sr4": '[operator]\nname = "downsample_kernel"\nfactor = 4\nkernel = "bicubic"\npadding = "circular"\n',
    "deblur": '[operator]\nname = "blur"\nkernel = { shape = "gaussian", sigma = 3.0, size = 31 }\npadding = "circular"\n',
    "random70": '[operator]\nname = "inpaint_file"\nfile = "mask.png"\n',
}
# Published for each task (Zhu et al. 2023). deepinv's proximal map halves the weight of the data, so its λ is half of ours.
DIFFPIR = {"sr4": {"zeta": 0.25, "lambda_": 15.0}, "deblur": {"zeta": 0.3, "lambda_": 7.0}, "random70": {"zeta": 1.0, "lambda_": 1.0}}


class Prior(deepinv.models.Denoiser):
    """The network as deepinv wants it: photos in [0, 1], where sigma is half of what it is in [-1, 1]."""

    def __init__(self, network):
        super().__init__()
        self.network, self.evaluations = network, 0

    def forward(self, x, sigma, **_):
        self.evaluations += 1
        sigma = torch.as_tensor(sigma, dtype=torch.float32)
        sigma = (2 * sigma).reshape(-1, 1, 1, 1).expand(x.shape[0], 1, 1, 1).clamp(0.002, 80)
        x = x.float()
        return (self.network.estimate(2 * x - 1, sigma) + 1) / 2


def tweedie(*arguments):
    command = [str(PROGRAM), *map(str, arguments)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {result.stderr}")
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def psnr(truth, restored):
    restored = np.clip(np.round(restored), 0, 255)
    return 10 * np.log10(255**2 / np.mean((truth - restored) ** 2))


def physics(task, size, folder):
    noise = deepinv.physics.GaussianNoise(SIGMA / 2)
    image = (3, size, size)
    if task == "sr4":
        return deepinv.physics.Downsampling(
            img_size=image, filter="bicubic", factor=4, padding="circular", noise_model=noise
        )
    if task == "deblur":
        kernel = gaussian(3.0, 31)
        return deepinv.physics.BlurFFT(img_size=image, filter=kernel, noise_model=noise)
    known = torch.from_numpy(np.asarray(Image.open(folder / "mask.png")) <= 127).float()
    return deepinv.physics.Inpainting(img_size=image, mask=known.expand(3, -1, -1), noise_model=noise)


def gaussian(sigma, size):
    """Sampled at the pixels' centres and normalised, as the operator `blur` has it."""
    at = torch.arange(size) - size // 2
    row = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = row[:, None] * row[None, :]
    return (kernel / kernel.sum())[None, None]


def theirs(method, task, operator, prior, y, steps):
    if method == "ddrm":
        if not isinstance(operator, deepinv.physics.DecomposablePhysics):
            return None
        sampler = deepinv.sampling.DDRM(denoiser=prior, sigmas=np.linspace(1, 0, steps))
    elif method == "diffpir":
        sampler = deepinv.sampling.DiffPIR(
            model=prior,
            data_fidelity=deepinv.optim.data_fidelity.L2(),
            sigma=SIGMA / 2,
            max_iter=steps,
            **DIFFPIR[task],
        )
    else:
        sampler = deepinv.sampling.DPS(
            denoiser=prior, num_steps=steps, dtype=torch.float32, rng=torch.Generator().manual_seed(1)
        )
    torch.manual_seed(1)
    prior.evaluations, start = 0, time.perf_counter()
    if method == "dps":
        restored = sampler(y, operator)
    else:
        restored = sampler(y.clone(), operator, seed=1)
    seconds = time.perf_counter() - start
    return restored[0].detach().clamp(0, 1).permute(1, 2, 0).numpy() * 255, seconds, prior.evaluations


def ours(method, task, arguments, measured, size, output):
    # What auto takes is its own: it stays below --steps evaluations by far.
    steps = [] if method.startswith("auto") else ["--steps", arguments.steps]
    quality = ["--quality", "best"] if method == "auto best" else []
    settings = list(arguments.set)
    if method == "ddrm":
        # deepinv's levels, 1 to 0 evenly for pixels in [0, 1], and its noise, which it divides by √2.
        levels = f"steps={arguments.steps}, sigma_start=2.0, sigma_end={2 / arguments.steps}, rho=1.0, schedule='karras'"
        settings += [f"ddrm:sampler.annealing={{ {levels}, renoise = {{ fraction = 0.7225 }} }}", "ddrm:sampler.temperature=0.70711"]
    if method == "diffpir":
        values = DIFFPIR[task]
        settings += [f"diffpir:sampler.lambda={2 * values['lambda_']}"]
        settings += [f"diffpir:sampler.annealing.renoise={{ fraction = {values['zeta']} }}"]
    extra = [part for setting in settings if setting.split(":")[0] == method for part in ("--set", setting.split(":", 1)[1])]
    events = tweedie(
        "restore", measured, "-o", output, "--force", "--json", "--sampler", method.split()[0], *steps, *quality,
        "--size", f"{size}x{size}", "--model", arguments.model, "--threads", arguments.threads,
        "--precision", arguments.precision, *extra,
    )  # fmt: skip
    summary = next(event for event in events if event["event"] == "summary")
    file = next(event for event in events if event["event"] == "file")
    return np.asarray(Image.open(output).convert("RGB"), np.float64), summary["sampling_seconds"], file["evaluations"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--tasks", nargs="+", default=list(OPERATORS), choices=list(OPERATORS))
    parser.add_argument("--methods", nargs="+", default=["dps", "ddrm", "diffpir"])
    parser.add_argument("--defaults", nargs="*", default=["auto"], help="auto, and 'auto best'")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--set", nargs="*", default=[], help="METHOD:sampler.KEY=VALUE for tweedie's")
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arithmetic = "autocast" if arguments.precision == "bf16" else "f32"
    prior = Prior(Denoiser(arguments.model, Variant("channels_last", arithmetic, "eager")))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for photo in arguments.photos:
            picture = Image.open(photo).convert("RGB")
            size = arguments.crop
            left, top = (picture.width - size) // 2, (picture.height - size) // 2
            picture = picture.crop((left, top, left + size, top + size))
            picture.save(folder / "truth.png")
            truth = np.asarray(picture, np.float64)
            missing = np.random.default_rng(0).random((size, size)) < 0.7
            Image.fromarray((missing * 255).astype(np.uint8)).save(folder / "mask.png")
            for task in arguments.tasks:
                (folder / "task.toml").write_text(OPERATORS[task] + NOISE)
                measured = folder / "y.safetensors"
                tweedie(
                    "degrade", folder / "truth.png", "--operator", folder / "task.toml", "--save-measurement", measured,
                    "-o", folder / "degraded.png", "--force",
                )  # fmt: skip
                tensors = load_file(measured)
                y = next(iter(tensors.values())) if len(tensors) == 1 else tensors["y"]
                operator = physics(task, size, folder)
                x = torch.from_numpy(truth).permute(2, 0, 1)[None].float() / 255
                clean = operator.A(x)
                half = (y + 1) / 2 if task != "random70" else (y + 1) / 2 * operator.mask
                noise = (half - clean).std().item()
                expected = SIGMA / 2 * (0.3**0.5 if task == "random70" else 1)
                assert abs(noise / expected - 1) < 0.05, f"{task}: the operators differ: {noise} instead of {expected}"
                for method in arguments.methods:
                    for side in ["theirs", "ours"]:
                        if side == "theirs":
                            result = None if arguments.only_ours else theirs(method, task, operator, prior, half, arguments.steps)
                        else:
                            result = ours(method, task, arguments, measured, size, folder / "restored.png")
                        if result is not None:
                            rows.append((task, photo.stem, method, side, psnr(truth, result[0]), *result[1:]))
                            print(*rows[-1], flush=True)
                for method in arguments.defaults:
                    result = ours(method, task, arguments, measured, size, folder / "restored.png")
                    rows.append((task, photo.stem, method, "ours", psnr(truth, result[0]), *result[1:]))
                    print(*rows[-1], flush=True)
    lines = ["| task | method | deepinv, dB | tweedie, dB | difference | deepinv, s | tweedie, s | ratio | evaluations |\n", "| --- |" + " ---: |" * 8 + "\n"]
    for task in arguments.tasks:
        for method in [*arguments.methods, *arguments.defaults]:
            of = {side: [row for row in rows if row[0] == task and row[2] == method and row[3] == side] for side in ("theirs", "ours")}
            mean = {side: (np.mean([row[4] for row in of[side]]), np.mean([row[5] for row in of[side]])) if of[side] else None for side in of}
            cells = [task, method]
            t, o = mean["theirs"], mean["ours"]
            cells += [f"{t[0]:.2f}" if t else "–", f"{o[0]:.2f}", f"{o[0] - t[0]:+.2f}" if t else "–"]
            cells += [f"{t[1]:.1f}" if t else "–", f"{o[1]:.1f}", f"{o[1] / t[1]:.2f}" if t else "–"]
            cells += [" / ".join(str(of[side][0][6]) for side in ("theirs", "ours") if of[side])]
            lines.append("| " + " | ".join(cells) + " |\n")
    table = "".join(lines)
    print(table)
    if arguments.table:
        arguments.table.write_text(table)


if __name__ == "__main__":
    main()
