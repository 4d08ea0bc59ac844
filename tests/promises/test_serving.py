"""Promise 3 in the server: the same numbers in training, prefill, decoding, after a hit and after retraction."""

import random
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.kernels.attention import Mask
from cupola.layers.attention import Attention, Bias
from cupola.layers.block import Block
from cupola.layers.embedding import Head
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.kv import Begin, Rows
from cupola.layers.norm import RMSNorm
from cupola.layers.repeat import Repeat, unstacked
from cupola.models.decoder import Decoder
from cupola.serve.admit import Cache
from cupola.serve.engine import Engine
from cupola.serve.request import Grammar, GrammarKind, Request, Sampling
from cupola.serve.run import Pool
from cupola.serve.speculate import Speculation, SpeculationKind
from cupola.serve.weights import for_serving

REQUESTS = 400
"""Mixed requests; each is answered by every engine below and a plain one: more than two thousand."""
ENGINES = {
    "cache off": {"cache": Cache.OFF},
    "cache on, small pool": {"memory_bytes": 32_000},
    "speculation": {"speculation": Speculation(kind=SpeculationKind.NGRAM, count=3)},
    "one at a time": {"max_running": 1},
    "short chunks": {"budget_tokens": 16},
}


def requests_of(language, number: int) -> list[Request]:
    """Prompts that share beginnings, long and short, greedy and not, some with grammars, penalties or adapters."""
    draw = random.Random(0)
    bases = [[draw.randrange(3, 300) for _ in range(draw.choice((9, 30, 70)))] for _ in range(12)]
    made = []
    for index in range(number):
        prompt = (
            *draw.choice(bases)[: draw.randrange(1, 71)],
            *(draw.randrange(3, 300) for _ in range(draw.randrange(6))),
        )
        warm = draw.random() < 0.5
        sampling = Sampling(
            temperature=draw.choice((0.5, 1.0)) if warm else 0.0,
            top_p=draw.choice((1.0, 0.9)) if warm else 1.0,
            top_k=draw.choice((None, 5)) if warm else None,
            repetition_penalty=1.3 if draw.random() < 0.1 else 1.0,
            seed=index,
        )
        grammar = Grammar(GrammarKind.REGEX, "(iron|bell|gate| )+") if draw.random() < 0.1 else None
        adapter = draw.choice((None, None, "first", "second"))
        made.append(
            Request(
                id=str(index),
                prompt=prompt,
                limit_tokens=draw.randrange(1, 24),
                sampling=sampling,
                grammar=grammar,
                adapter=adapter,
                priority=draw.choice((0, 0, 1)),
            )
        )
    return made


def answers(engine: Engine, requests: list[Request]) -> dict[str, list[int]]:
    """Returns the tokens of all requests, sent at once."""
    told: dict[str, list[int]] = {request.id: [] for request in requests}
    left = threading.Semaphore(0)

    def receiver(name):
        def receive(piece):
            told[name] += [token.id for token in piece.tokens]
            if piece.finish is not None:
                assert piece.finish.error is None
                left.release()

        return receive

    for request in requests:
        engine.submit(request, receiver(request.id))
    for _ in requests:
        assert left.acquire(timeout=300)
    return told


@pytest.fixture(scope="module")
def with_adapters(language, small):
    def make(**changes) -> Engine:
        options = small.replace("adapters", 2).replace("adapter_rank", 4).replace("max_waiting", REQUESTS)
        for name, value in changes.items():
            options = options.replace(name, value)
        engine = Engine(*language, options)
        for seed, name in enumerate(("first", "second")):
            numbers = np.random.default_rng(seed)
            engine.load_adapter(
                name,
                {
                    f"{layer}.attention.{matrix}": (numbers.normal(size=(32, 4)), numbers.normal(size=(4, outputs)))
                    for layer in range(2)
                    for matrix, outputs in (("query", 32), ("value", 16))
                },
            )
        return engine

    return make


@pytest.fixture(scope="module")
def plain(with_adapters, language):
    with with_adapters() as engine:
        return answers(engine, requests_of(language, REQUESTS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_gives_the_same_tokens(name, with_adapters, language, plain):
    with with_adapters(**ENGINES[name]) as engine:
        assert answers(engine, requests_of(language, REQUESTS)) == plain
        stats = engine.stats()
    if name == "cache on, small pool":
        assert stats.retractions > 0
    if name == "cache off":
        assert stats.cached_tokens == 0
    elif name != "one at a time":
        assert stats.cached_tokens > 0


@pytest.mark.slow
def test_the_answers_depend_on_what_was_asked(plain):
    """The control: the model is none that says the same to all."""
    assert len({tuple(tokens) for tokens in plain.values()}) > 0.9 * REQUESTS


FAMILIES = {
    "plain": {},
    "query and key norms": {"query_norm": RMSNorm(), "key_norm": RMSNorm()},
    "biases": {"bias": Bias.INPUTS},
    "window": {"mask": Mask(causal=True, window=7)},
    "one head": {"heads": 1, "key_heads": 1, "head_width": 16},
}


def decoder(name: str) -> Decoder:
    fields = {"heads": 4, "key_heads": 2} | FAMILIES[name]
    known = {field for field in fields if field in Attention.__dataclass_fields__}
    block = Block(attention=Attention(**{f: fields[f] for f in known}), feed_forward=GatedMLP(hidden=24))
    return Decoder(
        vocabulary=50, width=16, max_length=64, stack=Repeat(layers=2, block=block), head=Head(), precision=FLOAT32
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_log_probabilities_of_training_chunks_and_decoding_agree(name):
    model = decoder(name)
    params = model.init(jax.random.key(3))
    tokens = jax.random.randint(jax.random.key(4), (1, 41), 0, 50)
    expected = model(params, tokens).states[0]
    for served in (unstacked(model, params), for_serving(model, params)):
        for cut in ([40], [8, 32], [16, 16, 8]):
            states = paged(model, served, tokens, cut)
            logits, wanted = (model.logits(params, x[None])[0] for x in (states, expected))
            assert np.allclose(jax.nn.log_softmax(logits), jax.nn.log_softmax(wanted), atol=1e-5)


@partial(jax.jit, static_argnums=(0, 5))
def step(model, params, pool, new, at, width: int):
    """Returns the states of new tokens that begin at a place, and the pool."""
    rows = Rows(
        table=jnp.asarray([[7, 3, 12, 5, 9, 1, 2, 4]], jnp.int32),
        start=at[None],
        width=width,
        begin=Begin.PAGE if width > 1 else Begin.ANYWHERE,
    )
    hidden = model(params, new, positions=at + jnp.arange(width)[None], view=pool.views((rows,)))
    return hidden.states[0], Pool.of(hidden.aside.view)


def paged(model, params, tokens, cut: list[int]):
    """Returns the states of 41 tokens: chunks of whole pages, then one token by decoding."""
    pool = Pool.empty(model, pages=20, page_size=8)
    states, at = [], 0
    for width in (*cut, 1):
        held, pool = step(model, params, pool, tokens[:, at : at + width], jnp.asarray(at, jnp.int32), width)
        states.append(held)
        at += width
    return jnp.concatenate(states)
