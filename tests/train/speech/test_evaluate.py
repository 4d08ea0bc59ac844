"""Scores of a model that speaks: each utterance counts once, and what is judged of speaking was spoken freely."""

import dataclasses

import jax
import numpy as np
import pytest

from cupola.core.context import Context
from cupola.core.errors import ConfigError
from cupola.data.audio.batches import Example, pad
from cupola.data.audio.prepared import Prepared
from cupola.models.speech.loss import spoken_loss
from cupola.train.speech.evaluate import SpeechEvaluation, SpeechEvaluator

LENGTHS = (9, 14, 6, 20, 11)


@pytest.fixture(scope="module")
def made(speech):
    return speech(model__decoder__pre_net_dropout__rate=0.0, objective__guided=0.0)


@pytest.fixture(scope="module")
def examples(made):
    drawn = np.random.default_rng(0)
    return {
        f"word-{number}": Example(
            symbols=np.append(drawn.integers(2, 40, 3 + number % 3), 1).astype(np.int32),
            sound=Prepared(np.zeros(4, np.int16), drawn.normal(size=(length, 20)).astype(np.float32)),
        )
        for number, length in enumerate(LENGTHS)
    }


@pytest.fixture(scope="module")
def params(made):
    return jax.jit(made.model.init)(jax.random.key(3))


def evaluator(made, examples, **fields):
    evaluation = dataclasses.replace(SpeechEvaluation(batch=2, spoken=1, spoken_at_end=3), **fields)
    return SpeechEvaluator(made.model, made.objective, evaluation, made.speaking, made.data.front, examples)


def stopping(params, logit):
    stop = params["decoder"]["stop"]
    return params | {"decoder": params["decoder"] | {"stop": stop | {"bias": stop["bias"] + logit}}}


def test_each_utterance_counts_once_however_they_are_batched(made, examples, params):
    score = evaluator(made, examples).all(params)
    batch = jax.tree.map(jax.numpy.asarray, pad(list(examples.values()), 8, 24))
    loss, (weight, metrics, _) = spoken_loss(
        made.model, params, batch=batch, context=Context(key=jax.random.key(0)), objective=made.objective
    )
    assert score.forced["loss"] == pytest.approx(float(loss / weight), rel=1e-5)
    assert score.forced["after"] == pytest.approx(float(metrics["after"] / weight), rel=1e-5)
    assert set(score.forced) == {"loss", "before", "after", "stop", "stop_accuracy", "monotonicity", "diagonality"}


def test_a_sample_is_some_of_it_and_always_the_same(made, examples, params):
    judge = evaluator(made, examples, utterances=2)
    one, again, whole = judge.sample(params), judge.sample(params), judge.all(params)
    assert one.metrics == again.metrics
    assert one.forced["loss"] != whole.forced["loss"]
    assert (len(one.samples), len(whole.samples)) == (1, 3)


def test_a_stop_at_the_wrong_place_is_wrong(made, examples, params):
    """Stopping at the first frame is near the end of the one utterance of 6 frames alone; never stopping, of none."""
    judge = evaluator(made, examples)
    assert judge.all(stopping(params, 50.0)).forced["stop_accuracy"] == pytest.approx(1 / 5)
    assert judge.all(stopping(params, -50.0)).forced["stop_accuracy"] == 0


def test_what_is_spoken_says_whether_it_stopped(made, examples, params):
    judge = evaluator(made, examples)
    endless, brief = judge.all(stopping(params, -50.0)), judge.all(stopping(params, 50.0))
    assert (endless.spoken["stopped"], brief.spoken["stopped"]) == (0, 1)
    assert {len(each.utterance.features) for each in endless.samples} == {30}  # half more than the longest true one
    assert "0 of 3 stopped" in endless.text()
    assert "3 of 3 stopped" in brief.text()
    assert endless.metrics["spoken_distortion_db"] > 0


def test_a_model_that_has_diverged_is_infinitely_far(made, examples, params):
    broken = jax.tree.map(lambda x: x * np.nan, stopping(params, -50.0))
    score = evaluator(made, examples).sample(broken)
    assert score.spoken["distortion_db"] == np.inf
    assert np.isnan(score.forced["loss"])


def test_numbers_that_are_none_are_refused():
    for name in ("utterances", "batch", "spoken", "spoken_at_end"):
        with pytest.raises(ConfigError, match=f"{name}: 0 is too few"):
            SpeechEvaluation(**{name: 0})
