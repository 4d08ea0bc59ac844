"""The fused linear cross-entropy: chunks of positions, blocks of the vocabulary, gradient on the way forward.

A chunk's logits are made block by block, with their statistics; then each block is turned into its
gradient and multiplied on at once. A training step costs three products over the vocabulary and not
four, and holds the logits of one chunk. Not here: what is done to a block (`Steps`: `xla.py`, `cpu.py`).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.kernels.cross_entropy.chunk import add_block, block_count, block_of, chunk_tokens, chunks, local, whole
from cupola.kernels.cross_entropy.objective import PLAIN, Losses, Objective
from cupola.kernels.cross_entropy.reference import capped
from cupola.kernels.product import operand, product

MANY_CHUNKS = 5
"""From so many on the head is rounded once and kept; with fewer, block by block, which holds no copy."""


class Statistics(NamedTuple):
    """Of each column of the logits seen so far; -inf and 0 where nothing was seen.

    Args:
        top: the maximum.
        total: the sum of exp(logits - top).
        at: the target's logit.
        sum: of all logits times their class's weight; only where it is asked for.
    """

    top: Float[Array, " N"]
    total: Float[Array, " N"]
    at: Float[Array, " N"]
    sum: Float[Array, " N"]


class Slope(NamedTuple):
    """Of a column: its gradient is share * exp(logits - top) - hit at the target - spread * class weights."""

    top: Float[Array, " N"]
    share: Float[Array, " N"]
    hit: Float[Array, " N"]
    spread: Float[Array, " N"]


@dataclasses.dataclass(frozen=True)
class Steps:
    """What is done to a block of logits [U, N], one column a position.

    Args:
        statistics: (logits, rows of the targets, statistics so far, class weights or None) -> statistics.
        gradient: (logits, rows of the targets, slope, class weights or None, soft cap, dtype) -> the gradient
            for the logits before the cap, as [U, N] and as [N, U].
        product: as `kernels.product.product`.
    """

    statistics: Callable[..., Statistics]
    gradient: Callable[..., tuple[jax.Array, jax.Array]]
    product: Callable[..., jax.Array] = product


def linear_losses(x, head, targets, weights, precision, objective, class_weights, *, steps, aside) -> Losses:
    """Returns the weighted sums; without `aside`, `correct` is not counted and is 0."""
    seen = jnp.where((weights != 0)[..., None], x, 0)
    real = jnp.where(weights != 0, targets, 0)
    return _losses(seen, head, real, weights, class_weights, precision, objective, steps, aside)


def linear_log_probs(x, head, targets, precision, soft_cap=None, *, steps) -> Float[Array, "B T"]:
    """Returns the log-probability of each target."""
    return _log_probs(x, head, targets, precision, soft_cap, steps)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8))
def _losses(x, head, targets, weights, class_weights, precision, objective, steps, aside):
    matrix, blocks = head_of(x, head, precision)

    def chunk(_, inputs):
        x_chunk, target, weight = inputs
        seen, best, _ = _survey(
            x_chunk, matrix, target, blocks, precision, objective, class_weights, steps, aside, False
        )
        cost, z_loss, _ = _costs(seen, target, weight, class_weights, head.shape[0], objective)
        return None, (cost, z_loss, best == target)

    inputs = (chunks(operand(x, precision, _rows(x)), blocks), chunks(targets, blocks), chunks(weights, blocks))
    _, (costs, z_losses, right) = jax.lax.scan(chunk, None, inputs)
    costs, z_losses, right = (whole(each, *x.shape[:2]) for each in (costs, z_losses, right))
    return _summed(costs, z_losses, right, weights)


def _forward(x, head, targets, weights, class_weights, precision, objective, steps, aside):
    matrix, blocks = head_of(x, head, precision)

    def chunk(for_head, inputs):
        x_chunk, target, weight = inputs
        seen, best, logits = _survey(
            x_chunk, matrix, target, blocks, precision, objective, class_weights, steps, aside, True
        )
        cost, z_loss, slope = _costs(seen, target, weight, class_weights, head.shape[0], objective)

        def block(carry, inputs):
            for_x, for_head = carry
            index, held = inputs
            spread = _classes(class_weights, held.shape[0], blocks, index) if _spreads(objective) else None
            where = local(target, blocks, index)
            return _multiply(
                held, where, slope, spread, matrix, x_chunk, for_x, for_head, blocks, index, objective, precision, steps
            ), None

        start = jnp.zeros(x_chunk.shape, precision.accumulate), for_head
        (for_x, for_head), _ = jax.lax.scan(block, start, (jnp.arange(blocks), logits))
        return for_head, (cost, z_loss, best == target, for_x.astype(x.dtype))

    inputs = (chunks(operand(x, precision, _rows(x)), blocks), chunks(targets, blocks), chunks(weights, blocks))
    for_head, out = jax.lax.scan(chunk, jnp.zeros(head.shape, precision.accumulate), inputs)
    costs, z_losses, right, for_x = (whole(each, *x.shape[:2]) for each in out)
    return _summed(costs, z_losses, right, weights), (for_x, for_head.astype(head.dtype), costs)


def _backward(precision, objective, steps, aside, kept, gradient):
    for_x, for_head, costs = kept
    by = gradient.loss
    return (by * for_x).astype(for_x.dtype), (by * for_head).astype(for_head.dtype), None, by * costs, None


_losses.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _log_probs(x, head, targets, precision, soft_cap, steps):
    return _log_probs_forward(x, head, targets, precision, soft_cap, steps)[0]


def _log_probs_forward(x, head, targets, precision, soft_cap, steps):
    matrix, blocks = head_of(x, head, precision)
    objective = Objective(soft_cap=soft_cap)

    def chunk(_, inputs):
        x_chunk, target = inputs
        seen, _, _ = _survey(x_chunk, matrix, target, blocks, precision, objective, None, steps, False, False)
        return None, (seen.at - seen.top - jnp.log(seen.total), seen.top, seen.total)

    inputs = chunks(operand(x, precision, _rows(x)), blocks), chunks(targets, blocks)
    _, (out, top, total) = jax.lax.scan(chunk, None, inputs)
    return whole(out, *x.shape[:2]), (x, head, targets, top, total)


def _log_probs_backward(precision, soft_cap, steps, kept, gradient):
    x, head, targets, top, total = kept
    matrix, blocks = head_of(x, head, precision)
    objective = Objective(soft_cap=soft_cap)

    def chunk(for_head, inputs):
        x_chunk, target, given, top, total = inputs
        slope = Slope(top, -given / total, -given, jnp.zeros_like(top))

        def block(carry, index):
            for_x, for_head = carry
            logits = block_logits(x_chunk, matrix, blocks, index, precision, objective, steps.product)
            where = local(target, blocks, index)
            return _multiply(
                logits, where, slope, None, matrix, x_chunk, for_x, for_head, blocks, index, objective, precision, steps
            ), None

        start = jnp.zeros(x_chunk.shape, precision.accumulate), for_head
        (for_x, for_head), _ = jax.lax.scan(block, start, jnp.arange(blocks))
        return for_head, for_x.astype(x.dtype)

    inputs = (
        chunks(operand(x, precision, _rows(x)), blocks),
        chunks(targets, blocks),
        chunks(gradient, blocks),
        top,
        total,
    )
    for_head, for_x = jax.lax.scan(chunk, jnp.zeros(head.shape, precision.accumulate), inputs)
    return whole(for_x, *x.shape[:2]), for_head.astype(head.dtype), None


_log_probs.defvjp(_log_probs_forward, _log_probs_backward)


def _survey(x, matrix, target, blocks, precision, objective, class_weights, steps, aside, keep):
    """Returns the statistics of a chunk, its first largest class, and its logits [blocks, U, N] if they are kept."""
    rows = x.shape[0]

    def block(carry, index):
        seen, best = carry
        logits = block_logits(x, matrix, blocks, index, precision, objective, steps.product)
        spread = _classes(class_weights, logits.shape[0], blocks, index) if _spreads(objective) else None
        if aside:
            best = _first_largest(logits, seen.top, best, blocks, index)
        return (steps.statistics(logits, local(target, blocks, index), seen, spread), best), logits if keep else None

    nothing = jnp.zeros(rows, precision.accumulate)
    start = Statistics(nothing - jnp.inf, nothing, nothing, nothing), jnp.zeros_like(target)
    (seen, best), logits = jax.lax.scan(block, start, jnp.arange(blocks))
    return seen, best, logits


def _first_largest(logits, top, best, blocks, index):
    here = jnp.max(logits, 0)
    first = jnp.argmax(logits, 0).astype(best.dtype) * blocks + index.astype(best.dtype)
    earlier = (here > top) | ((here == top) & (first < best))
    return jnp.where(earlier, first, best)


def block_logits(
    x: Float[Array, "N D"],
    matrix: Float[Array, "V D"],
    blocks: int,
    index: jax.Array,
    precision: Precision,
    objective: Objective,
    multiply: Callable[..., jax.Array] = product,
) -> Float[Array, "U N"]:
    """Returns a block of a chunk's logits, capped as the objective says."""
    rows = operand(block_of(matrix, blocks, index), precision, x.shape[0])
    return capped(multiply(rows, x, (1, 1), precision), objective.soft_cap)


def _multiply(logits, where, slope, spread, matrix, x, for_x, for_head, blocks, index, objective, precision, steps):
    """Returns the gradients for x and for the head with a block's added."""
    gradient, turned = steps.gradient(logits, where, slope, spread, objective.soft_cap, x.dtype)
    rows = operand(block_of(matrix, blocks, index), precision, x.shape[0])
    for_x = for_x + steps.product(turned, rows, (1, 0), precision)
    if blocks == 1:
        return for_x, steps.product(gradient, x, (1, 0), precision, onto=for_head)
    return for_x, add_block(for_head, blocks, index, steps.product(gradient, x, (1, 0), precision))


def _costs(seen: Statistics, target, weight, class_weights, vocabulary, objective):
    """Returns each position's loss and z-loss, and the slope of weight * loss."""
    normalizer = seen.top + jnp.log(seen.total)
    smooth, z = objective.label_smoothing, objective.z_loss
    of_target = jnp.ones_like(weight) if class_weights is None else class_weights[target].astype(weight.dtype)
    of_all = vocabulary if class_weights is None else jnp.sum(class_weights.astype(weight.dtype))
    # top - at is exact where they are near; the normalizer as a whole has lost that.
    cost = (1 - smooth) * of_target * (seen.top - seen.at + jnp.log(seen.total))
    share, spread = (1 - smooth) * of_target, jnp.zeros_like(weight)
    if smooth:
        cost = cost + smooth / vocabulary * (of_all * normalizer - seen.sum)
        share, spread = share + smooth / vocabulary * of_all, spread + smooth / vocabulary
    z_loss = z * normalizer**2
    if z:
        cost, share = cost + z_loss, share + 2 * z * normalizer
    slope = Slope(seen.top, weight * share / seen.total, weight * (1 - smooth) * of_target, weight * spread)
    return cost, z_loss, slope


def _summed(costs, z_losses, right, weights) -> Losses:
    return Losses(jnp.sum(weights * costs), jnp.sum(weights * z_losses), jnp.sum(weights * right))


def _spreads(objective: Objective) -> bool:
    return objective.label_smoothing != PLAIN.label_smoothing


def _classes(class_weights, size, blocks, index) -> Float[Array, " U"]:
    return jnp.ones(size, jnp.float32) if class_weights is None else block_of(class_weights, blocks, index)


def head_of(x: Float[Array, "B T D"], head: Float[Array, "V D"], precision: Precision):
    """Returns the head, rounded where it is worth it, and its number of blocks."""
    blocks = block_count(head.shape[0])
    many = -(-_rows(x) // chunk_tokens(_rows(x), blocks)) >= MANY_CHUNKS
    return operand(head, precision, _rows(x)) if many else head, blocks


def _rows(x: Float[Array, "B T D"]) -> int:
    return x.shape[0] * x.shape[1]
