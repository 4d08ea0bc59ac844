"""Cross-entropy for the compiler: chunks of positions, transposed logits, gradient on the way forward.

Each chunk's logits [V, N] are made, turned into their gradient and multiplied on at once, so a
training step costs three products over the vocabulary and not four, and holds one chunk.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.product import contiguous, operand, product

CHUNK_TOKENS = 256
"""Positions whose logits are held at once, over the whole batch."""


def linear_cross_entropy(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
) -> Float[Array, ""]:
    """Returns the weighted sum of negative log-probabilities, chunk by chunk."""
    return _loss(jnp.where((weights != 0)[..., None], x, 0), head, targets, weights, precision)


def linear_log_probs(
    x: Float[Array, "B T D"], head: Float[Array, "V D"], targets: Int[Array, "B T"], precision: Precision
) -> Float[Array, "B T"]:
    """Returns the log-probability of each target, chunk by chunk."""
    rows, matrix = _operands(x, head, precision)

    @jax.checkpoint  # the gradient makes a chunk's logits again
    def chunk(_, inputs):
        x_chunk, target = inputs
        logits, top, total = _logits(x_chunk, matrix, precision)
        return None, _at(logits, target) - top - jnp.log(total)

    _, out = jax.lax.scan(chunk, None, (_chunks(rows), _chunks(targets)))
    return _whole(out, x.shape[0])[:, : x.shape[1]]


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _loss(x, head, targets, weights, precision):
    return -jnp.sum(weights * linear_log_probs(x, head, targets, precision))


def _forward(x, head, targets, weights, precision):
    rows, matrix = _operands(x, head, precision)
    across = contiguous(matrix.T)

    def chunk(for_head, inputs):
        x_chunk, target, weight = inputs
        logits, top, total = _logits(x_chunk, matrix, precision)
        log_prob = _at(logits, target) - top - jnp.log(total)
        shares = jnp.exp(logits - top[None]) * (weight / total)[None]
        gradient = operand(shares - jnp.where(_hit(logits, target), weight[None], 0), precision, weight.size)
        for_x = product(across, gradient, (1, 0), precision)
        return for_head + product(gradient, x_chunk, (1, 0), precision), (log_prob, for_x)

    start = jnp.zeros(head.shape, precision.accumulate)
    inputs = (_chunks(rows), _chunks(targets), _chunks(weights))
    for_head, (log_probs, for_x) = jax.lax.scan(chunk, start, inputs)
    log_probs = _whole(log_probs, x.shape[0])[:, : x.shape[1]]
    for_x = _whole(for_x.transpose(0, 2, 1), x.shape[0])[:, : x.shape[1]]
    return -jnp.sum(weights * log_probs), (for_x.astype(x.dtype), for_head.astype(head.dtype), log_probs)


def _backward(precision, kept, gradient):
    for_x, for_head, log_probs = kept
    return gradient * for_x, gradient * for_head, None, -gradient * log_probs


_loss.defvjp(_forward, _backward)


def _operands(x: Float[Array, "B T D"], head: Float[Array, "V D"], precision: Precision):
    rows = x.shape[0] * x.shape[1]
    return operand(x, precision, rows), operand(head, precision, rows)


def _logits(x: Float[Array, "N D"], head: Float[Array, "V D"], precision: Precision):
    """Returns the transposed logits of a chunk with their maximum and sum of exponentials."""
    logits = product(head, x, (1, 1), precision)
    top = jax.lax.optimization_barrier(jnp.max(logits, 0))
    return logits, top, jnp.sum(jnp.exp(logits - top[None]), 0)


def _hit(logits: Float[Array, "V N"], targets: Int[Array, " N"]):
    return jax.lax.broadcasted_iota(targets.dtype, logits.shape, 0) == targets[None]


def _at(logits: Float[Array, "V N"], targets: Int[Array, " N"]) -> Float[Array, " N"]:
    return jnp.sum(jnp.where(_hit(logits, targets), logits, 0), 0)


def _chunks(x: jax.Array) -> jax.Array:
    """Cuts [B, T, ...] along T into [chunks, B * T / chunks, ...], padded with zeros at the end.

    Along T, because the batch may be split over devices and a chunk must hold its share of each.
    """
    batch, length = x.shape[:2]
    width = min(length, max(1, CHUNK_TOKENS // batch))
    count = -(-length // width)
    padded = jnp.pad(x, ((0, 0), (0, count * width - length), *((0, 0),) * (x.ndim - 2)))
    cut = jnp.moveaxis(padded.reshape(batch, count, width, *x.shape[2:]), 1, 0)
    return cut.reshape(count, batch * width, *x.shape[2:])


def _whole(chunks: jax.Array, batch: int) -> jax.Array:
    """Undoes `_chunks`, padding kept."""
    count, rows = chunks.shape[:2]
    cut = jnp.moveaxis(chunks.reshape(count, batch, rows // batch, *chunks.shape[2:]), 0, 1)
    return cut.reshape(batch, count * rows // batch, *chunks.shape[2:])
