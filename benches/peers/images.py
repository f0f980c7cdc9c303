"""Compares the samples that the program reads and writes with Pillow (libjpeg-turbo, libwebp, libtiff), OpenCV (libpng,
16 bits) and tifffile, over orientations, depths, colour spaces and the variants of every format.

    cargo build --release --example samples
    python benches/peers/images.py [--samples target/release/examples/samples] [--keep FOLDER]

With `--fixtures tests/data/image/formats` it writes the files of the tests instead.

Prints a row per file that was read: largest difference in levels of its depth to the other decoder, and how many samples
differ by more than is allowed for the format (0 for lossless ones); then a row per format that was written, as the other
decoders read it. Ends with 1 if anything differs by more.
"""

import argparse
import hashlib
import io
import json
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageOps

# Two decoders of JPEG differ by rounding in the inverse transform and in the interpolation of chroma.
JPEG = 3
# What the crate behind the program does not put together.
TILED_PLANES = {"tile": (16, 16), "planarconfig": "separate", "compression": "zlib"}


def picture(size, channels=3):
    """Smooth, with an edge."""
    height, width = size
    i, j = np.mgrid[:height, :width]
    planes = [40 + 3 * i + j, 220 - 2 * j - i, 128 + 90 * np.sin(i / 9) * np.cos(j / 11), 30 + 4 * j]
    values = np.stack([np.broadcast_to(plane, (height, width)) for plane in planes[:channels]], -1)
    values[height // 2 :, : width // 3, :3] = [230, 60, 40][: min(channels, 3)]
    return np.clip(values, 0, 255).round().astype(np.uint8)


def deep(array):
    """16 bits that are not a multiple of anything."""
    i = np.arange(array.size).reshape(array.shape)
    return (array.astype(np.int64) * 257 - i % 97).clip(0, 65535).astype(np.uint16)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pillow(data, mode=None):
    image = Image.open(io.BytesIO(data))
    return np.asarray(image.convert(mode) if mode else image)


def opencv(data):
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array.ndim == 3:
        array = array[..., [2, 1, 0, 3][: array.shape[2]]]
    return array


def png(array, depth, kind, palette=b"", transparency=b"", interlaced=False):
    """A PNG of raw samples by the specification: zlib, filter none."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = array.shape[:2]
    array = array.reshape(height, width, -1)

    def rows(part):
        lines = b""
        for row in part:
            if depth == 16:
                lines += b"\0" + row.astype(">u2").tobytes()
            else:
                bits = ((row.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1).astype(np.uint8).reshape(-1)
                lines += b"\0" + np.packbits(bits).tobytes()
        return lines

    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    body = b"".join(rows(array[y::down, x::right]) for y, x, down, right in passes if array[y::down, x::right].size)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    optional = (chunk(b"PLTE", palette) if palette else b"") + (chunk(b"tRNS", transparency) if transparency else b"")
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + optional
    return start + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def tiff(array, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def ycck(rgb, quality=95):
    """An Adobe YCCK file: Pillow's CMYK with the transform in Adobe's segment set to 2."""
    data = bytearray(saved(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=quality))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def display_p3():
    """A profile with the primaries of Display P3, from Pillow's sRGB by exchanging the colorants (ICC, D50)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    colorants = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for entry in range(count):
        name, offset, _ = struct.unpack(">4sII", data[132 + 12 * entry : 144 + 12 * entry])
        if name in colorants:
            numbers = [round(value * 65536) for value in colorants[name]]
            data[offset + 8 : offset + 20] = struct.pack(">3i", *numbers)
    return bytes(data)


def reading(size):
    """(name, bytes, samples by the other decoder or `None` for a refusal, largest difference allowed)"""
    rgb, grey = picture(size), picture(size, channels=1)[..., 0]
    rgba = picture(size, channels=4)
    dimensions = f"{size[1]} {size[0]}"
    image = Image.fromarray(rgb)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind, tolerance in (("JPEG", JPEG), ("PNG", 0), ("WEBP", 0), ("TIFF", 0)):
            options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
            if kind == "TIFF":
                data = saved(image, kind, tiffinfo={0x0112: orientation})
            else:
                data = saved(image, kind, exif=exif, **options)
            upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
            yield f"orientation-{orientation}.{kind.lower()}", data, np.asarray(upright), tolerance

    for chroma, name in ((0, "444"), (1, "422"), (2, "420")):
        for progressive in (False, True):
            data = saved(image, "JPEG", quality=90, subsampling=chroma, progressive=progressive)
            yield f"{name}{'-progressive' if progressive else ''}.jpg", data, pillow(data), JPEG
    ok, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411])
    yield "411.jpg", data.tobytes(), pillow(data.tobytes()), JPEG
    ok, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440])
    yield "440.jpg", data.tobytes(), pillow(data.tobytes()), JPEG
    ok, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 3])
    yield "restart.jpg", data.tobytes(), pillow(data.tobytes()), JPEG
    data = saved(image, "JPEG", quality=95, keep_rgb=True)
    yield "rgb.jpg", data, pillow(data), JPEG
    for progressive in (False, True):
        data = saved(Image.fromarray(grey), "JPEG", quality=95, progressive=progressive)
        yield f"grey{'-progressive' if progressive else ''}.jpg", data, pillow(data), JPEG
    data = saved(image.convert("CMYK"), "JPEG", quality=95)
    yield "cmyk.jpg", data, pillow(data, "RGB"), JPEG
    data = saved(image.convert("CMYK"), "JPEG", quality=95, progressive=True)
    yield "cmyk-progressive.jpg", data, pillow(data, "RGB"), JPEG
    data = ycck(rgb)
    yield "ycck.jpg", data, pillow(data, "RGB"), JPEG

    for depth in (1, 2, 4, 8, 16):
        top = (1 << depth) - 1
        levels = (deep(grey).astype(np.int64) * top + 32767) // 65535
        full = levels * (255 // top) if depth < 8 else levels
        for interlaced in (False, True):
            data = png(levels, depth, 0, interlaced=interlaced)
            name = f"grey-{depth}{'-interlaced' if interlaced else ''}.png"
            yield name, data, full.astype(np.uint16 if depth == 16 else np.uint8), 0
    palette = bytes((37 * i) % 256 for i in range(3 * 16))
    for depth in (1, 2, 4, 8):
        indices = grey.astype(np.int64) % min(1 << depth, 16)
        for transparency in (b"", bytes([0, 255])):
            data = png(indices, depth, 3, palette[: 3 * min(1 << depth, 16)], transparency)
            name = f"palette-{depth}{'-transparent' if transparency else ''}.png"
            yield name, data, pillow(data, "RGBA" if transparency else "RGB"), 0
    for channels, kind in ((2, 4), (3, 2), (4, 6)):
        array = deep(rgba[..., :channels])
        data = png(array, 16, kind)
        # OpenCV has no grey with alpha; the specification has.
        yield f"16-bit-{channels}.png", data, array if channels == 2 else opencv(data), 0
        data = png(array, 16, kind, interlaced=True)
        yield f"16-bit-{channels}-interlaced.png", data, array, 0
        data = png(array >> 8, 8, kind)
        yield f"8-bit-{channels}.png", data, pillow(data), 0
    dark = (deep(rgb) >> 8).astype(np.uint16)
    yield "16-bit-dark.png", png(dark, 16, 2), dark, 0
    data = png(rgb, 8, 2, transparency=struct.pack(">3H", *map(int, rgb[0, 0])))
    yield "colour-key.png", data, pillow(data, "RGBA"), 0
    frames = [image, ImageOps.invert(image)]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "animated.png", data, rgb, 0

    data = saved(image, "PNG", icc_profile=display_p3())
    yield "display-p3.png", data, pillow(data), 0
    data = saved(image, "JPEG", quality=95, icc_profile=display_p3())
    yield "display-p3.jpg", data, pillow(data), JPEG

    for method in (0, 6):
        data = saved(image, "WEBP", quality=90, method=method)
        yield f"lossy-{method}.webp", data, pillow(data, "RGB"), 4
    data = saved(Image.fromarray(rgba), "WEBP", quality=90)
    yield "lossy-alpha.webp", data, pillow(data), 4
    data = saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)
    yield "lossless-alpha.webp", data, pillow(data), 0
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    yield "animated.webp", data, rgb, 0

    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        for name, source in (("rgb", image), ("rgba", Image.fromarray(rgba)), ("grey", Image.fromarray(grey))):
            data = saved(source, "TIFF", compression=compression)
            yield f"{name}-{(compression or 'none').removeprefix('tiff_')}.tiff", data, pillow(data), 0
    for compression in ("tiff_lzw", "group4", "group3", "packbits", None):
        data = saved(Image.fromarray(grey).convert("1"), "TIFF", compression=compression)
        reference = None if compression == "group3" else pillow(data, "L")
        yield f"bilevel-{(compression or 'none').removeprefix('tiff_')}.tiff", data, reference, 0
    data = saved(image.quantize(16), "TIFF")
    yield "palette.tiff", data, pillow(data, "RGB"), 0
    data = saved(image, "TIFF", compression="jpeg", quality=95)
    yield "jpeg.tiff", data, pillow(data, "RGB"), JPEG
    data = saved(image.convert("CMYK"), "TIFF")
    yield "cmyk.tiff", data, pillow(data, "RGB"), JPEG
    data = saved(image.convert("LAB"), "TIFF")
    yield "lab.tiff", data, None, 0
    for name, array in (("grey", deep(grey)), ("rgb", deep(rgb)), ("rgba", deep(rgba))):
        for options in (
            {},
            {"byteorder": ">"},
            {"compression": "zlib"},
            {"compression": "zlib", "predictor": True},
            {"tile": (16, 16)},
            {"rowsperstrip": 5},
            {"planarconfig": "separate"},
            {"bigtiff": True},
            {"tile": (16, 16), "planarconfig": "separate", "compression": "zlib"},
        ):
            planar = options.get("planarconfig") == "separate"
            if name == "grey" and planar:
                continue
            extra = {"extrasamples": ["unassalpha"]} if name == "rgba" else {}
            photometric = "minisblack" if name == "grey" else "rgb"
            source = np.moveaxis(array, -1, 0) if planar else array
            data = tiff(source, photometric=photometric, metadata=None, **options, **extra)
            reference = tifffile.imread(io.BytesIO(data))
            reference = np.moveaxis(reference, 0, -1) if planar else reference
            label = "-".join(f"{key}_{value}" for key, value in options.items()) or "plain"
            yield f"16-bit-{name}-{label}.tiff".replace(" ", "").replace(">", "big"), data, reference, 0
    white = tiff(grey, photometric="miniswhite", metadata=None)
    yield "white-is-zero.tiff", white, 255 - tifffile.imread(io.BytesIO(white)), 0
    for dtype in (np.float16, np.float32, np.float64):
        data = tiff((deep(rgb) / 65535).astype(dtype), photometric="rgb", metadata=None)
        reference = (tifffile.imread(io.BytesIO(data)).astype(np.float64).clip(0, 1) * 65535).round()
        yield f"{np.dtype(dtype).name}.tiff", data, reference.astype(np.uint16), 0
        planes = np.moveaxis((deep(rgb) / 65535).astype(dtype), -1, 0)
        data = tiff(planes, photometric="rgb", metadata=None, **TILED_PLANES)
        yield f"{np.dtype(dtype).name}-tiled-planes.tiff", data, reference.astype(np.uint16), 0
    data = tiff(np.moveaxis(deep(rgb).astype(np.uint32), -1, 0), photometric="rgb", metadata=None, **TILED_PLANES)
    yield "uint32-tiled-planes.tiff", data, None, 0
    pages = tiff(np.stack([rgb, 255 - rgb]), photometric="rgb", metadata=None)
    yield "pages.tiff", pages, rgb, 0
    for dtype in (np.uint32, np.int16):
        yield f"{np.dtype(dtype).name}.tiff", tiff(deep(grey).astype(dtype), metadata=None), None, 0

    # A palette is colour here, a grey one, too; with this header the fourth byte of a pixel means nothing.
    for name, source in (
        ("rgb", image),
        ("grey", Image.fromarray(grey)),
        ("palette", image.quantize(16)),
        ("palette-1", Image.fromarray(grey).convert("1")),
        ("32-bit", Image.fromarray(rgba)),
    ):
        data = saved(source, "BMP")
        yield f"{name}.bmp", data, pillow(data, "RGB"), 0
    for name, source in (("gif", image.quantize(64)), ("gif-grey", Image.fromarray(grey))):
        data = saved(source, "GIF")
        yield f"{name}.gif", data, pillow(data, "RGB"), 0
    data = saved(image.quantize(64), "GIF", save_all=True, append_images=[ImageOps.invert(image).quantize(64)])
    yield "animated.gif", data, pillow(data, "RGB"), 0
    clear = image.quantize(64)
    data = saved(clear, "GIF", transparency=clear.getpixel((0, 0)))
    yield "transparent.gif", data, pillow(data, "RGBA"), 0

    for name, array in (("grey", grey), ("rgb", rgb)):
        header = f"{'P5' if name == 'grey' else 'P6'} {dimensions} "
        yield f"{name}.pnm", f"{header}255\n".encode() + array.tobytes(), array, 0
        yield f"{name}-16.pnm", f"{header}65535\n".encode() + deep(array).astype(">u2").tobytes(), deep(array), 0
        text = " ".join(map(str, array.reshape(-1)))
        yield f"{name}-ascii.pnm", f"{'P2' if name == 'grey' else 'P3'}\n# a remark\n{dimensions}\n255\n{text}\n".encode(), array, 0
        # Other largest values are stretched to the depth.
        ten = (deep(array) >> 6).astype(">u2")
        stretched = (ten.astype(np.int64) * 65535 + 511) // 1023
        yield f"{name}-1023.pnm", f"{header}1023\n".encode() + ten.tobytes(), stretched.astype(np.uint16), 0
        hundred = (array.astype(np.int64) * 100 // 255).astype(np.uint8)
        stretched = (hundred.astype(np.int64) * 255 + 50) // 100
        yield f"{name}-100.pnm", f"{header}100\n".encode() + hundred.tobytes(), stretched.astype(np.uint8), 0
    ink = (grey < 128).astype(np.uint8)
    yield "bitmap.pnm", f"P4 {dimensions}\n".encode() + np.packbits(ink, axis=1).tobytes(), 255 * (1 - ink), 0
    text = "\n".join("".join(map(str, row)) for row in ink)
    yield "bitmap-ascii.pnm", f"P1\n{dimensions}\n{text}\n".encode(), 255 * (1 - ink), 0
    header = f"P7\nWIDTH {size[1]}\nHEIGHT {size[0]}\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    yield "rgba.pam", header.encode() + rgba.tobytes(), rgba, 0
    for name, array in (("rgb", rgb), ("rgba", rgba)):
        data = saved(Image.fromarray(array), "QOI")
        yield f"{name}.qoi", data, pillow(data), 0


def read_back(path):
    """What another program makes of a file that was written."""
    data = path.read_bytes()
    if path.suffix == ".tiff":
        return tifffile.imread(io.BytesIO(data)), data
    if path.suffix in (".png", ".ppm") and opencv(data).dtype == np.uint16:
        if path.suffix == ".png" and data[25] == 4:
            # Grey and alpha of 16 bits: no decoder here gives it back unchanged.
            return None, data
        return opencv(data), data
    return pillow(data), data


# Of the many combinations, those that take a way of their own through the program.
FIXTURES = re.compile(
    r"orientation-[1-8]\.png|orientation-[68]\.(jpeg|webp|tiff)|4\d\d(-progressive)?\.jpg|(restart|rgb|grey|cmyk|ycck)\.jpg"
    r"|grey-(1|2|4|8|16)\.png|grey-(1|16)-interlaced\.png|palette-[14](-transparent)?\.png|16-bit-\d(-interlaced)?\.png"
    r"|16-bit-dark\.png|colour-key\.png|display-p3\.(png|jpg)|lossy-(6|alpha)\.webp|lossless-alpha\.webp|animated\.webp"
    r"|rgb-(lzw|packbits)\.tiff|rgba-adobe_deflate\.tiff|bilevel-(group4|group3|none)\.tiff|(palette|jpeg|cmyk|lab)\.tiff"
    r"|16-bit-rgb-(byteorder_big|tile_\(16,16\)|rowsperstrip_5|bigtiff_True|planarconfig_separate|.*predictor_True)\.tiff"
    r"|16-bit-rgb-tile.*separate.*|16-bit-rgba-plain\.tiff|white-is-zero\.tiff|float(16|32|64)\.tiff|pages\.tiff|uint32\.tiff"
    r"|(float16|float64|uint32)-tiled-planes\.tiff"
    r"|(rgb|grey|palette|palette-1|32-bit)\.bmp|gif\.gif|animated\.gif|transparent\.gif"
    r"|(grey-ascii|rgb-16|rgb-ascii|rgb-1023|grey-100|bitmap|bitmap-ascii)\.pnm|rgba\.(pam|qoi)|rgb\.qoi"
)


def fixtures(folder):
    """Small files for the tests, with what the other decoders make of them in `decoded.json`: the SHA-256 of the
    samples (16 bits big-endian) where they must be equal, else the samples themselves in hexadecimal."""
    decoded = {}
    for name, data, reference, tolerance in reading((13, 21)):
        if not FIXTURES.fullmatch(name):
            continue
        name = re.sub(r"[(),]", "", name)
        (folder / name).write_bytes(data)
        if reference is None:
            decoded[name] = None
            continue
        bits = 8 * reference.dtype.itemsize
        height, width, channels = (*reference.shape, 1)[:3]
        line = {"width": width, "height": height, "channels": channels, "bits": bits}
        if tolerance == 0:
            line["sha256"] = hashlib.sha256(reference.astype(">u2" if bits == 16 else np.uint8).tobytes()).hexdigest()
        else:
            line |= {"tolerance": tolerance, "samples": reference.astype(np.uint8).tobytes().hex()}
        decoded[name] = line
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(line)}" for name, line in sorted(decoded.items()))
    (folder / "decoded.json").write_text("{\n" + text + "\n}\n")


def ours(folder, line):
    samples = (folder / f"{line['file']}.raw").read_bytes()
    array = np.frombuffer(samples, "<u2" if line["max"] == 65535 else np.uint8)
    array = array.reshape(line["height"], line["width"], line["channels"])
    return array[..., 0] if line["channels"] == 1 else array


def differences(a, b, tolerance):
    if a.shape != b.shape or a.dtype.itemsize != b.dtype.itemsize:
        return None
    off = np.abs(a.astype(np.int64) - b.astype(np.int64))
    return int(off.max()), int((off > tolerance).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", default="target/release/examples/samples", help="the built example")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the files, kept")
    parser.add_argument("--fixtures", type=pathlib.Path, help="write the files of the tests here, and compare nothing")
    arguments = parser.parse_args()
    if arguments.fixtures:
        return fixtures(arguments.fixtures)
    temporary = tempfile.TemporaryDirectory()
    folder = arguments.keep or pathlib.Path(temporary.name)
    source, result = folder / "in", folder / "out"
    for path in (source, result):
        path.mkdir(parents=True, exist_ok=True)

    cases = []
    for name, data, reference, tolerance in reading((37, 53)):
        (source / name).write_bytes(data)
        cases.append((name, reference, tolerance))
    command = [arguments.samples, result, *(source / name for name, _, _ in cases)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = {line["file"]: line for line in map(json.loads, answer.stdout.splitlines())}

    wrong = 0
    print("| file | read as | largest difference | beyond | said |")
    print("| --- | --- | ---: | ---: | --- |")
    for name, reference, tolerance in cases:
        line = lines[name]
        if "error" in line:
            wrong += reference is not None
            print(f"| {name} | {'**refused**' if reference is not None else 'refused'} | | | {line['error']} |")
            continue
        read = ours(result, line)
        kind = f"{line['channels']} × {8 if line['max'] == 255 else 16} bit"
        said = "; ".join(line["warnings"])
        found = reference is not None and differences(read, reference, tolerance)
        if not found:
            wrong += 1
            other = "nothing" if reference is None else f"{reference.shape} {reference.dtype}"
            print(f"| {name} | {kind} | **expected {other}, got {read.shape} {read.dtype}** | | {said} |")
            continue
        wrong += found[1] > 0
        print(f"| {name} | {kind} | {found[0]} | {found[1] or ''} | {said} |")

    print("\n| written | files | largest difference | beyond |")
    print("| --- | ---: | ---: | ---: |")
    for extension in ("png", "tiff", "webp", "qoi", "bmp", "ppm", "jpg"):
        files, largest, beyond = 0, 0, 0
        for name, line in lines.items():
            if extension not in line.get("written", []):
                continue
            read = ours(result, line)
            back, data = read_back(result / f"{name}.{extension}")
            if back is None:
                continue
            if extension == "jpg" and read.dtype == np.uint16:
                read = ((read.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
            if back.ndim == 3 and (read.ndim == 2 or read.shape[2] < back.shape[2]):
                # Grey in a format that has only colour.
                colour = read if read.ndim == 2 else read[..., 0]
                planes = [colour] * 3 + ([read[..., 1]] if read.ndim == 3 and read.shape[2] == 2 else [])
                read = np.stack(planes, -1)
            files += 1
            if extension == "jpg":
                # Lossy: Pillow at the same quality is the measure.
                again = pillow(saved(Image.fromarray(np.ascontiguousarray(read)), "JPEG", quality=95, subsampling=0))
                error = lambda other: float(np.mean((other.astype(np.float64) - read) ** 2))
                largest = max(largest, int(np.abs(back.astype(int) - read.astype(int)).max()))
                beyond += error(back) > 1.5 * error(again) + 1
                continue
            found = differences(read, back, 0)
            if not found:
                print(f"{name}.{extension}: {back.shape} {back.dtype}, expected {read.shape} {read.dtype}")
                beyond += 1
                continue
            largest, beyond = max(largest, found[0]), beyond + found[1]
            before, after = line["icc"] is not None, b"ICC_PROFILE" in data or b"iCCP" in data or b"ICCP" in data
            if extension in ("png", "webp") and before != after:
                print(f"{name}.{extension}: profile in: {before}, out: {after}")
                beyond += 1
        wrong += beyond > 0
        print(f"| {extension} | {files} | {largest} | {beyond or ''} |")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
