"""Judges a way to compute an operation by the plain formula in float64, value and gradient.

The tolerance is derived: twice the error that the plain formula itself has in the same formats,
and beside it `SLACK` units in the last place of the largest number, because on few numbers the
plain formula may be exact by luck. Nothing in here is a number that was found by trying.
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cupola.core.dtype import BFLOAT16, FLOAT32, Precision
from cupola.kernels.choose import Operation

POLICIES = {"float32": FLOAT32, "bfloat16": BFLOAT16}
DRAWS = 16
"""Nearby inputs over which the plain formula's error is taken: on few numbers one may be exact by luck."""
SLACK = 1
"""Units in the last place of the largest number: what rounding the result may cost."""


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Inputs of an operation, and the plain formula for them.

    Args:
        arrays: what is differentiated, float32, hostile: what must not be looked at is NaN.
        arguments: (arrays, precision) -> the positional arguments of an implementation.
        plain: (arrays, product) -> the result; written in jnp, in the dtype of the arrays, with
            every product of matrices made by `product(subscripts, a, b)`.
        dims: letters of the arrays' dims, for sharding.
        takes_policy: a policy rounds operands of products; else the arrays themselves are rounded.
    """

    operation: Operation
    name: str
    arrays: tuple[np.ndarray, ...]
    arguments: Callable[[tuple[jax.Array, ...], Precision], tuple[Any, ...]]
    plain: Callable[..., jax.Array]
    dims: tuple[str, ...] = ()
    takes_policy: bool = True

    def __str__(self) -> str:
        return f"{self.operation.name}-{self.name}"

    def nearby(self, draw: int) -> "Case":
        """Returns the case with each array grown or shrunk a little: other roundings, the same zeros and ties."""
        factors = 1 + np.random.default_rng(draw).uniform(-0.1, 0.1, len(self.arrays)) * bool(draw)
        return dataclasses.replace(self, arrays=tuple(map(np.float32, map(np.multiply, self.arrays, factors))))

    def given(self) -> dict[str, tuple[jax.Array, ...]]:
        """Returns, for each policy, the arrays in the format in which an implementation gets them."""
        formats = {n: jnp.float32 if self.takes_policy else p.compute for n, p in POLICIES.items()}
        return {n: tuple(jnp.asarray(x, dtype) for x in self.arrays) for n, dtype in formats.items()}

    def call(self, function: Callable[..., jax.Array], precision: Precision) -> Callable[..., jax.Array]:
        """Returns the function of the arrays alone."""
        return lambda *arrays: function(*self.arguments(arrays, precision))


def pull(call: Callable[..., jax.Array], cotangent: np.ndarray, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the value, and the gradient of (value * cotangent).sum() for each array."""
    value, back = jax.vjp(call, *arrays)
    return value, *back(jnp.asarray(cotangent, value.dtype))


@cache
def cotangent_of(case: Case) -> np.ndarray:
    """Returns numbers that every format holds exactly, so that only the case's own arithmetic is judged."""
    shape = jax.eval_shape(partial(case.plain, product=jnp.einsum), *case.arrays).shape
    return np.random.default_rng(7).integers(-8, 9, shape) / 8


def _rounded(dtype: Any, subscripts: str, *operands: jax.Array) -> jax.Array:
    wide = [x.astype(dtype).astype(x.dtype) for x in operands]
    return jnp.einsum(subscripts, *wide, precision=jax.lax.Precision.HIGHEST)


@cache
def standard(case: Case) -> dict[str, tuple[tuple[np.ndarray, ...], tuple[float, ...]]]:
    """Returns, for each policy, the exact value and gradients and how far from them one may be."""
    cotangent = cotangent_of(case)
    exactly = jax.jit(partial(pull, partial(case.plain, product=jnp.einsum), cotangent))
    rounded = {name: partial(case.plain, product=partial(_rounded, p.compute)) for name, p in POLICIES.items()}
    plainly = jax.jit(lambda given: {name: pull(rounded[name], cotangent, *given[name]) for name in given})
    truths, errors = [], []
    for draw in range(DRAWS):
        given = case.nearby(draw).given()
        with jax.enable_x64(True):
            wide = {name: [np.asarray(x, np.float64) for x in arrays] for name, arrays in given.items()}
            truths.append({name: jax.device_get(exactly(*arrays)) for name, arrays in wide.items()})
        errors.append({name: [*map(_far, plain, truths[-1][name])] for name, plain in plainly(given).items()})
    allowed = {}
    for name, policy in POLICIES.items():
        slack = [_last_place(true, policy) for true in truths[0][name]]
        allowed[name] = tuple(2 * np.max([e[name] for e in errors], axis=0) + slack)
    return {name: (truths[0][name], allowed[name]) for name in POLICIES}


@cache
def results_of(
    case: Case, function: Callable[..., jax.Array], names: tuple[str, ...] = tuple(POLICIES)
) -> dict[str, tuple[jax.Array, ...]]:
    """Returns value and gradients of a function under each of these policies, in one compiled program."""
    calls = {name: case.call(function, POLICIES[name]) for name in names}
    given = {name: arrays for name, arrays in case.given().items() if name in names}
    return jax.jit(lambda given: {name: pull(calls[name], cotangent_of(case), *given[name]) for name in given})(given)


def _last_place(true: np.ndarray, precision: Precision) -> float:
    return SLACK * float(jnp.finfo(precision.compute).eps) * float(np.abs(true).max())


def complaints(case: Case, results: dict[str, tuple[jax.Array, ...]]) -> list[str]:
    """Returns what is wrong with values and gradients; nothing for an implementation that matches."""
    found = []
    for name, ours in results.items():
        parts = ["value", *(f"gradient {i}" for i in range(len(case.arrays)))]
        for part, array, true, most in zip(parts, ours, *standard(case)[name], strict=True):
            if array.shape != true.shape:
                found.append(f"{name} {part}: shape {array.shape} for {true.shape}")
            elif not (far := _far(array, true)) <= most:
                found.append(f"{name} {part}: off by {far:.3g}, where {most:.3g} is allowed")
    return found


def _far(ours: jax.Array, true: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours, np.float64) - true).max())
