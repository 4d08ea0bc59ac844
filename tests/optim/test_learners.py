"""Parts that learn beside each other learn as they would alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.context import Aside
from cupola.core.errors import ConfigError, TrainingError
from cupola.core.param import Param, Role
from cupola.optim.average import EMA
from cupola.optim.learner import Learner, NonFinite
from cupola.optim.learners import Learners, Part
from cupola.optim.optimizer import SGD, AdamW

GENERATOR = Learner(optimizer=AdamW(rate=0.01), clip_norm=1.0, average=EMA(decay=0.5))
JUDGE = Learner(optimizer=SGD(rate=0.5), clip_norm=None)
BOTH = Learners(parts=(Part(of="generator", learner=GENERATOR), Part(of="judge", learner=JUDGE)))


@pytest.fixture
def two(specs, params, grads):
    """(specs, params, gradients) of a model of two parts, the second with a running statistic."""
    mean = {"mean": Param((8,), "D", role=Role.STATE)}
    still, pull = {"mean": jnp.full(8, 2.0)}, {"mean": jnp.zeros(8)}
    return tuple(
        {"generator": tree["stack"], "judge": {"embedding": tree["embedding"], **more}}
        for tree, more in ((specs, mean), (params, still), (grads, pull))
    )


def step(learner, specs, aside=Aside()):
    return jax.jit(lambda params, state, grads, progress: learner.update(grads, state, params, specs, progress, aside))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_each_part_moves_as_it_would_alone(two, progress):
    specs, params, grads = two
    said = Aside(state={"judge.mean": jnp.full(8, 7.0)})
    moved, state, metrics = step(BOTH, specs, said)(params, BOTH.init(params, specs), grads, progress)
    for name, learner, own in (
        ("generator", GENERATOR, Aside()),
        ("judge", JUDGE, Aside(state={"mean": jnp.full(8, 7.0)})),
    ):
        begin = learner.init(params[name], specs[name])
        alone = step(learner, specs[name], own)(params[name], begin, grads[name], progress)
        same((moved[name], state[name]), alone[:2])
        same({metric: metrics[f"{name}.{metric}"] for metric in alone[2]}, alone[2])
        same(BOTH.averaged(state, moved)[name], learner.averaged(alone[1], alone[0]))
    assert (moved["judge"]["mean"] == 7).all()
    together = Learner(optimizer=AdamW(rate=0.01))
    other = step(together, specs)(params, together.init(params, specs), grads, progress)[0]
    assert np.any(other["generator"]["up"] != moved["generator"]["up"])  # the control: one norm for both


def test_a_part_that_is_skipped_holds_no_other_back(two, progress):
    specs, params, grads = two
    bad = grads | {"judge": jax.tree.map(lambda x: x * jnp.nan, grads["judge"])}
    moved, state, metrics = step(BOTH, specs)(params, BOTH.init(params, specs), bad, progress)
    same(moved["judge"], params["judge"])
    assert np.all(moved["generator"]["up"] != params["generator"]["up"])
    assert (metrics["skipped"], BOTH.skipped(state)) == (1, 1)
    assert (metrics["judge.skipped"], metrics["generator.skipped"]) == (1, 0)
    BOTH.judge(metrics)
    strict = BOTH.replace("parts.1.learner.nonfinite", NonFinite.STOP)
    with pytest.raises(TrainingError, match="the norm of the gradient is nan"):
        strict.judge(metrics)


def test_every_part_of_the_model_has_one_learner(two):
    specs, params, _ = two
    with pytest.raises(ConfigError, match=r"nothing moves the model's part 'judge'\nAdd Part"):
        BOTH.replace("parts", BOTH.parts[:1]).init(params, specs)
    with pytest.raises(ConfigError, match=r"no part 'judges'\n.*judge"):
        BOTH.replace("parts.1.of", "judges").init(params, specs)
    for parts in ((), BOTH.parts[:1] * 2):
        with pytest.raises(ConfigError, match="Name every part once"):
            Learners(parts=parts)


def test_state_of_no_part_is_refused(two, progress):
    specs, params, grads = two
    said = Aside(state={"jugde.mean": jnp.zeros(8)})
    with pytest.raises(ConfigError, match=r"jugde.mean: state is said of no part\n.*judge"):
        BOTH.update(grads, BOTH.init(params, specs), params, specs, progress, said)
