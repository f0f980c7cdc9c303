"""An operator as a program: the mean of 2x2 blocks, or with the argument `blur` the mean of 3x3 pixels, circular."""
import json, struct, sys
import numpy as np

TYPES = {"F32": "<f4", "F64": "<f8"}
height, width = 0, 0  # told by the request `shape`

def block_mean(x):
    x = x[:, :height // 2 * 2, :width // 2 * 2]
    return x.reshape(len(x), height // 2, 2, width // 2, 2).mean((2, 4))

def block_mean_adjoint(y):
    x = np.zeros((len(y), height, width))
    x[:, :height // 2 * 2, :width // 2 * 2] = y.repeat(2, 1).repeat(2, 2) / 4
    return x

def blur(x):  # symmetric, so it is its own adjoint
    return sum(np.roll(x, (down, right), (1, 2)) for down in (-1, 0, 1) for right in (-1, 0, 1)) / 9

forward, adjoint = (blur, blur) if "blur" in sys.argv else (block_mean, block_mean_adjoint)

def answer(request, tensors):
    global height, width
    if request["request"] == "shape":
        image = json.loads(request["image"])
        height, width = image[1:]
        return {"measurement": json.dumps(list(forward(np.zeros(image)).shape)), "linear": "true"}, {}
    if request["request"] == "forward":
        return {}, {"y": forward(tensors["x"])}
    if request["request"] == "adjoint":
        return {}, {"x": adjoint(tensors["y"])}
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
        numbers = np.frombuffer(message[start + begin:start + end], TYPES[about["dtype"]])
        tensors[name] = numbers.reshape(about["shape"]).astype(float)
    return request, tensors

def write(metadata, tensors):
    header, data = {"__metadata__": metadata}, b""
    for name, numbers in tensors.items():
        numbers = numbers.astype("<f8").tobytes()
        header[name] = {"dtype": "F64", "shape": tensors[name].shape, "data_offsets": [len(data), len(data) + len(numbers)]}
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
