"""Calls the example `apply` of tweedie-operators and reads photos: what phase.py and radon.py share."""

import pathlib
import shlex
import subprocess
import tempfile

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

APPLY = "cargo run -q -p tweedie-operators --release --example apply --"


def apply(command, name, settings, **tensors):
    """`y`, `measured` and, with `v`, `vjp` and `adjoint` of an operator."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = (str(pathlib.Path(folder, file)) for file in ("in.safetensors", "out.safetensors"))
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, source)
        subprocess.run([*shlex.split(command), name, settings, source, target], check=True)
        return load_file(target)


def photo(path, size):
    """The centre of a photo, `size` x `size`, `[C, H, W]` in [-1, 1], float64."""
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64).transpose(2, 0, 1) / 127.5 - 1


def relative_error(got, expected):
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
