"""Divergences as the equations, with all logits in memory, in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.kernels.cross_entropy.reference import logits_of
from cupola.kernels.divergence.measure import Kind, Measure


def linear_divergence(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    teacher_x: Float[Array, "B T E"],
    teacher_head: Float[Array, "V E"],
    weights: Float[Array, "B T"],
    precision: Precision,
    measure: Measure,
) -> Float[Array, ""]:
    """Returns the weighted sum of the divergences."""
    counts = (weights != 0)[..., None]
    student = logits_of(jnp.where(counts, x, 0), head) / measure.temperature
    teacher = logits_of(jnp.where(counts, teacher_x, 0), teacher_head) / measure.temperature
    log_q, log_p = jax.nn.log_softmax(student), jax.lax.stop_gradient(jax.nn.log_softmax(teacher))
    return jnp.sum(weights * jnp.sum(terms(log_p, log_q, measure), -1))


def terms(log_p: Float[Array, "*N"], log_q: Float[Array, "*N"], measure: Measure) -> Float[Array, "*N"]:
    """Returns each class's part of the divergence."""
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    if measure.kind is Kind.KL:
        return p * (log_p - log_q)
    if measure.kind is Kind.REVERSE_KL:
        return q * (log_q - log_p)
    if measure.kind is Kind.TVD:
        return jnp.abs(p - q) / 2
    over_p, over_q = against_mixture(log_p, log_q, measure.beta)
    return measure.beta * p * over_p + (1 - measure.beta) * q * over_q


def against_mixture(
    log_p: Float[Array, "*N"], log_q: Float[Array, "*N"], beta: float
) -> tuple[Float[Array, "*N"], Float[Array, "*N"]]:
    """Returns log(p / m) and log(q / m), m = beta p + (1 - beta) q; by log(q / p), which is exact where they are near."""
    ratio = log_q - log_p
    above = ratio > 0
    of_p = -jnp.log1p((1 - beta) * jnp.expm1(jnp.where(above, 0, ratio)))
    of_q = -jnp.log1p(beta * jnp.expm1(jnp.where(above, -ratio, 0)))
    return jnp.where(above, of_q - ratio, of_p), jnp.where(above, of_q, of_p + ratio)
