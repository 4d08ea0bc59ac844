"""Muon: momentum whose matrices are made orthogonal, so that every direction is learnt equally fast.

Only for matrices inside a network; embeddings, heads and vectors belong to another group
(`groups.py`). Invariant: a stack of layers, or of experts, moves as its members would alone.
Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon (iteration and its coefficients, SPECTRAL
size); Liu et al. 2025, arXiv 2502.16982, section 2.2 (ADAM size, weight decay).
"""

import enum
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from cupola.core.errors import ConfigError
from cupola.core.module import Tree, flat_specs
from cupola.core.param import Param
from cupola.optim.optimizer import SGD, Momentum
from cupola.optim.ranges import check_range

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial a x + b x^3 + c x^5: steepest at 0, where slow directions lie, at the price
of leaving singular values between 0.68 and 1.13 rather than at 1."""


class Size(enum.Enum):
    """How large the step of a fan_in x fan_out matrix is, times the rate."""

    ADAM = "adam"
    """Root mean square 0.2, about that of AdamW's steps, so that AdamW's rates and decay serve."""
    SPECTRAL = "spectral"
    """Spectral norm sqrt(max(1, fan_out / fan_in)): outputs move equally far at every shape."""


class Muon(SGD):
    """Stochastic gradient descent along the running sum of gradients, made orthogonal.

    Args:
        iterations: of Newton-Schulz; each multiplies small singular values by 3.4.
        size: how large a step is, by shape.
        compute: format of the operands of its matrix products; sums are float32. bfloat16 is what
            the method was published with.
    """

    momentum: float = 0.95
    form: Momentum = Momentum.NESTEROV
    iterations: int = 5
    size: Size = Size.ADAM
    compute: np.dtype = np.dtype(jnp.bfloat16)
    decay: float = 0.1

    def __post_init__(self):
        object.__setattr__(self, "compute", jnp.dtype(self.compute))
        super().__post_init__()

    def directions(self, specs: Tree) -> optax.GradientTransformation:
        for path, param in flat_specs(specs):
            if not param.is_matrix:
                raise ConfigError(
                    f"Muon moves matrices, but this parameter is {param.dims!r} of shape {param.shape}",
                    where=path,
                    remedy=f"Put Group(match={path!r}, optimizer=AdamW(rate=...)) before Muon's group.",
                )

        made_orthogonal = optax.stateless(lambda summed, _: jax.tree.map(self.orthogonal, specs, summed))
        return optax.chain(super().directions(specs), made_orthogonal)

    def orthogonal(self, param: Param, array: Array) -> Array:
        """Returns the array with each of its matrices fan_in x fan_out made orthogonal."""
        matrices = array.reshape(-1, param.fan_in, param.fan_out)
        return newton_schulz(matrices, self.iterations, self.compute).reshape(array.shape)

    def rate_multiplier(self, param: Param) -> float:
        if self.size is Size.ADAM:
            return 0.2 * math.sqrt(max(param.fan_in, param.fan_out))
        return math.sqrt(max(1.0, param.fan_out / param.fan_in))

    def check(self) -> None:
        super().check()
        check_range(self, "iterations", "[1, 100]")
        if self.compute.name not in ("float32", "bfloat16"):
            raise ConfigError(
                f"{self.compute.name} is no format for Newton-Schulz",
                where="compute",
                remedy="Use bfloat16 or float32; it needs the range of both, and no more digits.",
            )


def newton_schulz(
    matrices: Float[Array, "N rows columns"], iterations: int, compute: np.dtype
) -> Float[Array, "N rows columns"]:
    """Returns U p(S) V^T for each matrix U S V^T, where p(S) is near 1: the nearest orthogonal matrix.

    Not optax's `scale_by_muon`: its products return the format of their operands, which for bfloat16
    is slow on a CPU and less exact everywhere.

    Args:
        iterations: of the polynomial with `COEFFICIENTS`.
        compute: format of the operands of products.

    Cost: iterations * N * (4 * m^2 * n + 2 * m^3) FLOPs, with m the shorter side and n the longer.
    Numerics: sums in float32, between iterations in `compute`, the result in float32. Zero gives zero.
    """
    norm = jnp.sqrt(jnp.sum(jnp.square(matrices), axis=(1, 2), keepdims=True))
    x = (matrices / jnp.maximum(norm, 1e-12)).astype(compute)
    wide = x.shape[1] <= x.shape[2]
    if not wide:
        # Across the barrier and the reshape XLA cannot fold the transpose into the products, where it
        # takes them off the fast path of a CPU (50 against 18 ms for 6 x 640 x 256).
        x = jax.lax.optimization_barrier(x.mT[..., None])[..., 0]
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = jnp.einsum("nij,nkj->nik", x, x, preferred_element_type=jnp.float32)
        low = gram.astype(compute)
        cubic = b * gram + c * jnp.einsum("nij,njk->nik", low, low, preferred_element_type=jnp.float32)
        fifth = jnp.einsum("nij,njk->nik", cubic.astype(compute), x, preferred_element_type=jnp.float32)
        x = (a * x.astype(jnp.float32) + fifth).astype(compute)
    x = x if wide else x.mT
    return x.astype(jnp.float32)
