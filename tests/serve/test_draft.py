import dataclasses
import random
import threading

import jax
import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.layers.repeat import unstacked
from cupola.serve.engine import Engine
from cupola.serve.options import WarmUp
from cupola.serve.request import Grammar, GrammarKind, Request, Sampling, Usage
from cupola.serve.speculate import Speculation, SpeculationKind

COUNT = 3
DRAFT = Speculation(kind=SpeculationKind.DRAFT, count=COUNT)
REQUESTS = 120
ENGINES = {
    "roomy": {},
    "small pool": {"memory_bytes": 48_000},
    "one at a time": {"max_running": 1},
    "short chunks": {"budget_tokens": 16},
}
QUICK = ["roomy", "small pool"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ENGINES if name not in QUICK]
FEW = 60
"""Requests where every engine must go through its paces once more."""


@pytest.fixture(scope="module")
def smaller(language):
    """The first layer of the model, as one of its own: it agrees with it now and then."""
    layers = unstacked(language.model, language.params)
    first = {"block": layers["stack"]["block"][:1]}
    return language.model.replace("stack.layers", 1), layers | {"stack": first}


@pytest.fixture
def start(language, small):
    """Starts an engine; the plain one where no draft model is given."""
    made: list[Engine] = []

    def start(draft=None, **changes) -> Engine:
        options = small.replace("max_waiting", REQUESTS).replace("warm_up", WarmUp.ESSENTIAL)
        for name, value in changes.items():
            options = options.replace(name, value)
        if draft is not None:
            options = options.replace("speculation", DRAFT)
        made.append(Engine(*language, options, draft=draft))
        made[-1].start()
        return made[-1]

    yield start
    for engine in made:
        engine.close()


def requests_of(number: int, *, free: bool = False) -> list[Request]:
    """Prompts that share beginnings, greedy or not, with grammars and penalties unless `free`."""
    draw = random.Random(1)
    bases = [[draw.randrange(3, 300) for _ in range(draw.choice((9, 30, 70)))] for _ in range(12)]
    made = []
    for index in range(number):
        warm, odd = draw.random() < 0.5, not free and draw.random() < 0.25
        sampling = Sampling(
            temperature=draw.choice((0.5, 1.0)) if warm else 0.0,
            top_p=draw.choice((1.0, 0.9)),
            top_k=draw.choice((None, 5)),
            repetition_penalty=1.3 if odd else 1.0,
            logit_bias=((7, 2.0),) if odd else (),
            seed=index,
        )
        made.append(
            Request(
                id=str(index),
                prompt=(*draw.choice(bases)[: draw.randrange(1, 71)], *(draw.randrange(3, 300) for _ in range(3))),
                limit_tokens=draw.randrange(1, 24),
                sampling=sampling,
                grammar=Grammar(GrammarKind.REGEX, "(iron|bell|gate| )+") if odd and warm else None,
                prompt_logprobs=odd and not warm,
                priority=draw.choice((0, 0, 1)),
            )
        )
    return made


def answers(engine: Engine, requests: list[Request]) -> tuple[dict[str, list[int]], list[Usage]]:
    """Returns the tokens of all requests, sent at once, and what they took."""
    told: dict[str, list[int]] = {request.id: [] for request in requests}
    usages: list[Usage] = []
    left = threading.Semaphore(0)

    def receiver(name):
        def receive(piece):
            told[name] += [token.id for token in piece.tokens]
            if piece.finish is not None:
                usages.append(piece.finish.usage)
                left.release()

        return receive

    for request in requests:
        engine.submit(request, receiver(request.id))
    for _ in requests:
        assert left.acquire(timeout=120)
    return told, usages


@pytest.fixture(scope="module")
def plain(language, small):
    with Engine(*language, small.replace("max_waiting", REQUESTS).replace("warm_up", WarmUp.ESSENTIAL)) as engine:
        return answers(engine, requests_of(REQUESTS))[0]


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_tokens_are_those_of_the_model_alone(name, start, smaller, plain):
    engine = start(smaller, **ENGINES[name])
    number = FEW if name == "one at a time" else REQUESTS
    told, usages = answers(engine, requests_of(REQUESTS)[:number])
    assert told == {id: plain[id] for id in told}
    stats = engine.stats()
    assert 0 < stats.accepted_tokens < stats.drafted_tokens
    assert stats.accepted_tokens == sum(usage.accepted_tokens for usage in usages)
    assert stats.drafted_tokens == sum(usage.drafted_tokens for usage in usages)
    assert all(usage.accepted_tokens <= usage.drafted_tokens for usage in usages)
    assert stats.cached_tokens > 0
    assert (stats.retractions > 0) is (name == "small pool")


@pytest.mark.parametrize("name", [*QUICK[1:], pytest.param(QUICK[0], marks=pytest.mark.slow), *SLOW])
def test_one_that_is_the_model_is_always_right(name, start, language):
    """Also after cache hits and retractions: else some keys and values of its own would be missing."""
    engine = start((language.model, language.params), **ENGINES[name])
    _, usages = answers(engine, requests_of(FEW, free=True))
    stats = engine.stats()
    assert stats.drafted_tokens > FEW
    assert stats.cached_tokens > 0
    assert stats.accepted_tokens == stats.drafted_tokens
    assert stats.steps < stats.completion_tokens
    assert all(usage.completion_tokens > usage.accepted_tokens for usage in usages)


def test_one_that_knows_nothing_is_seldom_right(start, language):
    """The control: what is accepted depends on the draft model."""
    other = language.model.init(jax.random.key(9))
    engine = start((language.model, other))
    answers(engine, requests_of(40, free=True))
    stats = engine.stats()
    assert stats.accepted_tokens < 0.2 * stats.drafted_tokens


def test_requests_with_an_adapter_are_guessed_without_it(start, smaller):
    drawn = np.random.default_rng(0)
    factors = {"0.attention.query": (drawn.normal(size=(32, 2)), drawn.normal(size=(2, 32)))}
    requests = [dataclasses.replace(request, adapter="poet") for request in requests_of(20)]
    told = []
    for draft in (None, smaller):
        engine = start(draft, adapters=1, adapter_rank=2)
        engine.load_adapter("poet", factors)
        told.append(answers(engine, requests)[0])
    assert told[0] == told[1]
    assert told[0] != answers(engine, requests_of(20))[0]
    assert engine.stats().drafted_tokens > 0


def test_its_keys_and_values_count_as_memory(language, small):
    alone, both = (small.limits(language.model, draft).pages for draft in (None, language.model))
    assert both == pytest.approx(alone / 2, abs=1)


@pytest.mark.parametrize(
    ("kind", "change", "match"),
    [
        (SpeculationKind.DRAFT, None, "--draft MODEL"),
        (SpeculationKind.NONE, ("width", 32), "--speculate draft"),
        (SpeculationKind.DRAFT, ("max_length", 128), "--length 128"),
        (SpeculationKind.DRAFT, ("vocabulary", 299), "same tokenizer"),
    ],
)
def test_what_does_not_fit_is_refused(language, small, kind, change, match):
    draft = None
    if change is not None:
        model = language.model.replace(*change)
        draft = model, model.init(jax.random.key(0))
    with pytest.raises(ConfigError, match=match):
        Engine(*language, small.replace("speculation", Speculation(kind=kind)), draft=draft)
