"""Norms in native code: each row is read once from memory, and once more from the cache."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call


def rms_norm(x: Float[Array, "*N D"], scale: Float[Array, " D"], epsilon: float, level: Level) -> Float[Array, "*N D"]:
    """Returns x / sqrt(mean(x^2) + epsilon) * scale."""
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return call("rms_norm", level, shape, x, scale.astype(jnp.float32), epsilon=np.float32(epsilon))


def refuses(x: Float[Array, "*N D"], scale: Float[Array, " D"], epsilon: float, level: Level) -> list[str]:
    """Returns the dtypes that there is no kernel for."""
    return [] if x.dtype == jnp.float32 else [f"x is {x.dtype.name}, and it takes float32"]
