from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from judge import Case, complaints, results_of

from cupola.config.errors import ConfigError
from cupola.kernels.cross_entropy.api import LINEAR_LOG_PROBS
from cupola.kernels.preference import CPO, DPO, IPO, KTO, ORPO, Answers, Form, SimPO, linear_answers

DRAW = np.random.default_rng(5)
PAIRS, LENGTH, WIDTH, VOCABULARY = 3, 7, 4, 19
TARGETS = np.int32(DRAW.integers(0, VOCABULARY, (2 * PAIRS, LENGTH)))
WEIGHTS = np.float32(np.arange(LENGTH)[None] < np.array([7, 3, 0, 5, 1, 2])[:, None])
REFERENCE = np.float32(DRAW.normal(size=2 * PAIRS) - 5)
WANTED = np.float32([1, 0, 1, 1, 0, 0])
X = np.float32(DRAW.normal(size=(2 * PAIRS, LENGTH, WIDTH)))
X[WEIGHTS == 0] = np.nan
HEAD = np.float32(DRAW.normal(size=(VOCABULARY, WIDTH)))


def halves(answers):
    return Answers(*(x[:PAIRS] for x in answers)), Answers(*(x[PAIRS:] for x in answers))


def referred(loss):
    return lambda both, held: loss(*halves(both), held.sums[:PAIRS], held.sums[PAIRS:])


def bare(loss):
    return lambda both, held: loss(*halves(both))


LOSSES = {
    **{f"dpo {form.value}": referred(DPO(form=form)) for form in Form},
    "dpo, some labels wrong": referred(DPO(wrong=0.2)),
    "dpo robust, some labels wrong": referred(DPO(form=Form.ROBUST, wrong=0.2)),
    "ipo": lambda both, held: IPO()(*halves(both), *halves(held)),
    "orpo": bare(ORPO()),
    "simpo": bare(SimPO()),
    "cpo": bare(CPO()),
    "kto": lambda both, held: KTO(undesirable=1.5)(
        both, held.sums, jnp.asarray(WANTED), jnp.asarray(0.3, both[0].dtype)
    ),
}


@cache
def case_of(loss):
    def plain(x, head, product):
        logits = product("btd,vd->btv", jnp.where(WEIGHTS[..., None] != 0, x, 0), head)
        apart = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
        shares = apart - jnp.log(jnp.exp(apart).sum(-1, keepdims=True))
        of_targets = jnp.where(TARGETS[..., None] == np.arange(VOCABULARY)[None, None], shares, 0).sum(-1)
        tokens = jnp.asarray(WEIGHTS.sum(-1), x.dtype)
        held = Answers(jnp.asarray(REFERENCE, x.dtype), tokens)
        return loss(Answers((WEIGHTS * of_targets).sum(-1), tokens), held)

    return Case(LINEAR_LOG_PROBS, "preference", (X, HEAD), lambda arrays, policy: (*arrays, policy), plain)


def fused(loss, name):
    def call(x, head, policy):
        targets = jnp.where(WEIGHTS != 0, TARGETS, -1)
        both = linear_answers(x, head, targets, jnp.asarray(WEIGHTS), precision=policy, implementation=name)
        return loss(both, Answers(jnp.asarray(REFERENCE), jnp.asarray(WEIGHTS.sum(-1))))

    return call


@pytest.mark.parametrize(
    ("name", "implementation"),
    # Below the log-probabilities all is the same: one loss over each way to compute those is quick.
    [
        pytest.param(name, way, marks=[pytest.mark.slow] * (way != "xla" and name != "dpo sigmoid"))
        for name in LOSSES
        for way in ("xla", "reference", None)
    ],
)
def test_fused_with_the_head_it_is_the_plain_formula(name, implementation):
    case = case_of(LOSSES[name])
    assert complaints(case, results_of(case, fused(LOSSES[name], implementation))) == []


def test_a_loss_over_the_wrong_answers_is_caught():
    def swapped(both, held):
        return LOSSES["dpo sigmoid"](Answers(*(x[::-1] for x in both)), held)

    case = case_of(LOSSES["dpo sigmoid"])
    assert complaints(case, results_of(case, fused(swapped, "reference")))


def one(sums, tokens=1.0):
    return Answers(jnp.asarray([sums]), jnp.asarray([tokens]))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


A, B = 0.5 * (-1.0 + 2.0), 0.5 * (-4.0 + 1.0)
"""Of DPO with beta 0.5, answers of log-probability -1 and -4, under the reference -2 and -1."""


@pytest.mark.parametrize(
    ("form", "wrong", "expected"),
    [
        (Form.SIGMOID, 0.0, -np.log(sigmoid(A - B))),
        (Form.SIGMOID, 0.1, -0.9 * np.log(sigmoid(A - B)) - 0.1 * np.log(sigmoid(B - A))),
        (Form.ROBUST, 0.1, (-0.9 * np.log(sigmoid(A - B)) + 0.1 * np.log(sigmoid(B - A))) / 0.8),
        (Form.HINGE, 0.0, 0.0),
        (Form.APO_ZERO, 0.0, 1 - sigmoid(A) + sigmoid(B)),
        (Form.APO_DOWN, 0.0, sigmoid(A) + 1 - sigmoid(A - B)),
        (Form.SPPO, 0.0, (1.0 - 1) ** 2 + (-3.0 + 1) ** 2),
        (Form.NCA, 0.0, -np.log(sigmoid(A)) - np.log(sigmoid(-A)) / 2 - np.log(sigmoid(-B)) / 2),
    ],
)
def test_the_forms_of_dpo_by_hand(form, wrong, expected):
    with jax.enable_x64(True):
        loss = np.asarray(
            DPO(beta=0.5, form=form, wrong=wrong)(one(-1.0), one(-4.0), jnp.asarray([-2.0]), jnp.asarray([-1.0]))
        )[0]
    assert abs(float(loss) - expected) <= 8 * np.finfo(np.float64).eps * max(1, abs(expected))


def test_the_losses_without_dpo_by_hand():
    w, other = -1.0 / 2, -4.0 / 4
    odds = np.log(np.exp(w) / (1 - np.exp(w))) - np.log(np.exp(other) / (1 - np.exp(other)))
    with jax.enable_x64(True):
        pair = one(-1.0, 2.0), one(-4.0, 4.0)
        found = [
            IPO(beta=0.5)(*pair, one(-2.0, 2.0), one(-2.0, 4.0)),
            ORPO(ratio=0.2)(*pair),
            SimPO(beta=2.0, margin=0.5)(*pair),
            CPO(beta=0.5, likelihood=2.0)(*pair),
            KTO(beta=0.5, desirable=2.0)(pair[0], jnp.asarray([-2.0]), jnp.asarray([1.0]), jnp.asarray(0.25)),
            KTO(beta=0.5, undesirable=3.0)(pair[0], jnp.asarray([-2.0]), jnp.asarray([0.0]), jnp.asarray(-0.25)),
        ]
        found = [np.asarray(loss)[0] for loss in found]
    expected = [
        (0.5 - -0.5 - 1) ** 2,
        -w - 0.2 * np.log(sigmoid(odds)),
        -np.log(sigmoid(2 * (w - other) - 0.5)),
        -np.log(sigmoid(0.5 * 3)) - 2 * w,
        2 * (1 - sigmoid(0.5 * (1 - 0.25))),
        3 * (1 - sigmoid(0.5 * (0 - 1))),
    ]
    for loss, true in zip(found, expected, strict=True):
        assert abs(float(loss) - true) <= 8 * np.finfo(np.float64).eps * max(1, abs(true))


def test_nothing_flows_to_the_reference():
    grads = jax.grad(lambda r: DPO()(one(-1.0), one(-2.0), r, r)[0])(jnp.asarray([-1.0]))
    assert (grads == 0).all()


def test_a_certain_answer_has_finite_odds():
    value, grads = jax.value_and_grad(lambda s: ORPO()(one(0.0), Answers(s[None], jnp.ones(1)))[0])(jnp.asarray(-1.0))
    assert jnp.isfinite(value)
    assert jnp.isfinite(grads)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: DPO(beta=0.0), "beta"),
        (lambda: DPO(wrong=0.5), "wrong"),
        (lambda: DPO(form=Form.HINGE, wrong=0.1), "wrong"),
        (lambda: IPO(beta=-1.0), "beta"),
        (lambda: ORPO(ratio=0.0), "ratio"),
        (lambda: SimPO(beta=0.0), "beta"),
        (lambda: CPO(beta=0.0), "beta"),
        (lambda: KTO(beta=0.0), "beta"),
    ],
)
def test_what_cannot_be_is_refused(make, where):
    with pytest.raises(ConfigError, match=where):
        make()
