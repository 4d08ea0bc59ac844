"""What all kernels for GPUs share: where they run, how they are called, how large their blocks are.

They are written in Pallas and compiled by Triton when a program is: every array inside has sizes that are powers of
two, and what stands past the end of a real one is masked where it is read and written.
Not here: the kernels, one file an operation. Invariant: none is called on another device unless it is interpreted.
Source: Tillet et al. 2019 (Triton); Hsu et al. 2024 (Liger-Kernel), whose blocks the first sizes were taken from.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from cupola.kernels.choose import Implementation

FORMATS = (np.dtype("float32"), np.dtype(jnp.bfloat16))
"""What kernels read and write; they compute in float32."""
LEAST_PRODUCT = 16
"""Of each size of a product's operands, what the tensor cores take."""
WARP_NUMBERS = 512
"""Numbers of a block that each warp is given: 16 a thread."""
MOST_WARPS = 16
_INTERPRETED = jax.make_user_context(False)


def interpreted() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which kernels run anywhere, in Pallas's interpreter: for tests, since it is very slow."""
    return _INTERPRETED(True)


def reasons() -> list[str]:
    """Returns why these kernels cannot be called here; an empty list if they can."""
    if _INTERPRETED.value or jax.default_backend() == "gpu":
        return []
    return [f"it is for GPUs, and this device is a {jax.default_backend()}"]


def implementation(function: Callable[..., Any], refuses: Callable[..., list[str]]) -> Implementation:
    """Returns an operation's implementation for GPUs, given the reasons of its own."""

    def why(*args: Any, **kwargs: Any) -> list[str]:
        return reasons() + refuses(*args, **kwargs)

    return Implementation("gpu", function, why)


def refused_formats(**formats: Any) -> list[str]:
    """Returns a reason for each dtype that kernels do not read, given by what has it."""
    names = " and ".join(each.name for each in FORMATS)
    return [
        f"{what} is {np.dtype(dtype).name}, and it takes {names}"
        for what, dtype in formats.items()
        if dtype not in FORMATS
    ]


def launch(
    kernel: Callable[..., None],
    results: Any,
    arrays: Sequence[Array],
    *,
    grid: tuple[int, ...],
    inputs: Sequence[pl.BlockSpec],
    outputs: Any,
    numbers: int,
    stages: int = 2,
    aliases: dict[int, int] | None = None,
) -> Any:
    """Returns what a kernel writes.

    Args:
        kernel: takes a reference to a block of each array, then of each result.
        results: shape and dtype of each result, as `jax.ShapeDtypeStruct`.
        grid: how many programs run, in up to three dims; none where one is 0.
        inputs, outputs: which block of each array and result a program sees.
        numbers: in the block that a program holds at once, which decides how many threads it has.
        stages: how many turns of a loop are read ahead.
        aliases: arrays that a result is written over.
    """
    if not all(grid):
        return jax.tree.map(lambda result: jnp.zeros(result.shape, result.dtype), results)
    return pl.pallas_call(
        kernel,
        out_shape=results,
        grid=grid,
        in_specs=list(inputs),
        out_specs=outputs,
        input_output_aliases=aliases or {},
        compiler_params=triton.CompilerParams(num_warps=warps(numbers), num_stages=stages),
        interpret=_INTERPRETED.value,
    )(*arrays)


def warps(numbers: int) -> int:
    """Returns how many warps work on a block of so many numbers."""
    return min(max(pl.next_power_of_2(pl.cdiv(numbers, WARP_NUMBERS)), 4), MOST_WARPS)


def power(size: int, most: int, least: int = 1) -> int:
    """Returns the power of two that holds a size, within bounds that are powers of two."""
    return max(min(pl.next_power_of_2(max(size, 1)), most), least)


def product(a: Float[Array, "X Y"], b: Float[Array, "W Z"], over: tuple[int, int] = (1, 0)) -> Float[Array, "M N"]:
    """Returns the product of two blocks of one dtype, summed in float32; of float32 ones it is exact, without TF32.

    Args:
        over: the dim of each that is summed over.
    """
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    summed = ((over[0],), (over[1],)), ((), ())
    return jax.lax.dot_general(a, b, summed, precision=exact, preferred_element_type=jnp.float32)
