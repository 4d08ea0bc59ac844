"""Cross-entropy on a GPU: one read of the logits for their statistics, one more for their gradient.

Fused with the head, positions are cut into chunks whose logits take about as much memory as the activations do; the
gradient is taken on the way forward, and the products are the compiler's.
Source: Hsu et al. 2024 (Liger-Kernel), section 3.2; Milakov and Gimelshein 2018 (the running maximum).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.cross_entropy.chunk import chunks, whole
from cupola.kernels.cross_entropy.fused import Slope, Statistics, costs_of
from cupola.kernels.cross_entropy.objective import PLAIN, Losses, Objective
from cupola.kernels.gpu import launch, power, refused_formats
from cupola.kernels.product import operand, product

BLOCK_CLASSES = 8192
"""Logits of a row that a program holds at once, at most."""
LEAST_TOKENS, MOST_TOKENS = 256, 4096
"""Of a chunk: fewer read the head too often, more are no faster."""


def cross_entropy(
    logits: Float[Array, "B T V"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
) -> Float[Array, ""]:
    """Returns the weighted sum of the losses."""
    rows = logits.reshape(-1, logits.shape[-1])
    return _loss(rows, targets.reshape(-1), weights.reshape(-1), class_weights, objective)


def linear_losses(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
) -> Losses:
    """Returns the weighted sums, chunk by chunk."""
    seen = jnp.where((weights != 0)[..., None], x, 0)
    return _linear(seen, head, jnp.where(weights != 0, targets, 0), weights, class_weights, precision, objective)


def linear_cross_entropy(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
) -> Float[Array, ""]:
    """Returns the weighted sum of the losses, chunk by chunk."""
    return linear_losses(x, head, targets, weights, precision, objective, class_weights).loss


def linear_log_probs(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    precision: Precision,
    soft_cap: float | None = None,
) -> Float[Array, "B T"]:
    """Returns the log-probability of each target, chunk by chunk; the gradient makes the logits again."""
    return _log_probs(x, head, targets, precision, soft_cap)


def refuses_logits(logits, targets, weights, objective=PLAIN, class_weights=None) -> list[str]:
    """Returns the formats that there is no kernel for."""
    return refused_formats(logits=logits.dtype)


def refuses_losses(x, head, targets, weights, precision, objective=PLAIN, class_weights=None) -> list[str]:
    """Returns the formats that there is no kernel for."""
    return refuses_log_probs(x, head, targets, precision)


def refuses_log_probs(x, head, targets, precision, soft_cap=None) -> list[str]:
    """Returns the formats that there is no kernel for."""
    sums = precision.accumulate
    reasons = refused_formats(**{"precision.compute": precision.compute})
    return reasons + ([] if sums == jnp.float32 else [f"sums are {sums.name}, and its are float32"])


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _loss(logits, targets, weights, class_weights, objective):
    return _loss_forward(logits, targets, weights, class_weights, objective)[0]


def _loss_forward(logits, targets, weights, class_weights, objective):
    targets = jnp.where(weights != 0, targets, 0)
    seen, _ = survey(logits, targets, weights, class_weights, objective)
    costs, _, slope = costs_of(seen, targets, weights, class_weights, logits.shape[1], objective)
    return jnp.sum(weights * costs), (logits, targets, weights, class_weights, costs, slope)


def _loss_backward(objective, kept, gradient):
    logits, targets, weights, class_weights, costs, (top, *others) = kept
    slope = Slope(top, *(gradient * each for each in others))
    out = descend(logits, targets, weights, slope, class_weights, objective, logits.dtype)
    return out, None, gradient * costs, None


_loss.defvjp(_loss_forward, _loss_backward)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _linear(x, head, targets, weights, class_weights, precision, objective):
    tokens = _tokens(x, head)
    matrix, rows = _operands(x, head, precision)

    def chunk(_, inputs):
        x, target, weight = inputs
        seen, best = survey(product(x, matrix, (1, 1), precision), target, weight, class_weights, objective)
        costs, z_losses, _ = costs_of(seen, target, weight, class_weights, head.shape[0], objective)
        return None, (costs, z_losses, best == target)

    _, made = jax.lax.scan(chunk, None, tuple(chunks(each, tokens=tokens) for each in (rows, targets, weights)))
    return _summed(weights, *(whole(each, *x.shape[:2]) for each in made))


def _linear_forward(x, head, targets, weights, class_weights, precision, objective):
    tokens = _tokens(x, head)
    matrix, rows = _operands(x, head, precision)

    def chunk(for_head, inputs):
        x, target, weight = inputs
        logits = product(x, matrix, (1, 1), precision)
        seen, best = survey(logits, target, weight, class_weights, objective)
        costs, z_losses, slope = costs_of(seen, target, weight, class_weights, head.shape[0], objective)
        out = descend(logits, target, weight, slope, class_weights, objective, x.dtype)
        for_x = product(out, matrix, (1, 0), precision)
        return for_head + product(out, x, (0, 0), precision), (costs, z_losses, best == target, for_x)

    start = jnp.zeros(head.shape, precision.accumulate)
    for_head, made = jax.lax.scan(chunk, start, tuple(chunks(each, tokens=tokens) for each in (rows, targets, weights)))
    *others, for_x = (whole(each, *x.shape[:2]) for each in made)
    return _summed(weights, *others), (for_x.astype(x.dtype), for_head.astype(head.dtype), others[0])


def _linear_backward(precision, objective, kept, gradient):
    for_x, for_head, costs = kept
    by = gradient.loss
    return (by * for_x).astype(for_x.dtype), (by * for_head).astype(for_head.dtype), None, by * costs, None


_linear.defvjp(_linear_forward, _linear_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _log_probs(x, head, targets, precision, soft_cap):
    return _log_probs_forward(x, head, targets, precision, soft_cap)[0]


def _log_probs_forward(x, head, targets, precision, soft_cap):
    tokens = _tokens(x, head)
    matrix, rows = _operands(x, head, precision)

    def chunk(_, inputs):
        x, target = inputs
        logits = product(x, matrix, (1, 1), precision)
        seen, _ = survey(logits, target, jnp.ones(len(target)), None, Objective(soft_cap=soft_cap))
        return None, (seen.at - seen.top - jnp.log(seen.total), seen.top, seen.total)

    _, (out, top, total) = jax.lax.scan(chunk, None, (chunks(rows, tokens=tokens), chunks(targets, tokens=tokens)))
    return whole(out, *x.shape[:2]), (x, head, targets, top, total)


def _log_probs_backward(precision, soft_cap, kept, gradient):
    x, head, targets, top, total = kept
    tokens = _tokens(x, head)
    matrix, rows = _operands(x, head, precision)

    def chunk(for_head, inputs):
        x, target, given, top, total = inputs
        slope = Slope(top, -given / total, -given, jnp.zeros_like(top))
        logits = product(x, matrix, (1, 1), precision)
        out = descend(logits, target, jnp.ones(len(target)), slope, None, Objective(soft_cap=soft_cap), x.dtype)
        return for_head + product(out, x, (0, 0), precision), product(out, matrix, (1, 0), precision)

    inputs = *(chunks(each, tokens=tokens) for each in (rows, targets, gradient)), top, total
    for_head, for_x = jax.lax.scan(chunk, jnp.zeros(head.shape, precision.accumulate), inputs)
    return whole(for_x, *x.shape[:2]).astype(x.dtype), for_head.astype(head.dtype), None


_log_probs.defvjp(_log_probs_forward, _log_probs_backward)


def _tokens(x: Float[Array, "B T D"], head: Float[Array, "V D"]) -> int:
    """Returns how many positions are a chunk: its logits are half as many numbers as the activations."""
    return power(pl.cdiv(x.size, 2 * max(head.shape[0], 1)), MOST_TOKENS, LEAST_TOKENS)


def _operands(x, head, precision):
    """Returns the head and the activations as they are multiplied."""
    rows = x.shape[0] * x.shape[1]
    return operand(head, precision, rows), operand(x, precision, rows)


def _summed(weights, costs, z_losses, right) -> Losses:
    return Losses(*(jnp.sum(weights * each) for each in (costs, z_losses, right)))


def survey(
    logits: Float[Array, "N V"],
    targets: Int[Array, " N"],
    weights: Float[Array, " N"],
    class_weights: Float[Array, " V"] | None,
    objective: Objective,
) -> tuple[Statistics, Int[Array, " N"]]:
    """Returns each row's statistics after the cap and its first largest class; of rows of weight 0 as if they were 0."""
    (rows, classes), each = logits.shape, pl.BlockSpec((None,), lambda i: (i,))
    spread, specs = _spread(class_weights, classes, objective)
    *seen, best = launch(
        partial(_survey_kernel, objective.soft_cap, power(classes, BLOCK_CLASSES)),
        [jax.ShapeDtypeStruct((rows,), jnp.float32)] * 4 + [jax.ShapeDtypeStruct((rows,), jnp.int32)],
        [logits, targets.astype(jnp.int32), weights, *spread],
        grid=(rows,),
        inputs=[pl.BlockSpec((None, classes), lambda i: (i, 0)), each, each, *specs],
        outputs=[each] * 5,
        numbers=power(classes, BLOCK_CLASSES),
    )
    return Statistics(*seen), best.astype(targets.dtype)


def descend(
    logits: Float[Array, "N V"],
    targets: Int[Array, " N"],
    weights: Float[Array, " N"],
    slope: Slope,
    class_weights: Float[Array, " V"] | None,
    objective: Objective,
    dtype: jnp.dtype,
) -> Float[Array, "N V"]:
    """Returns the gradient for the logits before the cap; of rows of weight 0 as if they were 0."""
    (rows, classes), wide = logits.shape, power(logits.shape[1], BLOCK_CLASSES)
    each, block = pl.BlockSpec((None,), lambda i, j: (i,)), pl.BlockSpec((None, wide), lambda i, j: (i, j))
    spread, specs = _spread(class_weights, wide, objective)
    return launch(
        partial(_descend_kernel, objective.soft_cap, classes),
        jax.ShapeDtypeStruct((rows, classes), dtype),
        [logits, targets.astype(jnp.int32), weights, *slope, *spread],
        grid=(rows, pl.cdiv(classes, wide)),
        inputs=[block, *[each] * 6, *specs],
        outputs=block,
        numbers=wide,
    )


def _spread(class_weights, wide: int, objective: Objective):
    """Returns the class weights where smoothing needs them, and how a program sees them: in blocks, or whole."""
    if objective.label_smoothing == PLAIN.label_smoothing or class_weights is None:
        return [], []
    return [class_weights.astype(jnp.float32)], [pl.BlockSpec((wide,), lambda *at: at[1:] or (0,))]


def _capped(logits, soft_cap: float | None):
    wide = logits.astype(jnp.float32)
    return wide if soft_cap is None else soft_cap * jnp.tanh(wide / soft_cap)


def _survey_kernel(soft_cap, wide, logits_ref, target_ref, weight_ref, *refs):
    (*spread_ref, top_ref, total_ref, at_ref, sum_ref, best_ref), classes = refs, logits_ref.shape[0]
    counts = weight_ref[...] != 0

    def block(index, seen):
        top, total, summed, best = seen
        at = pl.ds(index * wide, wide)
        place = index * wide + jnp.arange(wide)
        inside = place < classes
        logits = _capped(triton.load(logits_ref.at[at], mask=inside & counts, other=0), soft_cap)
        shown = jnp.where(inside, logits, -jnp.inf)
        highest = jnp.max(shown)
        first = jnp.min(jnp.where(shown == highest, place, classes))
        best = jnp.where(highest > top, first, best)
        higher = jnp.maximum(top, highest)
        total = total * jnp.exp(top - higher) + jnp.sum(jnp.exp(shown - higher))
        by = triton.load(spread_ref[0].at[at], mask=inside, other=0) if spread_ref else 1.0
        return higher, total, summed + jnp.sum(jnp.where(inside, logits * by, 0)), best

    start = jnp.float32(-jnp.inf), jnp.float32(0), jnp.float32(0), jnp.int32(0)
    seen = jax.lax.fori_loop(0, pl.cdiv(classes, wide), block, start)
    target = target_ref[...]
    known = counts & (target >= 0) & (target < classes)
    values = *seen[:2], _capped(triton.load(logits_ref.at[target], mask=known, other=0), soft_cap), *seen[2:]
    for ref, value in zip((top_ref, total_ref, at_ref, sum_ref, best_ref), values, strict=True):
        ref[...] = value


def _descend_kernel(soft_cap, classes, logits_ref, target_ref, weight_ref, *refs):
    top_ref, share_ref, hit_ref, each_ref, *spread_ref, out_ref = refs
    wide, counts = logits_ref.shape[0], weight_ref[...] != 0
    place = pl.program_id(1) * wide + jnp.arange(wide)
    inside = place < classes
    logits = _capped(triton.load(logits_ref, mask=inside & counts, other=0), soft_cap)
    by = triton.load(spread_ref[0], mask=inside, other=0) if spread_ref else 1.0
    out = share_ref[...] * jnp.exp(logits - top_ref[...]) - each_ref[...] * by
    out = out - jnp.where(place == target_ref[...], hit_ref[...], 0)
    if soft_cap is not None:
        out = out * (1 - (logits / soft_cap) * (logits / soft_cap))
    triton.store(out_ref, out.astype(out_ref.dtype), mask=inside)
