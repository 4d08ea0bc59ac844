"""Every implementation of every operation, on every case of the one table; broken ones are caught."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, OPERATIONS, TYPICAL
from form_cases import AS_ONE, BROKEN_ON_FORMS
from judge import complaints, cotangent_of, results_of, standard
from matrix import honoured, pairs
from row_cases import BROKEN_ON_ROWS

from cupola.core.dtype import FLOAT32
from cupola.kernels import operations as registry
from cupola.kernels.adamw.api import ADAMW, GLOBAL_NORM
from cupola.kernels.attention import reference as attention
from cupola.kernels.cross_entropy import reference as cross_entropy
from cupola.kernels.divergence import reference as divergence
from cupola.kernels.divergence.measure import Kind
from cupola.kernels.gated import reference as gated
from cupola.kernels.gated.activation import Activation
from cupola.kernels.matmul import reference as matmul
from cupola.kernels.matmul.form import Grouped, Int8, LowRank
from cupola.kernels.norm import reference as norm
from cupola.kernels.paged.api import PAGED_ATTEND
from cupola.kernels.rotary import reference as rotary
from cupola.kernels.sample.api import DRAW, LOG_SUM

OF_THEIR_OWN = {PAGED_ATTEND, ADAMW, GLOBAL_NORM, DRAW, LOG_SUM}
"""Operations whose gradient nobody takes: what they are given stands with their own tests."""


@pytest.mark.parametrize(("case", "implementation"), pairs(CASES))
def test_matches_the_plain_formula(case, implementation):
    names = honoured(case, implementation)
    assert complaints(case, results_of(case, implementation.function, names)) == []


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_every_operation_has_a_reference_that_refuses_nothing(operation):
    last = operation.implementations[-1]
    cases = [case for case in CASES if case.operation is operation]
    assert last.name == "reference"
    assert not any(last.refuses(*case.arguments(case.arrays, FLOAT32)) for case in cases)


# What is said aside has no gradient.
@pytest.mark.parametrize("case", [case for case in TYPICAL if case.operation is not AS_ONE], ids=str)
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


def unweighted(x, head, targets, weights, *rest):
    return cross_entropy.linear_cross_entropy(x, head, targets, jnp.ones_like(weights), *rest)


def without(**changes):
    """Returns the fused cross-entropy with another objective than it was given."""

    def changed(x, head, targets, weights, precision, objective, class_weights):
        objective = dataclasses.replace(objective, **changes)
        return cross_entropy.linear_cross_entropy(x, head, targets, weights, precision, objective, class_weights)

    return changed


def classes_alike(x, head, targets, weights, precision, objective, class_weights):
    return cross_entropy.linear_cross_entropy(x, head, targets, weights, precision, objective)


def measured(**changes):
    """Returns the divergence under another measure than it was given."""
    return lambda *given: divergence.linear_divergence(*given[:-1], dataclasses.replace(given[-1], **changes))


def unweighted_divergence(x, head, teacher_x, teacher_head, weights, *rest):
    return divergence.linear_divergence(x, head, teacher_x, teacher_head, jnp.ones_like(weights), *rest)


def clipped_targets(x, head, targets, *rest):
    return cross_entropy.linear_log_probs(x, head, jnp.maximum(targets, 1), *rest)


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
    "attend: prefix ignored": ("prefixes", replaced(prefix=None)),
    "attend: prefix ignored behind a window": ("a prefix behind a window", replaced(prefix=None)),
    "attend: soft cap ignored": ("a soft cap", lambda *given: attention.attend(*given[:6])),
    "attend: sinks ignored": ("sinks", lambda *given: attention.attend(*given[:7])),
    "attend: no gradient for sinks": ("sinks", without_gradient(attention.attend, 7)),
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
    "linear_cross_entropy: no smoothing": ("smoothing", without(label_smoothing=0.0)),
    "linear_cross_entropy: no z-loss": ("z-loss", without(z_loss=0.0)),
    "linear_cross_entropy: no soft-cap": ("soft-cap", without(soft_cap=None)),
    "linear_cross_entropy: classes alike": ("class weights", classes_alike),
    "cross_entropy: weights ignored": (
        "typical",
        lambda logits, targets, weights, *_: cross_entropy.cross_entropy(logits, targets, jnp.ones_like(weights)),
    ),
    "linear_divergence: another kind": ("typical", measured(kind=Kind.KL)),
    "linear_divergence: temperature ignored": ("past a chunk", measured(temperature=1.0)),
    "linear_divergence: beta ignored": ("jsd 0.1, odd sizes, warm", measured(beta=0.5)),
    "linear_divergence: NaN of ignored targets": ("tvd 0.5, every target ignored", unweighted_divergence),
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
    **BROKEN_ON_FORMS,
}


FIRST = {name.partition(":")[0]: name for name in reversed(BROKEN)}
"""By operation: the broken copy that is quick to try; it shows that the judge sees this operation's numbers."""


@pytest.mark.parametrize(
    "broken", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FIRST.values())) for name in BROKEN]
)
def test_a_broken_implementation_is_caught(broken):
    operation, _, _ = broken.partition(":")
    name, function = BROKEN[broken]
    (case,) = [c for c in CASES if (c.operation.name, c.name) == (operation, name)]
    assert complaints(case, results_of(case, function))


def test_every_operation_has_cases_here_or_tests_of_its_own():
    assert set(registry.OPERATIONS) - {operation.name for operation in OPERATIONS} == {o.name for o in OF_THEIR_OWN}


def test_every_operation_has_broken_copies():
    assert {name.partition(":")[0] for name in BROKEN} == {operation.name for operation in OPERATIONS}
