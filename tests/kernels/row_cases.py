"""The cases of operations over rows; `cases.py` has them in its table.

Those with two results are judged by both, joined along the last dim.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from judge import Case

from cupola.kernels.choose import Operation
from cupola.kernels.embedding.api import LOOK_UP
from cupola.kernels.lstm.api import LSTM
from cupola.kernels.matmul.api import DOTS
from cupola.kernels.norm.api import ADD_LAYER_NORM, ADD_RMS_NORM, RMS_NORM
from cupola.kernels.norm.casting import Casting


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def joined(operation):
    """Returns the operation with its two results as one array."""

    def both(function):
        def call(*arguments):
            one, other = function(*arguments)
            if one.ndim != other.ndim:
                one, other = one.reshape(one.shape[0], -1), other.reshape(other.shape[0], -1)
            return jnp.concatenate((one, other), -1)

        return call

    all_ = tuple(dataclasses.replace(i, function=both(i.function)) for i in operation.implementations)
    return Operation(operation.name, all_)


BOTH_RMS, BOTH_LAYER, BOTH_LSTM, ALL_DOTS = map(joined, (ADD_RMS_NORM, ADD_LAYER_NORM, LSTM, DOTS))
OPERATIONS_ON_ROWS = (BOTH_RMS, BOTH_LAYER, LOOK_UP, BOTH_LSTM, ALL_DOTS)


def several_products(name, rows, inputs, *outputs):
    """Products of the same rows with several matrices."""
    weights = [normal(inputs, f, seed=i) for i, f in enumerate(outputs, 1)]

    def plain(x, *weights, product):
        return jnp.concatenate([product("nk,kf->nf", x, w) for w in weights], -1)

    def arguments(arrays, precision):
        return arrays[0], tuple(arrays[1:]), precision, 1

    return Case(ALL_DOTS, name, (normal(rows, inputs), *weights), arguments, plain, ("B D", "D F", "D F"))


def unit_of(x, epsilon, *, centred):
    x = x - x.mean(-1, keepdims=True) if centred else x
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + epsilon)


def add_norm(name, x, *, centred, epsilon=1e-6, offset=0.0):
    residual, scale, more = normal(*x.shape, seed=3), normal(x.shape[-1], seed=1), normal(x.shape[-1], seed=2)

    def plain(x, residual, scale, more=None, *, product):
        row, summed = (1,) * (x.ndim - 1) + scale.shape, x + residual
        out = (scale.reshape(row) + offset) * unit_of(summed, epsilon, centred=centred)
        return jnp.concatenate((out + more.reshape(row) if centred else out, summed), -1)

    operation, arrays = (BOTH_LAYER, (x, residual, scale, more)) if centred else (BOTH_RMS, (x, residual, scale))
    rest = (epsilon,) if centred else (epsilon, offset)
    dims = ("B T D", "B T D", "D", "D")[: len(arrays)]
    return Case(operation, name, arrays, lambda a, _: (*a, *rest), plain, dims, takes_policy=False)


def rms(name, x, *, casting, offset=1.0, epsilon=1e-6):
    def plain(x, scale, product):
        by = scale.reshape((1,) * (x.ndim - 1) + scale.shape) + offset
        return by * unit_of(x, epsilon, centred=False)

    rest = epsilon, offset, casting
    arrays = x, normal(x.shape[-1], seed=1)
    return Case(RMS_NORM, name, arrays, lambda a, _: (*a, *rest), plain, ("B T D", "D"), takes_policy=False)


NORMS = [
    add_norm(name, x, centred=centred, epsilon=epsilon)
    for centred in (False, True)
    for name, x, epsilon in (
        ("typical", normal(4, 6, 8), 1e-6),
        ("one row of width one", normal(1), 1e-2),
        ("odd sizes, many rows", normal(67, 3, 37), 1e-6),
        ("wide rows", normal(2, 129), 1e-6),
    )
]
NORMS += [add_norm("scale kept less one", normal(3, 17), centred=False, offset=1.0)]
NORMS += [rms(f"casting {casting.value}", normal(5, 33), casting=casting) for casting in Casting]


def look_up(name, vocabulary, tokens, width=5):
    tokens = np.int32(tokens)
    hot = np.eye(vocabulary, dtype=np.float32)[tokens]

    def plain(table, product):
        return jnp.tensordot(hot.astype(table.dtype), table, 1)

    arrays = (normal(vocabulary, width),)
    return Case(LOOK_UP, name, arrays, lambda a, _: (*a, jnp.asarray(tokens)), plain, ("V D",), takes_policy=False)


LOOK_UPS = [
    look_up("typical", 8, [[3, 0, 3], [7, 3, 1]], width=4),
    look_up("one row", 1, [0, 0, 0], width=1),
    look_up("length one", 9, [8]),
    look_up("the same token everywhere", 70, [[69] * 13], width=129),
    look_up("every token once, in no order", 67, np.random.default_rng(0).permutation(67), width=17),
]


def lstm(name, batch, length, width, *, size=1.0):
    arrays = (
        normal(batch, length, 4 * width) * np.float32(size),
        normal(width, 4 * width, seed=1) / np.float32(width**0.5),
        normal(batch, width, seed=2) / 2,
        normal(batch, width, seed=3),
    )

    def plain(inputs, matrix, hidden, cell, product):
        def sigmoid(x):
            return 1 / (1 + jnp.exp(-x))

        out = []
        for step in range(length):
            i, f, g, o = jnp.split(inputs[:, step] + product("bw,wg->bg", hidden, matrix), 4, -1)
            cell = sigmoid(f) * cell + sigmoid(i) * jnp.tanh(g)
            hidden = sigmoid(o) * jnp.tanh(cell)
            out.append(hidden)
        return jnp.concatenate((*out, cell), -1)

    def arguments(arrays, precision):
        return *arrays, precision

    return Case(BOTH_LSTM, name, arrays, arguments, plain, ("B T F", "D F", "B D", "B D"))


LSTMS = [
    lstm("typical", 8, 3, 4),
    lstm("length one, width one", 1, 1, 1),
    lstm("odd sizes", 7, 5, 19),
    lstm("rows beyond a block", 13, 2, 67),
    lstm("gates far out", 2, 3, 5, size=30.0),
]

SEVERAL = [
    several_products("typical", 40, 37, 46, 70),
    several_products("tiles and no more", 64, 32, 32, 64),
    several_products("single numbers", 1, 1, 1, 1),
    several_products("rows that are several tasks, long sums", 300, 530, 33, 16),
]

ROWS = [*NORMS, *LOOK_UPS, *LSTMS, *SEVERAL]


def without_residual(x, residual, scale, *rest):
    out, _ = ADD_RMS_NORM("reference", x, residual, scale, *rest)
    return jnp.concatenate((out, x), -1)


def norm_of_one(x, residual, scale, offset, epsilon):
    out, _ = ADD_LAYER_NORM("reference", x, jnp.zeros_like(residual), scale, offset, epsilon)
    return jnp.concatenate((out, x + residual), -1)


def each_row_once(table, tokens):
    """The gradient of the last look-up alone."""
    seen, place = tokens.reshape(-1), np.arange(tokens.size)
    later = (seen[None] == seen[:, None]) & (place[None] > place[:, None])
    last = ~later.any(1).reshape(tokens.shape)
    found = table[tokens]
    return jnp.where(last[..., None], found, jax.lax.stop_gradient(found))


def gates_in_another_order(inputs, matrix, *rest):
    swapped = [jnp.concatenate([jnp.split(x, 4, -1)[i] for i in (1, 0, 2, 3)], -1) for x in (inputs, matrix)]
    return BOTH_LSTM("reference", *swapped, *rest)


def forgotten_start(inputs, matrix, hidden, *rest):
    return BOTH_LSTM("reference", inputs, matrix, jnp.zeros_like(hidden), *rest)


def columns_the_other_way(x, weights, *rest):
    return jnp.concatenate(DOTS("reference", x, (weights[0], weights[1][:, ::-1]), *rest), -1)


BROKEN_ON_ROWS = {
    "dots: columns in another order": ("typical", columns_the_other_way),
    "add_rms_norm: the sum is not returned": ("typical", without_residual),
    "add_layer_norm: the residual is not normalized": ("typical", norm_of_one),
    "look_up: a row's gradient comes from one place": ("the same token everywhere", each_row_once),
    "lstm: gates in another order": ("typical", gates_in_another_order),
    "lstm: the state before the first step is ignored": ("typical", forgotten_start),
}
