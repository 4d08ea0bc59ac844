"""A running average of parameters, which often scores better than the parameters themselves.

Not here: when it is evaluated or kept (the trainer's).
Invariant: the state holds the average itself, already corrected for its beginning.
"""

import math

import jax
import jax.numpy as jnp

from cupola.config.value import Value
from cupola.core.module import Tree
from cupola.core.record import record
from cupola.optim.ranges import check_range


@record
class Averaged:
    """An average so far.

    Args:
        count: how many parameters it holds, an int32 scalar.
        mean: their average, float32; before the first it is the initial parameters.
    """

    count: Tree
    mean: Tree


class EMA(Value):
    """An exponential moving average of parameters p_1 .. p_n: p_i weighs decay^(n - i), normalised.

    Args:
        decay: share of the average that is kept at each step, in the long run.
    """

    decay: float = 0.999

    def init(self, params: Tree) -> Averaged:
        """Returns the average of nothing yet; its arrays are copies, so that both may be donated."""
        mean = jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), params)
        return Averaged(count=jnp.zeros((), jnp.int32), mean=mean)

    def update(self, state: Averaged, params: Tree) -> Averaged:
        """Returns the average with one more.

        Numerics: the newest weighs (1 - d) / (1 - d^n), which begins at 1. The usual
        d * mean + (1 - d) * p is wrong by 1e-4 at d = 0.9999, of which float32 holds few digits.
        """
        count = state.count + 1
        share = (self.decay - 1) / jnp.expm1(count * math.log(self.decay))
        mean = jax.tree.map(lambda m, p: m + share * (p.astype(jnp.float32) - m), state.mean, params)
        return Averaged(count=count, mean=mean)

    def check(self) -> None:
        check_range(self, "decay", "(0, 1)")
