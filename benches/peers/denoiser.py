"""The network under PyTorch, in every form that PyTorch offers on a CPU; imported by the scripts beside it."""

import contextlib
import json
import os
import time
from dataclasses import dataclass

import diffusers
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

diffusers.utils.logging.set_verbosity_error()

SIGMA = 0.4
# What PyTorch has for a precision: weights in f32 or cast in every call by torch.autocast, weights and activations in bf16.
ARITHMETICS = {"f32": ["f32"], "bf16": ["autocast", "pure"]}
# Largest relative L2 error against io.safetensors. bf16 has 8 bits of precision, and the errors of 50 layers add up.
TOLERANCE = {"f32": 1e-5, "autocast": 1e-1, "pure": 1e-1}


@dataclass(frozen=True)
class Variant:
    """How PyTorch runs the network.

    layout      nchw or channels_last
    arithmetic  f32, autocast (f32 weights, cast to bf16 in every call) or pure (everything but the scalings in bf16)
    mode        eager, compile (torch.compile) or freeze (torch.compile with the weights as constants)
    """

    layout: str
    arithmetic: str
    mode: str

    def __str__(self):
        return f"{self.mode} {self.layout} {self.arithmetic}"


class Denoiser:
    """`D(x; sigma) = c_skip x + c_out F(c_in x, ln sigma / 4)` (Karras et al. 2022, arXiv 2206.00364, table 1)."""

    def __init__(self, folder, variant, trainable=False):
        self.format = torch.channels_last if variant.layout == "channels_last" else torch.contiguous_format
        self.arithmetic = variant.arithmetic
        self.dtype = torch.bfloat16 if variant.arithmetic == "pure" else torch.float32
        scheduler = folder / "scheduler" / "scheduler_config.json"
        self.sigma_data = json.loads(scheduler.read_text())["sigma_data"] if scheduler.exists() else 0.5
        unet = UNet2DModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False)
        unet = unet.train(trainable).requires_grad_(trainable)
        self.network = unet.to(dtype=self.dtype, memory_format=self.format)
        self.estimate = compiled(self._estimate, variant.mode)

    def prepare(self, x):
        return x.contiguous(memory_format=self.format)

    def raw(self, x, sigma):
        c_in = (sigma**2 + self.sigma_data**2).rsqrt()
        autocast = torch.autocast("cpu", torch.bfloat16) if self.arithmetic == "autocast" else contextlib.nullcontext()
        with autocast:
            return self.network((c_in * x).to(self.dtype), (sigma.log() / 4).flatten()).sample.float()

    def _estimate(self, x, sigma):
        total = sigma**2 + self.sigma_data**2
        c_skip, c_out = self.sigma_data**2 / total, sigma * self.sigma_data * total.rsqrt()
        return c_skip * x + c_out * self.raw(x, sigma)

    def denoise(self, x, sigma, v=None):
        with torch.no_grad():
            return self.estimate(x, sigma)

    def pullback(self, x, sigma, v):
        x = x.detach().requires_grad_()
        denoised = self.estimate(x, sigma)
        (gradient,) = torch.autograd.grad(denoised, x, v)
        return denoised.detach(), gradient


def compiled(function, mode):
    if mode == "eager":
        return function
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    # Every variant of a case is one entry in the cache of the same function.
    dynamo.recompile_limit = 64
    if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
        # The vector width of generated code follows the variable, its -march=native does not.
        inductor.cpp.march = "x86-64-v3"
    match mode:
        case "compile":
            return torch.compile(function, dynamic=False)
        case "freeze":
            return torch.compile(function, dynamic=False, options={"freezing": True})
        case _:
            raise ValueError(f"unknown mode {mode}; known: eager, compile, freeze")


def relative_error(value, expected):
    """Relative L2 error of a tensor, or the largest of a tuple of them."""
    if isinstance(value, tuple):
        return max(relative_error(a, b) for a, b in zip(value, expected, strict=True))
    return float((value - expected).norm() / expected.norm())


def verify(denoiser, folder):
    """Relative L2 errors against io.safetensors, the largest over its inputs: per output, and of D per sigma."""
    stored = load_file(folder / "io.safetensors")
    errors, by_sigma = {"F": 0.0, "denoised": 0.0, "grad_x": 0.0}, {}
    for prefix in sorted(key.removesuffix(".x") for key in stored if key.endswith(".x")):
        x, v = (denoiser.prepare(stored[f"{prefix}.{name}"]) for name in ("x", "v"))
        level = float(prefix.split(".sigma")[1])
        sigma = torch.full((x.shape[0], 1, 1, 1), level)
        with torch.no_grad():
            raw = denoiser.raw(x, sigma)
        denoised, gradient = denoiser.pullback(x, sigma, v)
        for name, value in (("F", raw), ("denoised", denoised), ("grad_x", gradient)):
            errors[name] = max(errors[name], relative_error(value, stored[f"{prefix}.{name}"]))
        error = relative_error(denoised, stored[f"{prefix}.denoised"])
        by_sigma[level] = max(by_sigma.get(level, 0.0), error)
    return errors, dict(sorted(by_sigma.items()))


def milliseconds(call):
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def rank(calls, passes):
    """The least of a few calls of each in ms, alternating; the fastest first."""
    times = {name: [] for name in calls}
    for _ in range(passes):
        for name, call in calls.items():
            times[name].append(milliseconds(call))
    return dict(sorted(((name, min(of_name)) for name, of_name in times.items()), key=lambda entry: entry[1]))
