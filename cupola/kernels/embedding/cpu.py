"""The gradient of a look-up in native code; the look-up is the compiler's.

Tokens are sorted, and each row of the table is written once, by one thread: zeros, or the sum of the gradients of its
tokens, in their order.
"""

from functools import partial

import jax
from jaxtyping import Array, Float, Int

from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call

DTYPES = ("float32", "bfloat16")
INDEX = 2**31


def look_up(table: Float[Array, "V D"], tokens: Int[Array, "*N"], *, level: Level) -> Float[Array, "*N D"]:
    """Returns the row of each token."""
    return _look_up(table, tokens, table.shape[0], level)


def refuses(table: Float[Array, "V D"], tokens: Int[Array, "*N"], *, level: Level) -> list[str]:
    """Returns the dtypes and sizes that there is no kernel for."""
    reasons = []
    if table.dtype.name not in DTYPES:
        reasons.append(f"the table is {table.dtype.name}, and it takes {' and '.join(DTYPES)}")
    if tokens.dtype.name != "int32":
        reasons.append(f"tokens are {tokens.dtype.name}, and it takes int32")
    if tokens.size >= INDEX:
        reasons.append(f"{tokens.size} tokens are more than it can count")
    return reasons


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _look_up(table, tokens, vocabulary, level):
    return table[tokens]


def _forward(table, tokens, vocabulary, level):
    return table[tokens], tokens


def _backward(vocabulary, level, tokens, gradient):
    shape = jax.ShapeDtypeStruct((vocabulary, gradient.shape[-1]), gradient.dtype)
    return call("look_up_backward", level, shape, tokens, gradient), None


_look_up.defvjp(_forward, _backward)
