import itertools
import random

import paper
import pytest

from cupola.serve.admit import Cache, Limits, Policy
from cupola.serve.errors import Busy, InvalidRequest
from cupola.serve.request import Grammar, GrammarKind, Request, Task
from cupola.serve.schedule import Scheduler
from cupola.serve.sequence import State

LIMITS = Limits(max_running=4, budget_tokens=8, page_size=2, pages=65, max_length=64)
GRAMMAR = Grammar(GrammarKind.REGEX, ".*")


@pytest.fixture
def make():
    """Makes a scheduler, and requests for it."""

    def make(**changes):
        limits = LIMITS
        for name, value in changes.items():
            limits = limits.replace(name, value)
        return Scheduler(limits, vocabulary=paper.VOCABULARY, adapters=("red",))

    return make


names = itertools.count()


def ask(prompt, **changes):
    return Request(id=f"q{next(names)}", prompt=tuple(prompt), **changes)


def step(scheduler, token=1):
    """Plans and commits a step at once; returns {sequence: (start, count, draws)}."""
    plan = scheduler.plan()
    scheduler.check()
    if plan is None:
        return {}
    for row in plan.rows:
        scheduler.commit(row, [token] * (row.draws + len(row.draft)))
    for row in plan.rows:
        if len(row.sequence.tokens) >= row.sequence.most_tokens and row.stop >= row.sequence.prompt_tokens:
            scheduler.finish(row.sequence)
    scheduler.check()
    return {row.sequence: (row.start, row.count, row.draws) for row in plan.rows}


def test_a_prompt_is_computed_in_chunks_beside_what_decodes(make):
    scheduler = make()
    one = scheduler.submit(ask([1, 2]))
    assert step(scheduler) == {one: (0, 2, True)}
    two = scheduler.submit(ask(range(15)))
    assert step(scheduler) == {one: (2, 1, True), two: (0, 8, False)}
    assert step(scheduler) == {one: (3, 1, True), two: (8, 7, True)}
    assert step(scheduler) == {one: (4, 1, True), two: (15, 1, True)}


def test_a_part_of_a_prompt_ends_where_a_page_does(make):
    scheduler = make(budget_tokens=7, page_size=3, max_chunks=2)
    a, b = scheduler.submit(ask(range(14))), scheduler.submit(ask([9] * 7))
    assert step(scheduler) == {a: (0, 6, False)}
    assert step(scheduler) == {a: (6, 6, False)}
    assert step(scheduler) == {a: (12, 2, True), b: (0, 3, False)}
    assert step(scheduler)[b] == (3, 4, True)


def test_several_short_prompts_share_a_step(make):
    scheduler = make(max_chunks=3)
    a, b, c = (scheduler.submit(ask([i] * 3)) for i in range(3))
    assert step(scheduler) == {a: (0, 3, True), b: (0, 3, True), c: (0, 2, False)}


def test_padded_rows_stay_within_the_budget(make):
    scheduler = make(max_chunks=3, chunk_widths=(2, 4, 8))
    a, b, c = (scheduler.submit(ask([i] * n)) for i, n in enumerate((3, 9, 2)))
    assert step(scheduler) == {a: (0, 3, True), b: (0, 4, False)}
    assert step(scheduler) == {a: (3, 1, True), b: (4, 5, True)}
    assert c in step(scheduler)


def test_a_prompt_that_is_cached_computes_its_last_token_alone(make):
    scheduler = make()
    prompt = [1, 2, 3, 4, 5]
    scheduler.submit(ask(prompt))
    step(scheduler)
    again = scheduler.submit(ask(prompt))
    other = scheduler.submit(ask(prompt, namespace="other"))
    red = scheduler.submit(ask(prompt, adapter="red"))
    rows = step(scheduler)
    assert rows[again] == (4, 1, True)
    assert again.cached_tokens == 4
    while not (other.generated and red.generated):
        step(scheduler)
    assert other.cached_tokens == red.cached_tokens == 0


@pytest.mark.parametrize("changes", [{"task": Task.SCORE}, {"task": Task.EMBED}, {"prompt_logprobs": True}])
def test_where_every_prompt_position_is_wanted_none_is_skipped(make, changes):
    scheduler = make()
    scheduler.submit(ask([1, 2, 3, 4, 5]))
    step(scheduler)
    wants = scheduler.submit(ask([1, 2, 3, 4, 5], **changes))
    assert step(scheduler)[wants] == (0, 5, "task" not in changes)
    assert (wants.state is State.FINISHED) == ("task" in changes)


def test_with_the_cache_off_nothing_is_found(make):
    scheduler = make(cache=Cache.OFF)
    for _ in range(2):
        sequence = scheduler.submit(ask([1, 2, 3, 4, 5], limit_tokens=1))
        assert step(scheduler)[sequence] == (0, 5, True)
    assert scheduler.pages.available == 64


def test_a_limit_of_no_tokens_draws_none(make):
    scheduler = make()
    sequence = scheduler.submit(ask([1], limit_tokens=0))
    assert step(scheduler) == {sequence: (0, 1, False)}
    assert sequence.state is State.FINISHED


def test_generated_text_is_found_by_the_next_turn(make):
    scheduler = make()
    first = scheduler.submit(ask([1, 2, 3], limit_tokens=4))
    while first.state is not State.FINISHED:
        step(scheduler, token=7)
    second = scheduler.submit(ask([1, 2, 3, 7, 7, 7, 7, 5]))
    step(scheduler)
    assert second.cached_tokens == 6


def test_one_step_ahead_a_token_is_computed_before_it_is_known(make):
    scheduler = make()
    sequence = scheduler.submit(ask([1, 2], limit_tokens=3))
    first, second, third = (scheduler.plan().rows[0] for _ in range(3))
    assert [(r.start, r.count, r.draws, r.unknown) for r in (first, second, third)] == [
        (0, 2, True, False),
        (2, 1, True, True),
        (3, 1, True, True),
    ]
    assert scheduler.plan() is None  # Its limit is in flight.
    for row, token in ((first, 5), (second, 6), (third, 7)):
        scheduler.commit(row, [token])
    assert sequence.generated == [5, 6, 7]


def test_who_must_know_the_last_token_waits_for_it(make):
    scheduler = make()
    sequence = scheduler.submit(ask([1, 2]))
    sequence.needs_sync = True
    row = scheduler.plan().rows[0]
    assert scheduler.plan() is None
    scheduler.commit(row, [3])
    assert scheduler.plan().rows[0].unknown is False


def test_a_draft_is_rolled_back_to_what_was_accepted(make):
    scheduler = make()
    sequence = scheduler.submit(ask([1, 2], limit_tokens=6))
    step(scheduler)
    sequence.draft = [4, 5, 6, 7, 8, 9]
    (row,) = scheduler.plan().rows
    assert (row.start, row.count, row.draft, row.tokens) == (2, 5, (4, 5, 6, 7), [1, 4, 5, 6, 7])
    scheduler.commit(row, [4, 5, 9])
    assert (sequence.computed, sequence.generated) == (5, [1, 4, 5, 9])
    (row,) = scheduler.plan().rows
    assert (row.start, row.tokens) == (5, [9])


def test_nobody_is_retracted_for_a_draft(make):
    scheduler = make(pages=6, max_chunks=2)
    scheduler._reserve = 0.0
    one, two = (scheduler.submit(ask([i, i], limit_tokens=5)) for i in range(2))
    while not (one.generated and two.generated):
        step(scheduler)
    one.draft = two.draft = [3, 3, 3, 3]
    rows = scheduler.plan().rows
    assert scheduler.retractions == 0
    assert sum(len(row.sequence.pages) for row in rows) == 5
    assert all(row.stop <= 2 * len(row.sequence.pages) for row in rows)


def test_forced_tokens_are_computed_together(make):
    scheduler = make()
    sequence = scheduler.submit(ask([1, 2], grammar=GRAMMAR))
    step(scheduler)
    scheduler.extend(sequence, [7, 8, 9])
    assert step(scheduler) == {sequence: (2, 4, True)}
    step(scheduler)
    scheduler.extend(sequence, [6, 5])
    assert step(scheduler) == {sequence: (6, 4, True)}  # From the beginning of the page that holds token 7.
    scheduler.plan()
    with pytest.raises(ValueError, match="none is being drawn"):
        scheduler.extend(sequence, [1])


def test_what_a_row_cannot_have_drawn_is_refused(make):
    scheduler = make()
    scheduler.submit(ask([1, 2]))
    (row,) = scheduler.plan().rows
    for tokens in ([], [1, 2]):
        with pytest.raises(ValueError, match="gave"):
            scheduler.commit(row, tokens)


def test_the_last_to_come_is_retracted_and_goes_on_later(make):
    engine = paper.Engine(LIMITS.replace("pages", 11).replace("max_chunks", 4))
    engine.scheduler._reserve = 0.0  # As after a long time without retractions.
    requests = [ask([i, i + 1, 0], limit_tokens=12) for i in range(3)]
    for request in requests:
        engine.submit(request)
    engine.drain()
    engine.audit_end()
    assert {r.id: engine.answers[r.id] for r in requests} == {r.id: [("done", paper.continuation(r))] for r in requests}


def test_memory_for_output_is_kept_so_that_retractions_are_rare(make):
    def retractions(reserve):
        scheduler = make(pages=41, max_running=16, max_chunks=8)
        for i in range(12):
            scheduler.submit(ask([i, i], limit_tokens=20))
        while scheduler.waiting or scheduler.running:
            if reserve is not None:
                scheduler._reserve = reserve
            step(scheduler)
        return scheduler.retractions

    assert retractions(None) < retractions(0.0) / 2


def test_a_token_in_flight_is_not_lost_by_a_retraction(make):
    scheduler = make()
    sequence = scheduler.submit(ask([1, 2, 3]))
    row = scheduler.plan().rows[0]
    scheduler.retract(sequence)
    scheduler.check()
    assert scheduler.plan() is None
    scheduler.commit(row, [9])
    assert sequence.generated == [9]
    (row,) = scheduler.plan().rows
    assert (row.start, row.tokens) == (2, [3, 9])


def test_larger_priority_goes_first_and_takes_the_place_of_smaller(make):
    scheduler = make(max_running=2, max_chunks=4)
    low, mid = (scheduler.submit(ask([i], priority=i)) for i in range(2))
    step(scheduler)
    later, high = scheduler.submit(ask([3], priority=1)), scheduler.submit(ask([4], priority=5))
    rows = step(scheduler)
    assert set(rows) == {mid, high}
    assert (low.state, later.state) == (State.WAITING, State.WAITING)
    assert low.tokens == [0, 1]


def test_the_longest_shared_prefix_goes_first_but_not_for_ever(make):
    scheduler = make(max_running=1, max_wait_steps=3)
    scheduler.submit(ask([1, 2, 3, 4], limit_tokens=1))
    step(scheduler)
    stranger = scheduler.submit(ask([9, 9, 9], limit_tokens=1))
    order = []
    for _ in range(6):
        scheduler.submit(ask([1, 2, 3, 4, 5], limit_tokens=1))
        order += step(scheduler)
    assert order.index(stranger) == 3


@pytest.mark.parametrize(("policy", "first"), [(Policy.FIRST_COME, 0), (Policy.LONGEST_PREFIX, 1)])
def test_policies(make, policy, first):
    scheduler = make(policy=policy)
    scheduler.submit(ask([1, 2, 3], limit_tokens=1))
    step(scheduler)
    asked = [scheduler.submit(ask([9, 9, 9])), scheduler.submit(ask([1, 2, 3]))]
    assert asked[first] in step(scheduler)


def test_who_shares_a_prompt_waits_until_the_first_has_computed_it(make):
    scheduler = make(max_chunks=4)
    one, two = (scheduler.submit(ask([1, 2, 3, 4, 5])) for _ in range(2))
    other = scheduler.submit(ask([8, 8]))
    assert set(step(scheduler)) == {one, other}
    assert step(scheduler)[two] == (4, 1, True)


def test_an_aborted_request_frees_its_pages_at_once(make):
    scheduler = make(cache=Cache.OFF)
    sequence = scheduler.submit(ask([1, 2, 3]))
    waiting = scheduler.submit(ask([1, 2, 3]))
    row = scheduler.plan().rows[0]
    assert scheduler.pages_used == 2
    assert scheduler.abort(sequence.request.id) is sequence
    assert scheduler.pages_used == 0
    scheduler.commit(row, [5])
    assert sequence.generated == []
    assert scheduler.abort(sequence.request.id) is None
    scheduler.abort(waiting.request.id)
    assert scheduler.plan() is None
    scheduler.check()


def test_an_id_is_taken_until_its_request_ends(make):
    scheduler = make()
    request = ask([1])
    sequence = scheduler.submit(request)
    assert scheduler.find(request.id) is sequence
    with pytest.raises(InvalidRequest, match="is being served"):
        scheduler.submit(request)
    scheduler.finish(sequence)
    scheduler.submit(request)


def test_a_full_queue_is_busy(make):
    scheduler = make(max_waiting=1)
    scheduler.submit(ask([1]))
    with pytest.raises(Busy):
        scheduler.submit(ask([1]))


def test_who_is_late_is_told_once(make):
    scheduler = make()
    late = scheduler.submit(ask([1], timeout_seconds=2.0), now_seconds=10.0)
    ended = scheduler.submit(ask([1], timeout_seconds=1.0), now_seconds=10.0)
    scheduler.submit(ask([1]), now_seconds=10.0)
    scheduler.finish(ended)
    assert scheduler.expired(11.9) == []
    assert scheduler.expired(12.0) == [late]
    assert scheduler.expired(99.0) == []


def test_deadlines_of_what_has_ended_are_forgotten(make):
    scheduler = make()
    for _ in range(300):
        scheduler.finish(scheduler.submit(ask([1], timeout_seconds=1e6)))
    assert len(scheduler._deadlines) < 100


def test_nothing_of_old_weights_is_kept(make):
    scheduler = make()
    old = scheduler.submit(ask([1, 2, 3, 4, 5], limit_tokens=3))
    step(scheduler)
    scheduler.clear()
    while old.state is not State.FINISHED:
        step(scheduler)
    assert scheduler.tree.cached_pages == 0
    assert scheduler.pages.available == 64


@pytest.mark.parametrize(
    "spoil",
    [
        lambda scheduler, sequence: scheduler.pages.take(1),
        lambda scheduler, sequence: sequence.pages.reverse(),
        lambda scheduler, sequence: scheduler._slots.pop(),
        lambda scheduler, sequence: setattr(sequence, "computed", 7),
        lambda scheduler, sequence: scheduler.tree.lock(sequence.node),
    ],
)
def test_the_audit_finds(make, spoil):
    scheduler = make()
    sequence = scheduler.submit(ask([1, 2, 3, 4, 5]))
    step(scheduler)
    spoil(scheduler, sequence)
    with pytest.raises(RuntimeError):
        scheduler.check()


def found(paths, policy):
    """Returns how many tokens are found where requests come one at a time, all being there from the start.

    The last token of each is its own: it is always computed.
    """
    longest = max(len(path) for path in paths) + 1
    limits = Limits(
        max_running=1, budget_tokens=64, page_size=1, pages=longest + 1, policy=policy, max_wait_steps=99, max_length=64
    )
    scheduler = Scheduler(limits, vocabulary=100)
    asked = [scheduler.submit(ask((*path, 50 + i), limit_tokens=1)) for i, path in enumerate(paths)]
    while scheduler.waiting:
        for row in scheduler.plan().rows:
            scheduler.commit(row, [0])
            scheduler.finish(row.sequence)
    return sum(sequence.cached_tokens for sequence in asked)


NODES = [path for depth in range(4) for path in itertools.product((1, 2), repeat=depth)]
TREES = [
    *itertools.combinations_with_replacement(NODES[:7], 6),
    *itertools.combinations(NODES, 3),
    *(leaves for number in range(1, 9) for leaves in itertools.combinations(NODES[7:], number)),
]


@pytest.mark.parametrize("each", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_longest_shared_prefix_first_reaches_the_optimum_on_every_small_tree(each):
    """Theorem 3.1 of the paper: with a cache as large as the longest request, no order finds more."""
    missed = 0
    for number, tree in enumerate(TREES[::each]):
        paths = list(tree)
        random.Random(number).shuffle(paths)
        edges = {path[:i] for path in paths for i in range(1, len(path) + 1)}
        optimum = sum(map(len, paths)) - len(edges)
        assert found(paths, Policy.LONGEST_PREFIX) == optimum, paths
        missed += number % 10 == 0 and found(paths, Policy.FIRST_COME) < optimum
    assert missed > 50 / each
