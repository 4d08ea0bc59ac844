"""The search against plain ones that run the whole forward pass anew for every token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.models.speech.search import Choice, Plan, Prompts, compiled_first, compiled_listen, compiled_search
from cupola.models.speech.whisper_rules import allowed_log_probs
from cupola.models.speech.whisper_tokens import Times

LIMIT = 12
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def mels(recognizer):
    model = recognizer.model
    return 2 * jax.random.normal(jax.random.key(7), (3, 2 * model.encoder.positions, model.mels))


@pytest.fixture(scope="module")
def hidden(recognizer):
    tokens, vocabulary = recognizer.tokens, recognizer.model.vocabulary
    first = np.zeros(vocabulary, bool)
    first[tokens.blank] = True
    return jnp.asarray(tokens.suppressed(vocabulary)), jnp.asarray(first)


@pytest.fixture(scope="module")
def prompts(recognizer):
    tokens = recognizer.tokens
    return [
        tokens.prompt(language="en"),
        tokens.prompt(language="de", before=[7, 8, 9]),
        tokens.prompt(language="en"),
    ]


def plan_of(recognizer, **changes):
    given = {"choice": Choice.LIKELIEST, "rows": 3, "ended": 3, "limit": LIMIT, "latest_first": 5}
    return Plan(codes=recognizer.tokens.codes, **given | changes)


def run(recognizer, mels, prompts, hidden, plan, temperature=1.0):
    width = 8
    held = Prompts(
        tokens=jnp.asarray([[*each, *[0] * (width - len(each))] for each in prompts]),
        lengths=jnp.asarray([len(each) for each in prompts]),
        starts=jnp.asarray([each.index(recognizer.tokens.start) for each in prompts]),
        keys=jax.vmap(jax.random.key)(jnp.asarray([hash(tuple(each)) % 97 for each in prompts])),
    )
    model, params = recognizer.model, recognizer.params
    memories = compiled_listen(model)(params, mels)
    found = compiled_search(model, plan)(params, memories, held, *hidden, jnp.float32(temperature))
    return jax.device_get(found)


@pytest.fixture(scope="module")
def forward(recognizer, mels, hidden):
    """Returns log-probabilities of what may follow a prompt and a text, by the whole forward pass."""
    model, params = recognizer.model, recognizer.params
    encoded = jax.jit(model.encoder)(params["encoder"], mels)

    @functools.partial(jax.jit, static_argnums=4)
    def one(encoded, tokens, at, length, times, text):
        states = model.decoder(params["decoder"], tokens[None], encoded=encoded[None]).states
        logits = model.logits(params, jax.lax.dynamic_slice_in_dim(states, at, 1, axis=1))[:, 0]
        told = {"codes": recognizer.tokens.codes, "times": times, "latest_first": 5}
        return allowed_log_probs(logits, text[None], length, *hidden, **told)[0]

    @functools.cache
    def following(window, prompt, text, times):
        tokens = jnp.asarray([*prompt, *text, *[0] * (32 - len(prompt) - len(text))])
        held = jnp.asarray([*text, *[0] * (LIMIT - len(text))])
        at, length = jnp.asarray(len(prompt) + len(text) - 1), jnp.asarray(len(text))
        return np.asarray(one(encoded[window], tokens, at, length, times, held), np.float64)

    return following


def plain_beams(following, end, rows, ended):
    """The likeliest texts, one token at a time; those that end among the first `rows` are put aside."""
    live, done = [(0.0, ())], []
    for length in range(LIMIT):
        grown = [
            (total + gained, (*text, token))
            for total, text in live
            for token, gained in enumerate(following(text))
            if np.isfinite(gained)
        ]
        grown = sorted(grown, reverse=True)[: 2 * rows]
        is_last = length + 1 == LIMIT
        done += [(total, text) for total, text in grown[:rows] if text[-1] == end or is_last]
        if len(done) >= ended:
            break
        live = [(total, text) for total, text in grown if text[-1] != end][:rows]
    texts = [(total, [token for token in text if token != end]) for total, text in done[:ended]]
    return max(texts, key=lambda each: each[0] / max(len(each[1]), 1))


@pytest.mark.parametrize(("rows", "patience", "times"), [(1, 1, "SEGMENTS"), (3, 1, "SEGMENTS"), (3, 2, "NONE")])
def test_beams_are_the_plain_ones(rows, patience, times, recognizer, mels, hidden, prompts, forward):
    times = Times[times]
    plan = plan_of(recognizer, rows=rows, ended=rows * patience, times=times)
    found = run(recognizer, mels, prompts, hidden, plan)
    for window, prompt in enumerate(prompts):
        total, text = plain_beams(
            lambda text, window=window, prompt=prompt: forward(window, tuple(prompt), text, times),
            recognizer.tokens.codes.end,
            rows,
            rows * patience,
        )
        length = int(found.lengths[window])
        assert found.tokens[window, :length].tolist() == text
        assert abs(found.log_probs[window] - total) <= 256 * EPS * max(1, abs(total))


def test_a_window_is_what_it_is_alone(recognizer, mels, hidden, prompts):
    together = run(recognizer, mels, prompts, hidden, plan_of(recognizer))
    for window in (0, 1):
        alone = run(recognizer, mels[window : window + 1], prompts[window : window + 1], hidden, plan_of(recognizer))
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[window])
    drawing = plan_of(recognizer, choice=Choice.DRAWN)
    together = run(recognizer, mels, prompts, hidden, drawing)
    alone = run(recognizer, mels[1:2], prompts[1:2], hidden, drawing)
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[1])
    # The control: sounds are told apart, whatever the prompt.
    assert not np.array_equal(together.tokens[0], together.tokens[2])


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_what_is_drawn_has_the_probability_of_the_forward_pass(temperature, recognizer, mels, hidden, prompts, forward):
    plan = plan_of(recognizer, choice=Choice.DRAWN, rows=2, ended=2)
    found = run(recognizer, mels, prompts, hidden, plan, temperature)
    for window, prompt in enumerate(prompts):
        length = int(found.lengths[window])
        text = found.tokens[window, :length].tolist()
        written = text if length == LIMIT else [*text, recognizer.tokens.codes.end]
        total = sum(
            forward(window, tuple(prompt), tuple(written[:i]), Times.SEGMENTS)[token] for i, token in enumerate(written)
        )
        assert abs(found.log_probs[window] - total) <= 256 * EPS * max(1, abs(total))


def test_no_speech_and_languages_are_of_the_beginning(recognizer, mels, hidden, prompts):
    model, params, tokens = recognizer.model, recognizer.params, recognizer.tokens
    logits = model.logits(params, model(params, mels, jnp.full((3, 1), tokens.start)).states)[:, 0]
    found = run(recognizer, mels, [prompts[0]] * 3, hidden, plan_of(recognizer))
    expected = jax.nn.softmax(logits)[:, tokens.codes.no_speech]
    np.testing.assert_allclose(found.no_speech, expected, rtol=256 * EPS)
    among = jnp.asarray(sorted(tokens.languages.values()))
    memories = compiled_listen(model)(params, mels)
    probs = compiled_first(model)(params, memories, jnp.asarray(tokens.start), among)
    np.testing.assert_allclose(probs, jax.nn.softmax(logits[:, among]), rtol=256 * EPS)


def test_a_text_ends_where_the_model_has_no_more_room(recognizer, mels, hidden):
    # A prompt of 29 tokens in a decoder of 32.
    prompt = recognizer.tokens.prompt(language="en", before=[7] * 25, most=25)
    held = Prompts(
        tokens=jnp.asarray([[*prompt, 0]]),
        lengths=jnp.asarray([len(prompt)]),
        starts=jnp.asarray([26]),
        keys=jax.vmap(jax.random.key)(jnp.asarray([0])),
    )
    plan = plan_of(recognizer)
    never_ends = hidden[0] | (jnp.arange(len(hidden[0])) == recognizer.tokens.codes.end)
    memories = compiled_listen(recognizer.model)(recognizer.params, mels[:1])
    search = compiled_search(recognizer.model, plan)
    found = search(recognizer.params, memories, held, never_ends, hidden[1], jnp.float32(1))
    assert (len(prompt), found.lengths.tolist()) == (29, [3])
