"""Runs the cases of network.py: makes and checks the variants of PyTorch and lets them take turns with the command."""

import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from functools import partial

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

from denoiser import ARITHMETICS, SIGMA, TOLERANCE, Denoiser, Variant, milliseconds, rank, relative_error, verify
from training import OPTIMIZERS, Training

MODES = ["eager", "compile", "freeze"]
# Rounds that a case gets however long they take.
LEAST_ROUNDS = 3


def fail(message):
    sys.exit(f"network.py: {message}")


def note(message):
    print(f"network.py: {message}", file=sys.stderr, flush=True)


def show(line):
    print(json.dumps(line), flush=True)


def machine():
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    return {**versions, "cpu": torch.backends.cpu.get_cpu_capability().lower(), "cores": os.cpu_count()}


def times_of_command(template, case):
    command = [part.format(**case) for part in shlex.split(template)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        fail(f"{shlex.join(command)} exited with {result.returncode}: {result.stderr.strip()}")
    try:
        times = [float(line) for line in result.stdout.split()]
    except ValueError:
        fail(f"{shlex.join(command)} printed {result.stdout.strip()!r}, expected one number of milliseconds a line")
    if not times:
        fail(f"{shlex.join(command)} printed nothing, expected one number of milliseconds a line")
    return times


def summary(rounds, gflop):
    """`rounds` holds the times of every round in ms."""
    median = statistics.median(statistics.median(times) for times in rounds)
    return {
        "median_ms": round(median, 2),
        "min_ms": round(min(map(min, rounds)), 2),
        "max_ms": round(max(map(max, rounds)), 2),
        "calls": sum(map(len, rounds)),
        "gflops": round(1000 * gflop / median, 1),
    }


class Bench:
    """Times the cases of one model; `arguments` are those of the command line."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.eager, self.operations, self.dropped = {}, {}, set()

    def verified(self, layout, arithmetic):
        """The eager network; fails if it does not compute what is stored beside the weights."""
        if (layout, arithmetic) not in self.eager:
            network = Denoiser(self.arguments.model, Variant(layout, arithmetic, "eager"))
            errors, by_sigma = verify(network, self.arguments.model)
            line = {name: float(f"{error:.2e}") for name, error in errors.items()}
            levels = {f"{level:g}": float(f"{error:.2e}") for level, error in by_sigma.items()}
            show({"verified": line, "denoised_by_sigma": levels, "layout": layout, "arithmetic": arithmetic})
            worst, allowed = max(errors.values()), TOLERANCE[arithmetic]
            if worst > allowed:
                fail(f"relative error {worst:.2e} against io.safetensors, allowed {allowed:.0e}")
            self.eager[layout, arithmetic] = network
        return self.eager[layout, arithmetic]

    def gflop(self, case):
        """Counted and not timed: two operations per multiply-add of convolutions and matrix products.

        The counter does not see into compiled code, so the operations are those of the eager network.
        """
        key = case["call"], case["size"]
        if key not in self.operations:
            inputs = self.inputs({**case, "batch": 1}, "nchw")
            call = self.calls({**case, "precision": "f32"}, "nchw", "f32", "eager", inputs)[0]
            with FlopCounterMode(display=False) as counter:
                next(iter(call.values()))()
            self.operations[key] = counter.get_total_flops() / 1e9
        return case["batch"] * self.operations[key]

    def inputs(self, case, layout):
        """x, sigma and the cotangent; to train, clean patches, noise and sigma."""
        generator = torch.Generator().manual_seed(0)
        shape = (case["batch"], 3, case["size"], case["size"])
        form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        x, v = (torch.randn(shape, generator=generator).contiguous(memory_format=form) for _ in range(2))
        sigma = torch.full((case["batch"], 1, 1, 1), SIGMA)
        if case["call"] == "train":
            return x.clamp(-1, 1), v, torch.exp(1.5 * torch.randn(sigma.shape, generator=generator) - 1.5)
        return x, sigma, v

    def calls(self, case, layout, arithmetic, mode, inputs):
        """What is timed, by name; and the function whose value the other modes must agree with."""
        variant = Variant(layout, arithmetic, mode)
        if case["call"] == "train":
            training = Training(self.arguments.model, variant)
            calls = {f"{variant} {name}": partial(training.step, name, *inputs) for name in OPTIMIZERS}
            return calls, partial(training.gradients, *inputs)
        eager = self.verified(layout, arithmetic)
        network = eager if mode == "eager" else Denoiser(self.arguments.model, variant)
        call = partial(getattr(network, case["call"]), *inputs)
        return {str(variant): call}, call

    def variants(self, case):
        """Calls by the name of the variant, each already made once, and what the first one took in ms."""
        ready, first = {}, {}
        for layout, arithmetic in itertools.product(self.arguments.layouts, ARITHMETICS[case["precision"]]):
            if (case["call"], arithmetic) == ("train", "pure"):
                continue
            inputs, expected = self.inputs(case, layout), None
            # Eager comes first: it is what the others are compared with.
            for mode in sorted(self.arguments.modes, key=MODES.index):
                if mode == "freeze" and case["call"] != "denoise":
                    continue
                calls, value = self.calls(case, layout, arithmetic, mode, inputs)
                wanted = {name: call for name, call in calls.items() if (case["call"], name) not in self.dropped}
                if not wanted:
                    continue
                if mode != "eager":
                    if expected is None:
                        expected = self.calls(case, layout, arithmetic, "eager", inputs)[1]()
                    start = time.perf_counter()
                    error = relative_error(value(), expected)
                    compiling = round(time.perf_counter() - start, 1)
                    allowed = TOLERANCE[arithmetic]
                    if error > allowed:
                        fail(f"{next(iter(calls))} differs from eager by {error:.2e}, allowed {allowed:.0e}")
                    note(f"{next(iter(calls))}: compiled in {compiling} s, relative L2 to eager {error:.1e}")
                for name, call in wanted.items():
                    first[name] = milliseconds(call)
                    ready[name] = call
        return ready, first

    def run(self, case):
        arguments, start = self.arguments, time.perf_counter()
        torch.set_num_threads(case["threads"])
        # Threads and shapes are part of what is compiled; nothing of an earlier case can be used again.
        torch._dynamo.reset()
        calls, _ = self.variants(case)
        line = {**case, "prepared_s": round(time.perf_counter() - start, 1)}
        if arguments.best or arguments.drop:
            ranking = rank(calls, 2)
            line["ranking_ms"] = {name: round(least, 2) for name, least in ranking.items()}
            fastest = min(ranking.values())
            slow = {name for name, least in ranking.items() if arguments.drop and least > arguments.drop * fastest}
            self.dropped |= {(case["call"], name) for name in slow}
            kept = [name for name in ranking if name not in slow][: arguments.best or None]
            calls = {name: calls[name] for name in kept}

        ours = "ours"
        turns = {name: partial(self.turn, call) for name, call in calls.items()}
        if arguments.against:
            turns[ours] = partial(times_of_command, arguments.against, case)
        rounds, start = {name: [] for name in turns}, time.perf_counter()
        for number in range(arguments.rounds):
            if number >= LEAST_ROUNDS and time.perf_counter() - start > arguments.seconds:
                break
            order = list(turns)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                rounds[name].append(turns[name]())

        gflop = self.gflop(case)
        results = {name: summary(times, gflop) for name, times in rounds.items()}
        best = min(calls, key=lambda name: results[name]["median_ms"])
        line |= {"gflop": round(gflop, 2), "rounds": len(rounds[best]), "best": best, "results": results}
        if arguments.against:
            within = [statistics.median(a) / statistics.median(b) for a, b in zip(rounds[ours], rounds[best])]
            line["ratio"] = round(results[ours]["median_ms"] / results[best]["median_ms"], 3)
            line |= {"ratio_low": round(min(within), 3), "ratio_high": round(max(within), 3)}
        line["load_average"] = round(os.getloadavg()[0], 2)
        return line

    def turn(self, call):
        times = []
        while not times or sum(times) < 1000 * self.arguments.turn:
            times.append(milliseconds(call))
        return times
