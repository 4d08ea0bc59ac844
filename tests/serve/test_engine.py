import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.models import completion
from cupola.serve.admit import Cache
from cupola.serve.engine import Engine
from cupola.serve.errors import Busy, ContextOverflow, InvalidRequest, NotFound, Unavailable
from cupola.serve.generator import Generator, iterate
from cupola.serve.grammar import Matcher
from cupola.serve.options import WarmUp
from cupola.serve.request import Grammar, GrammarKind, Piece, Reason, Request, Sampling, Task
from cupola.serve.speculate import Speculation, SpeculationKind

GREEDY = Sampling(temperature=0.0)


def prompt_of(language, text: str) -> tuple[int, ...]:
    return tuple(language.tokenizer.encode(text).tolist())


def ask(engine, prompt, **how) -> tuple[list[Piece], list[int]]:
    how = {"id": "one", "limit_tokens": 12, "sampling": GREEDY} | how
    pieces = list(iterate(engine, Request(prompt=prompt, **how)))
    return pieces, [token.id for piece in pieces for token in piece.tokens]


@pytest.fixture(scope="module")
def shared(language, small):
    """An engine for tests that leave nothing behind."""
    with Engine(*language, small) as made:
        yield made


def test_is_a_generator(shared):
    assert isinstance(shared, Generator)


def test_greedy_tokens_are_those_of_a_plain_completion(shared, language):
    prompt = prompt_of(language, "the furnace melts iron and")
    plain = completion.complete(
        language.model,
        language.params,
        prompt,
        limit_tokens=12,
        sampling=completion.Sampling(temperature=0.0),
        key=jax.random.key(0),
    )
    pieces, tokens = ask(shared, prompt, top_logprobs=2)
    expected = list(plain)
    assert tokens == [drawn.token for drawn in expected]
    told = [token for piece in pieces for token in piece.tokens]
    assert np.allclose([token.log_prob for token in told], [drawn.log_prob for drawn in expected], atol=1e-5)
    assert all(token.top[0] == (token.id, token.log_prob) for token in told)


def test_one_finish_the_last_and_a_text_that_is_that_of_the_tokens(shared, language):
    pieces, tokens = ask(shared, prompt_of(language, "iron"))
    assert [piece.finish is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(piece.text for piece in pieces) == language.tokenizer.decode(tokens)
    finish = pieces[-1].finish
    assert finish.reason is Reason.LENGTH
    assert (finish.usage.completion_tokens, len(tokens)) == (12, 12)


def test_tokens_without_log_probabilities_where_none_were_asked(shared, language):
    pieces, _ = ask(shared, prompt_of(language, "iron"))
    assert all(token.log_prob is None and not token.top for piece in pieces for token in piece.tokens)


def test_stop_token_and_stop_text(shared, language):
    prompt = prompt_of(language, "a gate or")
    _, tokens = ask(shared, prompt, limit_tokens=20)
    pieces, cut = ask(shared, prompt, limit_tokens=20, stop_tokens=frozenset({tokens[5]}))
    at = tokens.index(tokens[5])
    assert cut == tokens[: at + 1]
    assert pieces[-1].finish.reason is Reason.STOP
    assert "".join(piece.text for piece in pieces) == language.tokenizer.decode(tokens[:at])
    text = language.tokenizer.decode(tokens)
    stop = text[7:10]
    pieces, _ = ask(shared, prompt, limit_tokens=20, stop=(stop,))
    assert "".join(piece.text for piece in pieces) == text[: text.index(stop)]
    assert pieces[-1].finish.stop == stop


def test_a_seed_decides_all(shared, language):
    prompt, warm = prompt_of(language, "into a mould"), Sampling(temperature=1.0, seed=5)
    _, first = ask(shared, prompt, sampling=warm)
    _, second = ask(shared, prompt, sampling=warm)
    _, other = ask(shared, prompt, sampling=warm.replace("seed", 6))
    _, free = ask(shared, prompt, sampling=Sampling())
    assert first == second
    assert first != other
    assert free not in (first, other)


def test_a_cached_prefix_is_found_and_changes_nothing(engine, language):
    made = engine()
    prompt = prompt_of(language, "the furnace melts iron and pours it into a mould")
    first, tokens = ask(made, prompt, id="a")
    second, again = ask(made, prompt, id="b")
    whole = (len(prompt) - 1) // 4 * 4
    assert (first[-1].finish.usage.cached_tokens, second[-1].finish.usage.cached_tokens) == (0, whole)
    assert tokens == again
    _, apart = ask(made, prompt, id="c", namespace="other")
    assert made.stats().cached_tokens == whole
    assert apart == tokens
    made.forget()
    third, _ = ask(made, prompt, id="d")
    assert third[-1].finish.usage.cached_tokens == 0


def test_without_a_cache_nothing_is_found(engine, language):
    made = engine(cache=Cache.OFF)
    prompt = prompt_of(language, "the furnace melts iron and pours it into a mould")
    ask(made, prompt)
    pieces, _ = ask(made, prompt)
    assert pieces[-1].finish.usage.cached_tokens == 0


def test_a_grammar_is_kept_and_ends_the_text(shared, language):
    schema = '{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false}'
    pieces, _ = ask(
        shared, prompt_of(language, "say"), limit_tokens=60, grammar=Grammar(GrammarKind.JSON_SCHEMA, schema)
    )
    assert "".join(piece.text for piece in pieces) in ('{"ok": true}', '{"ok": false}')
    assert pieces[-1].finish.reason is Reason.STOP


def test_forced_tokens_save_steps_and_change_no_text(engine, language):
    made = engine()
    choice = Grammar(GrammarKind.CHOICE, '["the furnace melts iron and pours it", "zzz"]')
    texts, steps = [], []
    for how in ({}, {"top_logprobs": 0}):  # With log-probabilities every token must be drawn.
        before = made.stats().steps
        pieces, _ = ask(made, prompt_of(language, "say"), limit_tokens=60, grammar=choice, **how)
        texts.append("".join(piece.text for piece in pieces))
        steps.append(made.stats().steps - before)
    assert texts[0] == texts[1] in ("the furnace melts iron and pours it", "zzz")
    if texts[0] != "zzz":
        assert steps[0] < steps[1]


def test_a_bad_grammar_is_refused_at_once(shared, language):
    with pytest.raises(InvalidRequest, match="not"):
        ask(shared, prompt_of(language, "say"), grammar=Grammar(GrammarKind.JSON_SCHEMA, '{"not": {}}'))


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        ({"prompt": ()}, InvalidRequest, "no tokens"),
        ({"prompt": (9999,)}, InvalidRequest, "token 9999"),
        ({"limit_tokens": 500}, ContextOverflow, "256"),
        ({"adapter": "none"}, NotFound, "adapter"),
        ({"sampling": Sampling(logit_bias=((5000, 1.0),))}, InvalidRequest, "5000"),
    ],
)
def test_what_cannot_be_served_is_refused_and_nothing_is_sent(shared, change, kind, match):
    got = []
    with pytest.raises(kind, match=match):
        shared.submit(Request(**({"id": "x", "prompt": (1, 2)} | change)), got.append)
    assert got == []


def test_a_full_queue_says_when_to_try_again(engine, language):
    made = engine(max_waiting=1, max_running=1, warm_up=WarmUp.ESSENTIAL)
    prompt = prompt_of(language, "iron")

    def flood() -> None:
        for number in range(50):
            made.submit(Request(id=str(number), prompt=prompt, limit_tokens=200), lambda piece: None)

    with pytest.raises(Busy) as refused:
        flood()
    assert refused.value.retry_after_seconds >= 1


def test_an_abort_frees_the_pages_and_is_answered(engine, language):
    made = engine()
    pieces: list[Piece] = []
    done = threading.Event()

    def receive(piece: Piece) -> None:
        pieces.append(piece)
        if piece.finish:
            done.set()

    made.submit(Request(id="long", prompt=prompt_of(language, "iron"), limit_tokens=240), receive)
    while not pieces:
        time.sleep(0.001)
    made.abort("long")
    assert done.wait(10)
    assert pieces[-1].finish.reason is Reason.ABORT
    assert made.stats().pages_used == 0
    made.abort("long")
    made.abort("never was")


def test_an_abandoned_iterator_aborts(engine, language):
    made = engine()
    for _ in iterate(made, Request(id="left", prompt=prompt_of(language, "iron"), limit_tokens=240)):
        break
    deadline = time.monotonic() + 10
    while made.stats().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made.stats().finished == {"abort": 1}


def test_a_request_that_is_late_ends(shared, language):
    pieces, _ = ask(shared, prompt_of(language, "iron"), limit_tokens=240, timeout_seconds=0.001)
    assert pieces[-1].finish.reason is Reason.TIMEOUT


def test_a_receiver_that_fails_harms_nobody_else(shared, language, caplog):
    def bad(piece: Piece) -> None:
        raise RuntimeError("a broken client")

    shared.submit(Request(id="bad", prompt=prompt_of(language, "iron"), limit_tokens=3), bad)
    pieces, _ = ask(shared, prompt_of(language, "iron"))
    assert pieces[-1].finish.reason is Reason.LENGTH
    assert "a broken client" in caplog.text


def test_an_engine_that_fails_answers_all_and_refuses_more(engine, language, monkeypatch):
    made = engine()

    def fail(*_, **__):
        raise RuntimeError("device lost")

    monkeypatch.setattr(made._runner, "begin", fail)
    pieces, _ = ask(made, prompt_of(language, "iron"))
    assert pieces[-1].finish.reason is Reason.ERROR
    assert "device lost" in str(pieces[-1].finish.error)
    with pytest.raises(Unavailable, match="device lost"):
        ask(made, prompt_of(language, "iron"))


def test_a_grammar_that_takes_too_much_work_ends_its_own_request_alone(engine, language, monkeypatch):
    made = engine()

    def fail(*_):
        raise InvalidRequest("the grammar cannot go on")

    monkeypatch.setattr(Matcher, "masks", fail)
    pieces, _ = ask(made, prompt_of(language, "iron"), grammar=Grammar(GrammarKind.REGEX, "[a-z ]+"))
    assert pieces[-1].finish.reason is Reason.ERROR
    assert "cannot go on" in str(pieces[-1].finish.error)
    pieces, _ = ask(made, prompt_of(language, "iron"))
    assert pieces[-1].finish.reason is Reason.LENGTH


def test_closing_lets_the_running_ones_end(engine, language):
    made = engine()
    ends = []
    made.submit(
        Request(id="last", prompt=prompt_of(language, "iron"), limit_tokens=60),
        lambda piece: ends.append(piece.finish.reason) if piece.finish else None,
    )
    made.close(grace_seconds=30.0)
    assert ends == [Reason.LENGTH]
    with pytest.raises(Unavailable):
        ask(made, prompt_of(language, "iron"))


def test_scores_are_those_of_the_training_forward(shared, language):
    prompt = prompt_of(language, "the furnace melts iron and pours it into a mould where it cools to a bell or a gate")
    pieces, _ = ask(shared, prompt, task=Task.SCORE, top_logprobs=3)
    scored = pieces[-1].finish.prompt
    tokens = jnp.asarray([prompt], jnp.int32)
    hidden = language.model(language.params, tokens)
    expected = language.model.log_probs(language.params, hidden.states[:, :-1], tokens[:, 1:])[0]
    assert [token.id for token in scored] == list(prompt[1:])
    assert np.allclose([token.log_prob for token in scored], expected, atol=1e-5)
    assert all(len(token.top) == 3 for token in scored)


def test_an_embedding_is_the_mean_state_of_length_one(shared, language):
    prompt = prompt_of(language, "the furnace melts iron and pours it into a mould where it cools")
    pieces, _ = ask(shared, prompt, task=Task.EMBED)
    hidden = language.model(language.params, jnp.asarray([prompt], jnp.int32))
    mean = np.asarray(hidden.states[0]).mean(0)
    assert np.allclose(pieces[-1].finish.embedding, mean / np.linalg.norm(mean), atol=1e-5)


def test_other_weights_take_effect_and_old_prefixes_do_not(engine, language):
    made = engine()
    prompt = prompt_of(language, "the furnace melts iron and pours it into")
    _, before = ask(made, prompt)
    other = language.model.init(jax.random.key(7))
    made.update(other)
    pieces, after = ask(made, prompt)
    assert pieces[-1].finish.usage.cached_tokens == 0
    plain = completion.complete(
        language.model,
        other,
        prompt,
        limit_tokens=12,
        sampling=completion.Sampling(temperature=0.0),
        key=jax.random.key(0),
    )
    assert after == [drawn.token for drawn in plain] != before


def test_speculation_is_counted_and_changes_nothing(engine, language):
    prompt = prompt_of(language, "iron and iron and iron and iron and iron and")
    _, plain = ask(engine(), prompt, limit_tokens=60)
    made = engine(speculation=Speculation(kind=SpeculationKind.NGRAM, count=3))
    pieces, tokens = ask(made, prompt, limit_tokens=60)
    usage = pieces[-1].finish.usage
    assert tokens == plain
    assert usage.drafted_tokens > usage.accepted_tokens >= 0


def test_adapters_choose_by_request(engine, language):
    made = engine(adapters=2, adapter_rank=4)
    prompt = prompt_of(language, "the furnace melts")
    _, base = ask(made, prompt)
    random = np.random.default_rng(0)
    factors = {
        f"{layer}.attention.query": (random.normal(size=(32, 4)), random.normal(size=(4, 32))) for layer in range(2)
    }
    made.load_adapter("poet", factors)
    _, poet = ask(made, prompt, adapter="poet")
    _, still = ask(made, prompt)
    assert poet != base == still
    with pytest.raises(InvalidRequest, match="loaded"):
        made.load_adapter("poet", factors)
    made.unload_adapter("poet")
    with pytest.raises(NotFound):
        ask(made, prompt, adapter="poet")
    with pytest.raises(InvalidRequest, match="no matrix"):
        made.load_adapter("bad", {"9.attention.query": factors["0.attention.query"]})
    with pytest.raises(InvalidRequest, match="rank"):
        made.load_adapter("wide", {"0.attention.query": (random.normal(size=(32, 5)), random.normal(size=(5, 32)))})


def test_no_place_for_adapters_is_said(shared):
    with pytest.raises(InvalidRequest, match="--adapters"):
        shared.load_adapter("poet", {})


def test_too_little_memory_is_said(language, small):
    with pytest.raises(ConfigError, match="one page"):
        Engine(*language, small.replace("memory_bytes", 10))
