"""Views of keys and values: what differs between training, prefill and decoding.

Attention asks its view for the keys and values to attend to; None (training) means its own. Not
here: pages (the server's view), which queries see which keys (`kernels/attention/mask.py`).
Invariant: a view holds what was computed; it never changes a number.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cupola.core.record import record


@record
class Growing:
    """Keys and values of one layer for sequences that grow, in arrays of a fixed capacity.

    Args:
        keys: [B, S, K, C], S being the capacity.
        values: the same.
    """

    keys: Float[Array, "B S K C"]
    values: Float[Array, "B S K C"]

    @classmethod
    def empty(cls, batch: int, capacity: int, heads: int, width: int, dtype: np.dtype) -> "Growing":
        """Returns a view that holds nothing yet."""
        # Two arrays, not one twice: both are donated to the step that grows them.
        return cls(
            keys=jnp.zeros((batch, capacity, heads, width), dtype),
            values=jnp.zeros((batch, capacity, heads, width), dtype),
        )

    def extend(
        self, key: Float[Array, "B T K C"], value: Float[Array, "B T K C"], start: Int[Array, " B"]
    ) -> "Growing":
        """Returns the view with these keys and values written from position `start` of each row on.

        The caller sees to it that start + T is within the capacity: inside a compiled step nothing
        can be refused any more.
        """
        write = jax.vmap(lambda held, new, at: jax.lax.dynamic_update_slice(held, new.astype(held.dtype), (at, 0, 0)))
        return type(self)(keys=write(self.keys, key, start), values=write(self.values, value, start))
