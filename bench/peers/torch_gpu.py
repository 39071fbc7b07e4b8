"""PyTorch's time for one epoch of MNIST on a GPU, at its best.

The data lie on the GPU, the optimizer is SGD with momentum in one fused kernel, nothing is logged, and a step
picks its batch from a shuffled order by a counter on the GPU, so that a whole step can be one CUDA graph that
is replayed without any work of the host. Modes: `eager`; `graph`, the eager step as a CUDA graph; `compile`, network and
loss through torch.compile (max-autotune) and the whole step as a CUDA graph. A graph holds several steps where asked.
Shuffling is not timed; the last batch wraps around. Prints seconds per epoch, the median of the requested epochs.
usage: torch_gpu.py NET BATCH eager|graph|compile EPOCHS FOLDER [fp32|tf32] [STEPS-PER-GRAPH]
       NET: mlp, lenet, lenet5 or layers; FOLDER has the four IDX files; TF32 is allowed unless fp32 is asked for
       torch_gpu.py matmul SIZE...   prints, for each N or MxNxK, TFLOP/s of a product in f32, in TF32, of bf16 operands,
                                     and in bf16 of f32 operands, which autocast converts each time
"""
import sys
import time

import numpy as np
import torch
from torch import nn

from nets import read_training, torch_model


def steps_of(net, images, labels, batch, compiled):
    loss_of = nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, fused=True)
    order = torch.randperm(len(images), device="cuda")
    counter = torch.zeros((), dtype=torch.long, device="cuda")
    rows = torch.arange(batch, device="cuda")

    def loss(pick):
        return loss_of(net(images[pick]), labels[pick])

    if compiled:
        loss = torch.compile(loss, mode="max-autotune-no-cudagraphs", dynamic=False)

    def step():
        pick = order[(counter * batch + rows) % len(images)]
        counter.add_(1)
        sgd.zero_grad(set_to_none=False)
        loss(pick).backward()
        sgd.step()

    return step, order, counter


def capture(step, repeats):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            step()
    return graph.replay


def epochs(name, batch, mode, count, folder, repeats):
    pixels, digits = read_training(folder)
    images = torch.tensor(pixels / np.float32(255)).cuda()
    labels = torch.tensor(digits.astype(np.int64)).cuda()
    step, order, counter = steps_of(torch_model(name).cuda(), images, labels, batch, mode == "compile")
    if mode == "eager":
        repeats = 1
    run = step if mode == "eager" else capture(step, repeats)
    steps = (len(images) + batch - 1) // batch
    times = []
    for _ in range(count + 1):
        order.copy_(torch.randperm(len(images), device="cuda"))
        counter.zero_()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps // repeats):
            run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * steps / (steps // repeats * repeats))
    print(f"{sorted(times[1:])[count // 2]:.5f}")


def matmul(size):
    m, n, k = (int(word) for word in (size if "x" in size else f"{size}x{size}x{size}").split("x"))
    operands = [torch.rand(shape, device="cuda").mul(2).sub(1) for shape in ((m, k), (k, n))]
    repeats = max(5, int(0.1 * 4e14 / (2 * m * n * k)))
    rates = []
    for dtype, tf32, autocast in ((torch.float32, False, False), (torch.float32, True, False),
                                  (torch.bfloat16, True, False), (torch.float32, True, True)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (x.to(dtype) for x in operands)
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast, cache_enabled=False):
            run = capture(lambda: a @ b, 1)
        for _ in range(5):
            run()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        torch.cuda.synchronize()
        rates.append(2e-12 * m * n * k * repeats / (time.perf_counter() - start))
    print(size, " ".join(f"{rate:.1f}" for rate in rates))


def main():
    torch.manual_seed(0)
    words = sys.argv[1:]
    if words[0] == "matmul":
        for size in words[1:]:
            matmul(size)
        return
    tf32 = "fp32" not in words[5:]
    repeats = [int(word) for word in words[5:] if word.isdigit()]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    epochs(words[0], int(words[1]), words[2], int(words[3]), words[4], repeats[0] if repeats else 1)


if __name__ == "__main__":
    main()
