"""A model learns the same with every native kernel as with none: two hundred steps, curve beside curve."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.data.loader import Batch
from cupola.kernels import measured
from cupola.kernels.choose import using
from cupola.kernels.native.library import find
from cupola.train.state import initial
from cupola.train.step import make_step

STEPS = 200
NOISES = 3


@pytest.fixture
def made(experiment):
    return experiment(model__stack__block__dropout=None)


@pytest.fixture
def native_is_fastest(monkeypatch):
    """Every operation uses its native kernel where it has one, as if each was measured to be the fastest."""
    if not find().libraries:
        pytest.skip(f"no native library: {find().reason}")
    seconds = {f"cpu/{level.value}": 1.0 / level.number for level in find().libraries} | {"xla": 9.0}
    monkeypatch.setattr(
        measured, "nearest", lambda operation, call, *_: measured.Row(operation, "cpu", call, seconds, "a test")
    )


def batches():
    """Yields texts of a few words, over and over in another order: there is something to learn."""
    draw = np.random.default_rng(0)
    words, places = draw.integers(0, 280, (6, 4)), np.tile(np.arange(16, dtype=np.int32), (4, 1))
    for _ in range(STEPS):
        text = words[draw.integers(0, 6, (4, 5))].reshape(4, 20).astype(np.int32)
        yield jax.tree.map(
            jnp.asarray,
            Batch(
                tokens=text[:, :16],
                targets=text[:, 1:17],
                weights=np.ones((4, 16), np.float32),
                segments=np.ones_like(places),
                positions=places,
            ),
        )


def curve(made, step, change=lambda params: params):
    """Returns the loss of each step; `change` is done to the parameters before each."""
    state, losses = initial(made, made.mesh.build()), []
    for number, batch in enumerate(batches()):
        state = dataclasses.replace(state, params=change(state.params))
        state, metrics = step(state, batch, jnp.float32(number / STEPS))
        losses.append(float(metrics["loss"]))
    return np.asarray(losses)


def once_more_rounded(seed):
    """Returns a change of parameters by a unit in their last place: what another order of sums may do in a step."""
    draw, unit = np.random.default_rng(seed), np.finfo(np.float32).eps

    def change(params):
        return jax.tree.map(lambda x: x * np.float32(1 + unit * draw.integers(-1, 2, x.shape)), params)

    return change


@pytest.mark.slow
def test_all_kernels_and_none_learn_the_same(made, native_is_fastest):
    step = jax.jit(make_step(made))
    first = initial(made, made.mesh.build()), next(batches()), jnp.float32(0)
    with using("reference"):
        assert "cupola_" not in step.lower(*first).as_text()
        plain = curve(made, step)
        noise = [np.abs(curve(made, step, once_more_rounded(seed)) - plain).max() for seed in range(NOISES)]
        scaled = curve(made, step, lambda params: jax.tree.map(lambda x: x * np.float32(1 - 1e-4), params))
    allowed = 2 * max(noise)
    assert "cupola_" in step.lower(*first).as_text()
    native = curve(made, step)
    assert plain[-1] < plain[0] / 2
    assert allowed > 0
    assert np.abs(native - plain).max() <= allowed
    assert np.abs(scaled - plain).max() > allowed  # the measure can fail
