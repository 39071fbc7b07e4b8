"""JAX's time for one epoch of MNIST on a GPU, at its best: the whole epoch is one compiled lax.scan.

The bytes lie on the GPU, TF32 is allowed, the optimizer is SGD with momentum, arguments are donated, and nothing
comes back until the epoch ends. The epoch's images are gathered in their shuffled order at its start, so that
a step reads a slice; the shuffle itself is not timed, and the last, short batch is left out. Prints seconds per epoch, the
median of EPOCHS after a first one that compiles.
usage: jax_scan.py NET BATCH EPOCHS FOLDER [unroll=8] [pool=slices|window] [steps=slice|gather] [layout=nhwc|nchw]
       NET: mlp, lenet, lenet5 or layers; FOLDER has the four IDX files. The options choose how the same epoch is
       written; bench/gpu.sh uses the defaults, the fastest found on an H200.
"""
import os
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nets import layers_of, read_training

RATE, MOMENTUM = 0.05, 0.9


def initial(layers, seed=0):
    rng, parameters = np.random.default_rng(seed), []
    for kind, *numbers in layers:
        if kind == "conv":
            inputs, outputs, side, _ = numbers
            shape, fan_in = (outputs, inputs, side, side), inputs * side * side
        elif kind == "fc":
            shape, fan_in = tuple(numbers), numbers[0]
            outputs = numbers[1]
        else:
            continue
        weights = rng.normal(0, np.sqrt(2 / fan_in), shape)
        parameters.append((jnp.asarray(weights, jnp.float32), jnp.zeros(outputs, jnp.float32)))
    return parameters


def max_pool(x, axis, how):
    """Of 2 x 2, side by side, along `axis` and the next one; an odd last row or column is left out."""
    height, width = (x.shape[axis + i] // 2 * 2 for i in (0, 1))
    x = lax.slice_in_dim(lax.slice_in_dim(x, 0, height, axis=axis), 0, width, axis=axis + 1)
    if how == "window":
        window = tuple(2 if i in (axis, axis + 1) else 1 for i in range(4))
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    for i in (axis, axis + 1):
        side = x.shape[i]
        x = jnp.maximum(*(lax.slice_in_dim(x, at, side, 2, i) for at in (0, 1)))
    return x


def forward(layers, parameters, x, options):
    """Of images [batch, 28, 28]."""
    rest, first = iter(parameters), options["layout"] == "nchw"
    x = x[:, None] if first else x[..., None]
    names = ("NCHW", "OIHW", "NCHW") if first else ("NHWC", "HWIO", "NHWC")
    for kind, *numbers in layers:
        if kind == "conv":
            weights, bias = next(rest)
            padding = [(numbers[3], numbers[3])] * 2
            weights = weights if first else weights.transpose(2, 3, 1, 0)
            x = lax.conv_general_dilated(x, weights, (1, 1), padding, dimension_numbers=names)
            x = x + (bias[:, None, None] if first else bias)
        elif kind == "fc":
            weights, bias = next(rest)
            x = x @ weights + bias
        elif kind == "pool":
            x = max_pool(x, 2 if first else 1, options["pool"])
        elif kind == "flatten":
            x = x.reshape(x.shape[0], -1)
        else:
            x = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}[kind](x)
    return x


def make_epoch(layers, batch, count, options):
    steps = count // batch

    def loss(parameters, images, labels):
        x = images.astype(jnp.float32) * (1 / 255)
        logs = jax.nn.log_softmax(forward(layers, parameters, x, options))
        return -jnp.take_along_axis(logs, labels[:, None], 1).mean()

    def train(state, images, labels):
        parameters, speeds = state
        value, gradients = jax.value_and_grad(loss)(parameters, images, labels)
        speeds = jax.tree.map(lambda v, g: MOMENTUM * v + g, speeds, gradients)
        parameters = jax.tree.map(lambda p, v: p - RATE * v, parameters, speeds)
        return (parameters, speeds), value

    def epoch(state, images, labels, order):
        order = order[:steps * batch].reshape(steps, batch)
        if options["steps"] == "gather":
            return lax.scan(lambda s, pick: train(s, images[pick], labels[pick]), state, order, unroll=options["unroll"])
        batches = images[order], labels[order]
        return lax.scan(lambda s, b: train(s, *b), state, batches, unroll=options["unroll"])

    return jax.jit(epoch, donate_argnums=0)


def main():
    net, batch, epochs, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    options = {"unroll": 8, "pool": "slices", "steps": "slice", "layout": "nhwc"}
    for word in sys.argv[5:]:
        name, value = word.split("=")
        options[name] = type(options[name])(value)
    pixels, digits = read_training(folder)
    images, labels = jnp.asarray(pixels[:, 0]), jnp.asarray(digits, jnp.int32)
    layers = layers_of(net)
    parameters = initial(layers)
    state = parameters, jax.tree.map(jnp.zeros_like, parameters)
    epoch = make_epoch(layers, batch, len(pixels), options)
    times, key = [], jax.random.key(0)
    for i in range(epochs + 2):
        order = jax.random.permutation(jax.random.fold_in(key, i), len(pixels)).block_until_ready()
        start = time.perf_counter()
        state, losses = epoch(state, images, labels, order)
        jax.block_until_ready((state, losses))
        times.append(time.perf_counter() - start)
    last = float(losses[-100:].mean())
    if not last < 0.5:
        sys.exit(f"jax_scan: {net} does not learn: loss {last} in the last 100 steps")
    print(f"{sorted(times[2:])[epochs // 2]:.5f}")


if __name__ == "__main__":
    main()
