"""ADM (Dhariwal and Nichol 2021, arXiv 2105.05233) under PyTorch: one evaluation and its pullback, time and memory.

python adm.py f32|bf16 [--side 256] [--rounds 3] [--threads N]   the published network of FFHQ with random weights
python adm.py --check FOLDER                                     a small network against its stored inputs and outputs

FOLDER holds config.json, weights.safetensors and io.safetensors, as tests/data/goldens/guided-diffusion-tiny/ffhq-like.
`examples/adm.rs` is the other side. In bf16 weights and activations are bf16, the norms and the softmax single precision.
"""

import argparse
import json
import math
import resource
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

FFHQ = {
    "image_size": 256,
    "num_channels": 128,
    "num_res_blocks": 1,
    "channel_mult": "1,1,2,2,4,4",
    "attention_resolutions": "16",
    "num_heads": 4,
    "num_head_channels": 64,
    "learn_sigma": True,
    "resblock_updown": True,
    "use_scale_shift_norm": True,
    "use_new_attention_order": False,
}
GROUPS = 32
# Largest relative L2 errors of the output and of the gradient in f32.
TOLERANCE = {"out": 1e-5, "grad_x": 5e-5}


class Norm(nn.GroupNorm):
    """Group normalisation in single precision."""

    def __init__(self, channels):
        super().__init__(GROUPS, channels, eps=1e-5)

    def forward(self, x):
        weight, bias = self.weight.float(), self.bias.float()
        return functional.group_norm(x.float(), GROUPS, weight, bias, self.eps).to(x.dtype)


class Residual(nn.Module):
    """The embedding modulates the second norm; the resolution changes between the first activation and convolution."""

    def __init__(self, inputs, outputs, embedded, change=None, modulated=True):
        super().__init__()
        self.change, self.modulated = change, modulated
        self.in_layers = nn.Sequential(Norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedded, (2 if modulated else 1) * outputs))
        self.out_layers = nn.Sequential(Norm(outputs), nn.SiLU(), nn.Identity(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x, embedding):
        h = self.in_layers[1](self.in_layers[0](x))
        if self.change:
            h, x = self.change(h), self.change(x)
        h = self.in_layers[2](h)
        embedding = self.emb_layers(embedding)[:, :, None, None]
        if self.modulated:
            scale, shift = embedding.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + embedding)
        return self.skip_connection(x) + h


def halved(x):
    return functional.avg_pool2d(x, 2)


def doubled(x):
    return functional.interpolate(x, scale_factor=2, mode="nearest")


class Down(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x, _):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, _):
        return self.conv(doubled(x))


class Attention(nn.Module):
    def __init__(self, channels, heads, new_order):
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = Norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x, _):
        batch, channels, height, width = x.shape
        flat = x.reshape(batch, channels, -1)
        qkv = self.qkv(self.norm(flat))
        if self.new_order:
            parts = [part.reshape(batch, self.heads, -1, height * width) for part in qkv.chunk(3, dim=1)]
        else:
            parts = qkv.reshape(batch, self.heads, -1, height * width).chunk(3, dim=2)
        query, key, value = (part.transpose(2, 3) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(attended.transpose(2, 3).reshape(batch, channels, -1)).reshape(x.shape)


class Block(nn.Sequential):
    def forward(self, x, embedding):
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, embedding)
        return x


class Adm(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, blocks = config["num_channels"], config["num_res_blocks"]
        multipliers = [float(number) for number in config["channel_mult"].split(",")]
        sides = [int(number) for number in str(config["attention_resolutions"]).split(",")]
        factors = [config["image_size"] // side for side in sides]
        channels = [int(multiplier * width) for multiplier in multipliers]
        embedded = 4 * width
        self.width = width
        self.time_embed = nn.Sequential(nn.Linear(width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))

        def residual(inputs, outputs, change=None):
            return Residual(inputs, outputs, embedded, change, config["use_scale_shift_norm"])

        def attention(count):
            per_head = config["num_head_channels"]
            heads = config["num_heads"] if per_head == -1 else count // per_head
            return Attention(count, heads, config["use_new_attention_order"])

        updown = config["resblock_updown"]
        count = channels[0]
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(3, count, 3, padding=1))])
        skips = [count]
        for level, outputs in enumerate(channels):
            for _ in range(blocks):
                layers = [residual(count, outputs)]
                count = outputs
                if 2**level in factors:
                    layers.append(attention(count))
                self.input_blocks.append(Block(*layers))
                skips.append(count)
            if level + 1 < len(channels):
                self.input_blocks.append(Block(residual(count, count, halved) if updown else Down(count)))
                skips.append(count)
        self.middle_block = Block(residual(count, count), attention(count), residual(count, count))
        self.output_blocks = nn.ModuleList()
        for level, outputs in reversed(list(enumerate(channels))):
            for block in range(blocks + 1):
                layers = [residual(count + skips.pop(), outputs)]
                count = outputs
                if 2**level in factors:
                    layers.append(attention(count))
                if level and block == blocks:
                    layers.append(residual(count, count, doubled) if updown else Up(count))
                self.output_blocks.append(Block(*layers))
        self.out = nn.Sequential(Norm(count), nn.SiLU(), nn.Conv2d(count, 6 if config["learn_sigma"] else 3, 3, padding=1))

    def forward(self, x, t):
        half = self.width // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        angles = t[:, None].float() * frequencies[None]
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
        embedding = self.time_embed(waves)
        skips = []
        for block in self.input_blocks:
            x = block(x, embedding)
            skips.append(x)
        x = self.middle_block(x, embedding)
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding)
        return self.out(x)


def check(folder):
    from safetensors.torch import load_file

    network = Adm(json.loads((folder / "config.json").read_text()))
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    stored = load_file(folder / "io.safetensors")
    x = stored["x"].clone().requires_grad_()
    out = network(x, stored["t"])
    (gradient,) = torch.autograd.grad((out * stored["v"]).sum(), x)
    for name, got in {"out": out, "grad_x": gradient}.items():
        difference = (got - stored[name]).flatten(1).norm(dim=1) / stored[name].flatten(1).norm(dim=1)
        worst = difference.max().item()
        print(f"{name}: relative error {worst:.1e}")
        if worst > TOLERANCE[name]:
            raise SystemExit(f"{name} differs by more than {TOLERANCE[name]:.0e}")


def largest_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(precision, side, rounds):
    torch.manual_seed(0)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    network = Adm(FFHQ).to(dtype).eval().requires_grad_(False)
    print(f"{sum(p.numel() for p in network.parameters())} parameters, {torch.get_num_threads()} threads, {precision}")
    print(f"made, largest memory {largest_memory():.0f} MiB")
    x, t = torch.randn(1, 3, side, side, dtype=dtype), torch.tensor([500])
    times = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.perf_counter()
            network(x, t)
            times.append(round(time.perf_counter() - start, 3))
    print(f"forward: {times} s, largest memory {largest_memory():.0f} MiB")
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        y = x.clone().requires_grad_()
        out = network(y, t)
        torch.autograd.grad(out, y, out.detach())
        times.append(round(time.perf_counter() - start, 3))
    print(f"forward and pullback: {times} s, largest memory {largest_memory():.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("precision", nargs="?", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--check", type=Path, metavar="FOLDER")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.check:
        check(arguments.check)
    else:
        measure(arguments.precision, arguments.side, arguments.rounds)


if __name__ == "__main__":
    main()
