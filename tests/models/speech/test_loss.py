import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.context import Context, Mode
from cupola.core.errors import ConfigError
from cupola.models.speech.loss import Objective, spoken_loss

CONTEXT = Context(mode=Mode.TRAIN, key=jax.random.key(2))
OBJECTIVE = Objective(stop=0.5, last=3.0, guided=2.0, guided_width=0.3)


@functools.partial(jax.jit, static_argnums=(0, 3))
def made(model, p, batch, objective):
    given = batch.symbols, batch.symbol_lengths, batch.features, batch.feature_lengths
    return spoken_loss(model, p, batch=batch, context=CONTEXT, objective=objective), model(p, *given, context=CONTEXT)


def arrays(batch):
    return jax.tree.map(jnp.asarray, batch)


def test_is_the_sum_over_the_frames_that_there_are(model, p, batch):
    (loss, (weight, metrics, state)), spoken = made(model, p, arrays(batch), OBJECTIVE)
    spoken = jax.tree.map(lambda x: np.asarray(x, np.float64), spoken)
    wanted = dict.fromkeys(("before", "after", "stop", "guided"), 0.0)
    for row, (count, symbols) in enumerate(zip(batch.feature_lengths, batch.symbol_lengths, strict=True)):
        true = batch.features[row, :count]
        for name in ("before", "after"):
            wanted[name] += np.square(getattr(spoken, name)[row, :count] - true).mean(-1).sum()
        chance = 1 / (1 + np.exp(-spoken.stops[row, :count]))
        wanted["stop"] -= np.log(1 - chance[:-1]).sum() + 3.0 * np.log(chance[-1])
        away = np.arange(symbols) / symbols - np.arange(count)[:, None] / count
        far = 1 - np.exp(-np.square(away) / (2 * 0.3**2))
        wanted["guided"] += (spoken.weights[row, :count, :symbols] * far).sum()
    assert weight == batch.feature_lengths.sum()
    for name, value in wanted.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-4), name
    total = wanted["before"] + wanted["after"] + 0.5 * wanted["stop"] + 2.0 * wanted["guided"]
    assert float(loss) == pytest.approx(total, rel=1e-4)
    assert metrics["loss"] == loss
    assert list(state) == list(spoken.aside.state)


def test_what_a_batch_is_padded_with_does_not_count(model, p, batch):
    there = np.arange(batch.features.shape[1]) < batch.feature_lengths[:, None]
    other = dataclasses.replace(
        batch,
        features=np.where(there[..., None], batch.features, np.float32(50)),
        symbols=np.where(batch.symbols == 0, 3, batch.symbols),
    )
    (loss, _), _ = made(model, p, arrays(batch), OBJECTIVE)
    (also, _), _ = made(model, p, arrays(other), OBJECTIVE)
    assert float(also) == pytest.approx(float(loss), rel=1e-6)
    counted = dataclasses.replace(other, feature_lengths=np.full(8, batch.features.shape[1], np.int32))
    (more, _), _ = made(model, p, arrays(counted), OBJECTIVE)
    assert float(more) > 10 * float(loss)


@pytest.mark.parametrize("fields", [{"stop": -1.0}, {"guided": -0.1}, {"guided_width": 0.0}])
def test_weights_that_cannot_be_are_refused(fields):
    with pytest.raises(ConfigError, match="objective: stop=.*\nWeights are 0 or more"):
        Objective(**fields)
