"""Compares what the operator `jpeg` measures with Pillow, which codes and decodes by libjpeg-turbo.

    cargo build -p tweedie-operators --release --example apply
    python benches/peers/jpeg.py [--apply target/release/examples/apply] [PICTURE ...]

Prints a row per quality and subsampling: mean and largest difference in 8-bit levels, and the share of values that
differ by more than one level. Without pictures it takes two synthetic ones.
"""

import argparse
import io
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from PIL import Image


def write(path, tensors):
    """A safetensors file of float32 arrays."""
    header, blob = {}, b""
    for name, array in tensors.items():
        data = np.ascontiguousarray(array, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(blob), len(blob) + len(data)]}
        blob += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob)


def read(path):
    """The float32 arrays of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[start:end], np.float32).reshape(entry["shape"])
    return tensors


def synthetic():
    """A smooth picture with edges and grain, and one of noise; no side is a multiple of 16."""
    rng = np.random.default_rng(0)
    i, j = np.mgrid[:333, :517]
    smooth = np.stack([128 + 100 * np.sin(i / 40) * np.cos(j / 60), 60 + 0.3 * j + 0 * i, 220 - 0.4 * i + 0 * j], -1)
    smooth[80:200, 150:300] = [230, 40, 60]
    smooth[220:300, 30:200] = [20, 180, 90]
    noise = rng.normal(128, 50, (333, 517, 3))
    for name, picture in (("smooth", smooth + rng.normal(0, 4, smooth.shape)), ("noise", noise)):
        yield name, np.clip(picture, 0, 255).round().astype(np.uint8)


def pictures(paths):
    for path in paths:
        yield path.name, np.asarray(Image.open(path).convert("RGB"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--apply", default="target/release/examples/apply", help="the built example")
    parser.add_argument("pictures", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    print("| picture | quality | chroma | mean | largest | above 1 level |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        source, result = pathlib.Path(folder, "x.safetensors"), pathlib.Path(folder, "y.safetensors")
        for name, picture in pictures(arguments.pictures) if arguments.pictures else synthetic():
            write(source, {"x": picture.transpose(2, 0, 1)[None] / 127.5 - 1})
            for quality in (10, 50, 75, 95):
                for subsampling, code in (("444", 0), ("420", 2)):
                    settings = f"quality = {quality}\nsubsampling = '{subsampling}'"
                    subprocess.run([arguments.apply, "jpeg", settings, source, result], check=True)
                    ours = (read(result)["measured"][0].transpose(1, 2, 0) + 1) * 127.5
                    coded = io.BytesIO()
                    Image.fromarray(picture).save(coded, "JPEG", quality=quality, subsampling=code)
                    theirs = np.asarray(Image.open(coded).convert("RGB"), np.float64)
                    off = np.abs(ours - theirs)
                    share = (off > 1.5).mean()
                    row = f"| {name} | {quality} | {subsampling} | {off.mean():.4f} | {off.max():.0f} | {share:.4%} |"
                    print(row, flush=True)


if __name__ == "__main__":
    main()
