#!/usr/bin/env python3
"""Kills `tweedie train` again and again, and compares how the run ends with one that was left alone.

    scripts/kill_train.py PROGRAM CONFIG WORK [--kills N] [--set KEY=VALUE ...]

Trains CONFIG once into WORK/undisturbed, then into WORK/killed, where SIGKILL comes N times (default 20) at random moments
and the run is resumed. After every kill each checkpoint that is there must be whole (its length is what its header says);
in the end the last checkpoint and the model must be the same bytes. Items 50 and 51 of the list of faults
(docs/faults.md).
"""
import argparse
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path


def whole(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    return len(data) == 8 + length + end


def newest(out):
    return sorted(out.glob("checkpoint-*.safetensors"))[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)

    def command(out):
        begun = out.exists() and any(out.glob("checkpoint-*.safetensors"))
        settings = [word for setting in arguments.set for word in ("--set", setting)]
        words = [arguments.program.resolve(), "train", "--quiet", "--config", arguments.config, "-o", out, *settings]
        return [str(word) for word in words + ["--resume"] * begun]

    undisturbed, killed = arguments.work / "undisturbed", arguments.work / "killed"
    start = time.monotonic()
    subprocess.run(command(undisturbed), check=True)
    seconds = time.monotonic() - start
    moments = random.Random(arguments.seed)
    kills = resumed = 0
    while kills < arguments.kills:
        resumed += killed.exists() and any(killed.glob("checkpoint-*.safetensors"))
        process = subprocess.Popen(command(killed))
        try:
            process.wait(moments.uniform(0.0, 2.0 * seconds / arguments.kills))
            # It came to its end: from the beginning again.
            if process.returncode != 0:
                sys.exit(f"the run failed with {process.returncode}")
            if newest(killed).read_bytes() != newest(undisturbed).read_bytes():
                sys.exit(f"after {kills} kills: another checkpoint")
            shutil.rmtree(killed)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        for path in killed.glob("checkpoint-*.safetensors"):
            if not whole(path):
                sys.exit(f"kill {kills}: {path.name} is not whole")
    subprocess.run(command(killed), check=True)
    for name in [newest(undisturbed).name, "model.safetensors"]:
        if (undisturbed / name).read_bytes() != (killed / name).read_bytes():
            sys.exit(f"{name} is another one")
    torn = [path.name for path in killed.glob(".tweedie-*")]
    print(f"{kills} kills, {resumed} runs resumed, undisturbed in {seconds:.1f} s: the same bytes; left behind: {torn}")


if __name__ == "__main__":
    main()
