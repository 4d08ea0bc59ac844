"""How pages keep numbers: bf16 as its bits, everything else as it is.

A CPU gathers and scatters no bf16: its compiler would make the whole pool float32 and back in every step. Whole
numbers of the same width it leaves where they are, and a bf16 number is the upper half of a float32.
Invariant: what is taken out is what was kept, rounded once.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt16

from cupola.core.dtype import Precision

Keys = Float[Array, "P K C Z"] | UInt16[Array, "P K C Z"]
Values = Float[Array, "P K Z C"] | UInt16[Array, "P K Z C"]


def stored_dtype(precision: Precision) -> np.dtype:
    """Returns the dtype of pages for keys and values that are multiplied with this precision."""
    return np.dtype(np.uint16) if precision.compute == jnp.bfloat16 else precision.output


def store(x: Float[Array, "..."], dtype: np.dtype) -> Float[Array, "..."] | UInt16[Array, "..."]:
    """Returns numbers as pages of a dtype keep them."""
    if dtype != jnp.uint16:
        return x.astype(dtype)
    return jax.lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)


def load(x: Float[Array, "..."] | UInt16[Array, "..."]) -> Float[Array, "..."]:
    """Returns the numbers that were kept; those kept as bits in float32."""
    if x.dtype != jnp.uint16:
        return x
    return jax.lax.bitcast_convert_type(x.astype(jnp.uint32) << 16, jnp.float32)
