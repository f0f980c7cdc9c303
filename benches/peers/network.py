#!/usr/bin/env python3
"""Times a diffusers UNet2DModel under PyTorch on the CPU: the denoiser and its pullback, as JSON lines.

    pip install -r benches/peers/requirements-network.txt
    python benches/peers/network.py MODEL
    python benches/peers/network.py MODEL --sizes 256 --batches 1 --threads 1 2 --precisions f32 bf16
    python benches/peers/network.py MODEL --against 'COMMAND --call {call} --size {size} --threads {threads}'

MODEL is a diffusers folder with unet/, EDM preconditioning (sigma_data from scheduler/, else 0.5) and io.safetensors,
whose outputs must be reproduced before anything is timed.

  denoise   D(x; sigma), without a tape
  pullback  D(x; sigma) and the gradient of sum(D v) by x, through autograd; no gradients of the weights

  f32        weights and activations in f32
  bf16       f32 weights under torch.autocast, which casts them in every call
  bf16-pure  weights and activations in bf16; the scalings around the network stay in f32

With --against, every round times PyTorch and then runs COMMAND once, so that both see the same machine. {call}, {size},
{batch}, {threads} and {precision} are filled in; each number COMMAND prints, one a line, is one call in milliseconds.
"""

import argparse
import contextlib
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import diffusers
import torch
from diffusers import UNet2DModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

SIGMA = 0.4
# Largest relative L2 error against io.safetensors. bf16 has 8 bits of precision, and the errors of 50 layers add up.
TOLERANCE = {"f32": 1e-5, "bf16": 1e-1, "bf16-pure": 1e-1}


def fail(message):
    sys.exit(f"network.py: {message}")


class Denoiser:
    """`D(x; sigma) = c_skip x + c_out F(c_in x, ln sigma / 4)` (Karras et al. 2022, arXiv 2206.00364, table 1)."""

    def __init__(self, folder, layout, precision, compiled=False):
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16-pure" else torch.float32
        scheduler = folder / "scheduler" / "scheduler_config.json"
        self.sigma_data = json.loads(scheduler.read_text())["sigma_data"] if scheduler.exists() else 0.5
        unet = UNet2DModel.from_pretrained(folder / "unet").eval().requires_grad_(False)
        unet = unet.to(dtype=self.dtype, memory_format=self.format)
        self.network = torch.compile(unet) if compiled else unet

    def prepare(self, x):
        return x.contiguous(memory_format=self.format)

    def raw(self, x, sigma):
        c_in = (sigma**2 + self.sigma_data**2).rsqrt()
        autocast = torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()
        with autocast:
            return self.network((c_in * x).to(self.dtype), (sigma.log() / 4).flatten()).sample.float()

    def __call__(self, x, sigma):
        total = sigma**2 + self.sigma_data**2
        c_skip, c_out = self.sigma_data**2 / total, sigma * self.sigma_data * total.rsqrt()
        return c_skip * x + c_out * self.raw(x, sigma)

    def denoise(self, x, sigma, v):
        with torch.no_grad():
            return self(x, sigma)

    def pullback(self, x, sigma, v):
        x = x.detach().requires_grad_()
        denoised = self(x, sigma)
        (gradient,) = torch.autograd.grad(denoised, x, v)
        return denoised.detach(), gradient


def relative_error(value, expected):
    return float((value - expected).norm() / expected.norm())


def verify(denoiser, folder):
    """Largest relative L2 errors over every stored input, per output."""
    path = folder / "io.safetensors"
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
    stored = load_file(path)
    errors = {"F": 0.0, "denoised": 0.0, "grad_x": 0.0}
    for prefix in sorted(key.removesuffix(".x") for key in keys if key.endswith(".x")):
        x, v = (denoiser.prepare(stored[f"{prefix}.{name}"]) for name in ("x", "v"))
        sigma = torch.full((x.shape[0], 1, 1, 1), float(prefix.split(".sigma")[1]))
        with torch.no_grad():
            raw = denoiser.raw(x, sigma)
        denoised, gradient = denoiser.pullback(x, sigma, v)
        for name, value in (("F", raw), ("denoised", denoised), ("grad_x", gradient)):
            errors[name] = max(errors[name], relative_error(value, stored[f"{prefix}.{name}"]))
    return errors


def milliseconds(call, arguments):
    start = time.perf_counter()
    call(*arguments)
    return 1000 * (time.perf_counter() - start)


def times_of_command(template, case):
    command = [part.format(**case) for part in shlex.split(template)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        fail(f"{shlex.join(command)} exited with {result.returncode}: {result.stderr.strip()}")
    try:
        times = [float(line) for line in result.stdout.split()]
    except ValueError:
        fail(f"{shlex.join(command)} printed {result.stdout.strip()!r}, expected one number of milliseconds a line")
    if not times:
        fail(f"{shlex.join(command)} printed nothing, expected one number of milliseconds a line")
    return times


def summary(times, gflop):
    median = statistics.median(times)
    return {
        "median_ms": round(median, 2),
        "min_ms": round(min(times), 2),
        "max_ms": round(max(times), 2),
        "calls": len(times),
        "gflops": round(1000 * gflop / median, 1),
    }


def check_compiled(compiled, eager, precision):
    compiled, eager = (values if isinstance(values, tuple) else (values,) for values in (compiled, eager))
    error = max(relative_error(value, expected) for value, expected in zip(compiled, eager, strict=True))
    if error > TOLERANCE[precision]:
        fail(f"the compiled network differs from the eager one by {error:.2e}, allowed {TOLERANCE[precision]:.0e}")


def measure(denoiser, eager, case, arguments):
    """The first call and all later ones, then those of the other command, in ms; `eager` is what must be matched."""
    torch.set_num_threads(case["threads"])
    generator = torch.Generator().manual_seed(0)
    shape = (case["batch"], 3, case["size"], case["size"])
    x, v = (denoiser.prepare(torch.randn(shape, generator=generator)) for _ in range(2))
    sigma = torch.full((case["batch"], 1, 1, 1), SIGMA)
    call, inputs = getattr(denoiser, case["call"]), (x, sigma, v)

    theirs, ours = [], []
    first = milliseconds(call, inputs)
    if eager is not None:
        check_compiled(call(*inputs), getattr(eager, case["call"])(*inputs), case["precision"])
    for _ in range(arguments.rounds):
        times = []
        while len(times) < arguments.repeats or sum(times) < 1000 * arguments.seconds:
            times.append(milliseconds(call, inputs))
        theirs += times
        if arguments.against:
            ours += times_of_command(arguments.against, case)
    return first, theirs, ours


def gflop(denoiser, call, size):
    """Of one row, counted and not timed: two operations per multiply-add of convolutions and matrix products."""
    x, v = (denoiser.prepare(torch.zeros(1, 3, size, size)) for _ in range(2))
    with FlopCounterMode(display=False) as counter:
        getattr(denoiser, call)(x, torch.full((1, 1, 1, 1), SIGMA), v)
    return counter.get_total_flops() / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="diffusers folder")
    parser.add_argument("--calls", nargs="+", choices=["denoise", "pullback"], default=["denoise", "pullback"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512], metavar="PX")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4], metavar="N")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--layouts", nargs="+", choices=["nchw", "channels_last"], default=["nchw", "channels_last"])
    parser.add_argument("--precisions", nargs="+", choices=list(TOLERANCE), default=["f32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="torch.compile as well: C++ compiler, minutes a case")
    parser.add_argument("--repeats", type=int, default=5, help="fewest calls a round, default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="shortest round, default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="default: %(default)s; 5 or more with --against")
    parser.add_argument("--against", metavar="COMMAND", help="command to alternate with")
    arguments = parser.parse_args()

    if not (arguments.model / "unet").is_dir():
        fail(f"{arguments.model} has no folder unet/")
    diffusers.utils.logging.set_verbosity_error()
    machine = {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(machine), flush=True)

    operations_of_row = {}
    for compiled in [False, True] if arguments.compile else [False]:
        for layout in arguments.layouts:
            for precision in arguments.precisions:
                # The counter does not see into compiled code, so the operations are those of the eager network.
                eager = Denoiser(arguments.model, layout, precision)
                variant = {"layout": layout, "precision": precision, "mode": "compile" if compiled else "eager"}
                if not compiled:
                    errors = verify(eager, arguments.model)
                    rounded = {name: float(f"{error:.2e}") for name, error in errors.items()}
                    print(json.dumps({"verified": rounded, **variant}), flush=True)
                    worst, allowed = max(errors.values()), TOLERANCE[precision]
                    if worst > allowed:
                        fail(f"relative error {worst:.2e} against io.safetensors, allowed {allowed:.0e}")
                cases = itertools.product(arguments.calls, arguments.sizes, arguments.batches, arguments.threads)
                for call, size, batch, threads in cases:
                    # Threads are part of what is compiled: a fresh wrapper for each.
                    torch._dynamo.reset()
                    denoiser = Denoiser(arguments.model, layout, precision, compiled)
                    case = {"call": call, "size": size, "batch": batch, "threads": threads, "precision": precision}
                    if (call, size) not in operations_of_row:
                        operations_of_row[call, size] = gflop(eager, call, size)
                    operations = batch * operations_of_row[call, size]
                    first, theirs, ours = measure(denoiser, eager if compiled else None, case, arguments)
                    line = {**case, **variant, "gflop": round(operations, 2), **summary(theirs, operations)}
                    line["first_ms"] = round(first, 2)
                    if ours:
                        line["against"] = summary(ours, operations)
                        line["ratio"] = round(statistics.median(theirs) / statistics.median(ours), 3)
                    line["load_average"] = round(os.getloadavg()[0], 2)
                    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
