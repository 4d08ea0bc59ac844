"""Attention written plainly in numpy, in the dtype that it is given, and how near a layer must come."""

import jax
import numpy as np

from cupola.kernels.rotary import Pairing

EPS = float(np.finfo(np.float32).eps)


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def as_dtype(tree, dtype):
    return jax.tree.map(lambda x: np.asarray(x, dtype), tree)


def attention(layer, p, x, positions, segments):
    """Returns what `layers.attention.Attention` should give: the textbook, head by head where it counts."""
    query, key, value = (np.einsum("btd,dhc->bthc", x, p[name]) for name in ("query", "key", "value"))
    sides = (query, "query"), (key, "key"), (value, "value")
    query, key, value = (y + p[f"{name}_bias"] if name in layer.bias.value else y for y, name in sides)
    if layer.query_norm is not None:
        query = rms_norm(query, p["query_norm"]["scale"], layer.query_norm)
    if layer.key_norm is not None:
        key = rms_norm(key, p["key_norm"]["scale"], layer.key_norm)
    if layer.rope is not None:
        query, key = (rotated(y, positions, layer.rope) for y in (query, key))
    group = layer.heads // key.shape[2]
    out = np.zeros_like(query)
    scale = x.dtype.type(layer.head_size**-0.5 if layer.scale is None else layer.scale)
    seen = visible(layer, segments)
    for head in range(layer.heads):
        scores = scale * np.einsum("btc,bsc->bts", query[:, :, head], key[:, :, head // group])
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * seen
        total = weights.sum(-1, keepdims=True)
        out[:, :, head] = np.einsum("bts,bsc->btc", weights / np.where(total > 0, total, 1), value[:, :, head // group])
    back = np.einsum("bthc,hcd->btd", out, p["output"])
    return back + p["output_bias"] if "output" in layer.bias.value else back


def visible(layer, segments):
    rows, length = segments.shape
    seen = np.zeros((rows, length, length), bool)
    for b, t, s in np.ndindex(seen.shape):
        near = layer.mask.window is None or t - s < layer.mask.window
        same = segments[b, t] == segments[b, s] != 0
        seen[b, t, s] = (s <= t or not layer.mask.causal) and near and same
    return seen


def rms_norm(x, scale, norm):
    root = np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(norm.epsilon))
    return (scale + x.dtype.type(norm.offset)) * x / root


def rotated(x, positions, rope):
    rates = rope.base ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1]) / (rope.scaling.factor if rope.scaling else 1)
    turns = np.exp(1j * np.asarray(positions)[..., None] * rates)[:, :, None].astype(np.result_type(x, np.complex64))
    if rope.pairing is Pairing.NEIGHBOURS:
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * turns
        return np.stack((turned.real, turned.imag), -1).reshape(x.shape).astype(x.dtype)
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * turns
    return np.concatenate((turned.real, turned.imag), -1).astype(x.dtype)


def matches(ours, formula, *inputs):
    """Whether ours is as near to the formula in float64 as twice the formula in float32, and a rounding or four.

    Four: of the projections, the scores, the mixture and the output, where the formula's may cancel.
    """
    exact, near = (formula(*as_dtype(inputs, dtype)) for dtype in (np.float64, np.float32))
    allowed = 2 * np.abs(near - exact).max() + 4 * EPS * np.abs(exact).max()
    return np.abs(np.asarray(ours) - exact).max() <= allowed


def reordered(ours, theirs, terms):
    """Whether two trees differ by no more than sums of so many terms may, taken in another order."""

    def near(a, b):
        return np.abs(np.asarray(a) - np.asarray(b)).max() <= terms * EPS * np.abs(b).max()

    return jax.tree.all(jax.tree.map(near, ours, theirs))
