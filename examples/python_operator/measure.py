"""An operator as a program, with the standard library alone: the mean of 2x2 blocks, or with the argument `blur` the mean of
3x3 pixels, circular. With NumPy, `np.frombuffer(..).reshape(shape)` and `.tobytes()` take the place of the lists."""
import json, struct, sys
from array import array

channels, height, width = 0, 0, 0  # told by the request `shape`

def planes(values, rows, columns):  # [C, rows, columns] as lists of rows
    lines = [values[i * columns:(i + 1) * columns] for i in range(channels * rows)]
    return [lines[c * rows:(c + 1) * rows] for c in range(channels)]

def block_mean(x):
    pairs = range(0, width // 2 * 2, 2)
    return [(a[j] + a[j + 1] + b[j] + b[j + 1]) / 4 for plane in planes(x, height, width)
            for a, b in zip(plane[0:height // 2 * 2:2], plane[1::2]) for j in pairs]

def block_mean_adjoint(y):
    x = []
    for plane in planes(y, height // 2, width // 2):
        for line in plane:
            wide = [value / 4 for value in line for _ in (0, 1)] + [0.0] * (width % 2)
            x += wide + wide
        x += [0.0] * (width * (height % 2))
    return x

def blur(x):  # symmetric, so it is its own adjoint
    across = [[a[j - 1] + a[j] + a[(j + 1) % width] for j in range(width)] for plane in planes(x, height, width) for a in plane]
    return [(a + b + c) / 9 for plane in (across[c * height:(c + 1) * height] for c in range(channels))
            for i in range(height) for a, b, c in zip(plane[i - 1], plane[i], plane[(i + 1) % height])]

blurs = "blur" in sys.argv
forward, adjoint = (blur, blur) if blurs else (block_mean, block_mean_adjoint)

def answer(request, tensors):
    global channels, height, width
    if request["request"] == "shape":
        channels, height, width = json.loads(request["image"])
        shape = [channels, height, width] if blurs else [channels, height // 2, width // 2]
        return {"measurement": json.dumps(shape), "linear": "true"}, {}
    small = [channels, height, width] if blurs else [channels, height // 2, width // 2]
    if request["request"] == "forward":
        return {}, {"y": (small, forward(tensors["x"]))}
    if request["request"] == "adjoint":
        return {}, {"x": ([channels, height, width], adjoint(tensors["y"]))}
    raise ValueError("unknown request " + request["request"])

def read():
    length = sys.stdin.buffer.read(8)
    if not length:
        sys.exit()  # nothing more is asked
    message = sys.stdin.buffer.read(*struct.unpack("<Q", length))
    start = 8 + struct.unpack("<Q", message[:8])[0]
    header = json.loads(message[8:start])
    request, tensors = header.pop("__metadata__"), {}
    for name, about in header.items():
        begin, end = about["data_offsets"]
        tensors[name] = array({"F32": "f", "F64": "d"}[about["dtype"]], message[start + begin:start + end]).tolist()
    return request, tensors

def write(metadata, tensors):
    header, data = {"__metadata__": metadata}, b""
    for name, (shape, numbers) in tensors.items():
        numbers = array("d", numbers).tobytes()
        header[name] = {"dtype": "F64", "shape": shape, "data_offsets": [len(data), len(data) + len(numbers)]}
        data += numbers
    header = json.dumps(header).encode()
    message = struct.pack("<Q", len(header)) + header + data
    sys.stdout.buffer.write(struct.pack("<Q", len(message)) + message)
    sys.stdout.buffer.flush()

while True:
    request = read()
    try:
        metadata, tensors = answer(*request)
        write({"ok": "true", **metadata}, tensors)
    except Exception as error:
        write({"error": str(error)}, {})
