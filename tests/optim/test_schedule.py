import math

import jax
import jax.numpy as jnp
import pytest

from cupola.core.errors import ConfigError
from cupola.optim.schedule import WSD, Constant, Cosine, Linear, Shape

ALL = [
    Constant(warmup=0.1),
    Linear(warmup=0.2, final=0.1),
    Cosine(warmup=0.2, final=0.1),
    WSD(warmup=0.1, decay=0.4),
    WSD(warmup=0.1, decay=0.4, final=0.2, shape=Shape.ONE_MINUS_SQRT),
    WSD(warmup=0.1, decay=0.4, final=0.2, shape=Shape.EXPONENTIAL),
]


def at(schedule, progress):
    return float(jax.jit(schedule)(jnp.float32(progress)))


@pytest.mark.parametrize(
    ("schedule", "progress", "share"),
    [
        (Constant(), 0.0, 1.0),
        (Constant(warmup=0.1), 0.025, 0.25),
        (Constant(warmup=0.1), 1.0, 1.0),
        (Linear(), 0.0, 1.0),
        (Linear(warmup=0.2, final=0.1), 0.1, 0.5),
        (Linear(warmup=0.2, final=0.1), 0.6, 0.55),
        (Cosine(warmup=0.2), 0.4, (1 + math.cos(math.pi / 4)) / 2),
        (Cosine(warmup=0.2, final=0.1), 0.6, 0.55),
        (WSD(warmup=0.1, decay=0.4), 0.59, 1.0),
        (WSD(warmup=0.1, decay=0.4), 0.7, 0.75),
        (WSD(decay=0.4, final=0.2, shape=Shape.ONE_MINUS_SQRT), 0.7, 0.2 + 0.8 * 0.5),
        (WSD(decay=0.5, final=0.01, shape=Shape.EXPONENTIAL), 0.5, 1.0),
        (WSD(decay=0.5, final=0.01, shape=Shape.EXPONENTIAL), 0.75, 0.1),
    ],
)
def test_closed_form(schedule, progress, share):
    # progress itself is known to 6e-8, and no slope here exceeds 10.
    assert at(schedule, progress) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_begins_at_zero_is_continuous_and_ends_at_its_final_share(schedule):
    points = jnp.linspace(0, 1, 1001)
    shares = jax.vmap(schedule)(points)
    assert shares[0] == 0
    assert at(schedule, 1.0) == jnp.float32(getattr(schedule, "final", 1.0))
    assert (shares >= 0).all()
    assert (shares <= 1).all()
    # 0.001 of progress moves 1 - sqrt(x) by sqrt(0.001 / decay) = 0.05 where it begins to fall.
    assert jnp.abs(jnp.diff(shares)).max() < 0.051


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_progress_outside_the_run_counts_as_its_ends(schedule):
    assert at(schedule, 1.3) == at(schedule, 1.0)
    assert at(schedule, -0.1) == at(schedule, 0.0)


@pytest.mark.parametrize(
    ("make", "where", "remedy"),
    [
        (lambda: Cosine(warmup=100.0), "warmup", "for 100 of 10000 steps write warmup=0.01"),
        (lambda: WSD(decay=2000.0), "decay", "for 2000 of 10000 steps write decay=0.2"),
        (lambda: Linear(warmup=-0.1), "warmup", r"Use a number in [0, 1), such as warmup=0.0."),
        (lambda: Linear(final=1.5), "final", "such as final=0.0"),
        (lambda: WSD(decay=0.0), "decay", "such as decay=0.3"),
        (lambda: WSD(warmup=0.5, decay=0.6), "decay", "Use decay=0.5 or less, or warmup=0.4 or less."),
    ],
)
def test_refuses_what_is_no_share_of_the_run(make, where, remedy):
    with pytest.raises(ConfigError) as raised:
        make()
    assert raised.value.where == where
    assert remedy in raised.value.remedy


def test_warmup_and_decay_may_fill_the_run_exactly():
    assert at(WSD(warmup=0.7, decay=0.3), 0.7) == pytest.approx(1, abs=1e-6)


def test_an_exponential_fall_ends_above_zero():
    with pytest.raises(ConfigError, match=r"final: 0.0 lies outside \(0, 1\]"):
        WSD(decay=0.5, shape=Shape.EXPONENTIAL)
