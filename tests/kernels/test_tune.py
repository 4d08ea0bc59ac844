import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.kernels import tune
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.example import Example
from cupola.kernels.operations import examples_of

FIRST = examples_of("rms_norm")[0]
XLA = next(i for i in FIRST.operation.implementations if i.name == "xla")


def slow(x, scale, epsilon):
    return jax.lax.scan(lambda x, _: (XLA.function(x, scale, epsilon), None), x, length=200)[0]


@pytest.fixture
def example():
    """Two implementations, of which one takes some two hundred times as long; and one that cannot."""
    implementations = (
        Implementation("none", slow, lambda *_: ["never"]),
        Implementation("slow", slow),
        XLA,
        Implementation("reference", slow),
    )
    operation = Operation("rms_norm", implementations)
    return dataclasses.replace(
        FIRST, operation=operation, forward=({"N": 256, "D": 256},), backward=({"N": 9, "D": 4},)
    )


def test_each_size_and_dtype_is_measured_and_the_slow_one_is_slow(example):
    rows = list(tune.rows(example, 0.02))
    assert [row.call.kind for row in rows] == ["float32 float32"] * 2 + ["bfloat16 float32"] * 2
    assert [row.call.shapes for row in rows] == [((256, 256), (256,)), ((9, 4), (4,))] * 2
    assert {tuple(row.seconds) for row in rows} == {("slow", "xla")}
    assert rows[0].seconds["slow"] > 2 * rows[0].seconds["xla"] > 0


def test_where_there_is_one_nothing_is_measured(example):
    alone = dataclasses.replace(example, operation=Operation("rms_norm", (XLA, example.operation.implementations[-1])))
    assert list(tune.rows(alone, 0.02)) == []


def test_the_gradient_is_computed_where_it_is_measured():
    seen = []

    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, given: (jax.debug.callback(seen.append, given) or 2 * given,))
    operation = Operation("double", (Implementation("one", double), Implementation("two", double)))
    example = Example(operation, lambda dtype, N: (jnp.ones(N, dtype),), forward=({"N": 3},))
    assert list(tune.rows(example, 0.0, ["float32"]))
    assert seen == []
    list(tune.rows(dataclasses.replace(example, backward=({"N": 4},)), 0.0, ["float32"]))
    jax.effects_barrier()
    assert seen
    assert all(np.asarray(each).shape == (4,) for each in seen)
