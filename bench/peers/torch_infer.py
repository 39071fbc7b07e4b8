"""PyTorch's inference on a GPU, at its best: a Markdown table.

The images lie on the GPU as floats, TF32 is allowed, nothing is read back. Each call gives the logits of one batch.
Modes: `eager`; `graph`, the call captured as a CUDA graph; `compile`, torch.compile with its tuning and its CUDA
graphs; `compile graph`, the tuned kernels in a CUDA graph of our own. "us a call" by the GPU's clock, calls queued;
"round trip" from a call to its end, by the host's clock: medians.
usage: torch_infer.py NET FOLDER [BATCH...]   (FOLDER has the four IDX files; batches 1 and 10000 by default)
"""
import sys
import time

import numpy as np
import torch

from nets import read_idx, torch_model

ROUNDS = 9
MODES = ("eager", "graph", "compile", "compile graph")


def capture(call):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def prepare(net, images, mode):
    if mode == "compile":
        net = torch.compile(net, mode="max-autotune")
    if mode == "compile graph":
        net = torch.compile(net, mode="max-autotune-no-cudagraphs")

    def call():
        return net(images)

    for _ in range(3):
        call()
    return capture(call) if mode.endswith("graph") else call


def queued(call):
    """Microseconds a call, of as many as take about 50 ms."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    count, times = 10, []
    while len(times) < ROUNDS:
        torch.cuda.synchronize()
        start.record()
        for _ in range(count):
            call()
        end.record()
        torch.cuda.synchronize()
        spent = start.elapsed_time(end)
        if spent < 25:
            count *= 2
        else:
            times.append(1e3 * spent / count)
    return sorted(times)[ROUNDS // 2]


def round_trip(call):
    times = []
    for _ in range(200):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(1e6 * (time.perf_counter() - start))
    return sorted(times)[len(times) // 2]


def main():
    name, folder, batches = sys.argv[1], sys.argv[2], [int(word) for word in sys.argv[3:]] or [1, 10000]
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    pixels = read_idx(folder, "t10k-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
    net = torch_model(name).cuda().eval()
    print("| PyTorch | batch | us a call | images/s | round trip, us |\n|---|---|---|---|---|")
    for batch in batches:
        images = torch.tensor(pixels[np.arange(batch) % len(pixels)] / np.float32(255)).cuda()
        for mode in MODES:
            torch._dynamo.reset()
            call = prepare(net, images, mode)
            us = queued(call)
            print(f"| {name} {mode} | {batch} | {us:.2f} | {batch / us * 1e6:.4g} | {round_trip(call):.1f} |", flush=True)


with torch.inference_mode():
    main()
