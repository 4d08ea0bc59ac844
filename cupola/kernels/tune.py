"""Measuring implementations of operations on this machine.

Not here: how the results are used (`measured.py`, `choose.py`).
Invariant: implementations take turns, so that what else the machine does meets them alike; each time is the least of
many, compiled, with its inputs in place.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from cupola.kernels.choose import Implementation, candidates
from cupola.kernels.example import FLOATS, Example, Sizes
from cupola.kernels.measured import Row, call_of


def rows(example: Example, seconds: float, dtypes: Sequence[str] = FLOATS) -> Iterator[Row]:
    """Yields a measurement of each size and dtype of an example, as it is made.

    Args:
        seconds: for each measurement, compiling apart; every implementation is called three times at least.
    """
    if not example.tuned:
        return
    for dtype in dtypes:
        for sizes in example.forward:
            yield from _row(example, dtype, sizes, (), seconds)
        for sizes in example.backward:
            yield from _row(example, dtype, sizes, example.differentiated, seconds)


def _row(example: Example, dtype: str, sizes: Sizes, gradients: tuple[int, ...], seconds: float) -> Iterator[Row]:
    operation = example.operation
    args = example.make(dtype, **sizes)
    able = candidates(i for i in operation.implementations if not i.refuses(*args))
    # Alone there is nothing to choose.
    if len(able) > 1:
        runs = {i.name: compiled(i, args, gradients) for i in able}
        yield Row(operation.name, jax.default_backend(), call_of(args), least(runs, seconds))


def compiled(implementation: Implementation, args: tuple[Any, ...], gradients: tuple[int, ...]) -> Callable[[], Any]:
    """Returns a call of the compiled implementation, with its gradient for the arguments at these places, if any."""
    leaves, tree = jax.tree.flatten(args)
    arrays = [x if isinstance(x, jax.Array) else None for x in leaves]

    def whole(arrays: list[Any]) -> list[Any]:
        given = [fixed if x is None else x for x, fixed in zip(arrays, leaves, strict=True)]
        return list(jax.tree.unflatten(tree, given))

    def value(arrays: list[Any]) -> Any:
        return implementation.function(*whole(arrays))

    def with_gradient(arrays: list[Any]) -> Any:
        given = whole(arrays)

        def of(*chosen: Any) -> Any:
            for place, x in zip(gradients, chosen, strict=True):
                given[place] = x
            return implementation.function(*given)

        out, back = jax.vjp(of, *(given[place] for place in gradients))
        # By the result, which is an array like any other: ones would be known to the compiler, and spare it work.
        return out, back(out)

    program = jax.jit(with_gradient if gradients else value)
    return lambda: jax.block_until_ready(program(arrays))


def least(runs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Returns the least time of each run, all of them taking turns until the time is over."""
    for run in runs.values():
        run()
    best = dict.fromkeys(runs, np.inf)
    end, turns = time.perf_counter() + seconds, 0
    while turns < 3 or time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
        turns += 1
    return {name: float(took) for name, took in best.items()}
