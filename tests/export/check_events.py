"""Reads TensorBoard's event files in each FOLDER of the arguments, as tensorboard's own reader does, without it:
lengths, checksums, protocol buffers. Compares with what is beside them: metrics_train.csv for scalars of a run, and
for other files expected.json. Where this Python has TensorBoard, its reader must find the same."""
import csv, glob, json, math, os, re, struct, sys, zlib


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return ~crc & 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    data, at = open(path, "rb").read(), 0
    while at < len(data):
        length, check = struct.unpack_from("<QI", data, at)
        assert check == masked(data[at:at + 8]), f"{path}: the length at {at} is damaged"
        record = data[at + 12:at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked(record), f"{path}: the record at {at}"
        at += length + 16
        yield record


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def message(data):
    """Field number -> list of values: numbers, or bytes."""
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        kind, size = key & 7, {1: 8, 5: 4}.get(key & 7)
        if kind == 0:
            value, at = varint(data, at)
        else:
            if kind == 2:
                size, at = varint(data, at)
            value, at = data[at:at + size], at + size
            assert len(value) == size, "a field ends early"
            value = struct.unpack("<d" if kind == 1 else "<f", value)[0] if kind != 2 else value
        fields.setdefault(key >> 3, []).append(value)
    return fields


def pixels(png):
    """Height, width, channels and bytes of a PNG of 8 bits."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        body = png[at + 8:at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length)[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", body)
        packed += body if kind == b"IDAT" else b""
        at += length + 12
    channels, data, before, out = {0: 1, 2: 3}[colour], zlib.decompress(packed), bytes(width * 3), b""
    for row in range(height):
        size = width * channels
        method, *line = data[row * (size + 1):(row + 1) * (size + 1)]
        for i in range(size):
            left, up, corner = (line[i - channels], before[i], before[i - channels]) if i >= channels else (0, before[i], 0)
            nearest = min((left, up, corner), key=lambda v: abs(left + up - corner - v))
            line[i] = (line[i] + (0, left, up, (left + up) // 2, nearest)[method]) & 255
        before, out = line, out + bytes(line)
    return [height, width, channels], list(out)


def read(folder):
    """Kind -> tag -> list of (step, value)."""
    found, time = {"scalars": {}, "images": {}, "histograms": {}}, 0
    for path in sorted(glob.glob(f"{folder}/events.out.tfevents.*")):
        first, *others = [message(record) for record in records(path)]
        assert first[3] == [b"brain.Event:2"] and message(others[0][7][0])[1] == [1], "no version, or no session log"
        for event in [first, *others]:
            assert event[1][0] >= time, "time goes backward"
            time = event[1][0]
        for event in others[1:]:
            (value,) = [message(v) for v in message(event[5][0])[1]]
            tag, at = value[1][0].decode(), event.get(2, [0])[0]
            if 2 in value:
                found["scalars"].setdefault(tag, []).append((at, value[2][0]))
            elif 4 in value:
                image = message(value[4][0])
                shape, data = pixels(image[4][0])
                assert shape == [image[i][0] for i in (1, 2, 3)], f"{tag}: the PNG is {shape}"
                found["images"].setdefault(tag, []).append((at, shape, data))
            else:
                h = message(value[5][0])
                limits, counts = [[x[0] for x in struct.iter_unpack("<d", h[i][0])] for i in (6, 7)]
                assert len(limits) == len(counts) and limits == sorted(limits), tag
                assert sum(counts) == h[3][0] and limits[-1] == h[2][0] and h[1][0] <= limits[0], tag
                found["histograms"].setdefault(tag, []).append((at, h[1][0], h[2][0], *[h[i][0] for i in (3, 4, 5)]))
    return found


def single(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def check_run(folder, found):
    columns = {"loss/train": "train_loss", "loss/validation": "val_loss", "accuracy/train": "train_acc",
               "accuracy/validation": "val_acc", "learning_rate": "lr", "images_per_second": "images_per_s"}
    rows = list(csv.DictReader(open(f"{folder}/metrics_train.csv")))
    for tag, column in columns.items():
        wanted = [(int(row["step"]), float(row[column])) for row in rows if row[column] not in ("", "nan")]
        got = found["scalars"].get(tag, [])
        assert [s for s, _ in got] == [s for s, _ in wanted], f"{tag}: {got}, not {wanted}"
        assert all(math.isclose(a, b, rel_tol=1e-6) for (_, a), (_, b) in zip(got, wanted)), f"{tag}: {got}, {wanted}"
    sizes = json.load(open(f"{folder}/sizes.json"))
    assert {t: [h[3] for h in v] for t, v in found["histograms"].items()} == \
        {f"weights/{name}": [size] * len(rows) for name, size in sizes.items()}, found["histograms"]
    images = [(tag, step) for tag, values in found["images"].items() for step, shape, _ in values if shape == [28, 28, 1]]
    for end in {step for _, step in images}:  # of a training, or of its continuation
        tags = sorted(tag for tag, step in images if step == end)
        assert 1 <= len(tags) <= 25, tags
        assert all(re.match(rf"misclassified/{i:02}: \d taken for \d ", tag) for i, tag in enumerate(tags, 1)), tags
    assert images, "no images"


def check_expected(folder, found):
    wanted = json.load(open(f"{folder}/expected.json"))
    for kind, tags in wanted.items():
        for tag, values in tags.items():
            got = [list(v) for v in found[kind].get(tag, [])]
            assert repr(got) == repr(values), f"{kind} {tag}: {got}, not {values}"
    assert {k: sorted(v) for k, v in found.items()} == {k: sorted(v) for k, v in wanted.items()}, "other tags"


def check_tensorboard(folder, found):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    theirs = EventAccumulator(folder, size_guidance={kind: 0 for kind in found})
    theirs.Reload()
    assert {kind: set(theirs.Tags()[kind]) for kind in found} == {kind: set(tags) for kind, tags in found.items()}
    for tag, values in found["scalars"].items():
        assert repr([(e.step, e.value) for e in theirs.Scalars(tag)]) == repr(values), tag
    for tag, values in found["images"].items():
        assert [(e.step, pixels(e.encoded_image_string)[1]) for e in theirs.Images(tag)] == [(s, d) for s, _, d in values]
    for tag, values in found["histograms"].items():
        assert [e.histogram_value.num for e in theirs.Histograms(tag)] == [v[3] for v in values], tag
    print(f"# {os.path.basename(folder)}: TensorBoard reads the same")


for folder in sys.argv[1:]:
    found = read(folder)
    (check_run if os.path.exists(f"{folder}/metrics_train.csv") else check_expected)(folder, found)
    print(f"# {os.path.basename(folder)}:", ", ".join(f"{len(tags)} {kind}" for kind, tags in found.items()))
    try:
        import tensorboard
    except ImportError:
        continue
    check_tensorboard(folder, found)
