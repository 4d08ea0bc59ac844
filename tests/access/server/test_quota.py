import math

import pytest

from cupola.access.errors import Status
from cupola.access.server.quota import Allowance, OverQuota, Quota, Spending, Work


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_fills_again(clock):
    quota = Quota(Allowance(questions_per_second=2, questions_at_once=3), clock=clock)
    for _ in range(3):
        quota.spend("acme", Spending.QUESTIONS)
    with pytest.raises(OverQuota, match="used up its questions: 2 per second") as error:
        quota.spend("acme", Spending.QUESTIONS)
    assert error.value.status is Status.RESOURCE_EXHAUSTED
    assert error.value.retry_seconds == pytest.approx(0.5)
    clock.now += error.value.retry_seconds
    quota.spend("acme", Spending.QUESTIONS)
    clock.now += 100.0
    for _ in range(3):
        quota.spend("acme", Spending.QUESTIONS)
    with pytest.raises(OverQuota):
        quota.spend("acme", Spending.QUESTIONS)


def test_a_batch_over_what_is_left_goes_through_once_and_is_paid_off(clock):
    quota = Quota(Allowance(writes_per_second=10, writes_at_once=10), clock=clock)
    quota.spend("acme", Spending.WRITES, 1000)
    with pytest.raises(OverQuota) as error:
        quota.spend("acme", Spending.WRITES)
    assert error.value.retry_seconds == pytest.approx(99.1)


def test_tenants_and_kinds_do_not_share(clock):
    quota = Quota(
        Allowance(questions_per_second=1, questions_at_once=1),
        {"big": Allowance(), "none": Allowance(questions_per_second=0, questions_at_once=0)},
        clock=clock,
    )
    quota.spend("acme", Spending.QUESTIONS)
    quota.spend("other", Spending.QUESTIONS)
    quota.spend("acme", Spending.WRITES)
    for _ in range(100):
        quota.spend("big", Spending.QUESTIONS)
    with pytest.raises(OverQuota):
        quota.spend("acme", Spending.QUESTIONS)
    with pytest.raises(OverQuota, match="larger allowance") as error:
        quota.spend("none", Spending.QUESTIONS)
    assert math.isfinite(error.value.retry_seconds)


def test_what_goes_on_is_bounded_and_ends_with_an_error_too():
    quota = Quota(Allowance(calls=1, streams=2))
    with quota.working("acme", Work.CALLS):
        with quota.working("acme", Work.STREAMS), quota.working("other", Work.CALLS):
            pass
        with pytest.raises(OverQuota, match="1 calls going on"), quota.working("acme", Work.CALLS):
            pytest.fail("came in")
    with pytest.raises(KeyError), quota.working("acme", Work.CALLS):
        raise KeyError
    with quota.working("acme", Work.CALLS):
        pass
