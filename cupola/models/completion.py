"""Continuing a text with a decoder: one prefill, then one token at a time.

Not here: many requests at once (the server's engine).
Invariant: the log-probability of each token equals that of the training forward over the same text.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cupola.config.value import Value
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.module import Tree
from cupola.models.decoder import Decoder


class Sampling(Value):
    """How the next token is drawn.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: only so many of the likeliest tokens; None takes all.
        top_p: only the likeliest tokens that together have this probability.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 0.95

    def check(self) -> None:
        if not self.temperature >= 0:
            raise ConfigError(f"temperature={self.temperature}", remedy="Use 0 for the likeliest token, or more.")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k} leaves no token", remedy="Use 1 or more, or None for all.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} is no probability", remedy="Use a number above 0, up to 1.")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A token and its log-probability under the model, in nats, before temperature and cuts."""

    token: int
    log_prob: float


def complete(
    model: Decoder,
    params: Tree,
    prompt: Sequence[int],
    *,
    limit_tokens: int,
    sampling: Sampling = Sampling(),
    key: Key[Array, ""],
) -> Iterator[Drawn]:
    """Yields up to `limit_tokens` tokens that continue the prompt.

    Raises:
        ShapeError: the prompt is empty, or prompt and limit exceed the model's max_length.
    """
    if not prompt:
        raise ShapeError("the prompt has no token", where="complete", remedy="Begin with the tokenizer's end token.")
    if len(prompt) + limit_tokens > model.max_length:
        room = model.max_length - len(prompt)
        raise ShapeError(
            f"{len(prompt)} prompt tokens and {limit_tokens} more exceed max_length={model.max_length}",
            where="complete",
            remedy=f"Ask for at most {room} tokens." if room > 0 else f"Use a prompt below {model.max_length} tokens.",
        )
    # Prompts are padded to a power of two, so that few lengths are compiled; what stands behind the
    # prompt is overwritten before any query may see it.
    padded = min(1 << (len(prompt) - 1).bit_length(), model.max_length)
    tokens = jnp.asarray([[*prompt, *([0] * (padded - len(prompt)))]], jnp.int32)
    view = model.empty_view(1, model.max_length)
    step = _compiled(model, sampling)
    start, length = 0, len(prompt)
    for _ in range(limit_tokens):
        (token, log_prob), view = step(params, tokens, view, jnp.asarray(start), jnp.asarray(length), key)
        yield Drawn(token=int(token), log_prob=float(log_prob))
        tokens, start, length = token[None, None], start + length, 1


@cache
def _compiled(model: Decoder, sampling: Sampling) -> Callable[..., Any]:
    """Returns the step compiled once for all completions, the view donated."""
    return jax.jit(partial(_step, model, sampling), donate_argnums=2)


def _step(
    model: Decoder,
    sampling: Sampling,
    params: Tree,
    tokens: Int[Array, "1 T"],
    view: Tree,
    start: Int[Array, ""],
    length: Int[Array, ""],
    key: Key[Array, ""],
) -> tuple[tuple[Int[Array, ""], Float[Array, ""]], Tree]:
    """Takes in tokens from position `start` on, of which `length` count, and draws the next."""
    positions = start + jnp.arange(tokens.shape[1])[None]
    hidden = model(params, tokens, positions=positions, view=view)
    last = jax.lax.dynamic_slice_in_dim(hidden.states, length - 1, 1, axis=1)
    logits = model.logits(params, last)[0, 0]
    return _draw(logits, sampling, jax.random.fold_in(key, start + length)), hidden.aside.view


def _draw(
    logits: Float[Array, " V"], sampling: Sampling, key: Key[Array, ""]
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Returns (token, log-probability)."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    if sampling.temperature == 0:
        token = jnp.argmax(logits)
    else:
        token = jax.random.categorical(key, cut(logits / sampling.temperature, sampling))
    return token, log_probs[token]


def cut(logits: Float[Array, " V"], sampling: Sampling) -> Float[Array, " V"]:
    """Returns the logits with those of tokens that may not be drawn at -inf.

    The likeliest token always stays. Source: Holtzman et al. 2020, section 3.1 (top-p).
    """
    ranked = jnp.sort(logits, descending=True)
    if sampling.top_k is not None and sampling.top_k < logits.shape[0]:
        logits = jnp.where(logits < ranked[sampling.top_k - 1], -jnp.inf, logits)
        ranked = jnp.where(jnp.arange(ranked.shape[0]) < sampling.top_k, ranked, -jnp.inf)
    if sampling.top_p < 1:
        shares = jax.nn.softmax(ranked)
        before = jnp.cumsum(shares) - shares
        least = jnp.min(jnp.where(before < sampling.top_p, ranked, jnp.inf))
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits
