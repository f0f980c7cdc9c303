#!/usr/bin/env python3
"""Prints the Markdown table of what network.py measured, from its JSON lines.

    python benches/peers/speed_table.py LINES.jsonl …

Of a case that was measured twice, the last counts.
"""

import argparse
import json
from pathlib import Path

HEADER = ["call", "size", "batch", "threads", "precision", "cpu", "best PyTorch", "ms", "GFLOP/s"]
AGAINST = ["ours, ms", "GFLOP/s", "ours / best", "least–largest"]
KEY = ["call", "size", "batch", "threads", "precision", "cpu"]


def row(line, against):
    best = line["results"][line["best"]]
    cells = [str(line[name]) for name in KEY] + [line["best"], f"{best['median_ms']:.1f}", f"{best['gflops']:.0f}"]
    if against and "ratio" in line:
        ours = line["results"]["ours"]
        spread = f"{line['ratio_low']:.2f}–{line['ratio_high']:.2f}"
        cells += [f"{ours['median_ms']:.1f}", f"{ours['gflops']:.0f}", f"{line['ratio']:.2f}", spread]
    elif against:
        cells += ["–"] * len(AGAINST)
    return cells


def markdown(lines):
    lines = list({tuple(line[name] for name in KEY): line for line in lines}.values())
    against = any("ratio" in line for line in lines)
    header = HEADER + (AGAINST if against else [])
    rows = [header, ["---"] * len(header), *(row(line, against) for line in lines)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="LINES")
    files = parser.parse_args().files
    lines = [json.loads(text) for file in files for text in file.read_text().splitlines() if text.strip()]
    print(markdown([line for line in lines if "results" in line]), end="")


if __name__ == "__main__":
    main()
