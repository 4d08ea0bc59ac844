"""Number formats, and which one is used where.

Invariant: a `Precision` holds canonical numpy dtypes, so that equal policies compare equal.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from cupola.config import kinds
from cupola.config.value import Value
from cupola.core.errors import ConfigError

FLOATS = ("float32", "bfloat16", "float16", "float64")

kinds.register(np.dtype, "dtype", lambda dtype: dtype.name, jnp.dtype, examples=FLOATS)


class Precision(Value):
    """Which format numbers have while they are kept, multiplied, summed and handed on.

    The defaults are float32 throughout. On a CPU with bf16 units and on GPUs the fast policy is
    `Precision(compute=np.dtype("bfloat16"))`: products of bf16 numbers, summed in float32.

    Args:
        param: parameters, as they are stored and updated.
        compute: operands of matrix products.
        accumulate: sums inside matrix products, norms and softmax, and the residual stream.
        output: activations between operations.
    """

    param: np.dtype = np.dtype("float32")
    compute: np.dtype = np.dtype("float32")
    accumulate: np.dtype = np.dtype("float32")
    output: np.dtype = np.dtype("float32")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, jnp.dtype(getattr(self, field.name)))
        super().__post_init__()

    def check(self) -> None:
        for field in dataclasses.fields(self):
            name = getattr(self, field.name).name
            if name not in FLOATS:
                raise ConfigError(
                    f"{name} cannot hold activations", where=field.name, remedy=f"Use one of {', '.join(FLOATS)}."
                )


FLOAT32 = Precision()
BFLOAT16 = Precision(compute=np.dtype(jnp.bfloat16))
"""Products in bf16, sums and everything else in float32."""
BFLOAT16_OUTPUTS = Precision(compute=np.dtype(jnp.bfloat16), output=np.dtype(jnp.bfloat16))
"""Products and what they hand on in bf16, sums in float32: what torch calls autocast."""
