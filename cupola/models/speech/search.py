"""The search for the text of a window of sound: the likeliest by beams, or drawn.

Not here: which tokens are allowed (`whisper_rules.py`), what is done when a text is poor (`transcribe.py`).
Invariant: the log-probability of a text is that of the forward pass over it, under the rules; what a
window gives does not depend on the windows beside it.
Source: Radford et al., arXiv 2212.04356, section 4.5; Kasai et al. 2022, arXiv 2204.05424 (patience).
"""

import dataclasses
import enum
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cupola.core.module import Tree
from cupola.core.record import record
from cupola.layers.cross_attention import Memory
from cupola.layers.cross_block import CrossView
from cupola.models.speech.whisper import Whisper
from cupola.models.speech.whisper_rules import allowed_log_probs
from cupola.models.speech.whisper_tokens import Codes, Times


class Choice(enum.Enum):
    """How the next token is chosen."""

    LIKELIEST = "likeliest"
    """Beams: the likeliest texts so far go on."""
    DRAWN = "drawn"
    """Each text by itself, by chance."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a search is compiled for.

    Args:
        codes: of the special tokens.
        choice: how tokens are chosen.
        rows: texts that are written side by side: beams, or draws.
        ended: texts that must have ended before beams stop: rows * patience.
        limit: most tokens of a text.
        length_penalty: a text's log-probability is divided by its length to this power.
        times: whether texts have times.
        latest_first: the latest time at which a text may begin, in steps.
    """

    codes: Codes
    choice: Choice
    rows: int
    ended: int
    limit: int
    length_penalty: float = 1.0
    times: Times = Times.SEGMENTS
    latest_first: int = 50


@record
class Prompts:
    """What stands before the texts.

    Args:
        tokens: padded on the right.
        lengths: how many of a row's are no padding.
        starts: where in a row the text's own beginning stands, after what was said earlier.
        keys: of what is drawn.
    """

    tokens: Int[Array, "B P"]
    lengths: Int[Array, " B"]
    starts: Int[Array, " B"]
    keys: Key[Array, " B"]


@record
class Found:
    """The best text of each window.

    Args:
        tokens: of the texts, without the end.
        lengths: how many of a row's they are.
        log_probs: of the whole text and its end, in nats.
        no_speech: the probability that nothing is said.
    """

    tokens: Int[Array, "B L"]
    lengths: Int[Array, " B"]
    log_probs: Float[Array, " B"]
    no_speech: Float[Array, " B"]


class _State(NamedTuple):
    """A search on its way; rows of one window stand next to each other.

    `views` are those of the texts themselves: what is heard does not change, and stays outside.
    """

    length: Int[Array, ""]
    texts: Int[Array, "B W L"]
    log_probs: Float[Array, "B W"]
    done: Bool[Array, "B W"]
    ended: "_Ended"
    views: Any


class _Ended(NamedTuple):
    """Texts that have ended: the first ones, whatever comes after."""

    number: Int[Array, " B"]
    texts: Int[Array, "B E L"]
    lengths: Int[Array, "B E"]
    log_probs: Float[Array, "B E"]


@cache
def compiled_listen(model: Whisper) -> Any:
    """Returns the model's `listen`, compiled."""
    return jax.jit(model.listen)


@cache
def compiled_search(model: Whisper, plan: Plan) -> Any:
    """Returns `search` for a model and a plan, compiled."""
    return jax.jit(partial(search, model, plan))


@cache
def compiled_first(model: Whisper) -> Any:
    """Returns `first_probs` for a model, compiled."""
    return jax.jit(partial(first_probs, model))


def first_probs(
    model: Whisper, params: Tree, memories: tuple[Memory, ...], start: Int[Array, ""], among: Int[Array, " G"]
) -> Float[Array, "B G"]:
    """Returns how likely each of some tokens is the first after `start`, among themselves: languages.

    Args:
        memories: of windows of sound.
        start: the token that begins a text.
        among: the tokens.
    """
    batch = len(memories[0].keys)
    view = model.empty_view(batch, 1, memories)
    tokens = jnp.full((batch, 1), start)
    states = model.read(params, tokens, positions=jnp.zeros((1, 1), jnp.int32), view=view).states
    return jax.nn.softmax(model.logits(params, states)[:, 0, among])


def search(
    model: Whisper,
    plan: Plan,
    params: Tree,
    memories: tuple[Memory, ...],
    prompts: Prompts,
    suppressed: Bool[Array, " V"],
    suppressed_first: Bool[Array, " V"],
    temperature: Float[Array, ""],
) -> Found:
    """Returns the best text for each window of sound.

    Args:
        memories: of the windows, one a layer.
        prompts: one a window.
        suppressed, suppressed_first: tokens that are not allowed, and not first.
        temperature: divides logits before a token is drawn; without effect on beams.
    """
    batch, width = prompts.tokens.shape
    view = model.empty_view(batch, width + plan.limit, memories)
    hidden = model.read(params, prompts.tokens, positions=jnp.arange(width)[None], view=view)
    rows = jnp.arange(batch)
    ends = jnp.stack([prompts.starts, prompts.lengths - 1], axis=1)
    logits = model.logits(params, hidden.states[rows[:, None], ends])
    no_speech = jax.nn.softmax(logits[:, 0].astype(jnp.float32))[:, plan.codes.no_speech]
    limits = jnp.minimum(plan.limit, model.decoder.max_length - prompts.lengths)
    rules = partial(
        allowed_log_probs,
        suppressed=suppressed,
        suppressed_first=suppressed_first,
        codes=plan.codes,
        times=plan.times,
        latest_first=plan.latest_first,
    )
    choose = _beams if plan.choice is Choice.LIKELIEST else partial(_drawn, temperature=temperature, keys=prompts.keys)

    def grown(state: _State, logits: Float[Array, "N V"]) -> _State:
        log_probs = rules(logits, state.texts.reshape(-1, plan.limit), state.length)
        return choose(plan, state, log_probs.reshape(batch, plan.rows, -1), limits)

    def step(state: _State) -> _State:
        newest = jax.lax.dynamic_index_in_dim(state.texts, state.length - 1, axis=2, keepdims=False)
        at = jnp.repeat(prompts.lengths, plan.rows) + state.length - 1
        view = tuple(CrossView(own=own, memory=heard) for own, heard in zip(state.views, memories, strict=True))
        hidden = model.read(params, newest.reshape(-1, 1), positions=at[:, None], view=view)
        views = tuple(layer.own for layer in hidden.aside.view)
        return grown(state._replace(views=views), model.logits(params, hidden.states)[:, 0])

    repeat = partial(jnp.repeat, repeats=plan.rows, axis=0)
    views = jax.tree.map(repeat, tuple(layer.own for layer in hidden.aside.view))
    first = _begun(plan, batch, views)
    state = grown(first, jnp.repeat(logits[:, 1], plan.rows, axis=0))
    state = jax.lax.while_loop(lambda state: ~jnp.all(state.done), step, state)
    return _best(plan, state.ended, no_speech)


def _begun(plan: Plan, batch: int, views: Any) -> _State:
    # Beams are all alike at first, so that only one of them counts.
    alone = jnp.where(jnp.arange(plan.rows) == 0, 0.0, -jnp.inf)
    start = alone if plan.choice is Choice.LIKELIEST else jnp.zeros(plan.rows)
    ended = _Ended(
        number=jnp.zeros(batch, jnp.int32),
        texts=jnp.full((batch, plan.ended, plan.limit), plan.codes.end, jnp.int32),
        lengths=jnp.zeros((batch, plan.ended), jnp.int32),
        log_probs=jnp.full((batch, plan.ended), -jnp.inf),
    )
    return _State(
        length=jnp.asarray(0, jnp.int32),
        texts=jnp.full((batch, plan.rows, plan.limit), plan.codes.end, jnp.int32),
        log_probs=jnp.broadcast_to(start, (batch, plan.rows)).astype(jnp.float32),
        done=jnp.zeros((batch, plan.rows), bool),
        ended=ended,
        views=views,
    )


def _beams(plan: Plan, state: _State, log_probs: Float[Array, "B W V"], limits: Int[Array, " B"]) -> _State:
    """Lets the likeliest texts go on; those that end among the likeliest `rows` are put aside."""
    batch, rows, vocabulary = log_probs.shape
    # Twice as many candidates as beams: were one of each beam an end, enough would still go on.
    each, tokens = jax.lax.top_k(log_probs, min(2 * rows, vocabulary))
    total = (state.log_probs[..., None] + each).reshape(batch, -1)
    total, chosen = jax.lax.top_k(total, 2 * rows)
    parents = chosen // tokens.shape[2]
    tokens = jnp.take_along_axis(tokens.reshape(batch, -1), chosen, axis=1)
    texts = _written(jnp.take_along_axis(state.texts, parents[..., None], axis=1), tokens, state.length)
    is_end = tokens == plan.codes.end
    last = state.length + 1 >= limits
    ends = (is_end | last[:, None])[:, :rows] & (total[:, :rows] > -jnp.inf) & ~state.done
    ended = _put_aside(state.ended, texts[:, :rows], state.length + ~is_end[:, :rows], total[:, :rows], ends)
    # Those that go on, the likeliest first.
    order = jnp.argsort(is_end, axis=1, stable=True)[:, :rows]
    parents, texts, total = (_taken(x, order) for x in (parents, texts, total))
    done = jnp.broadcast_to((state.done[:, 0] | last | (ended.number >= plan.ended))[:, None], state.done.shape)
    # Earlier tokens where their parents' were.
    at = (jnp.arange(batch)[:, None] * rows + parents).reshape(-1)
    views = state.views if rows == 1 else jax.tree.map(lambda x: x[at], state.views)
    return _State(state.length + 1, texts, total, done, ended, views)


def _drawn(
    plan: Plan,
    state: _State,
    log_probs: Float[Array, "B W V"],
    limits: Int[Array, " B"],
    *,
    temperature: Float[Array, ""],
    keys: Key[Array, " B"],
) -> _State:
    """Draws each text's next token; those that end are put aside."""
    # A key a window, so that what is drawn does not depend on the windows beside it.
    now = jax.vmap(jax.random.fold_in, (0, None))(keys, state.length)
    tokens = jax.vmap(jax.random.categorical)(now, log_probs / temperature)
    tokens = jnp.where(state.done, plan.codes.end, tokens)
    gained = jnp.take_along_axis(log_probs, tokens[..., None], axis=2)[..., 0]
    total = jnp.where(state.done, state.log_probs, state.log_probs + gained)
    texts = _written(state.texts, tokens, state.length)
    is_end = tokens == plan.codes.end
    ends = (is_end | (state.length + 1 >= limits)[:, None]) & ~state.done
    ended = _put_aside(state.ended, texts, state.length + ~is_end, total, ends)
    return _State(state.length + 1, texts, total, state.done | ends, ended, state.views)


def _put_aside(
    ended: _Ended,
    texts: Int[Array, "B W L"],
    lengths: Int[Array, "B W"],
    log_probs: Float[Array, "B W"],
    which: Bool[Array, "B W"],
) -> _Ended:
    """Returns the texts that have ended with those that end now, as long as there is room."""
    places = ended.number[:, None] + jnp.cumsum(which, axis=1) - 1
    # A place that is not there is dropped.
    places = jnp.where(which, places, ended.lengths.shape[1])
    rows = jnp.arange(len(places))[:, None]
    return _Ended(
        number=ended.number + which.sum(axis=1, dtype=jnp.int32),
        texts=ended.texts.at[rows, places].set(texts, mode="drop"),
        lengths=ended.lengths.at[rows, places].set(lengths, mode="drop"),
        log_probs=ended.log_probs.at[rows, places].set(log_probs, mode="drop"),
    )


def _best(plan: Plan, ended: _Ended, no_speech: Float[Array, " B"]) -> Found:
    score = ended.log_probs / jnp.maximum(ended.lengths, 1).astype(jnp.float32) ** plan.length_penalty
    best = jnp.argmax(score, axis=1)[:, None]
    return Found(
        tokens=_taken(ended.texts, best)[:, 0],
        lengths=_taken(ended.lengths, best)[:, 0],
        log_probs=_taken(ended.log_probs, best)[:, 0],
        no_speech=no_speech,
    )


def _written(texts: Int[Array, "B W L"], tokens: Int[Array, "B W"], length: Int[Array, ""]) -> Int[Array, "B W L"]:
    return jax.lax.dynamic_update_slice_in_dim(texts, tokens[..., None].astype(texts.dtype), length, axis=2)


def _taken(x: Array, order: Int[Array, "B R"]) -> Array:
    return jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1)
