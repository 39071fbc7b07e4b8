"""How exact the gradients of one step are: Bantam's and PyTorch's, against PyTorch in f64.

A training step with learning rate 0 leaves the weights as they are and the gradient in the momentum, so that a
checkpoint holds both. It must be the first step of a run over the first BATCH samples in file order:
    bantam train NET mnist --limit BATCH --batch BATCH --epochs 1 --lr 0 --sched const --wd 0 --val-split 0 --shuffle off
Prints for each tensor |g - g64| / |g64|, the largest of all checkpoints: Bantam, PyTorch with TF32, PyTorch in f32.
usage: torch_grad.py NET BATCH FOLDER CHECKPOINT...      (FOLDER has the four IDX files)
"""
import json
import struct
import sys

import numpy as np
import torch
from torch import nn

from nets import read_training, torch_model


def read_checkpoint(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    types = {"F32": np.float32, "F64": np.float64}
    return {name: np.frombuffer(data[slice(*t["data_offsets"])], types[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items() if name != "__metadata__" and t["dtype"] in types}


def module_names(net):
    """PyTorch's names of the parameters, by Bantam's: flattening is a layer here and none there."""
    names, skipped = {}, 0
    for i, module in enumerate(net):
        skipped += isinstance(module, nn.Flatten)
        for part, _ in module.named_parameters():
            names[f"{i - skipped}.{part}"] = f"{i}.{part}"
    return names


def gradients(net, images, labels, dtype, tf32):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    net = net.to(dtype)
    net.zero_grad()
    nn.CrossEntropyLoss()(net(images.to(dtype) / 255), labels).backward()
    return {name: p.grad.double().cpu().numpy() for name, p in net.named_parameters()}


def main():
    name, batch, folder, paths = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    pixels, digits = (torch.tensor(x[:batch].copy()).cuda() for x in read_training(folder))
    worst = {}
    for path in paths:
        tensors, net = read_checkpoint(path), torch_model(name).cuda()
        names = module_names(net)
        net.load_state_dict({theirs: torch.tensor(tensors[ours]) for ours, theirs in names.items()})
        steps = [gradients(net, pixels, digits.long(), dtype, tf32)
                 for dtype, tf32 in ((torch.float32, True), (torch.float32, False), (torch.float64, False))]
        for ours, theirs in names.items():
            exact = steps[2][theirs]
            got = [tensors[f"optimizer.{ours}.momentum"].astype(np.float64), steps[0][theirs], steps[1][theirs]]
            errors = [np.linalg.norm(g - exact) / np.linalg.norm(exact) for g in got]
            worst[ours] = np.maximum(worst.get(ours, 0), errors)
    print(f"| {name}, batch {batch} | Bantam | PyTorch TF32 | PyTorch f32 |\n|---|---|---|---|")
    for ours, errors in worst.items():
        print(f"| {ours} | " + " | ".join(f"{e:.1e}" for e in errors) + " |")


if __name__ == "__main__":
    main()
