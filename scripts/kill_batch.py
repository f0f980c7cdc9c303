#!/usr/bin/env python3
"""Kills `tweedie batch` again and again, and looks at what is left each time.

    scripts/kill_batch.py PROGRAM IN WORK [--kills N] [--systemcalls] -- ARGUMENTS OF BATCH

Runs `PROGRAM batch IN WORK/undisturbed ARGUMENTS` once, then the same into WORK/killed with SIGKILL at N random moments
(default 50), and to its end. With --systemcalls it is also killed before every system call that changes a file, which needs
strace; IN should then hold one or two photos. After every kill
  * whatever has a final name must have the bytes of the undisturbed run,
  * whatever is recorded must be there,
and in the end outputs and manifests must be equal, but for times.
"""
import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CHANGES = ["openat", "write", "pwrite64", "fsync", "fdatasync", "syncfs", "ftruncate", "mkdir", "rename", "renameat2",
           "unlink", "rmdir"]


def outputs(out):
    found = {}
    for folder, folders, files in os.walk(out):
        folders[:] = [name for name in folders if name != ".tweedie"]
        for name in files:
            path = Path(folder) / name
            found[str(path.relative_to(out))] = path.read_bytes()
    return found


def records(out):
    """The complete lines of the manifest, without what the clock decides."""
    path = out / ".tweedie/manifest/all.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    found = [json.loads(line) for line in lines if line]
    for record in found:
        record.pop("seconds"), record.pop("finished")
    return found


def check(out, expected, when):
    for name, content in outputs(out).items():
        if content != expected.get(name):
            sys.exit(f"{when}: {name} has {len(content)} bytes that an undisturbed run does not write")
    for record in records(out):
        for output in record.get("outputs", []):
            if not (out / output["name"]).exists():
                sys.exit(f"{when}: {output['name']} is recorded and not there")


def compare(out, undisturbed, expected):
    if outputs(out) != expected:
        sys.exit(f"{out}: the outputs are not those of {undisturbed}")
    if records(out) != records(undisturbed):
        sys.exit(f"{out}: the manifest is not that of {undisturbed}")
    left = [path for path in (out / ".tweedie").rglob("*.part")]
    if left:
        sys.exit(f"{out}: incomplete outputs are left: {left}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--systemcalls", action="store_true")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, arguments = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1:]
    random.seed(0)

    def command(out):
        return [str(options.program.resolve()), "batch", str(options.inputs), str(out), *arguments]

    undisturbed, killed = options.work / "undisturbed", options.work / "killed"
    options.work.mkdir(parents=True)
    clock = time.monotonic()
    subprocess.run(command(undisturbed), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole = time.monotonic() - clock
    expected = outputs(undisturbed)
    print(f"undisturbed: {len(expected)} outputs in {whole:.2f} s")

    moments = []
    while len(moments) < options.kills:
        if len(records(killed)) == len(expected):
            compare(killed, undisturbed, expected)
            shutil.rmtree(killed)
        process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            moments.append(len(records(killed)))
            check(killed, expected, f"kill {len(moments)}")
    subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    compare(killed, undisturbed, expected)
    print(f"{len(moments)} kills at random moments, with {moments} photos done: equal in the end")

    if options.systemcalls:
        steps = 0
        for call in CHANGES:
            for when in range(1, 10_000):
                shutil.rmtree(killed, ignore_errors=True)
                inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
                          "-e", f"inject={call}:signal=KILL:when={when}"]
                code = subprocess.run(inject + command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                check(killed, expected, f"{call} {when}")
                if code.returncode == 0:
                    break
                steps += 1
                subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                compare(killed, undisturbed, expected)
        print(f"killed at {steps} system calls that change files: equal in the end")


if __name__ == "__main__":
    main()
