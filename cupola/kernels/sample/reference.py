"""Sampling by its definition: every row is sorted."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt32

from cupola.kernels.sample.numbers import BLOCK, keys_of, pick, uniform


def draw(
    logits: Float[Array, "R V"],
    temperature: Float32[Array, " R"],
    top_k: Int32[Array, " R"],
    top_p: Float32[Array, " R"],
    min_p: Float32[Array, " R"],
    seed: UInt32[Array, "R 2"],
    position: Int32[Array, " R"],
    vocabulary: int,
) -> Int32[Array, " R"]:
    """Returns a token of each row."""
    logits = logits[:, :vocabulary].astype(jnp.float32)
    likeliest = jnp.argmax(logits, axis=1).astype(jnp.int32)
    hot = temperature > 0
    weights, nucleus = kept(logits, jnp.where(hot, temperature, 1), top_k, top_p, min_p)
    keys = keys_of(seed, position)

    def go_on(state):
        return jnp.any(state[1])

    def draw_again(state):
        tokens, left, bound, round_ = state
        candidates = jnp.where(weights > bound[:, None], weights, 0)
        drawn = _drawn(candidates, uniform(keys, round_))
        tokens = jnp.where(left, drawn, tokens)
        weight = jnp.take_along_axis(weights, drawn[:, None], axis=1)[:, 0]
        left &= ~jnp.take_along_axis(nucleus, drawn[:, None], axis=1)[:, 0]
        return tokens, left, jnp.where(left, weight, bound), round_ + 1

    # A row that is not a number, or in which nothing is allowed, gives what is likeliest.
    left = hot & (jnp.max(weights, axis=1) > 0)
    first = likeliest, left, jnp.zeros_like(temperature), jnp.int32(0)
    return jax.lax.while_loop(go_on, draw_again, first)[0]


def kept(
    logits: Float32[Array, "R V"],
    temperature: Float32[Array, " R"],
    top_k: Int32[Array, " R"],
    top_p: Float32[Array, " R"],
    min_p: Float32[Array, " R"],
) -> tuple[Float32[Array, "R V"], Bool[Array, "R V"]]:
    """Returns the weights of what top_k and min_p leave, and which tokens top_p leaves."""
    ranked = -jnp.sort(-logits, axis=1)
    last = jnp.where((top_k > 0) & (top_k < logits.shape[1]), top_k, logits.shape[1]) - 1
    bound = jnp.take_along_axis(ranked, last[:, None], axis=1)
    weights = jnp.exp((logits - ranked[:, :1]) / temperature[:, None])
    weights = jnp.where((logits >= bound) & (weights > 0), weights, 0)
    heaped = jnp.cumsum(-jnp.sort(-weights, axis=1), axis=1)
    heaped = jnp.pad(heaped, ((0, 0), (1, 0)))
    above = _above(weights)
    mass = jnp.take_along_axis(heaped, above, axis=1)
    nucleus = (mass < top_p[:, None] * heaped[:, -1:]) | (top_p >= 1)[:, None] | (above == 0)
    return jnp.where(weights >= min_p[:, None], weights, 0), nucleus


def _above(weights: Float32[Array, "R V"]) -> Int32[Array, "R V"]:
    """Returns how many tokens of the row are likelier than each."""
    return jax.vmap(lambda row: jnp.searchsorted(jnp.sort(-row), -row, side="left"))(weights).astype(jnp.int32)


def _drawn(weights: Float32[Array, "R V"], numbers: Float32[Array, "R 2"]) -> Int32[Array, " R"]:
    blocks = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % BLOCK))).reshape(weights.shape[0], -1, BLOCK)
    block = pick(jnp.sum(blocks, axis=2), numbers[:, 0])
    return block * BLOCK + pick(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], numbers[:, 1])


def log_sum(logits: Float[Array, "R V"], vocabulary: int) -> Float32[Array, " R"]:
    """Returns the logarithm of the sum of the exponentials of each row."""
    return jax.nn.logsumexp(logits[:, :vocabulary].astype(jnp.float32), axis=1)
