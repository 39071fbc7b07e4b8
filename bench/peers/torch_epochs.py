"""PyTorch's time for one epoch of MNIST on the CPU, at its best.

Images are float tensors in memory, a batch is one index_select, the optimizer is SGD with momentum,
nothing is logged. Prints seconds per epoch, the fastest of the requested epochs.
usage: torch_epochs.py NET BATCH THREADS EPOCHS FOLDER   (FOLDER has the four IDX files)
"""
import sys
import time

import numpy as np
import torch
from torch import nn

from nets import read_training, torch_model


def main():
    name, batch, threads, epochs, folder = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    pixels, digits = read_training(folder)
    images = torch.tensor(pixels / np.float32(255))
    labels = torch.tensor(digits.astype(np.int64))
    net, loss_of = torch_model(name), nn.CrossEntropyLoss()
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
