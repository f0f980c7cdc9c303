#!/usr/bin/env python3
"""Times a diffusers UNet2DModel under PyTorch on the CPU, and another program with the same weights, as JSON lines.

    pip install -r benches/peers/requirements-network.txt
    python benches/peers/network.py MODEL
    python benches/peers/network.py MODEL --best 2 --drop 1.5 --table table.md \\
        --against 'target/release/tweedie bench --what {call} --size {size} --batch {batch} --threads {threads} …'

MODEL is a diffusers folder with unet/, EDM preconditioning (sigma_data from scheduler/, else 0.5) and io.safetensors,
whose outputs must be reproduced before anything is timed.

  denoise   D(x; sigma), without a tape
  pullback  D(x; sigma) and the gradient of sum(D v) by x, through autograd; no gradients of the weights
  train     the weighted denoising loss, the gradients of all weights, one step of Adam; 16 patches of 64² by default

Every case is run with each variant of PyTorch: eager, compiled and (denoise) compiled with frozen weights; NCHW and
channels-last; for bf16 with f32 weights under torch.autocast and with everything in bf16 (not for train); for train with
the fused and the foreach Adam. Compiled variants must agree with the eager network.

A round times every variant once and then runs COMMAND once, so that all see the same machine; their order rotates. {call},
{size}, {batch}, {threads} and {precision} are filled in; each number COMMAND prints, one a line, is one call in ms. A time
is the median over the rounds of the median within a round.

  ratio      ours / the best variant of PyTorch: below 1 where ours is faster
  ratio_low, ratio_high  the same within one round, the least and the largest

--best N first ranks the variants by two calls each and takes only the N fastest into the rounds. --drop F leaves a variant
out of the later cases of its call and precision once it took more than F times as long as the fastest one.
"""

import argparse
import itertools
import os
import sys
from pathlib import Path

from speed_table import markdown

CALLS = ["denoise", "pullback", "train"]
MODES = ["eager", "compile", "freeze"]
# Of torch, oneDNN and MKL; the last one is for COMMAND.
LIMITS = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "TWEEDIE_CPU_FEATURES": "avx2",
    }
}


def fail(message):
    sys.exit(f"network.py: {message}")


def cases(arguments):
    for call in arguments.calls:
        shapes = itertools.product(arguments.sizes, arguments.batches)
        if call == "train":
            shapes = [(arguments.train_size, arguments.train_batch)]
        for (size, batch), threads, precision in itertools.product(shapes, arguments.threads, arguments.precisions):
            yield {"call": call, "size": size, "batch": batch, "threads": threads, "precision": precision}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="diffusers folder")
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=CALLS, help="default: all")
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512], metavar="PX", help="default: %(default)s")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4], metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="default: %(default)s")
    parser.add_argument("--precisions", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"])
    parser.add_argument("--layouts", nargs="+", choices=["nchw", "channels_last"], default=["nchw", "channels_last"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="the last two need a C++ compiler")
    parser.add_argument("--train-size", type=int, default=64, metavar="PX", help="default: %(default)s")
    parser.add_argument("--train-batch", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--best", type=int, default=0, metavar="N", help="rank first, then time only the N fastest")
    parser.add_argument("--drop", type=float, default=0.0, metavar="F", help="do not try again what is F times slower")
    parser.add_argument("--rounds", type=int, default=7, help="at most, default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of a case's rounds, three at least, default: %(default)s"
    )
    parser.add_argument(
        "--turn", type=float, default=0.3, metavar="SECONDS", help="shortest turn, default: %(default)s"
    )
    parser.add_argument("--cpu-capability", choices=list(LIMITS), help="limit both sides to these instructions")
    parser.add_argument("--against", metavar="COMMAND", help="command to alternate with")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write a Markdown table of all cases, too")
    arguments = parser.parse_args()

    if not (arguments.model / "unet").is_dir():
        fail(f"{arguments.model} has no folder unet/")
    os.environ.update(LIMITS.get(arguments.cpu_capability, {}))
    # Only now: torch reads these variables when it is imported.
    from turns import Bench, machine, show

    of_machine = machine()
    capability = of_machine["cpu"]
    if arguments.cpu_capability and capability != arguments.cpu_capability:
        fail(f"torch uses {capability}, {arguments.cpu_capability} was asked for")
    show({**of_machine, "against": arguments.against})

    bench, lines = Bench(arguments), []
    for case in cases(arguments):
        lines.append({**bench.run(case), "cpu": capability})
        show(lines[-1])
        # After every case, so that a run that is cut short leaves a table.
        if arguments.table:
            arguments.table.write_text(markdown(lines))


if __name__ == "__main__":
    main()
