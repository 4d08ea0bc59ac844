"""Retention as a value: which steps stay."""

import pytest

from cupola.checkpoint.manifest import Manifest
from cupola.checkpoint.retain import Best, Retention, best_step
from cupola.config.errors import ConfigError


def manifests(**by_metric):
    ((name, values),) = by_metric.items() or [("loss", [])]
    return [Manifest(step=i, time="", versions={}, metrics={} if v is None else {name: float(v)}, leaves=(), files=())
            for i, v in enumerate(values, start=1)]  # fmt: skip


NONE = [None] * 9


@pytest.mark.parametrize(
    ("policy", "losses", "kept"),
    [
        (Retention(), NONE, {7, 8, 9}),
        (Retention(last=20), NONE, set(range(1, 10))),
        (Retention(last=1, every_steps=3), NONE, {3, 6, 9}),
        (Retention(last=1, best="loss"), [3, 1, 2], {2, 3}),
        (Retention(last=1, best="loss", best_is=Best.HIGHEST), [3, 1, 2], {1, 3}),
        (Retention(last=1, best="loss"), [None, float("nan"), float("-inf"), 5, 6], {4, 5}),
        (Retention(last=1, best="loss"), NONE, {9}),
    ],
)
def test_what_is_kept(policy, losses, kept):
    assert policy.kept(manifests(loss=losses), newest=len(losses)) == kept


def test_the_one_written_last_stays_below_higher_steps():
    assert Retention(last=1).kept(manifests(loss=NONE), newest=4) == {4, 9}


def test_of_equals_the_later_is_best():
    assert best_step(manifests(loss=[2, 1, 1, 3]), "loss", Best.LOWEST) == 3


@pytest.mark.parametrize(("field", "value"), [("last", 0), ("every_steps", 0)])
def test_policies_that_keep_nothing_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"{field}=1 or more"):
        Retention(**{field: value})
