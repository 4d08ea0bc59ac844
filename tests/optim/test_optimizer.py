import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cupola.core.errors import ConfigError
from cupola.core.param import Param
from cupola.optim.optimizer import SGD, Adam, AdamW, Decayed, Momentum
from cupola.optim.schedule import Linear

STEPS = 4


def run(optimizer, specs, params, grads):
    def body(step, carry):
        params, state = carry
        scaled = jax.tree.map(lambda g: g * (1 - 0.3 * step), grads)
        return optimizer.update(scaled, state, params, specs, (step + 0.5) / STEPS)

    return jax.jit(lambda p: jax.lax.fori_loop(0, STEPS, body, (p, optimizer.init(p, specs)))[0])(params)


def reference(transform, params, grads):
    def body(step, carry):
        params, state = carry
        scaled = jax.tree.map(lambda g: g * (1 - 0.3 * step), grads)
        updates, state = transform.update(scaled, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(lambda p: jax.lax.fori_loop(0, STEPS, body, (p, transform.init(p)))[0])(params)


def assert_equal_to_rounding(ours, theirs):
    """Each step adds a rounding of a parameter, and a few of its update, in another order."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2 * STEPS * np.spacing(np.abs(b).max()))


def matrices(specs):
    return jax.tree.map(lambda p: p.is_matrix, specs)


def linear(rate):
    return lambda step: rate * (1 - (step + 0.5) / STEPS)


def test_adamw_is_optax_adamw(specs, params, grads):
    ours = AdamW(rate=0.01, b1=0.8, b2=0.9, epsilon=1e-6, decay=0.2, schedule=Linear())
    theirs = optax.adamw(linear(0.01), b1=0.8, b2=0.9, eps=1e-6, weight_decay=0.2, mask=matrices(specs))
    assert_equal_to_rounding(run(ours, specs, params, grads), reference(theirs, params, grads))


@pytest.mark.parametrize(
    ("momentum", "form"), [(0.0, Momentum.HEAVY_BALL), (0.9, Momentum.HEAVY_BALL), (0.9, Momentum.NESTEROV)]
)
def test_sgd_is_optax_sgd(specs, params, grads, momentum, form):
    ours = SGD(rate=0.01, momentum=momentum, form=form, schedule=Linear())
    theirs = optax.sgd(linear(0.01), momentum=momentum or None, nesterov=form is Momentum.NESTEROV)
    assert_equal_to_rounding(run(ours, specs, params, grads), reference(theirs, params, grads))


def test_the_comparison_sees_a_wrong_momentum(specs, params, grads):
    with pytest.raises(AssertionError):
        assert_equal_to_rounding(
            run(SGD(rate=0.01, momentum=0.9001), specs, params, grads),
            reference(optax.sgd(0.01, momentum=0.9), params, grads),
        )


@pytest.mark.parametrize(
    ("decayed", "shrunk"),
    [
        (Decayed.MATRICES, {"embedding", "query", "up", "down"}),
        (Decayed.INNER_MATRICES, {"query", "up", "down"}),
        (Decayed.ALL, {"embedding", "query", "up", "down", "norm"}),
    ],
)
def test_decay_concerns_these_parameters_alone(specs, params, decayed, shrunk, progress):
    still = jax.tree.map(jnp.zeros_like, params)
    optimizer = AdamW(rate=0.1, decay=0.5, decayed=decayed)
    moved, _ = jax.jit(lambda p: optimizer.update(still, optimizer.init(p, specs), p, specs, progress))(params)
    before, after = ({"embedding": t["embedding"], **t["stack"]} for t in (params, moved))
    assert {name for name in before if not jnp.array_equal(before[name], after[name])} == shrunk
    for name in shrunk:
        np.testing.assert_allclose(after[name], before[name] * (1 - 0.1 * 0.5), rtol=3e-7)


def test_state_is_float32_and_parameters_keep_their_format(specs, params, grads, progress):
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    optimizer = AdamW(rate=0.01)
    state = optimizer.init(low, specs)
    moved, state = jax.jit(lambda p, s: optimizer.update(grads, s, p, specs, progress))(low, state)
    assert {x.dtype.name for x in jax.tree.leaves(moved)} == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves((state.mu, state.nu))} == {"float32"}


def test_state_is_sharded_as_the_parameters_are():
    specs = {"up": Param((8, 16), "D F")}
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:8]), ("fsdp",)), PartitionSpec("fsdp"))
    params = {"up": jax.device_put(jnp.ones((8, 16)), sharding)}
    state = AdamW(rate=0.1).init(params, specs)
    assert state.mu["up"].sharding == state.nu["up"].sharding == sharding


def test_assignment_names_the_optimizer(specs):
    assert set(AdamW(rate=0.1).assignment(specs).values()) == {"AdamW"}
    assert "stack.norm" in AdamW(rate=0.1).assignment(specs)


@pytest.mark.parametrize(
    ("change", "where", "remedy"),
    [
        ({"rate": 0.0}, "rate", "Use a number in (0, inf)."),
        ({"b1": 1.0}, "b1", "Use a number in [0, 1), such as b1=0.9."),
        ({"b2": -0.1}, "b2", "such as b2=0.95"),
        ({"epsilon": 0.0}, "epsilon", "such as epsilon=1e-08"),
        ({"decay": float("nan")}, "decay", "such as decay=0.1"),
    ],
)
def test_refuses_numbers_out_of_range(change, where, remedy):
    with pytest.raises(ConfigError) as raised:
        AdamW(**{"rate": 0.1, **change})
    assert raised.value.where == where
    assert remedy in raised.value.remedy


def test_sgd_refuses_a_momentum_of_one():
    with pytest.raises(ConfigError, match="momentum"):
        SGD(rate=0.1, momentum=1.0)


def test_adam_scales_its_decay_with_the_gradient(specs, params, grads):
    ours = Adam(rate=0.01, b1=0.8, b2=0.9, epsilon=1e-6, decay=0.2, schedule=Linear())
    adam = optax.adam(linear(0.01), b1=0.8, b2=0.9, eps=1e-6)
    theirs = optax.chain(optax.add_decayed_weights(0.2, mask=matrices(specs)), adam)
    moved = run(ours, specs, params, grads)
    assert_equal_to_rounding(moved, reference(theirs, params, grads))
    with pytest.raises(AssertionError):  # the control: decoupled decay is another thing
        assert_equal_to_rounding(moved, run(AdamW(**vars(ours)), specs, params, grads))


def test_adam_without_decay_is_adamw_without_it(specs, params, grads):
    made = [run(kind(rate=0.01, b2=0.9, decay=0.0), specs, params, grads) for kind in (Adam, AdamW)]
    jax.tree.map(np.testing.assert_array_equal, *made)
