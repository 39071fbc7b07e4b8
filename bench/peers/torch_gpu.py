"""PyTorch's time for one epoch of MNIST on a GPU, at its best.

The data lie on the GPU as floats, TF32 is allowed, the optimizer is SGD with momentum, nothing is logged. A step
picks its batch from a shuffled order by a counter on the GPU, so that in mode `graph` a whole step is one CUDA
graph that is replayed without any work of the host. Prints seconds per epoch, the median of the requested epochs.
usage: torch_gpu.py mlp|lenet BATCH eager|graph EPOCHS FOLDER   (FOLDER has the four IDX files)
       torch_gpu.py matmul SIZE      prints TFLOP/s of an f32 product, without and with TF32
"""
import sys
import time

import numpy as np
import torch
from torch import nn

from torch_epochs import model, read_idx


def steps_of(net, images, labels, batch):
    loss_of = nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    order = torch.randperm(len(images), device="cuda")
    counter = torch.zeros((), dtype=torch.long, device="cuda")
    rows = torch.arange(batch, device="cuda")

    def step():
        pick = order[(counter * batch + rows) % len(images)]
        counter.add_(1)
        sgd.zero_grad(set_to_none=False)
        loss_of(net(images[pick]), labels[pick]).backward()
        sgd.step()

    return step, order, counter


def capture(step):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def epochs(name, batch, mode, count, folder):
    images = torch.tensor(read_idx(folder, "train-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28) / np.float32(255)).cuda()
    labels = torch.tensor(read_idx(folder, "train-labels-idx1-ubyte", 8).astype(np.int64)).cuda()
    step, order, counter = steps_of(model(name).cuda(), images, labels, batch)
    run = capture(step) if mode == "graph" else step
    times = []
    for _ in range(count + 1):
        order.copy_(torch.randperm(len(images), device="cuda"))
        counter.zero_()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range((len(images) + batch - 1) // batch):
            run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    print(f"{sorted(times[1:])[count // 2]:.5f}")


def matmul(n):
    a, b = torch.randn(n, n, device="cuda"), torch.randn(n, n, device="cuda")
    rates = []
    for tf32 in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        for _ in range(5):
            a @ b
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(20):
            a @ b
        torch.cuda.synchronize()
        rates.append(2e-12 * n**3 * 20 / (time.perf_counter() - start))
    print(f"{rates[0]:.1f} {rates[1]:.1f}")


torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
torch.backends.cudnn.benchmark = True
if sys.argv[1] == "matmul":
    matmul(int(sys.argv[2]))
else:
    epochs(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5])
