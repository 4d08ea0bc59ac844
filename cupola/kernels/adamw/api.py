"""One step of AdamW over all leaves of a tree at once, and the norm of a tree.

Not here: schedules, which leaves decay, what is done about a norm that is not finite (the optimizer and the learner).
Source: Loshchilov and Hutter 2019, arXiv 1711.05101 (with the decay multiplied by the rate).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.kernels.adamw import cpu, reference
from cupola.kernels.adamw.rule import Leaves, Rule
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.native.library import implementations

# The compiler makes the equation as fast as anything else that it could be given.
ADAMW = Operation(
    "adamw",
    (
        *implementations(cpu.adamw, cpu.refuses),
        Implementation("xla", reference.adamw),
        Implementation("reference", reference.adamw),
    ),
)
GLOBAL_NORM = Operation(
    "global_norm",
    (
        *implementations(cpu.global_norm, cpu.norm_refuses),
        Implementation("xla", reference.global_norm),
        Implementation("reference", reference.global_norm),
    ),
)


def adamw(
    params: Leaves,
    gradients: Leaves,
    means: Leaves,
    squares: Leaves,
    *,
    rule: Rule,
    rate: Float[Array, ""],
    count: Int[Array, ""],
    scale: Float[Array, ""] | float = 1.0,
    implementation: str | None = None,
) -> tuple[list[Array], list[Array], list[Array]]:
    """Returns the moved parameters, the next means of gradients, and the next means of their squares.

    With g = scale * gradient, m = b1 * mean + (1 - b1) * g and v = b2 * square + (1 - b2) * g^2, a parameter p moves to
    p - rate * (multiplier * m / (1 - b1^count) / (sqrt(v / (1 - b2^count)) + epsilon) + decay * p).
    A gradient that is not finite spoils the numbers that it belongs to, and no others.

    Args:
        params, gradients: float32 or bfloat16, each leaf as it likes.
        means, squares: float32, zeros before the first step.
        count: the number of this step, from 1.
        scale: what gradients are multiplied by, where their norm is clipped.

    Raises:
        Unsupported: an implementation was named that does not exist or cannot honour the arguments.

    Cost: gradients are read once, all else is read and written once; in place where parameters and means are donated,
        and without a temporary copy of any.
    Numerics: all in float32; parameters are rounded to their own dtype at the end. The same bits for any number of
        threads, and for any split over devices.
    """
    scale = jnp.asarray(scale, jnp.float32)
    return ADAMW(implementation, params, gradients, means, squares, rule, rate, count, scale)


def global_norm(arrays: Leaves, *, implementation: str | None = None) -> Float[Array, ""]:
    """Returns the root of the sum of all squares; not finite if any number is not, or the sum of squares overflows.

    Raises:
        Unsupported: an implementation was named that does not exist or cannot honour the arguments.

    Cost: the arrays are read once.
    Numerics: squares in float32, natively summed in float64 after a thousand; the same bits for any number of threads.
    """
    return GLOBAL_NORM(implementation, arrays)
