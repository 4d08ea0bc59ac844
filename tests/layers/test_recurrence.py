"""Scans with matrices beside them: the values and gradients of a plain scan, in both formats."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import normal

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.layers.recurrence import recurrence

STEPS, ROWS, WIDTH, INNER = 5, 6, 4, 3


@pytest.fixture
def arguments():
    matrices = {"wide": normal(WIDTH, INNER, seed=1), "back": normal(INNER, WIDTH, seed=2)}
    inputs = normal(STEPS, ROWS, WIDTH, seed=3), jnp.arange(STEPS * ROWS).reshape(STEPS, ROWS) % 3 > 0
    return matrices, (normal(WIDTH, seed=4), jnp.array(True)), normal(ROWS, WIDTH, seed=5), inputs


def step(times, given, state, own):
    (scale, on), (x, mask) = given, own
    inner = jnp.tanh(times("wide", state * scale[None] + x))
    after = jnp.where(mask[:, None] & on[None, None], times("back", inner), state)
    return after, (inner, after.sum(-1))


def plain(precision, matrices, given, state, inputs):
    def rounded(x):
        return x.astype(precision.compute).astype(jnp.float32)

    def times(name, x):
        return jnp.matmul(rounded(x), rounded(matrices[name]), precision=jax.lax.Precision.HIGHEST)

    return jax.lax.scan(lambda now, own: step(times, given, now, own), state, inputs)


def ours(precision, matrices, given, state, inputs):
    return recurrence(step, matrices, given, state, inputs, precision)


@functools.partial(jax.jit, static_argnums=(0, 1))
def graded(run, precision, matrices, given, state, inputs):
    def loss(matrices, scale, state, x):
        last, (inner, sums) = run(precision, matrices, (scale, given[1]), state, (x, inputs[1]))
        return (last**2).sum() + jnp.sin(inner).sum() + (sums * jnp.arange(float(STEPS))[:, None]).sum()

    return jax.value_and_grad(loss, (0, 1, 2, 3))(matrices, given[0], state, inputs[0])


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_values_and_gradients_are_those_of_a_plain_scan(arguments, precision):
    # In bf16 what comes back is rounded too before it is multiplied: 8 bits, a few products in a row.
    allowed = 2e-5 if precision == FLOAT32 else 2**-5
    for one, other in zip(*(jax.tree.leaves(graded(run, precision, *arguments)) for run in (ours, plain)), strict=True):
        np.testing.assert_allclose(one, other, rtol=allowed, atol=allowed * np.abs(other).max())


def test_without_a_gradient_nothing_is_kept(arguments):
    last, (inner, sums) = jax.jit(functools.partial(ours, FLOAT32))(*arguments)
    wanted, (also, more) = plain(FLOAT32, *arguments)
    for one, other in ((last, wanted), (inner, also), (sums, more)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert "dot_general" in str(jax.make_jaxpr(functools.partial(ours, FLOAT32))(*arguments))


def test_no_matrix_is_summed_up_step_by_step(arguments):
    """In the compiled gradient no loop carries an array of a matrix's shape; in that of a plain scan one does."""
    shapes = [f"f32[{WIDTH},{INNER}]", f"f32[{INNER},{WIDTH}]"]

    def carried(run):
        program = graded.lower(run, FLOAT32, *arguments).compiler_ir(dialect="hlo").as_hlo_text()
        loops = [line for line in program.splitlines() if " while(" in line]
        assert loops
        return sum(line.count(shape) for line in loops for shape in shapes)

    # Each loop reads both matrices, ours their transposes too on the way back.
    assert carried(ours) < carried(plain) + 4
