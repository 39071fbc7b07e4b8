"""What the peers share: MNIST from its files, and networks written as Bantam writes them.

"mlp", "lenet", "lenet5" or layers such as "conv6x3,relu,pool2,fc32,relu,fc10" become a list of layers;
each framework builds its own network from that list, so that all run the same thing.
"""
import gzip
import os
import re
import sys

import numpy as np

PRESETS = {
    "mlp": "fc128,relu,fc10",
    "lenet": "conv8x5,relu,pool2,conv16x5,relu,pool2,fc10",
    "lenet5": "conv6x5p2,relu,pool2,conv16x5,relu,pool2,fc120,relu,fc84,relu,fc10",
}


def layers_of(net):
    """[("conv", in, out, side, padding), ("relu",), ("pool",), ("flatten",), ("fc", in, out), ...] on 28 x 28 x 1."""
    channels, side, flat, layers = 1, 28, False, []
    for word in PRESETS.get(net, net).split(","):
        if conv := re.fullmatch(r"conv(\d+)x(\d+)(?:p(\d+))?", word):
            out, kernel, padding = int(conv[1]), int(conv[2]), int(conv[3] or 0)
            layers.append(("conv", channels, out, kernel, padding))
            channels, side = out, side + 2 * padding - kernel + 1
        elif word == "pool2":
            layers.append(("pool",))
            side //= 2
        elif fc := re.fullmatch(r"fc(\d+)", word):
            if not flat:
                layers.append(("flatten",))
                channels, flat = channels * side * side, True
            layers.append(("fc", channels, int(fc[1])))
            channels = int(fc[1])
        elif word in ("relu", "sigmoid", "tanh"):
            layers.append((word,))
        else:
            sys.exit(f"{net}: no peer has the layer {word}")
    return layers


def read_idx(folder, name, offset):
    for suffix, opener in (("", open), (".gz", gzip.open)):
        path = os.path.join(folder, name + suffix)
        if os.path.exists(path):
            with opener(path, "rb") as f:
                return np.frombuffer(f.read(), np.uint8, offset=offset)
    sys.exit(f"{folder}: no {name}")


def read_training(folder):
    """60 000 images of 1 x 28 x 28 bytes, and their labels."""
    images = read_idx(folder, "train-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
    return images, read_idx(folder, "train-labels-idx1-ubyte", 8)


def torch_model(net):
    from torch import nn

    def module(layer):
        kind, *numbers = layer
        if kind == "conv":
            inputs, outputs, side, padding = numbers
            return nn.Conv2d(inputs, outputs, side, padding=padding)
        if kind == "fc":
            return nn.Linear(*numbers)
        return {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "flatten": nn.Flatten,
                "pool": lambda: nn.MaxPool2d(2)}[kind]()

    return nn.Sequential(*map(module, layers_of(net)))
