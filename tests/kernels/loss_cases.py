"""Cases of the losses over a vocabulary beside the plain cross-entropy: objectives and divergences.

Not here: tolerances (`judge.py`), the table that they are part of (`cases.py`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from judge import Case

from cupola.kernels.cross_entropy.api import CROSS_ENTROPY, LINEAR_CROSS_ENTROPY
from cupola.kernels.cross_entropy.objective import Objective
from cupola.kernels.divergence.api import LINEAR_DIVERGENCE
from cupola.kernels.divergence.measure import Kind, Measure

NAN = np.float32(np.nan)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def objective_of(name, rows, vocabulary, *, weights=None, classes=False, width=5, given=False, size=1.0, **objective):
    """Cross-entropy with an objective, of a linear head or of given logits; positions of weight 0 hold NaN."""
    draw = np.random.default_rng(len(name))
    targets = np.int32(draw.integers(0, vocabulary, rows))
    weights = np.float32(draw.choice([0, 0.5, 1, 2], rows) if weights is None else weights)
    class_weights = np.float32(draw.choice([0.25, 1, 3], vocabulary)) if classes else None
    x, head = normal(*rows, vocabulary if given else width), normal(vocabulary, width, seed=1) * np.float32(size)
    x[weights == 0] = NAN
    smooth, z, cap = (objective.get(key, 0.0) for key in ("label_smoothing", "z_loss", "soft_cap"))

    def loss(x, *head, product):
        counts = weights != 0
        seen = jnp.where(counts[..., None], x, 0)
        logits = product("btd,vd->btv", seen, *head) if head else seen
        logits = cap * jnp.tanh(logits / cap) if cap else logits
        by = jnp.ones(vocabulary) if class_weights is None else jnp.asarray(class_weights, logits.dtype)
        top = jax.lax.stop_gradient(logits.max(-1))
        normalizer = top + jnp.log(jnp.exp(logits - top[..., None]).sum(-1))
        costs = by[None, None] * (normalizer[..., None] - logits)
        hit = jnp.where(targets[..., None] == np.arange(vocabulary)[None, None], costs, 0).sum(-1)
        each = (1 - smooth) * hit + smooth * costs.mean(-1) + z * normalizer**2
        return (weights * jnp.where(counts, each, 0)).sum()

    rest = Objective(**objective), None if class_weights is None else jnp.asarray(class_weights)
    held = jnp.asarray(targets), jnp.asarray(weights)
    if given:
        return Case(CROSS_ENTROPY, name, (x,), lambda a, _: (*a, *held, *rest), loss, ("B T V",), takes_policy=False)
    return Case(LINEAR_CROSS_ENTROPY, name, (x, head), lambda a, policy: (*a, *held, policy, *rest), loss, ())


ALL = {"label_smoothing": 0.1, "z_loss": 0.01, "soft_cap": 3.0, "classes": True}
OBJECTIVES = [
    objective_of("smoothing", (2, 5), 19, label_smoothing=0.1),
    objective_of("z-loss", (2, 5), 19, z_loss=0.01),
    objective_of("soft-cap", (2, 5), 19, soft_cap=2.0, size=3.0),
    objective_of("class weights", (2, 5), 19, classes=True),
    objective_of("all at once, past a chunk", (1, 141), 37, **ALL),
    objective_of("all at once, blocks of a vocabulary", (1, 5), 16_380, width=2, **ALL),
    objective_of("all at once, every target ignored", (2, 3), 9, weights=np.zeros((2, 3)), **ALL),
    objective_of("typical", (4, 2), 38, given=True),
    objective_of("given logits, all at once", (3, 7), 129, given=True, **ALL),
    objective_of("given logits, every target ignored", (2, 3), 9, given=True, weights=np.zeros((2, 3)), **ALL),
    objective_of("given logits, a vocabulary of one", (1, 1), 1, given=True, weights=[[1]]),
]


def divergence_of(name, rows, vocabulary, *, weights=None, widths=(5, 3), size=1.0, same=False, **measure):
    """A divergence between two linear heads; positions of weight 0 hold NaN."""
    draw = np.random.default_rng(len(name))
    weights = np.float32(draw.choice([0, 0.5, 1, 2], rows) if weights is None else weights)
    teacher = [normal(*rows, widths[1], seed=2), normal(vocabulary, widths[1], seed=3) * np.float32(size)]
    arrays = normal(*rows, widths[0]), normal(vocabulary, widths[0], seed=1) * np.float32(size)
    teacher = [x.copy() for x in arrays] if same else teacher
    for each in (arrays[0], teacher[0]):
        each[weights == 0] = NAN
    measured = Measure(**measure)

    def log_shares(x, head, product):
        logits = product("btd,vd->btv", x, head) / measured.temperature
        apart = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
        return apart - jnp.log(jnp.exp(apart).sum(-1, keepdims=True))

    def loss(x, head, product):
        counts = (weights != 0)[..., None]
        log_q = log_shares(jnp.where(counts, x, 0), head, product)
        held = [jnp.asarray(each, x.dtype) for each in teacher]
        log_p = log_shares(jnp.where(counts, held[0], 0), held[1], product)
        p, q, beta = jnp.exp(log_p), jnp.exp(log_q), measured.beta
        if measured.kind is Kind.KL:
            parts = p * (log_p - log_q)
        elif measured.kind is Kind.REVERSE_KL:
            parts = q * (log_q - log_p)
        elif measured.kind is Kind.TVD:
            parts = jnp.abs(p - q) / 2
        else:
            log_m = jnp.log(beta * p + (1 - beta) * q)
            parts = beta * p * (log_p - log_m) + (1 - beta) * q * (log_q - log_m)
        return (weights * parts.sum(-1)).sum()

    def arguments(arrays, precision):
        return *arrays, *map(jnp.asarray, teacher), jnp.asarray(weights), precision, measured

    return Case(LINEAR_DIVERGENCE, name, arrays, arguments, loss, ("B T D", "V D"))


KINDS = [("kl", 0.5), ("reverse_kl", 0.5), ("jsd", 0.5), ("jsd", 0.1), ("tvd", 0.5)]
DIVERGENCES = [
    divergence_of("typical", (4, 6), 38, kind=Kind.JSD),
    *(
        divergence_of(f"{kind} {beta}, {name}", rows, size, kind=Kind(kind), beta=beta, **more)
        for kind, beta in KINDS
        for name, rows, size, more in (
            ("odd sizes, warm", (2, 5), 19, {"temperature": 2.0}),
            ("blocks of a vocabulary", (1, 3), 8190, {"widths": (2, 3)}),
            ("every target ignored", (2, 3), 9, {"weights": np.zeros((2, 3))}),
        )
    ),
    divergence_of("past a chunk", (1, 141), 37, kind=Kind.REVERSE_KL, temperature=0.5),
    divergence_of("far apart", (2, 3), 9, kind=Kind.KL, size=20.0),
    divergence_of("ties of total variation", (2, 3), 9, kind=Kind.TVD, size=0.0, same=True),
    divergence_of("a vocabulary of one", (1, 2), 1, kind=Kind.JSD),
]
