"""Batch normalization: each number is measured against the others of its kind in the batch, and in time.

In training by the batch's own mean and variance; in evaluation by the running ones, which are
parameters of Role.STATE: a call in training says their next values aside. Under jit over a sharded
batch the mean is that of the whole batch, for the compiler sums over all devices.
Source: Ioffe and Szegedy 2015; our rate = 1 - the momentum of TensorFlow = that of torch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cupola.config.value import bound
from cupola.core.context import Aside, Context, Mode
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, Param, Role


class BatchNorm(Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, over all frames of all rows.

    Args:
        channels: numbers in a frame, each normalized by itself.
        rate: how far the running mean and variance move towards those of each batch.
        epsilon: added to the variance.
    """

    channels: int = bound("numbers in a frame")
    rate: float = 0.1
    epsilon: float = 1e-5

    def check(self) -> None:
        if not 0 < self.rate <= 1 or self.epsilon <= 0:
            raise ConfigError(
                f"rate={self.rate}, epsilon={self.epsilon}", where="rate", remedy="Use such as 0.1 and 1e-5."
            )

    def params(self) -> dict[str, Param]:
        def vector(value: float, role: Role) -> Param:
            # The statistics are float32 whatever the rest is: a rate of 0.1 of a small change is lost in bf16.
            dtype = jnp.dtype("float32") if role is Role.STATE else None
            return Param((self.channels,), "D", init=Constant(value=value), role=role, dtype=dtype)

        return {
            "scale": vector(1.0, Role.SCALAR),
            "shift": vector(0.0, Role.SCALAR),
            "mean": vector(0.0, Role.STATE),
            "variance": vector(1.0, Role.STATE),
        }

    def __call__(
        self, p: Tree, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None, *, context: Context
    ) -> tuple[Float[Array, "B T D"], Aside]:
        """Returns the normalized frames; in training the next mean and variance are said aside.

        Args:
            mask: which frames there are, and count; None means all.

        Numerics: sums in float32. The running variance is the unbiased one, as torch's.
        """
        wide = x.astype(jnp.float32)
        if context.mode is Mode.TRAIN:
            mean, variance, count = _moments(wide, mask)
            said = self._next(p, mean, variance, count)
        else:
            mean, variance, said = p["mean"], p["variance"], Aside()
        scale = p["scale"].astype(jnp.float32) * jax.lax.rsqrt(variance + self.epsilon)
        out = (wide - mean[None, None]) * scale[None, None] + p["shift"].astype(jnp.float32)[None, None]
        return out.astype(x.dtype), said

    def _next(self, p: Tree, mean: Float[Array, " D"], variance: Float[Array, " D"], count: Float[Array, ""]) -> Aside:
        unbiased = variance * count / jnp.maximum(count - 1, 1)
        # A batch of nothing has no statistics.
        rate = jnp.where(count > 0, self.rate, 0.0)
        moved = {name: p[name] + rate * (newest - p[name]) for name, newest in (("mean", mean), ("variance", unbiased))}
        return Aside(state=jax.lax.stop_gradient(moved))


def _moments(
    x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None
) -> tuple[Float[Array, " D"], Float[Array, " D"], Float[Array, ""]]:
    """Mean, biased variance and number of the frames that there are."""
    kept = jnp.ones(x.shape[:2], bool) if mask is None else mask
    count = kept.sum().astype(jnp.float32)
    share = 1 / jnp.maximum(count, 1)
    mean = share * jnp.where(kept[..., None], x, 0).sum((0, 1))
    away = jnp.where(kept[..., None], x - mean[None, None], 0)
    return mean, share * jnp.square(away).sum((0, 1)), count
