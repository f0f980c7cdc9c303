"""A program for the tests, of the standard library alone: `square`, or one of many ways to fail."""
import array, json, os, struct, sys, time

mode = sys.argv[1]

def read():
    length = sys.stdin.buffer.read(8)
    if not length:
        sys.exit()
    message = sys.stdin.buffer.read(*struct.unpack("<Q", length))
    start = 8 + struct.unpack("<Q", message[:8])[0]
    header = json.loads(message[8:start])
    tensors = {}
    request = header.pop("__metadata__")
    for name, about in header.items():
        begin, end = about["data_offsets"]
        numbers = array.array("f" if about["dtype"] == "F32" else "d")
        numbers.frombytes(message[start + begin:start + end])
        tensors[name] = (about["shape"], list(numbers))
    return request, tensors

def write(metadata, tensors, kind="F64"):
    header, data = {"__metadata__": metadata}, b""
    for name, (shape, numbers) in tensors.items():
        numbers = array.array("d", numbers).tobytes()
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(numbers)]}
        data += numbers
    header = json.dumps(header).encode()
    message = struct.pack("<Q", len(header)) + header + data
    put(struct.pack("<Q", len(message)) + message)

def put(message):
    sys.stdout.buffer.write(message)
    sys.stdout.buffer.flush()

while True:
    request, tensors = read()
    if request["request"] == "shape":
        answer = {"ok": "true", "measurement": request["image"], "linear": "false"}
        if mode == "no_shape":
            del answer["measurement"]
        elif mode == "odd_shape":
            answer["measurement"] = "3 by 4"
        elif mode == "vast_shape":
            answer["measurement"] = "[4294967296, 4294967296, 4294967296]"
        elif mode == "no_linear":
            del answer["linear"]
        elif mode == "odd_linear":
            answer["linear"] = "perhaps"
        elif mode == "no_ok":
            del answer["ok"]
        write(answer, {})
        continue
    shape, x = tensors["x"] if "x" in tensors else tensors["y"]
    if mode == "dies":
        print("first line\nno such kernel", file=sys.stderr)
        sys.exit(3)
    elif mode == "sleeps":
        time.sleep(60)
    elif mode == "prints":
        print("loading the kernel", flush=True)
    elif mode == "huge":
        put(struct.pack("<Q", 2 ** 63))
    elif mode == "truncated":
        put(struct.pack("<Q", 100) + b"only this")
        sys.exit()
    elif mode == "garbage":
        put(struct.pack("<Q", 16) + b"sixteen  letters")
    elif mode == "refuses":
        write({"error": "x is too dark"}, {})
    elif mode == "misnames":
        write({"ok": "true"}, {"z": (shape, x)})
    elif mode == "misshapes":
        write({"ok": "true"}, {"y": ([len(x)], x)})
    elif mode == "integers":
        write({"ok": "true"}, {"y": (shape, x)}, "I64")
    elif mode == "nan":
        write({"ok": "true"}, {"y": (shape, [float("nan")] + x[1:])})
    elif mode == "pid":
        write({"ok": "true"}, {"y": (shape, [os.getpid()] * len(x))})
    elif request["request"] == "vjp":
        write({"ok": "true"}, {"x": (shape, [2 * a * b for a, b in zip(x, tensors["v"][1])])})
    else:
        write({"ok": "true"}, {"y": (shape, [a * a for a in x])})
