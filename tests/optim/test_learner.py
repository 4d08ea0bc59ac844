import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cupola.core.context import Aside
from cupola.core.errors import ConfigError, TrainingError
from cupola.core.param import Param, Role
from cupola.optim.average import EMA
from cupola.optim.groups import Group, Grouped
from cupola.optim.learner import Learner, NonFinite
from cupola.optim.muon import Muon
from cupola.optim.optimizer import SGD, AdamW
from cupola.optim.schedule import Linear

ADAM = AdamW(rate=0.01)
MUON = Grouped(
    groups=(Group(match="stack.norm", optimizer=ADAM), Group(match=Role.HIDDEN, optimizer=Muon(rate=0.02))), rest=ADAM
)


def step(learner, specs):
    return jax.jit(lambda params, state, grads, progress: learner.update(grads, state, params, specs, progress))


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


@pytest.mark.parametrize("clip_norm", [1.0, 1e6])
def test_clips_the_global_norm_as_optax_does(specs, params, grads, progress, clip_norm):
    learner = Learner(optimizer=SGD(rate=1.0, momentum=0.0), clip_norm=clip_norm)
    moved, _, metrics = step(learner, specs)(params, learner.init(params, specs), grads, progress)
    clipped, _ = jax.jit(optax.clip_by_global_norm(clip_norm).update)(grads, None)
    for a, p, g in zip(*map(jax.tree.leaves, (moved, params, clipped)), strict=True):
        np.testing.assert_allclose(a, p - g, atol=2 * np.spacing(np.abs(p).max() + np.abs(g).max()))
    assert metrics["gradient_norm"] == pytest.approx(float(optax.tree.norm(grads)), rel=1e-6)


def test_without_clipping_a_large_gradient_moves_far(specs, params, grads, progress):
    learner = Learner(optimizer=SGD(rate=1.0, momentum=0.0), clip_norm=None)
    moved, _, _ = step(learner, specs)(params, learner.init(params, specs), grads, progress)
    assert optax.tree.norm(jax.tree.map(jnp.subtract, moved, params)) > 5


def test_a_gradient_of_zero_is_not_divided_by(specs, params, progress):
    learner = Learner(optimizer=SGD(rate=1.0))
    moved, _, metrics = step(learner, specs)(
        params, learner.init(params, specs), jax.tree.map(jnp.zeros_like, params), progress
    )
    assert equal(moved, params)
    assert metrics["skipped"] == 0


@pytest.mark.parametrize("optimizer", [ADAM, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_gradient_that_is_not_finite_changes_only_the_count(specs, params, grads, progress, optimizer, bad):
    learner = Learner(optimizer=optimizer, average=EMA())
    go = step(learner, specs)
    params, state, _ = go(params, learner.init(params, specs), grads, progress)
    spoilt = grads | {"embedding": grads["embedding"].at[3, 2].set(bad)}
    after, after_state, metrics = go(params, state, spoilt, progress)
    assert equal(after, params)
    assert equal((after_state.optimizer, after_state.average), (state.optimizer, state.average))
    assert metrics["skipped"] == after_state.skipped == 1
    assert not jnp.isfinite(metrics["gradient_norm"])

    moved, moved_state, metrics = go(after, after_state, grads, progress)
    assert not equal(moved, after)
    assert not equal(moved_state.average, after_state.average)
    assert metrics["skipped"] == 1


def test_judge_stops_only_where_asked_and_only_on_what_is_not_finite():
    bad, good = {"gradient_norm": jnp.float32(jnp.nan)}, {"gradient_norm": jnp.float32(1)}
    stop = Learner(optimizer=ADAM, nonfinite=NonFinite.STOP)
    Learner(optimizer=ADAM).judge(bad)
    stop.judge(good)
    with pytest.raises(TrainingError, match="norm of the gradient is nan"):
        stop.judge(bad)


def test_average_follows_the_moved_parameters(specs, params, grads, progress):
    learner = Learner(optimizer=ADAM, average=EMA(decay=0.5))
    state, held, history = learner.init(params, specs), params, []
    assert equal(learner.averaged(state, params), params)
    for _ in range(2):
        held, state, _ = step(learner, specs)(held, state, grads, progress)
        history.append(held)
    expected = jax.tree.map(lambda a, b: (a + 2 * b) / 3, *history)
    for a, b in zip(jax.tree.leaves(learner.averaged(state, held)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert learner.replace("average", None).averaged(state, held) is held


def test_metrics_hold_the_rate_of_each_group(specs, params, grads):
    learner = Learner(optimizer=MUON.replace("rest.schedule", Linear()))
    _, _, metrics = step(learner, specs)(params, learner.init(params, specs), grads, jnp.float32(0.75))
    assert metrics["rate.rest"] == pytest.approx(0.01 * 0.25)
    assert metrics["rate.hidden"] == pytest.approx(0.02)


@pytest.mark.parametrize("optimizer", [ADAM, MUON], ids=["adamw", "muon"])
def test_donated_parameters_and_state_are_updated_in_place(specs, params, grads, progress, optimizer):
    learner = Learner(optimizer=optimizer, average=EMA())
    go = jax.jit(lambda p, s, g: learner.update(g, s, p, specs, progress), donate_argnums=(0, 1))
    own = jax.tree.map(jnp.copy, params)
    state = learner.init(own, specs)
    size = sum(x.nbytes for x in jax.tree.leaves((own, state)))
    assert go.lower(own, state, grads).compile().memory_analysis().alias_size_in_bytes == size
    expected, _, _ = step(learner, specs)(params, learner.init(params, specs), grads, progress)
    moved, state, _ = go(own, state, grads)
    moved, state, _ = go(moved, state, grads)
    assert all(x.is_deleted() for x in jax.tree.leaves(own))
    assert not equal(moved, expected)


def test_learns(specs, params):
    target = jax.tree.map(jnp.ones_like, params)

    def loss(p):
        return sum(jnp.mean((a - b) ** 2) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(target), strict=True))

    learner = Learner(optimizer=AdamW(rate=0.1, decay=0.0, schedule=Linear(warmup=0.1)))

    def body(i, carry):
        p, s = carry
        return learner.update(jax.grad(loss)(p), s, p, specs, (i + 0.5) / 150)[:2]

    trained, _ = jax.jit(lambda c: jax.lax.fori_loop(0, 150, body, c))((params, learner.init(params, specs)))
    assert loss(trained) < 1e-4 * loss(params)


def test_refuses_a_norm_of_zero():
    with pytest.raises(ConfigError, match="clip_norm"):
        Learner(optimizer=ADAM, clip_norm=0.0)


@pytest.mark.parametrize("optimizer", [AdamW(rate=0.01, decay=0.5), MUON], ids=["adamw", "muon"])
def test_state_is_moved_by_what_the_call_said_alone(specs, params, grads, progress, optimizer):
    with_statistics = {**specs, "mean": Param((8,), "D", role=Role.STATE)}
    held, pull = {**params, "mean": jnp.full(8, 2.0)}, {**grads, "mean": jnp.full(8, 1e9)}
    learner = Learner(optimizer=optimizer, average=EMA(decay=0.5))
    said = Aside(state={"mean": jnp.full(8, 7.0)})

    @jax.jit
    def go(held, state, pull):
        return learner.update(pull, state, held, with_statistics, progress, said)

    moved, state, metrics = go(held, learner.init(held, with_statistics), pull)
    alone, _, also = step(learner, specs)(params, learner.init(params, specs), grads, progress)
    assert equal({name: x for name, x in moved.items() if name != "mean"}, alone)
    assert metrics["gradient_norm"] == also["gradient_norm"]
    assert (moved["mean"] == 7).all()
    assert (learner.averaged(state, moved)["mean"] == 7).all()
    skipped, _, _ = go(moved, state, {**pull, "embedding": pull["embedding"] * jnp.nan})
    assert equal(skipped, moved)
