#!/usr/bin/env python3
"""PSNR of one evaluation of priors on noisy photos, beside colour BM3D, with tweedie's networks run by PyTorch.

    pip install -r benches/peers/requirements-denoising.txt
    python benches/peers/denoising.py FOLDER MODEL.safetensors … [--photos astronaut chelsea rocket] [--sheet OUT.png]
    python benches/peers/denoising.py FOLDER MODEL.safetensors --store IO.safetensors

FOLDER holds NAME.png; MODEL are native files of tweedie (`tweedie models convert`). The middle 256 x 256 pixels of each photo,
white Gaussian noise of 10, 25, 50 and 100 levels that is neither clipped nor rounded, the same for everybody; all are told the
level. PSNR in dB, 10 log10(255² / MSE), of what comes out, not rounded either.

The networks are written here from their descriptions, `PatchUNet` in torch.nn.functional and `UNet2DModel` by diffusers, and
run in double precision. With --store what the first model makes of the top left 48 x 80 pixels of the first photo's crop at
six noise levels goes into a file that `tweedie models verify MODEL --io IO.safetensors` and the tests compare with, and the
values for `self_test` are printed.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

SIGMAS = [10, 25, 50, 100]
STORED = [0.02, 0.1, 0.4, 1, 4, 20]


class PatchUNet:
    """U-Net on squares of pixels (src/models/patch_unet.rs): no norm, added skips, one vector of the noise level."""

    def __init__(self, config, tensors):
        if config.get("groups") or config.get("energy"):
            raise SystemExit("denoising.py: PatchUNet with norms or as an energy is not written here")
        self.config, self.tensors = config, tensors

    def convolution(self, name, x, **how):
        return F.conv2d(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], **how)

    def dense(self, name, x):
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def block(self, name, x, e):
        hidden = self.convolution(f"{name}.conv1", F.silu(x), padding=1)
        hidden = hidden + self.dense(f"{name}.embedding", F.silu(e))[:, :, None, None]
        return x + self.convolution(f"{name}.conv2", F.silu(hidden), padding=1)

    def __call__(self, x, c):
        frequencies = torch.exp(-math.log(10000) * torch.arange(32, dtype=x.dtype) / 32)
        e = torch.cat([torch.cos(c * frequencies), torch.sin(c * frequencies)])[None]
        e = self.dense("embedding.1", F.silu(self.dense("embedding.0", e)))
        patch, blocks = self.config.get("patch", 2), self.config["blocks"]
        last = len(blocks) - 1
        x = self.convolution("stem", F.pixel_unshuffle(x, patch), padding=1)
        skips = []
        for level, count in enumerate(blocks):
            for number in range(count):
                x = self.block(f"down.{level}.{number}", x, e)
            if level < last:
                skips.append(x)
                x = self.convolution(f"down.{level}.resample", x, stride=2)
        for level in reversed(range(last)):
            double = F.interpolate(x, scale_factor=2, mode="nearest")
            x = skips.pop() + self.convolution(f"up.{level}.resample", double, padding=1)
            for number in range(blocks[level]):
                x = self.block(f"up.{level}.{number}", x, e)
        return F.pixel_shuffle(self.convolution("head", F.silu(x), padding=1), patch)


class Denoiser:
    """`D(x; sigma) = c_skip x + c_out F(c_in x, ln sigma / 4)` (Karras et al. 2022, arXiv 2206.00364, table 1)."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name).double() for name in file.keys()}
        config = json.loads(metadata["config"])
        said = json.loads(metadata.get("parameterization") or "null") or config.get("parameterization")
        if said not in (None, {"edm": {"sigma_data": 0.5}}):
            raise SystemExit(f"denoising.py: {path}: parameterized as {said}, which is not written here")
        self.name, self.sigma_data = metadata["name"], 0.5
        if metadata["architecture"] == "PatchUNet":
            self.network = PatchUNet(config, tensors)
        elif metadata["architecture"] == "UNet2DModel":
            from diffusers import UNet2DModel

            unet = UNet2DModel.from_config(config).double().eval().requires_grad_(False)
            unet.load_state_dict(tensors)
            self.network = lambda x, c: unet(x, c).sample
        else:
            raise SystemExit(f"denoising.py: {path}: {metadata['architecture']} is not written here")

    def __call__(self, x, sigma):
        total = sigma**2 + self.sigma_data**2
        out = self.network(x / math.sqrt(total), torch.tensor(math.log(sigma) / 4, dtype=x.dtype))
        return self.sigma_data**2 / total * x + sigma * self.sigma_data / math.sqrt(total) * out


def crop(path, size=256):
    photo = np.asarray(Image.open(path).convert("RGB"), np.float64)
    top, left = (photo.shape[0] - size) // 2, (photo.shape[1] - size) // 2
    return photo[top : top + size, left : left + size]


def psnr(a, b):
    return 10 * math.log10(255**2 / np.mean((a - b) ** 2))


def by(prior):
    def denoise(noisy, sigma):
        x = torch.from_numpy(noisy / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            return (prior(x, sigma / 127.5)[0].permute(1, 2, 0).numpy() + 1) * 127.5

    return denoise


def store(prior, clean, path):
    """Inputs, outputs, cotangents and their gradients at the stored noise levels, 48 x 80 pixels."""
    x0 = torch.from_numpy(clean[:48, :80] / 127.5 - 1).permute(2, 0, 1)[None].float()
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for sigma in STORED:
        x = x0 + sigma * torch.randn(x0.shape, generator=generator)
        v = torch.randn(x0.shape, generator=generator)
        free = x.double().requires_grad_()
        denoised = prior(free, sigma)
        (gradient,) = torch.autograd.grad((denoised * v).sum(), free)
        named = {"x": x, "v": v, "denoised": denoised.detach().float(), "grad_x": gradient.float()}
        named["sigma"] = torch.tensor([sigma])
        tensors.update({f"wide.sigma{sigma}.{name}": tensor.contiguous() for name, tensor in named.items()})
    save_file(tensors, path)
    i, j, c = torch.arange(16.0).double()[:, None], torch.arange(16.0).double()[None], torch.arange(3.0).double()
    pattern = torch.sin(0.7 * i + 0.3 * j + c[:, None, None])[None]
    with torch.inference_mode():
        values = prior(pattern, 0.5).flatten()[:64]
    print("self_test=" + json.dumps({"sigma": 0.5, "values": [float(f"{value:.7g}") for value in values]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--photos", nargs="+", default=["astronaut", "chelsea", "rocket"])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--no-bm3d", action="store_true")
    parser.add_argument("--sheet", type=Path, help="pictures at 50 levels: clean, noisy, each model, BM3D")
    arguments = parser.parse_args()
    priors = [Denoiser(path) for path in arguments.models]
    if arguments.store:
        return store(priors[0], crop(arguments.folder / f"{arguments.photos[0]}.png"), arguments.store)
    methods = [(prior.name, by(prior)) for prior in priors]
    if not arguments.no_bm3d:
        import colour_bm3d

        methods.append(("BM3D", colour_bm3d.denoised))
    found = {name: [] for name, _ in methods}
    sheet = []
    for number, photo in enumerate(arguments.photos):
        clean = crop(arguments.folder / f"{photo}.png")
        for sigma in SIGMAS:
            noisy = clean + sigma * np.random.default_rng([number, sigma]).standard_normal(clean.shape)
            pictures = [clean, noisy]
            for name, denoise in methods:
                denoised = denoise(noisy, sigma)
                found[name].append(psnr(denoised, clean))
                pictures.append(denoised)
            if sigma == 50:
                sheet.append(np.concatenate(pictures, 1))
    print(f"| photo | method | {' | '.join(f'σ = {sigma}' for sigma in SIGMAS)} |")
    print("| --- " * (2 + len(SIGMAS)) + "|")
    rows = [(name, np.array(values).reshape(-1, len(SIGMAS))) for name, values in found.items()]
    for number, photo in enumerate([*arguments.photos, "mean"]):
        for name, values in rows:
            values = values.mean(0) if photo == "mean" else values[number]
            print(f"| {photo} | {name} | {' | '.join(f'{value:.2f}' for value in values)} |")
    if arguments.sheet:
        picture = np.clip(np.round(np.concatenate(sheet)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(arguments.sheet)
    return None


if __name__ == "__main__":
    main()
