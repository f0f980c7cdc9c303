#!/usr/bin/env python3
"""Peak resident memory of one call of the network, each in a process of its own: PyTorch, and another program.

    pip install -r benches/peers/requirements-network.txt
    python benches/peers/memory.py MODEL --table memory.md \\
        --against 'target/release/tweedie bench --what {call} --size {size} --batch {batch} --threads {threads} …'

MODEL and the calls denoise and pullback are those of network.py; PyTorch is eager here, because what compiles in the same
process would be counted. {call}, {size}, {batch}, {threads} and {precision} are filled in.

  peak    largest resident memory of the process, from start to end (ru_maxrss)
  small   the same of a call with --small-size: imports, weights, and what a first call loads and sets up
  growth  peak - small: reads without Python's imports
  loaded  what PyTorch's process holds after imports and weights, before its first call; COMMAND cannot be asked

Ratios are ours / the least of PyTorch with the same precision. Runs on Linux.
"""

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ARITHMETICS = {"f32": ["f32"], "bf16": ["autocast", "pure"]}
MIB = 1024  # KiB


def fail(message):
    sys.exit(f"memory.py: {message}")


def child(model, layout, arithmetic, case):
    """What is measured of PyTorch; prints what it holds after loading, in KiB."""
    import torch

    from denoiser import SIGMA, Denoiser, Variant

    torch.set_num_threads(case["threads"])
    denoiser = Denoiser(model, Variant(layout, arithmetic, "eager"))
    status = Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
    shape = (case["batch"], 3, case["size"], case["size"])
    x, v = (denoiser.prepare(torch.randn(shape)) for _ in range(2))
    getattr(denoiser, case["call"])(x, torch.full((case["batch"], 1, 1, 1), SIGMA), v)


def peak(command):
    """Peak memory of a command in KiB and its output.

    The maximum of a child starts with what its parent holds at the fork, so nothing large is imported here.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            fail(f"{shlex.join(command)} exited with {process.returncode}")
        output.seek(0)
        return usage.ru_maxrss, output.read()


def of_torch(model, layout, arithmetic, case, small_size):
    def of_size(size):
        child = json.dumps([layout, arithmetic, {**case, "size": size}])
        return peak([sys.executable, __file__, str(model), "--child", child])

    most, loaded = of_size(case["size"])
    result = measured(f"{layout} {arithmetic}", most, of_size(small_size)[0])
    return {**result, "loaded_mib": round(int(loaded) / MIB, 1)}


def of_command(template, case, small_size):
    def of_size(size):
        return peak([part.format(**{**case, "size": size}) for part in shlex.split(template)])[0]

    return measured("ours", of_size(case["size"]), of_size(small_size))


def measured(name, most, small):
    return {
        "name": name,
        "peak_mib": round(most / MIB, 1),
        "small_mib": round(small / MIB, 1),
        "growth_mib": round((most - small) / MIB, 1),
    }


def markdown(lines):
    header = ["call", "size", "batch", "threads", "precision", ""]
    header += ["peak, MiB", "small", "growth", "loaded", "ratio", "ratio of growth"]
    rows = [header, ["---"] * len(header)]
    for line in lines:
        for result in line["results"]:
            cells = [str(line[name]) for name in ("call", "size", "batch", "threads", "precision")]
            cells += [result["name"], *(f"{result[name]:.0f}" for name in ("peak_mib", "small_mib", "growth_mib"))]
            if result["name"] == "ours":
                cells += ["–", f"{line['ratio']:.2f}", f"{line['ratio_growth']:.2f}"]
            else:
                cells += [f"{result['loaded_mib']:.0f}", "", ""]
            rows.append(cells)
    return "".join("| " + " | ".join(cells) + " |\n" for cells in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="diffusers folder")
    parser.add_argument("--calls", nargs="+", choices=["denoise", "pullback"], default=["denoise", "pullback"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[512], metavar="PX", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument("--precisions", nargs="+", choices=list(ARITHMETICS), default=list(ARITHMETICS))
    parser.add_argument("--small-size", type=int, default=16, metavar="PX", help="default: %(default)s")
    parser.add_argument("--against", metavar="COMMAND", help="command to measure as well")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write a Markdown table, too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    if arguments.child:
        return child(arguments.model, *json.loads(arguments.child))
    if not (arguments.model / "unet").is_dir():
        fail(f"{arguments.model} has no folder unet/")
    lines = []
    for call, size, precision in itertools.product(arguments.calls, arguments.sizes, arguments.precisions):
        case = {"call": call, "size": size, "batch": arguments.batch, "threads": arguments.threads}
        case["precision"] = precision
        variants = itertools.product(["nchw", "channels_last"], ARITHMETICS[precision])
        theirs = [of_torch(arguments.model, *variant, case, arguments.small_size) for variant in variants]
        line = {**case, "results": theirs}
        if arguments.against:
            ours = of_command(arguments.against, case, arguments.small_size)
            least = {name: min(result[name] for result in theirs) for name in ("peak_mib", "growth_mib")}
            line["results"] = [*theirs, ours]
            line["ratio"] = round(ours["peak_mib"] / least["peak_mib"], 3)
            line["ratio_growth"] = round(ours["growth_mib"] / least["growth_mib"], 3)
        print(json.dumps(line), flush=True)
        lines.append(line)
        if arguments.table:
            arguments.table.write_text(markdown(lines))


if __name__ == "__main__":
    main()
