"""PyTorch's inference on the CPU: as it is, and as TorchScript, frozen and optimized for inference.

The images are floats in memory, given all at once or 500 at a time. Prints a line "SECONDS BATCH MODE" for each of these:
the median of calls that fill half a second, from the first call to the last logits.
usage: torch_infer_cpu.py NET THREADS FOLDER BATCH...   (FOLDER has the four IDX files)
"""
import sys
import time

import numpy as np
import torch

from nets import read_idx, torch_model

SECONDS = 0.5


def prepare(net, images, mode):
    if mode == "eager":
        return net
    script = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(net, images)))
    for _ in range(3):  # it is compiled when it has been seen running
        script(images)
    return script


def median_call(net, parts):
    times, begin = [], time.perf_counter()
    while time.perf_counter() < begin + SECONDS or len(times) < 3:
        start = time.perf_counter()
        for part in parts:
            net(part)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main():
    name, threads, folder, batches = sys.argv[1], int(sys.argv[2]), sys.argv[3], [int(word) for word in sys.argv[4:]]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    pixels = read_idx(folder, "t10k-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
    net = torch_model(name).eval()
    for batch in batches:
        images = torch.tensor(pixels[np.arange(batch) % len(pixels)] / np.float32(255))
        for mode in ("eager", "script"):
            for part in {batch, min(batch, 500)}:
                parts = images.split(part)
                print(f"{median_call(prepare(net, parts[0], mode), parts):.9f} {batch} {mode} {part}")


with torch.no_grad():
    main()
