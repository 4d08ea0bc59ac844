"""Divergences for the compiler: chunks of positions, blocks of the vocabulary, gradient on the way forward.

A chunk's two sets of logits are made block by block; a second pass over them sums the divergence and
the slope's mean, a third turns each block into its gradient, which is multiplied on at once.
With f' the divergence's slope for q, the gradient for the student's logits is q (f' - sum q f') / temperature.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.kernels.cross_entropy.chunk import add_block, block_count, block_of, chunks, whole
from cupola.kernels.cross_entropy.fused import block_logits
from cupola.kernels.cross_entropy.objective import PLAIN
from cupola.kernels.divergence.measure import Kind, Measure
from cupola.kernels.divergence.reference import against_mixture, terms
from cupola.kernels.product import contiguous, operand, product


def linear_divergence(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    teacher_x: Float[Array, "B T E"],
    teacher_head: Float[Array, "V E"],
    weights: Float[Array, "B T"],
    precision: Precision,
    measure: Measure,
) -> Float[Array, ""]:
    """Returns the weighted sum of the divergences, chunk by chunk."""
    counts = (weights != 0)[..., None]
    student, teacher = jnp.where(counts, x, 0), jnp.where(counts, teacher_x, 0)
    return _loss(student, head, teacher, teacher_head, weights, precision, measure)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _loss(x, head, teacher_x, teacher_head, weights, precision, measure):
    blocks = block_count(head.shape[0])

    def chunk(_, inputs):
        x_chunk, teacher_chunk = inputs
        logits, normalizers = _survey(x_chunk, head, teacher_chunk, teacher_head, blocks, precision, measure)
        return None, _sums(logits, normalizers, measure)[0]

    _, costs = jax.lax.scan(chunk, None, _cut(x, teacher_x, precision, blocks))
    return jnp.sum(weights * whole(costs, *x.shape[:2]))


def _forward(x, head, teacher_x, teacher_head, weights, precision, measure):
    blocks = block_count(head.shape[0])

    def chunk(for_head, inputs):
        x_chunk, teacher_chunk, weight = inputs
        logits, normalizers = _survey(x_chunk, head, teacher_chunk, teacher_head, blocks, precision, measure)
        costs, mean = _sums(logits, normalizers, measure)

        def block(carry, inputs):
            for_x, for_head = carry
            index, student, teacher = inputs
            log_q, log_p = _shares(student, normalizers[0]), _shares(teacher, normalizers[1])
            given = (weight / measure.temperature)[None] * _weighed(log_p, log_q, mean, measure)
            given = given.astype(x_chunk.dtype)
            rows = operand(block_of(head, blocks, index), precision, x_chunk.shape[0])
            for_x = for_x + product(contiguous(given.T), rows, (1, 0), precision)
            return (for_x, add_block(for_head, blocks, index, product(given, x_chunk, (1, 0), precision))), None

        start = jnp.zeros(x_chunk.shape, precision.accumulate), for_head
        (for_x, for_head), _ = jax.lax.scan(block, start, (jnp.arange(blocks), *logits))
        return for_head, (costs, for_x.astype(x.dtype))

    start = jnp.zeros(head.shape, precision.accumulate)
    for_head, out = jax.lax.scan(chunk, start, (*_cut(x, teacher_x, precision, blocks), chunks(weights, blocks)))
    costs, for_x = (whole(each, *x.shape[:2]) for each in out)
    # What has no gradient keeps its place, so that the teacher's is zero and not missing.
    return jnp.sum(weights * costs), (for_x, for_head.astype(head.dtype), costs)


def _backward(precision, measure, kept, gradient):
    for_x, for_head, costs = kept
    return (
        (gradient * for_x).astype(for_x.dtype),
        (gradient * for_head).astype(for_head.dtype),
        None,
        None,
        gradient * costs,
    )


_loss.defvjp(_forward, _backward)


def _cut(x, teacher_x, precision, blocks):
    rows = x.shape[0] * x.shape[1]
    return tuple(chunks(operand(each, precision, rows), blocks) for each in (x, teacher_x))


def _survey(x, head, teacher_x, teacher_head, blocks, precision, measure):
    """Returns the logits over the temperature of student and teacher, [blocks, U, N], and their normalizers."""

    def block(carry, index):
        pair = [
            block_logits(rows, matrix, blocks, index, precision, PLAIN) / measure.temperature
            for rows, matrix in ((x, head), (teacher_x, teacher_head))
        ]
        return tuple(_added(*each) for each in zip(carry, pair, strict=True)), tuple(pair)

    nothing = jnp.zeros(x.shape[0], precision.accumulate)
    start = ((nothing - jnp.inf, nothing),) * 2
    carry, logits = jax.lax.scan(block, start, jnp.arange(blocks))
    return logits, tuple((top, jnp.log(total)) for top, total in carry)


def _shares(logits, normalizer):
    # Not the sum of both first: where the top is large, it would swallow the rest.
    return (logits - normalizer[0][None]) - normalizer[1][None]


def _added(seen, logits):
    top = jax.lax.optimization_barrier(jnp.maximum(seen[0], jnp.max(logits, 0)))
    return top, seen[1] * jnp.exp(seen[0] - top) + jnp.sum(jnp.exp(logits - top[None]), 0)


def _sums(logits, normalizers, measure):
    """Returns each position's divergence and the mean of its slope under the student."""

    def block(carry, pair):
        log_q, log_p = map(_shares, pair, normalizers)
        cost = carry[0] + jnp.sum(terms(log_p, log_q, measure), 0)
        return (cost, carry[1] + jnp.sum(_weighed(log_p, log_q, nothing, measure), 0)), None

    nothing = jnp.zeros_like(normalizers[0][0])
    return jax.lax.scan(block, (nothing, nothing), logits)[0]


def _weighed(log_p, log_q, mean, measure: Measure):
    """Returns q times the derivative of the divergence for q, up to a constant, less its mean."""
    q = jnp.exp(log_q)
    if measure.kind is Kind.KL:
        # Not as a quotient times q, which is no number where q is 0; its mean is -1 for all.
        return q - jnp.exp(log_p)
    if measure.kind is Kind.REVERSE_KL:
        return q * (log_q - log_p - mean[None])
    if measure.kind is Kind.TVD:
        return q * (jnp.sign(q - jnp.exp(log_p)) / 2 - mean[None])
    return q * ((1 - measure.beta) * against_mixture(log_p, log_q, measure.beta)[1] - mean[None])
