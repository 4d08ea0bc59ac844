"""The scheduler against a model that reads its context back from the pages: any order of events gives plain answers."""

import contextlib
import random

import paper
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from cupola.serve.admit import Cache, Limits, Policy
from cupola.serve.errors import Busy, ContextOverflow
from cupola.serve.radix import Radix
from cupola.serve.request import Grammar, GrammarKind, Request, Task
from cupola.serve.schedule import Scheduler

STEMS = [(1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3, 4, 9, 9, 9, 9, 9, 9, 9, 9), (1, 1, 1, 1, 1, 1, 1, 1, 1), (7,), ()]
GRAMMAR = Grammar(GrammarKind.REGEX, ".*")


def guess(sequence):
    """Sometimes right, sometimes not, sometimes too long."""
    number = sum(sequence.tokens) % 5
    tokens = list(sequence.tokens)
    for i in range(number):
        wrong = (len(tokens) + i) % 4 == 0
        tokens.append((paper.following(tokens, sequence.request.adapter) + wrong) % paper.VOCABULARY)
    return tokens[len(sequence.tokens) :]


class Served(RuleBasedStateMachine):
    """Random arrivals, aborts, steps, clearings and retractions on a pool that is too small."""

    @initialize(
        pool=st.integers(20, 60),
        size=st.sampled_from([1, 2, 4]),
        running=st.integers(2, 6),
        budget=st.integers(1, 9),
        chunks=st.integers(1, 3),
        widths=st.booleans(),
        policy=st.sampled_from(Policy),
        cache=st.sampled_from([Cache.ON, Cache.ON, Cache.OFF]),
        wait=st.integers(1, 6),
        depth=st.integers(1, 3),
        drafts=st.booleans(),
    )
    def begin(self, pool, size, running, budget, chunks, widths, policy, cache, wait, depth, drafts):
        budget = max(budget, size)
        limits = Limits(
            max_running=running,
            max_waiting=12,
            budget_tokens=budget,
            max_chunks=chunks,
            chunk_widths=tuple(sorted({1, (budget + 1) // 2, budget})) if widths else (),
            page_size=size,
            pages=pool // size + 2,
            max_length=40,
            policy=policy,
            max_wait_steps=wait,
            cache=cache,
        )
        self.engine = paper.Engine(limits, depth, ("red",), guess if drafts else None)
        self.requests = {}

    @rule(
        stem=st.sampled_from(STEMS),
        rest=st.lists(st.integers(0, 3), min_size=1, max_size=9),
        limit=st.integers(0, 12),
        priority=st.sampled_from([0, 0, 0, 1, 2]),
        adapter=st.sampled_from([None, None, "red"]),
        namespace=st.sampled_from(["", "", "other"]),
        grammar=st.booleans(),
        task=st.sampled_from([Task.GENERATE] * 5 + [Task.SCORE]),
        times=st.sampled_from([1, 2, 3, 5]),
    )
    def arrive(self, stem, rest, limit, priority, adapter, namespace, grammar, task, times):
        for _ in range(times):
            request = Request(
                id=f"r{len(self.requests)}",
                prompt=(*stem, *rest),
                limit_tokens=limit,
                priority=priority,
                adapter=adapter,
                namespace=namespace,
                grammar=GRAMMAR if grammar else None,
                task=task,
                prompt_logprobs=limit == 5,
            )
            try:
                self.engine.submit(request)
            except ContextOverflow:
                continue
            except Busy:
                if len(self.engine.scheduler.waiting) < 12:
                    raise
            else:
                self.requests[request.id] = request

    @rule(times=st.integers(1, 12))
    def work(self, times):
        for _ in range(times):
            self.engine.step()
            self.engine.audit()

    @rule(which=st.integers(0, 100))
    def abort(self, which):
        alive = [i for i in self.requests if self.engine.scheduler.find(i)]
        if alive:
            sequence = self.engine.scheduler.find(alive[which % len(alive)])
            self.engine.end(sequence, "abort")
            self.engine.audit()

    @rule(which=st.integers(0, 100))
    def retract(self, which):
        running = self.engine.scheduler.running
        if running:
            self.engine.scheduler.retract(running[which % len(running)])
            self.engine.audit()

    @rule(adapter=st.sampled_from([None, "red"]))
    def clear(self, adapter):
        self.engine.scheduler.clear(adapter)
        self.engine.audit()

    def teardown(self):
        settle(self.engine, self.requests)


def settle(engine, requests):
    """Works until all is done; each request was then answered once, as by a model that it has for itself."""
    engine.drain()
    engine.audit_end()
    assert engine.answers.keys() == requests.keys()
    for name, answers in engine.answers.items():
        ((why, tokens),) = answers
        request = requests[name]
        expected = paper.continuation(request) if request.task is Task.GENERATE else []
        assert tokens == (expected if why == "done" else expected[: len(tokens)])


def storm(seed):
    """Sends 40 requests, harder than a search would: pages are always short."""
    draw = random.Random(seed)
    size = draw.choice([1, 2, 4])
    budget = max(size, draw.randint(1, 12))
    limits = Limits(
        max_running=draw.randint(2, 8),
        budget_tokens=budget,
        max_chunks=draw.randint(1, 4),
        chunk_widths=draw.choice([(), (budget,)]),
        page_size=size,
        pages=draw.randint(24, 60) // size + 2,
        max_length=60,
        policy=draw.choice(list(Policy)),
        max_wait_steps=draw.randint(1, 9),
        cache=draw.choice([Cache.ON, Cache.ON, Cache.OFF]),
        seed=seed,
    )
    engine, requests = paper.Engine(limits, draw.randint(1, 3), ("red",), draw.choice([None, guess])), {}
    for i in range(40):
        request = Request(
            id=str(i),
            prompt=(*draw.choice(STEMS), *(draw.randint(0, 3) for _ in range(draw.randint(1, 6)))),
            limit_tokens=draw.randint(0, 16),
            priority=draw.choice([0, 0, 1, 2]),
            adapter=draw.choice([None, None, "red"]),
            namespace=draw.choice(["", "", "other"]),
            grammar=draw.choice([None, None, GRAMMAR]),
            task=draw.choice([Task.GENERATE] * 6 + [Task.SCORE, Task.EMBED]),
            prompt_logprobs=draw.random() < 0.1,
        )
        with contextlib.suppress(ContextOverflow):
            engine.submit(request)
            requests[request.id] = request
        for _ in range(draw.choice([0, 0, 1, 3, 10])):
            engine.step()
            engine.audit()
        if draw.random() < 0.08 and engine.scheduler.running:
            engine.end(draw.choice(engine.scheduler.running), "abort")
        if draw.random() < 0.02:
            engine.scheduler.clear(draw.choice([None, "red"]))
    settle(engine, requests)
    return engine.scheduler.retractions


def search(examples, steps=30):
    run_state_machine_as_test(
        Served,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_order_of_events_gives_plain_answers_and_balanced_pages():
    search(examples=120)


def test_in_a_storm_sequences_are_retracted_and_nothing_is_lost():
    assert sum(map(storm, range(60))) > 60


@pytest.mark.slow
def test_many_orders_of_events_give_plain_answers_and_balanced_pages():
    search(examples=3000, steps=50)


def forget_unlock(self, node):
    """Planted: the lock is kept."""


def keep_uncomputed(self, sequence):
    """Planted: pages that are not filled yet go into the tree."""
    computed, sequence.computed = sequence.computed, len(sequence.tokens)
    SHARE(self, sequence)
    sequence.computed = computed


def share_at_once(self, sequence):
    """Planted: a row's pages are found by others of the same step."""
    CHUNK(self, sequence)
    SHARE(self, sequence)


def ignore_owner(self, key, tokens):
    """Planted: one tree for all."""
    return MATCH(self, ("", None), tokens)


def keep_rejected(self, row, tokens):
    """Planted: what a draft got wrong counts as computed."""
    computed = row.sequence.computed
    COMMIT(self, row, tokens)
    row.sequence.computed = computed


def forget_row(self, sequence):
    """Planted: a row is planned although its sequence has just given its pages up."""
    self._decodes.pop(sequence, None)
    RETRACT(self, sequence)


def forget_pages(self, sequence, tokens):
    """Planted: a row that needs a page gets none."""
    return True


def leave_twice(self, sequence):
    """Planted: pages are freed twice."""
    self.pages.release(sequence.pages[-1:])
    LEAVE(self, sequence)


SHARE, COMMIT, LEAVE = Scheduler._share, Scheduler.commit, Scheduler._leave
CHUNK, RETRACT, MATCH = Scheduler._chunk, Scheduler.retract, Radix.match


@pytest.mark.parametrize(
    ("owner", "name", "planted"),
    [
        (Radix, "unlock", forget_unlock),
        (Radix, "match", ignore_owner),
        (Scheduler, "_share", keep_uncomputed),
        (Scheduler, "_chunk", share_at_once),
        (Scheduler, "commit", keep_rejected),
        (Scheduler, "retract", forget_row),
        (Scheduler, "_grow", forget_pages),
        (Scheduler, "_leave", leave_twice),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_a_planted_mistake_is_found(monkeypatch, owner, name, planted):
    monkeypatch.setattr(owner, name, planted)
    with pytest.raises(Exception):  # noqa: B017, PT011  any audit or answer may be the one that fails
        sum(map(storm, range(400)))
