"""PyTorch's time for one epoch of MNIST on the CPU, at its best.

Images are float tensors in memory, a batch is one index_select, the optimizer is SGD with momentum,
nothing is logged. Prints seconds per epoch, the fastest of the requested epochs.
usage: torch_epochs.py mlp|lenet BATCH THREADS EPOCHS FOLDER   (FOLDER has the four IDX files)
"""
import gzip
import os
import sys
import time

import numpy as np
import torch
from torch import nn


def read_idx(folder, name, offset):
    for suffix, opener in (("", open), (".gz", gzip.open)):
        path = os.path.join(folder, name + suffix)
        if os.path.exists(path):
            with opener(path, "rb") as f:
                return np.frombuffer(f.read(), np.uint8, offset=offset)
    sys.exit(f"{folder}: no {name}")


def model(name):
    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10))


def main():
    name, batch, threads, epochs, folder = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = torch.tensor(read_idx(folder, "train-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28) / np.float32(255))
    labels = torch.tensor(read_idx(folder, "train-labels-idx1-ubyte", 8).astype(np.int64))
    net, loss_of = model(name), nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    best = float("inf")
    for _ in range(epochs):
        order = torch.randperm(len(images))
        start = time.perf_counter()
        for at in range(0, len(images), batch):
            pick = order[at:at + batch]
            sgd.zero_grad(set_to_none=True)
            loss_of(net(images[pick]), labels[pick]).backward()
            sgd.step()
        best = min(best, time.perf_counter() - start)
    print(f"{best:.4f}")


if __name__ == "__main__":
    main()
