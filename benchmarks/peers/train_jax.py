"""The network of digits/training/network.py in JAX, each step compiled (jit) once; benchmarks/training.py
calls `learn`."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import yaml


def initial(key, filters, dense):
    shapes = [(5, 5, 1, filters[0]), (3, 3, filters[0], filters[1]), (3, 3, filters[1], filters[2])]
    shapes += [(9 * filters[2], dense[0]), (dense[0], dense[1]), (dense[1], 10)]
    keys = jax.random.split(key, len(shapes))
    weights = [
        jax.random.normal(k, s) * np.sqrt(2 / np.prod(s[:-1])) for k, s in zip(keys, shapes, strict=True)
    ]
    normal = [{"scale": jnp.ones(s[-1]), "shift": jnp.zeros(s[-1])} for s in shapes[:4]]
    biases = [jnp.zeros(dense[1]), jnp.zeros(10)]
    running = [{"mean": jnp.zeros(s[-1]), "variance": jnp.ones(s[-1])} for s in shapes[:4]]
    return {"weights": weights, "normal": normal, "biases": biases}, running


def forward(params, running, images, key, dropout):
    """The logits and the new running statistics. With key None, the network runs in inference mode."""
    kept = []

    def normalised(x, i):
        axes = tuple(range(x.ndim - 1))
        at = running[i] if key is None else {"mean": x.mean(axes), "variance": x.var(axes)}
        kept.append(jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, running[i], at))
        scaled = (x - at["mean"]) * jax.lax.rsqrt(at["variance"] + 1e-3)
        return jax.nn.relu(scaled * params["normal"][i]["scale"] + params["normal"][i]["shift"])

    def dropped(x, i):
        if key is None:
            return x
        keep = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - dropout[i], x.shape)
        return jnp.where(keep, x / (1 - dropout[i]), 0)

    x, w = images, params["weights"]
    for i in range(3):
        x = jax.lax.conv_general_dilated(x, w[i], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = normalised(x, i)
        if i < 2:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = normalised(dropped(x.reshape(len(x), -1), 0) @ w[3], 3)
    x = jax.nn.relu(dropped(x, 1) @ w[4] + params["biases"][0])
    return x @ w[5] + params["biases"][1], kept


def learn(arrays, epochs, batch):
    settings = yaml.safe_load(Path("params.yaml").read_text())["train"]
    dropout = settings["dropout"]
    params, running = initial(jax.random.key(settings["seed"]), settings["filters"], settings["dense"])
    images, test = (arrays[name][..., None] / np.float32(255) for name in ("x_train", "x_test"))
    rate = optax.adam(1e-3)
    state = rate.init(params)

    @jax.jit
    def step(params, running, state, some, digits, key):
        def loss(params):
            scores, kept = forward(params, running, some, key, dropout)
            return optax.softmax_cross_entropy_with_integer_labels(scores, digits).mean(), kept

        slope, kept = jax.grad(loss, has_aux=True)(params)
        change, state = rate.update(slope, state)
        return optax.apply_updates(params, change), kept, state

    find = jax.jit(lambda params, running, some: forward(params, running, some, None, dropout)[0].argmax(1))
    seconds, accuracy, rng, count = [], [], np.random.default_rng(settings["seed"]), 0
    for _ in range(epochs):
        begun = time.perf_counter()
        order = rng.permutation(len(images))
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            key = jax.random.fold_in(jax.random.key(0), count)
            count += 1
            params, running, state = step(params, running, state, images[some], arrays["y_train"][some], key)
        jax.block_until_ready(params)
        seconds.append(time.perf_counter() - begun)
        found = np.concatenate([find(params, running, test[i : i + 500]) for i in range(0, len(test), 500)])
        accuracy.append(float((found == arrays["y_test"]).mean()))
    versions = {"jax": jax.__version__, "optax": optax.__version__}
    return {"seconds": seconds, "accuracy": accuracy, "versions": versions}
