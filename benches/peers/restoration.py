#!/usr/bin/env python3
"""One whole restoration, missing pixels: DiffPIR of deepinv beside `tweedie inpaint`, same weights, same photo.

    pip install -r benches/peers/requirements-restoration.txt
    python benches/peers/restoration.py MODEL PHOTO MASK --table restoration.md
    python benches/peers/restoration.py MODEL PHOTO MASK --evaluations 20 --samplers tmpd:20 tmpd:7 ddnm:20

MODEL is a diffusers folder (see network.py), which both load. PHOTO is RGB with sides that are multiples of 8; white in MASK
is missing and hidden from both. DiffPIR makes --evaluations evaluations of the network, on the whole photo at once; tweedie
runs SAMPLER:STEPS as configured by default.

  evaluations  of the denoiser, as methods count them
  passes       evaluations and applications of the pullback together: tmpd makes two a step, pigdm and dps one
  sampling     seconds from the measurement to the restored photo: PyTorch's after an evaluation to warm up; tweedie's as it
               reports itself, always in a new process
  start        seconds from the start of the process to there: Python's imports, the weights; tweedie's reading, planning
  total        start + sampling, for tweedie until the process ends

One PyTorch process is kept for each precision and number of threads. It ranks its variants (layout; for bf16 autocast or
everything) by two evaluations each, uses the fastest, and then takes turns with tweedie. Ratios are tweedie / deepinv.
PSNR in dB, 8 bits, over the missing pixels and the whole photo, with the known pixels pasted in.
"""

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

PULLBACKS = {"ddnm": 0, "dps": 1, "pigdm": 1, "tmpd": 2}
OURS = (
    "target/release/tweedie inpaint {photo} --mask {mask} --model {model} --sampler {sampler} --steps {steps} "
    "--threads {threads} --precision {precision} --output {output} --force --quiet --json"
)


def fail(message):
    sys.exit(f"restoration.py: {message}")


def worker(arguments):
    """The side of PyTorch: prints one line when ready, then restores once for every line of standard input."""
    import deepinv
    import numpy as np
    import torch
    from PIL import Image

    from denoiser import ARITHMETICS, Denoiser, Variant, rank

    class Prior(torch.nn.Module):
        """The network as deepinv wants it: photos in [0, 1], where sigma is half of what it is in [-1, 1]."""

        def __init__(self, network):
            super().__init__()
            self.network, self.evaluations = network, 0

        def forward(self, x, sigma, **_):
            self.evaluations += 1
            sigma = (2 * sigma).reshape(-1, 1, 1, 1).expand(x.shape[0], 1, 1, 1)
            return (self.network.denoise(self.network.prepare(2 * x - 1), sigma) + 1) / 2

    torch.set_num_threads(arguments.threads[0])
    known = np.asarray(Image.open(arguments.mask).convert("L")) <= 127
    photo = torch.from_numpy(np.asarray(Image.open(arguments.photo)).copy()).permute(2, 0, 1)[None] / 255
    mask = torch.from_numpy(known).float()[None].expand(3, -1, -1)
    physics = deepinv.physics.Inpainting(img_size=tuple(photo.shape[1:]), mask=mask)
    measured = physics.A(photo)

    variants = itertools.product(arguments.layouts, ARITHMETICS[arguments.precisions[0]], arguments.modes)
    networks = {str(variant): Denoiser(arguments.model, variant) for variant in itertools.starmap(Variant, variants)}
    show({"ready": True, "torch": torch.__version__, "deepinv": deepinv.__version__})

    def evaluate(network):
        x, sigma = network.prepare(2 * measured - 1), torch.full((1, 1, 1, 1), 0.4)
        return lambda: network.denoise(x, sigma)

    calls = {name: evaluate(network) for name, network in networks.items()}
    rank(calls, 1)
    ranking = rank(calls, 2)
    best = next(iter(ranking))
    show({"variant": best, "ranking_ms": {name: round(least, 1) for name, least in ranking.items()}})

    prior = Prior(networks[best])
    sampler = deepinv.sampling.DiffPIR(
        model=prior,
        data_fidelity=deepinv.optim.data_fidelity.L2(),
        sigma=arguments.sigma,
        max_iter=arguments.evaluations,
        zeta=arguments.zeta,
        lambda_=arguments.lambda_,
    )
    for line in sys.stdin:
        prior.evaluations = 0
        start = time.perf_counter()
        restored = sampler(measured, physics, seed=1)
        seconds = time.perf_counter() - start
        pixels = (restored[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(line.rstrip("\n"))
        show({"sampling": seconds, "evaluations": prior.evaluations})


class Deepinv:
    """A worker that is ready."""

    def __init__(self, arguments, precision, threads):
        files = [str(path) for path in (arguments.model, arguments.photo, arguments.mask)]
        command = [sys.executable, __file__, *files, "--worker"]
        command += ["--precisions", precision, "--threads", str(threads), "--evaluations", str(arguments.evaluations)]
        command += ["--sigma", str(arguments.sigma), "--zeta", str(arguments.zeta), "--lambda", str(arguments.lambda_)]
        command += ["--layouts", *arguments.layouts, "--modes", *arguments.modes]
        start = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        versions = self.read()
        self.start = time.perf_counter() - start
        self.about = {**{name: versions[name] for name in ("torch", "deepinv")}, **self.read()}

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            fail(f"the process of PyTorch ended with {self.process.wait()}")
        return json.loads(line)

    def restore(self, output):
        self.process.stdin.write(f"{output}\n")
        self.process.stdin.flush()
        done = self.read()
        return {"start": self.start, "total": self.start + done["sampling"], "passes": done["evaluations"], **done}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def tweedie(arguments, precision, threads, sampler, steps, output):
    paths = {"photo": arguments.photo, "mask": arguments.mask, "model": arguments.model, "output": output}
    values = {"sampler": sampler, "steps": steps, "threads": threads, "precision": precision}
    command = [part.format(**paths, **values) for part in shlex.split(arguments.ours)]
    start, events = time.perf_counter(), {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            event = json.loads(line)
            events[event["event"]] = {**event, "arrived": time.perf_counter() - start}
    total = time.perf_counter() - start
    if process.returncode != 0:
        fail(f"{shlex.join(command)} exited with {process.returncode}")
    evaluations = events["file"]["evaluations"]
    return {
        "sampling": events["summary"]["sampling_seconds"],
        "start": events["start"]["arrived"],
        "total": total,
        "evaluations": evaluations,
        "passes": evaluations * (1 + PULLBACKS[sampler]),
        "windows": events["start"]["windows"],
    }


def psnr(arguments, restored):
    import numpy as np
    from PIL import Image

    photo, restored = (np.asarray(Image.open(path)).astype(np.float64) for path in (arguments.photo, restored))
    missing = np.asarray(Image.open(arguments.mask).convert("L")) > 127
    error = (photo - restored) ** 2 * missing[:, :, None]
    return {
        "psnr_missing": round(float(10 * np.log10(255**2 / error[missing].mean())), 2),
        "psnr": round(float(10 * np.log10(255**2 / error.mean())), 2),
    }


def summary(runs, quality):
    medians = {name: round(statistics.median(run[name] for run in runs), 3) for name in ("sampling", "start", "total")}
    sampling = [round(run["sampling"], 3) for run in runs]
    spread = {"least": min(sampling), "most": max(sampling)}
    counts = {name: runs[0][name] for name in ("evaluations", "passes", "windows") if name in runs[0]}
    return {**medians, **spread, **counts, **quality}


def compare(arguments, precision, threads, folder):
    deepinv = Deepinv(arguments, precision, threads)
    turns = {"deepinv DiffPIR": deepinv.restore}
    for sampler, steps in arguments.samplers:
        run = partial(tweedie, arguments, precision, threads, sampler, steps)
        turns[f"tweedie {sampler}, {steps} steps"] = run
    runs, outputs = {name: [] for name in turns}, {name: folder / f"{i}.png" for i, name in enumerate(turns)}
    for number in range(arguments.rounds):
        order = list(turns)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            runs[name].append(turns[name](outputs[name]))
    deepinv.close()
    results = {name: summary(runs[name], psnr(arguments, outputs[name])) for name in turns}
    theirs = results["deepinv DiffPIR"]
    for name in list(results)[1:]:
        results[name]["ratio"] = round(results[name]["sampling"] / theirs["sampling"], 3)
        results[name]["ratio_total"] = round(results[name]["total"] / theirs["total"], 3)
    load = round(os.getloadavg()[0], 2)
    return {"precision": precision, "threads": threads, **deepinv.about, "results": results, "load_average": load}


def markdown(lines):
    header = ["precision", "threads", "", "evaluations", "passes", "sampling, s", "least–most", "start", "total"]
    header += ["ratio", "ratio of totals", "PSNR missing", "PSNR"]
    rows = [header, ["---"] * len(header)]
    for line in lines:
        for name, result in line["results"].items():
            if "ratio" not in result:
                name = f"{name}, {line['variant']}"
            cells = [line["precision"], str(line["threads"]), name, str(result["evaluations"]), str(result["passes"])]
            cells += [f"{result['sampling']:.2f}", f"{result['least']:.2f}–{result['most']:.2f}"]
            cells += [f"{result['start']:.2f}", f"{result['total']:.2f}"]
            cells += [f"{result[key]:.2f}" if key in result else "" for key in ("ratio", "ratio_total")]
            rows.append([*cells, f"{result['psnr_missing']:.2f}", f"{result['psnr']:.2f}"])
    return "".join("| " + " | ".join(cells) + " |\n" for cells in rows)


def show(line):
    print(json.dumps(line), flush=True)


def sampler_and_steps(text):
    sampler, _, steps = text.partition(":")
    if sampler not in PULLBACKS or not steps.isdigit():
        raise argparse.ArgumentTypeError(f"expected SAMPLER:STEPS with one of {', '.join(PULLBACKS)}, got {text}")
    return sampler, int(steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="diffusers folder")
    parser.add_argument("photo", type=Path)
    parser.add_argument("mask", type=Path, help="white = missing")
    parser.add_argument("--evaluations", type=int, default=20, help="of DiffPIR, default: %(default)s")
    parser.add_argument("--samplers", nargs="+", type=sampler_and_steps, metavar="SAMPLER:STEPS")
    parser.add_argument("--precisions", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--layouts", nargs="+", choices=["nchw", "channels_last"], default=["nchw", "channels_last"])
    parser.add_argument("--modes", nargs="+", choices=["eager", "compile", "freeze"], default=["eager"])
    parser.add_argument(
        "--sigma", type=float, default=0.002, help="of DiffPIR's data, in [0, 1], default: half a level"
    )
    parser.add_argument("--zeta", type=float, default=1.0, help="of DiffPIR, default: %(default)s")
    parser.add_argument("--lambda", dest="lambda_", type=float, default=1.0, help="of DiffPIR, default: %(default)s")
    parser.add_argument("--ours", default=OURS, metavar="COMMAND", help="default: %(default)s")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write a Markdown table, too")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments)

    from PIL import Image

    arguments.samplers = arguments.samplers or [("tmpd", arguments.evaluations), ("ddnm", arguments.evaluations)]
    with Image.open(arguments.photo) as photo, Image.open(arguments.mask) as mask:
        if photo.mode != "RGB" or photo.width % 8 or photo.height % 8:
            fail(f"{arguments.photo} is {photo.mode} of {photo.width}×{photo.height}, expected RGB, multiples of 8")
        if photo.size != mask.size:
            fail(f"the mask has {mask.width}×{mask.height} pixels, the photo {photo.width}×{photo.height}")
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for precision, threads in itertools.product(arguments.precisions, arguments.threads):
            lines.append(compare(arguments, precision, threads, Path(folder)))
            show(lines[-1])
            if arguments.table:
                arguments.table.write_text(markdown(lines))


if __name__ == "__main__":
    main()
