"""Every implementation of every operation, on every case of the one table, in every way of calling it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, OPERATIONS, TYPICAL
from jax.sharding import NamedSharding
from judge import POLICIES, complaints, cotangent_of, pull, results_of, standard
from row_cases import BROKEN_ON_ROWS

from cupola.core.dtype import FLOAT32
from cupola.core.mesh import MeshShape
from cupola.core.partition import Rules
from cupola.kernels.attention import reference as attention
from cupola.kernels.cross_entropy import reference as cross_entropy
from cupola.kernels.gated import reference as gated
from cupola.kernels.gated.activation import Activation
from cupola.kernels.matmul import reference as matmul
from cupola.kernels.matmul.form import Grouped, Int8, LowRank
from cupola.kernels.norm import reference as norm
from cupola.kernels.rotary import reference as rotary


def pairs(cases):
    """Returns each case with each implementation of its operation that honours it in every format."""
    return [
        pytest.param(case, implementation.function, id=f"{case}-{implementation.name}")
        for case in cases
        for implementation in case.operation.implementations
        if not any(implementation.refuses(*case.arguments(case.given()[n], p)) for n, p in POLICIES.items())
    ]


@pytest.mark.parametrize(("case", "function"), pairs(CASES))
def test_matches_the_plain_formula(case, function):
    assert complaints(case, results_of(case, function)) == []


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_every_operation_has_a_reference_that_refuses_nothing(operation):
    last = operation.implementations[-1]
    cases = [case for case in CASES if case.operation is operation]
    assert last.name == "reference"
    assert not any(last.refuses(*case.arguments(case.arrays, FLOAT32)) for case in cases)


@pytest.mark.parametrize("case", TYPICAL, ids=str)
def test_the_standard_is_the_derivative(case):
    """The judge's own gradients, by differences of its values in float64: the standard is judged too."""
    values, _ = standard(case)["float32"]
    towards = [np.where(np.isnan(x), 0, np.random.default_rng(3).normal(size=x.shape)) for x in case.arrays]
    step = 1e-6
    with jax.enable_x64(True):
        wide = [np.asarray(x, np.float64) for x in case.arrays]
        plain = jax.jit(partial(case.plain, product=jnp.einsum))
        up, down = (plain(*(x + s * d for x, d in zip(wide, towards, strict=True))) for s in (step, -step))
        measured = float(((up - down) / (2 * step) * cotangent_of(case)).sum())
    given = sum(float((g * d).sum()) for g, d in zip(values[1:], towards, strict=True))
    # A central difference errs by step**2 and by the rounding of the values over the step.
    size = sum(float(np.abs(g * d).sum()) for g, d in zip(values[1:], towards, strict=True))
    assert abs(measured - given) <= 10 * size * (step**2 + np.finfo(np.float64).eps / step)


def scanned(call, cotangent, both):
    return jax.lax.scan(lambda _, arrays: (None, pull(call, cotangent, *arrays)), None, both)[1]


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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("case", "function"), pairs(TYPICAL))
def test_is_the_same_however_it_is_called(case, function, way):
    cases = case, case.nearby(3)
    both = tuple(jnp.stack(each) for each in zip(*(c.given()["float32"] for c in cases), strict=True))
    results = WAYS[way](case.call(function, FLOAT32), cotangent_of(case), both)
    for index, one in enumerate(cases):
        assert complaints(one, {"float32": [r[index] for r in results]}) == []


@pytest.mark.parametrize(("case", "function"), pairs(TYPICAL))
def test_split_over_a_mesh_is_the_same(case, function):
    mesh = MeshShape(data=4, tensor=2).build()
    rules = Rules()
    given = {
        name: tuple(
            jax.device_put(x, NamedSharding(mesh, rules.spec(dims, x.shape, mesh)))
            for x, dims in zip(arrays, case.dims, strict=True)
        )
        for name, arrays in case.given().items()
    }
    assert len(given["float32"][0].addressable_shards) == 8
    assert not given["float32"][0].sharding.is_fully_replicated
    calls = {name: case.call(function, policy) for name, policy in POLICIES.items()}
    run = jax.jit(lambda given: {n: pull(calls[n], cotangent_of(case), *given[n]) for n in given})
    assert complaints(case, run(given)) == []


@pytest.mark.parametrize(("case", "function"), pairs(TYPICAL))
def test_the_same_call_gives_the_same_bits(case, function):
    first = results_of(case, function)
    second = results_of.__wrapped__(case, function)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def masked(change):
    """Returns attention under another mask than it was given."""
    return lambda q, k, v, mask, *rest: attention.attend(q, k, v, change(mask), *rest)


def replaced(**fields):
    return masked(lambda mask: dataclasses.replace(mask, **fields))


def one_later(mask):
    start = jnp.zeros((1,), int) if mask.start is None else mask.start
    return dataclasses.replace(mask, start=start + 1)


def heads_in_turn(q, k, v, *rest):
    repeats = q.shape[2] // k.shape[2]
    return attention.attend(q, *(jnp.tile(x, (1, 1, repeats, 1)) for x in (k, v)), *rest)


def masked_rows_see_all(q, k, v, mask, *rest):
    out = attention.attend(q, k, v, mask, *rest)
    empty = ~mask.visible(q.shape[1], k.shape[1]).any(-1)[..., None, None]
    return jnp.where(empty, attention.unpadded(v, mask.key_segments).mean(1, keepdims=True).mean(2, keepdims=True), out)


def halfway(function, keep=1):
    """Returns the function with its float inputs rounded to bf16 on the way, whatever the policy."""

    def rounded(*arguments):
        return function(*(_rounded(x) if i < keep else x for i, x in enumerate(arguments)))

    return rounded


def _rounded(x):
    return x.astype(jnp.bfloat16).astype(x.dtype)


def without_gradient(function, at):
    """Returns the function with the right value and no gradient for one argument."""

    def cut(*arguments):
        return function(*(jax.lax.stop_gradient(x) if i == at else x for i, x in enumerate(arguments)))

    return cut


def unscaled(x, weight, *rest):
    base = weight.base if isinstance(weight, LowRank) else weight
    base = Int8(values=base.values, scales=jnp.ones_like(base.scales)) if isinstance(base, Int8) else base
    bare = LowRank(base=base, down=weight.down, up=weight.up) if isinstance(weight, LowRank) else base
    return matmul.dot(x, bare, *rest)


def without_offsets(x, weight, *rest):
    bare = dataclasses.replace(weight, offsets=None) if isinstance(weight, Grouped) else weight
    return matmul.dot(x, bare, *rest)


def unweighted(x, head, targets, weights, precision):
    return cross_entropy.linear_cross_entropy(x, head, targets, jnp.ones_like(weights), precision)


def clipped_targets(x, head, targets, precision):
    return cross_entropy.linear_log_probs(x, head, jnp.maximum(targets, 1), precision)


def biased_variance(x, scale, offset, epsilon):
    width = x.shape[-1]
    return norm.layer_norm(x, scale, offset, epsilon) * ((width - 1) / width) ** 0.5


BROKEN = {
    "attend: documents ignored": ("typical", replaced(query_segments=None, key_segments=None)),
    "attend: causality ignored": ("past two blocks", replaced(causal=False)),
    "attend: causality off by one": ("one past a block, one key head", masked(one_later)),
    "attend: window ignored": ("window across blocks", replaced(window=None)),
    "attend: window off by one": ("window of one", replaced(window=2)),
    "attend: start ignored": ("one token against a cache", replaced(start=None)),
    "attend: key heads in the wrong order": ("typical", heads_in_turn),
    "attend: a row of nothing sees all": ("queries whose document has no keys", masked_rows_see_all),
    "attend: scale ignored": ("typical", lambda q, k, v, mask, scale, p: attention.attend(q, k, v, mask, 1.0, p)),
    "attend: no gradient for keys": ("typical", without_gradient(attention.attend, 1)),
    "attend: bf16 where float32 was asked": ("typical", halfway(attention.attend, 3)),
    "dot: bf16 where float32 was asked": ("typical", halfway(matmul.dot, 2)),
    "dot: scales of int8 ignored": ("int8, 9 rows", unscaled),
    "dot: offsets of groups ignored": ("groups of 4 bits", without_offsets),
    "dot: scale of the adapter ignored": ("low rank, 9 rows", unscaled),
    "dot: no gradient for the weight": ("typical", without_gradient(matmul.dot, 1)),
    "linear_cross_entropy: weights ignored": ("typical", unweighted),
    "linear_cross_entropy: NaN of ignored targets": ("every target ignored", unweighted),
    "linear_log_probs: another token": ("typical", clipped_targets),
    "rms_norm: no epsilon": ("tiny rows, which epsilon governs", lambda x, scale, _: norm.rms_norm(x, scale, 0.0)),
    "layer_norm: another variance": ("typical", biased_variance),
    "layer_norm: not centred": ("typical", lambda x, s, o, e: norm.rms_norm(x, s, e) + o[None, None]),
    "rotate: the other way": ("typical", lambda x, cos, sin, pairing: rotary.rotate(x, cos, -sin, pairing)),
    "rotate: positions of the first row": (
        "out of order, rows apart",
        lambda x, c, s, p: rotary.rotate(x, c[:1], s[:1], p),
    ),
    "gate: the tanh for the exact": (
        "gelu, odd sizes, ties at zero, far out",
        lambda g, v, _: gated.gate(g, v, Activation.GELU_TANH),
    ),
    "gate: a slope at zero": (
        "relu, odd sizes, ties at zero, far out",
        lambda g, v, _: jnp.maximum(g, 0) * v,
    ),
    **BROKEN_ON_ROWS,
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_implementation_is_caught(broken):
    operation, _, _ = broken.partition(":")
    name, function = BROKEN[broken]
    (case,) = [c for c in CASES if (c.operation.name, c.name) == (operation, name)]
    assert complaints(case, results_of(case, function))


def test_every_operation_has_broken_copies():
    assert {name.partition(":")[0] for name in BROKEN} == {operation.name for operation in OPERATIONS}
