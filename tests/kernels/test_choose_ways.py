"""Every implementation of every operation, on a typical case, in every way of calling it.

Levels of instructions are called by the same code: the highest stands for all. What XLA compiles, jax itself maps
and splits: where there are native kernels, theirs are the rules of our own, and they are the quick part.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import TYPICAL
from jax.sharding import NamedSharding, PartitionSpec
from judge import POLICIES, complaints, cotangent_of, pull, results_of
from matrix import LOWER, STACKED, first, honoured, pairs

from cupola.core.mesh import MeshShape
from cupola.core.partition import Rules


def scanned(call, cotangent, both):
    return jax.lax.scan(lambda _, arrays: (None, pull(call, cotangent, *arrays)), None, both)[1]


NOT_YET = {("dot_experts", "xla", "vmap")}
"""jax batches its grouped product over no two inputs whose groups are the same."""
WAYS = {
    "eager": lambda call, cotangent, both: both_ways(lambda *arrays: pull(call, cotangent, *arrays), both),
    "vmap": lambda call, cotangent, both: jax.jit(jax.vmap(lambda arrays: pull(call, cotangent, *arrays)))(both),
    "scan": lambda call, cotangent, both: jax.jit(partial(scanned, call, cotangent))(both),
    "checkpoint": lambda call, cotangent, both: both_ways(
        jax.jit(partial(pull, jax.checkpoint(call), cotangent)), both
    ),
}
"""Ways to call: (the function of arrays, the cotangent, two inputs stacked) -> two results stacked."""


def both_ways(one, both):
    results = [one(*(x[i] for x in both)) for i in range(2)]
    return jax.tree.map(lambda *each: jnp.stack(each), *results)


@pytest.mark.parametrize("way", [pytest.param(w, marks=[pytest.mark.slow] * (w != "vmap")) for w in WAYS])
@pytest.mark.parametrize(("case", "implementation"), pairs(TYPICAL, first, without=LOWER))
def test_is_the_same_however_it_is_called(case, implementation, way):
    name = honoured(case, implementation)[0]
    cases = case, case.nearby(3)
    both = tuple(jnp.stack(each) for each in zip(*(c.given()[name] for c in cases), strict=True))
    call = partial(WAYS[way], case.call(implementation.function, POLICIES[name]), cotangent_of(case), both)
    if (case.operation.name, implementation.name, way) in NOT_YET:
        with pytest.raises(NotImplementedError):
            call()
        return
    results = call()
    for index, one in enumerate(cases):
        assert complaints(one, {name: [r[index] for r in results]}) == []


@pytest.mark.parametrize(("case", "implementation"), pairs(TYPICAL, first, without=LOWER))
def test_split_over_a_mesh_is_the_same(case, implementation):
    names = honoured(case, implementation)
    mesh = MeshShape(data=4, tensor=2).build()
    rules = Rules()
    given = {
        name: tuple(
            jax.device_put(x, NamedSharding(mesh, rules.spec(dims, x.shape, mesh)))
            for x, dims in zip(arrays, case.dims, strict=True)
        )
        for name, arrays in case.given().items()
        if name in names
    }
    assert len(given[names[0]][0].addressable_shards) == 8
    assert not given[names[0]][0].sharding.is_fully_replicated
    calls = {name: case.call(implementation.function, POLICIES[name]) for name in names}
    run = jax.jit(lambda given: {n: pull(calls[n], cotangent_of(case), *given[n]) for n in given})
    assert complaints(case, run(given)) == []


@pytest.mark.parametrize(("case", "implementation"), pairs(STACKED, first, without=LOWER))
def test_packed_experts_split_over_a_mesh_are_the_same(case, implementation):
    """Packed matrices have no gradient, and are no arrays of the case: they are split apart."""
    mesh = MeshShape(data=2, expert=4).build()
    by_row, by_expert = (NamedSharding(mesh, PartitionSpec(axis)) for axis in ("data", "expert"))
    for name in honoured(case, implementation):
        x, weight, *rest = case.arguments(case.given()[name], POLICIES[name])
        weight = dataclasses.replace(weight, values=jax.device_put(weight.values, by_expert))
        assert {shard.data.shape[0] for shard in weight.values.addressable_shards} == {1}

        def value_and_gradient(x, weight, rest=rest):
            return pull(lambda x: implementation.function(x, weight, *rest), cotangent_of(case), x)

        run = jax.jit(value_and_gradient)
        assert complaints(case, {name: run(jax.device_put(x, by_row), weight)}) == []


def native(case, name, names):
    return name not in ("xla", "reference")


@pytest.mark.parametrize(("case", "implementation"), pairs(TYPICAL, native))
def test_the_same_call_gives_the_same_bits(case, implementation):
    names = honoured(case, implementation)
    first = results_of(case, implementation.function, names)
    second = results_of.__wrapped__(case, implementation.function, names)
    jax.tree.map(np.testing.assert_array_equal, first, second)
