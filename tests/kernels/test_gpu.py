"""Kernels for GPUs without one: they match the plain formula in the interpreter, and are lowered for CUDA.

Lowering finds what Triton has no form for, sizes that are no powers of two, and dtypes that do not go together. What it
cannot see is what a card does: registers, shared memory, speed, and numbers read past an array's end.
"""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from cases import CASES
from judge import POLICIES, complaints, results_of

from cupola.core.errors import Unsupported
from cupola.kernels.example import FLOATS
from cupola.kernels.gpu import interpreted, power, warps
from cupola.kernels.norm import rms_norm
from cupola.kernels.operations import EXAMPLES

KERNEL = "__gpu$xla.gpu.triton"
SLOW = pytest.mark.slow


def of(operation):
    """Returns the operation's implementation for GPUs, None where it has none."""
    return next((i for i in operation.implementations if i.name == "gpu"), None)


QUICK = {"attend": "one key takes all", **dict.fromkeys(("rms_norm", "rotate", "gate", "cross_entropy"), "typical")}
"""A case for each file of kernels; the interpreter is slow."""


def matrix():
    """Yields each case that there is a kernel for."""
    with interpreted():
        for case in CASES:
            if (ours := of(case.operation)) is None:
                continue
            given = case.given()
            if all(ours.refuses(*case.arguments(given[name], p)) for name, p in POLICIES.items()):
                continue
            yield pytest.param(case, id=str(case), marks=() if case.name == QUICK.get(case.operation.name) else SLOW)


MATRIX = list(matrix())


@pytest.mark.parametrize("case", MATRIX)
def test_matches_the_plain_formula_in_the_interpreter(case):
    ours, given = of(case.operation), case.given()
    with interpreted():
        names = tuple(n for n, p in POLICIES.items() if not ours.refuses(*case.arguments(given[n], p)))
        assert names
        assert complaints(case, results_of(case, ours.function, names)) == []


def calls():
    """Yields each example that there is a kernel for, with its sizes; one of each operation is quick."""
    seen = set()
    for number, example in enumerate(EXAMPLES):
        if of(example.operation) is None:
            continue
        for gradient, all_sizes in enumerate((example.forward, example.backward)):
            for sizes in all_sizes:
                for dtype in FLOATS:
                    kind = example.operation.name, gradient, number if example.operation.name == "dot" else 0, dtype
                    marks = () if kind not in seen and dtype == "bfloat16" else SLOW
                    seen.add(kind)
                    id = f"{example.operation.name}-{number}-{'-'.join(map(str, sizes.values()))}-{dtype}-{gradient}"
                    yield pytest.param(example, sizes, dtype, bool(gradient), id=id, marks=marks)


@pytest.mark.parametrize(("example", "sizes", "dtype", "gradient"), list(calls()))
def test_is_lowered_for_cuda_at_real_sizes(example, sizes, dtype, gradient):
    ours, refused = of(example.operation), []

    def call():
        # Made while it is traced, so that no array of these sizes ever is.
        args = list(example.make(dtype, **sizes))
        with interpreted():
            refused.extend(ours.refuses(*args))
        if refused:
            return jnp.zeros(())
        if not gradient:
            return ours.function(*args)

        def value(*chosen):
            for place, x in zip(example.differentiated, chosen, strict=True):
                args[place] = x
            return ours.function(*args)

        out, back = jax.vjp(value, *(args[place] for place in example.differentiated))
        return out, back(jax.tree.map(jnp.ones_like, out))

    text = lowered(call)
    # What is refused is told, and nothing is launched.
    assert (KERNEL in text) != bool(refused)


@SLOW
@pytest.mark.parametrize("case", MATRIX)
def test_is_lowered_for_cuda_at_hostile_sizes(case):
    ours = of(case.operation)
    for name, policy in POLICIES.items():
        arrays = case.given()[name]
        with interpreted():
            if ours.refuses(*case.arguments(arrays, policy)):
                continue
        call = case.call(ours.function, policy)
        text = lowered(lambda *arrays, call=call: pulled(call, *arrays), *arrays)
        # Of nothing there is nothing to launch.
        assert KERNEL in text


def pulled(call, *arrays):
    out, back = jax.vjp(call, *arrays)
    return back(out)


def lowered(call, *arrays):
    """Returns the program for CUDA, made without a card."""
    return jax.jit(call).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()


def test_where_there_is_no_gpu_it_is_refused_with_the_reason():
    with pytest.raises(Unsupported, match="it is for GPUs, and this device is a cpu"):
        rms_norm(jnp.ones((2, 8)), jnp.ones(8), epsilon=1e-6, implementation="gpu")


def test_interpreted_it_is_taken_when_it_is_asked_for():
    call = partial(rms_norm, jnp.ones((2, 8)), jnp.ones(8), epsilon=0.0)
    with interpreted():
        assert jnp.array_equal(call(implementation="gpu"), call(implementation="reference"))


@pytest.mark.parametrize(("size", "held"), [(0, 1), (1, 1), (3, 4), (64, 64), (65, 64), (9000, 64)])
def test_blocks_are_powers_of_two_within_bounds(size, held):
    assert power(size, 64) == held
    assert power(size, 64, 16) == max(held, 16)


def test_a_warp_has_whole_rows_of_threads_to_work_on():
    assert [warps(numbers) for numbers in (1, 2048, 4096, 8192, 2**20)] == [4, 4, 8, 16, 16]
