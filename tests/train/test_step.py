import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.context import Aside
from cupola.data.loader import Batch
from cupola.kernels.cross_entropy import Objective
from cupola.layers.dropout import Dropout
from cupola.layers.feed_forward import GatedMLP
from cupola.train.state import initial
from cupola.train.step import make_step


class Talking(GatedMLP):
    """A network that also says something aside."""

    def __call__(self, p, x):
        """Returns what it returns, a loss that wants small weights, and a metric."""
        return super().__call__(p, x), Aside(
            losses={"size": jnp.sum(p["up"] ** 2)}, metrics={"seven": jnp.full(3, 7.0)}
        )


@pytest.fixture
def batch():
    """Four rows of unequal weight, so that a mean of rows' means is not the mean of the whole."""
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 280, (2, 4, 8)).astype(np.int32)
    weights = np.tile(np.asarray([[1], [1], [0.25], [0]], np.float32), (1, 8))
    places = np.tile(np.arange(8, dtype=np.int32), (4, 1))
    return jax.tree.map(
        jnp.asarray,
        Batch(tokens=tokens, targets=targets, weights=weights, segments=np.ones_like(places), positions=places),
    )


@pytest.fixture
def still(experiment):
    """Makes an experiment without dropout."""
    return lambda **changes: experiment(model__stack__block__dropout=None, **changes)


@functools.cache
def compiled(made):
    return jax.jit(make_step(made))


@functools.cache
def first(made):
    return initial(made, made.mesh.build())


def stepped(made, batch, change=lambda state: state):
    state = change(first(made))
    before = jax.tree.map(jnp.copy, state.params)
    new, metrics = compiled(made)(state, batch, jnp.float32(0.5))
    return before, new, {name: float(value) for name, value in metrics.items()}


def plain_loss(made, params, batch):
    hidden = made.model(params, batch.tokens, positions=batch.positions, segments=batch.segments)
    log_probs = jax.nn.log_softmax(made.model.logits(params, hidden.states))
    picked = np.take_along_axis(np.asarray(log_probs, np.float64), np.asarray(batch.targets)[..., None], -1)[..., 0]
    weights = np.asarray(batch.weights, np.float64)
    return -picked * weights, weights


def test_a_step_moves_the_parameters_and_tells_the_mean_loss(still, batch):
    before, new, metrics = stepped(still(), batch)
    losses, weights = plain_loss(still(), before, batch)
    assert set(metrics) == {"loss", "gradient_norm", "skipped", "rate"}
    assert metrics["loss"] == pytest.approx(losses.sum() / weights.sum(), rel=1e-5)
    rows = losses.sum(1)[:3] / weights.sum(1)[:3]
    assert metrics["loss"] != pytest.approx(rows.mean(), rel=1e-4)  # the control: a mean of means differs
    assert metrics["skipped"] == 0
    assert int(new.step) == 1
    moved = jax.tree.map(lambda a, b: np.any(a != np.asarray(b)), before, new.params)
    assert all(jax.tree.leaves(moved))


def test_a_step_minimizes_the_objective(still, batch):
    made = still(objective=Objective(label_smoothing=0.1, z_loss=0.01))
    before, _, metrics = stepped(made, batch)
    hidden = made.model(before, batch.tokens, positions=batch.positions, segments=batch.segments)
    logits = np.asarray(made.model.logits(before, hidden.states), np.float64)
    normalizer = np.log(np.exp(logits).sum(-1))
    plain, weights = plain_loss(made, before, batch)
    spread = 0.1 * (normalizer - logits.mean(-1)) + 0.01 * normalizer**2
    expected = (0.9 * plain.sum() + (weights * spread).sum()) / weights.sum()
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["loss"] != pytest.approx(plain.sum() / weights.sum(), rel=1e-3)  # the control: the plain loss


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_give_what_the_whole_batch_gives(still, batch, parts):
    _, whole, said = stepped(still(), batch)
    _, cut, also = stepped(still(micro_batches=parts), batch)
    assert also == pytest.approx(said, rel=1e-4)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(cut.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_said_aside_arrives_whole(still, batch, parts):
    quiet = stepped(still(), batch)[2]
    made = still(model__stack__block__feed_forward=Talking(hidden=24), micro_batches=parts)
    before, _, metrics = stepped(made, batch)
    size = sum(float(np.sum(layer**2)) for layer in before["stack"]["block"]["feed_forward"]["up"])
    assert metrics["stack.block.feed_forward.size"] == pytest.approx(size, rel=1e-5)
    assert metrics["stack.block.feed_forward.seven"] == pytest.approx(7)
    assert metrics["loss"] == pytest.approx(quiet["loss"], rel=1e-5)  # it is trained on, not shown as the loss
    assert metrics["gradient_norm"] > 1.5 * quiet["gradient_norm"]


def poisoned_parameter(state):
    scale = state.params["norm"]["scale"].at[0].set(jnp.nan)
    return type(state)(**vars(state) | {"params": state.params | {"norm": {"scale": scale}}})


@pytest.mark.parametrize("poison", ["parameter", "weight"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(still, batch, poison):
    change = poisoned_parameter if poison == "parameter" else lambda state: state
    if poison == "weight":
        batch = Batch(**vars(batch) | {"weights": batch.weights.at[0, 0].set(jnp.inf)})
    before, new, metrics = stepped(still(), batch, change)
    assert not np.isfinite(metrics["gradient_norm"])
    assert (metrics["skipped"], int(new.learner.skipped), int(new.step)) == (1, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, new.params))


def test_each_step_draws_its_own_dropout(experiment, batch):
    made = experiment(model__stack__block__dropout=Dropout(rate=0.5))
    step, state = compiled(made), first(made)
    one, two = (
        float(step(type(state)(**vars(state) | {"step": jnp.int32(at)}), batch, jnp.float32(0))[1]["loss"])
        for at in (0, 1)
    )
    assert one != two
