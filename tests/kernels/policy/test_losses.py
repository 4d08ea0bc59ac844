from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from judge import Case, complaints, results_of

from cupola.config.errors import ConfigError
from cupola.core.errors import ShapeError
from cupola.kernels.cross_entropy.api import LINEAR_LOG_PROBS
from cupola.kernels.policy import (
    DAPO,
    DR_GRPO,
    GRPO,
    PPO,
    Average,
    Clipped,
    Scale,
    group_advantages,
    linear_policy_loss,
)

DRAW = np.random.default_rng(6)
ANSWERS, LENGTH, WIDTH, VOCABULARY, LONGEST, WARM = 4, 6, 4, 17, 9, 1.25
TARGETS = np.int32(DRAW.integers(0, VOCABULARY, (ANSWERS, LENGTH)))
WEIGHTS = np.float32(np.arange(LENGTH)[None] < np.array([6, 2, 0, 3])[:, None])
X = np.float32(DRAW.normal(size=(ANSWERS, LENGTH, WIDTH)))
HEAD = np.float32(DRAW.normal(size=(VOCABULARY, WIDTH)))
LOGITS = X @ HEAD.T / WARM
HELD = np.take_along_axis(LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True)), TARGETS[..., None], -1)[..., 0]
OLD, REFERENCE = (np.float32(HELD + DRAW.normal(size=HELD.shape) * 0.3) for _ in range(2))
GAINS = np.float32([[1.5], [-1], [2], [-0.25]])
for hidden in (X, OLD, REFERENCE):
    hidden[WEIGHTS == 0] = np.nan
OBJECTIVES = {"ppo": PPO, "grpo": GRPO, "dapo": DAPO, "dr grpo": DR_GRPO}


def reference_of(objective):
    return jnp.asarray(REFERENCE) if objective.divergence else None


@cache
def case_of(objective):
    """The objective token by token, as its paper has it."""

    def plain(x, head, product):
        logits = product("btd,vd->btv", jnp.where(WEIGHTS[..., None] != 0, x, 0), head) / WARM
        apart = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
        shares = apart - jnp.log(jnp.exp(apart).sum(-1, keepdims=True))
        log_probs = jnp.where(TARGETS[..., None] == np.arange(VOCABULARY)[None, None], shares, 0).sum(-1)
        rows = []
        for answer in range(ANSWERS):
            row = []
            for token in range(int(WEIGHTS[answer].sum())):
                log_prob, gain = log_probs[answer, token], GAINS[answer, 0]
                ratio = jnp.exp(log_prob - OLD[answer, token])
                clipped = jnp.clip(ratio, 1 - objective.low, 1 + objective.high)
                loss = -jnp.minimum(ratio * gain, clipped * gain)
                apart = REFERENCE[answer, token] - log_prob
                row.append(loss + objective.divergence * (jnp.exp(apart) - apart - 1))
            rows.append(row)
        every = [loss for row in rows for loss in row]
        if objective.average is Average.TOKENS:
            return sum(every) / len(every)
        if objective.average is Average.LENGTH:
            return sum(every) / (ANSWERS * LONGEST)
        return sum(sum(row) / len(row) for row in rows if row) / ANSWERS

    return Case(LINEAR_LOG_PROBS, "policy", (X, HEAD), lambda arrays, policy: (*arrays, policy), plain)


def fused(objective, name, gains=GAINS):
    def call(x, head, policy):
        return linear_policy_loss(
            x,
            head,
            jnp.where(WEIGHTS != 0, TARGETS, -1),
            jnp.asarray(OLD),
            jnp.asarray(gains),
            jnp.asarray(WEIGHTS),
            objective=objective,
            temperature=WARM,
            reference=reference_of(objective),
            longest=LONGEST,
            precision=policy,
            implementation=name,
        )

    return call


@pytest.mark.parametrize(
    ("name", "implementation"),
    # Below the log-probabilities all is the same: one objective over each way to compute those is quick.
    [
        pytest.param(name, way, marks=[pytest.mark.slow] * (way != "xla" and name != "grpo"))
        for name in OBJECTIVES
        for way in ("xla", "reference", None)
    ],
)
def test_fused_with_the_head_it_is_the_plain_formula(name, implementation):
    case = case_of(OBJECTIVES[name])
    assert complaints(case, results_of(case, fused(OBJECTIVES[name], implementation))) == []


def test_another_objective_is_caught():
    case = case_of(DAPO)
    assert complaints(case, results_of(case, fused(GRPO, "reference")))
    assert complaints(case, results_of(case, fused(DAPO, "reference", -GAINS)))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_no_token_that_counts_gives_zero_and_no_gradient(objective):
    nan, zeros = jnp.full((2, 3), jnp.nan), jnp.zeros((2, 3))
    reference = nan if objective.divergence else None
    value, grads = jax.value_and_grad(objective)(nan, nan, nan, zeros, reference=reference)
    assert value == 0
    assert (grads == 0).all()


def test_beyond_the_clip_nothing_is_gained():
    log_probs, old, one = jnp.asarray([[0.0]]), jnp.asarray([[-1.0]]), jnp.ones((1, 1))
    slope = jax.grad(PPO)
    assert slope(log_probs, old, one, one) == 0
    assert slope(log_probs, old, -one, one) > 1
    assert slope(log_probs, log_probs, one, one) < 0


def test_advantages_of_groups():
    rewards = jnp.asarray([0.0, 1.0, 1.0, 2.0, 5.0, 5.0, 5.0, 5.0])
    assert group_advantages(rewards, 4, Scale.NONE).tolist() == [-1, 0, 0, 1, 0, 0, 0, 0]
    scaled = group_advantages(rewards, 4)
    assert scaled[3] == -scaled[0] == 1 / (jnp.std(rewards[:4], ddof=1) + 1e-4)
    assert (scaled[4:] == 0).all()
    assert group_advantages(rewards, 1).tolist() == [0] * 8


def test_what_cannot_be_is_refused():
    ones = jnp.ones((1, 1))
    with pytest.raises(ConfigError, match="needs a reference"):
        GRPO(ones, ones, ones, ones)
    with pytest.raises(ConfigError, match="Leave reference= out"):
        PPO(ones, ones, ones, ones, reference=ones)
    with pytest.raises(ConfigError, match="low"):
        Clipped(low=1.5)
    with pytest.raises(ConfigError, match="high"):
        Clipped(high=-0.1)
    with pytest.raises(ShapeError, match="no whole groups of 3"):
        group_advantages(jnp.ones(4), 3)
    x, head, targets = jnp.ones((1, 1, 2)), jnp.ones((3, 2)), jnp.zeros((1, 1), int)
    with pytest.raises(ConfigError, match="temperature"):
        linear_policy_loss(x, head, targets, ones, ones, ones, objective=PPO, temperature=0.0)
