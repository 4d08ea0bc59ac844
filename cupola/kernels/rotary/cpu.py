"""The rotation in native code; its gradient turns the other way."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call
from cupola.kernels.rotary import xla
from cupola.kernels.rotary.pairing import Pairing

DTYPES = ("float32", "bfloat16")


def rotate(
    x: Float[Array, "B T H C"], cos: Float[Array, "#B T R"], sin: Float[Array, "#B T R"], pairing: Pairing, level: Level
) -> Float[Array, "B T H C"]:
    """Returns (a cos - b sin, b cos + a sin) for each pair (a, b)."""
    return _rotate(x, cos.astype(jnp.float32), sin.astype(jnp.float32), pairing, level)


def refuses(
    x: Float[Array, "B T H C"], cos: Float[Array, "#B T R"], sin: Float[Array, "#B T R"], pairing: Pairing, level: Level
) -> list[str]:
    """Returns the dtypes that there is no kernel for."""
    return [] if x.dtype.name in DTYPES else [f"x is {x.dtype.name}, and it takes {' and '.join(DTYPES)}"]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _rotate(x, cos, sin, pairing, level):
    return _turn(x, cos, sin, pairing, level, 1)


def _turn(x, cos, sin, pairing, level, way):
    neighbours, shape = np.int32(pairing is Pairing.NEIGHBOURS), jax.ShapeDtypeStruct(x.shape, x.dtype)
    return call("rotate", level, shape, x, cos, sin, neighbours=neighbours, way=np.float32(way))


def _forward(x, cos, sin, pairing, level):
    return _rotate(x, cos, sin, pairing, level), (x, cos, sin)


def _backward(pairing, level, kept, gradient):
    x, cos, sin = kept
    # What the angles get is compiled only where somebody asks for it.
    _, pull = jax.vjp(lambda cos, sin: xla.rotate(x, cos, sin, pairing), cos, sin)
    return _turn(gradient, cos, sin, pairing, level, -1), *pull(gradient)


_rotate.defvjp(_forward, _backward)
