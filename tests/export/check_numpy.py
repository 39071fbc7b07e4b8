"""In each FOLDER of the arguments: model.npz read by NumPy, and model.safetensors read here, hold the same
tensors bit for bit. With `torch` as first argument they also go into an nn.Sequential of the same layers,
by name, whose logits are those of logits.f32; else files are written for bantam to read back: plain,
compressed, in Fortran order, as 64- and 16-bit floats."""
import json, re, struct, sys

import numpy as np


def read_safetensors(path):
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    types = {"F32": "<f4", "F64": "<f8"}
    return {name: np.frombuffer(data[8 + length:][slice(*t["data_offsets"])], types[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items()}


def layers(torch, spec, shape):
    """PyTorch's modules under the names that bantam counts them by."""
    nn, result, flat = torch.nn, [], False
    size = shape[0]
    for text in spec.split(","):
        kind, numbers = re.match(r"([a-z]+)(.*)", text).groups()
        number = {key: int(value) for key, value in re.findall(r"([a-z]?)(\d+)", "o" + numbers)}
        if kind == "conv":
            result.append(nn.Conv2d(size, number["o"], number["x"], number.get("s", 1), number.get("p", 0)))
            size = number["o"]
        elif kind in ("pool", "maxpool", "avgpool"):
            pool = nn.AvgPool2d if kind == "avgpool" else nn.MaxPool2d
            result.append(pool(number["o"], number.get("s", number["o"])))
        elif kind == "fc":
            result.append(nn.LazyLinear(number["o"]) if flat else nn.Sequential(nn.Flatten(), nn.LazyLinear(number["o"])))
            flat = True
        elif kind != "flatten":
            result.append({"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}[kind]())
    return result


def check_torch(folder, arrays):
    import torch
    *shape, classes = map(int, open(f"{folder}/shape").read().split())
    images = torch.from_numpy(np.fromfile(f"{folder}/images.f32", "<f4").reshape(-1, *shape))
    wanted = torch.from_numpy(np.fromfile(f"{folder}/logits.f32", "<f4").reshape(-1, classes))
    modules = layers(torch, open(f"{folder}/spec").read(), shape)
    model = torch.nn.Sequential(*modules)
    with torch.no_grad():
        model(images[:1])  # so that lazy layers know their sizes
        for i, module in enumerate(modules):  # a first fc has its flattening inside
            linear = module[1] if isinstance(module, torch.nn.Sequential) else module
            linear.load_state_dict({name.split(".")[1]: torch.from_numpy(value.copy()) for name, value in arrays.items()
                                    if name.split(".")[0] == str(i)}, strict=True)
        difference = (model(images).flatten(1) - wanted).abs().max().item()
    name, limit = folder.split("/")[-1], 1e-5 * max(1, wanted.abs().max().item())
    assert difference <= limit, f"{name}: PyTorch's logits differ by {difference:.2e}"
    print(f"# {name}: PyTorch's logits differ by {difference:.2e}")


def check(folder):
    with np.load(f"{folder}/model.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    others = read_safetensors(f"{folder}/model.safetensors")
    assert arrays and sorted(arrays) == sorted(others), f"{sorted(arrays)} and {sorted(others)}"
    for name, value in arrays.items():
        assert value.dtype == np.dtype("<f4") and value.shape == others[name].shape, name
        assert value.tobytes() == others[name].tobytes(), f"{name} differs"
    print(f"# {folder.split('/')[-1]}: {len(arrays)} tensors are equal")
    return arrays


def write(folder, arrays):
    np.savez(f"{folder}/plain.npz", **arrays)
    np.savez_compressed(f"{folder}/compressed.npz", **arrays)
    np.savez(f"{folder}/fortran.npz", **{name: np.asfortranarray(value) for name, value in arrays.items()})
    np.savez(f"{folder}/wide.npz", **{name: value.astype("<f8") for name, value in arrays.items()})
    np.savez(f"{folder}/half.npz", **{name: value.astype("<f2") for name, value in arrays.items()})
    np.savez(f"{folder}/pickle.npz", **arrays, extra=np.array([{}], dtype=object))


with_torch = sys.argv[1] == "torch"
for folder in sys.argv[1 + with_torch:]:
    (check_torch if with_torch else write)(folder, check(folder))
