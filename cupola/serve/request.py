"""What is asked of an engine and what it answers: the records that every phase of a request shares.

Not here: HTTP's own shapes (`http/`), text templates (`interop/`).
Invariant: every accepted request gets pieces, the last of which, and no other, holds a `Finish`.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

from cupola.config.value import Value
from cupola.core.errors import ConfigError


class Sampling(Value):
    """How tokens are drawn. The defaults are those of the OpenAI API: the model's own distribution.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: only so many of the likeliest tokens; None takes all.
        top_p: only the likeliest tokens that together have this probability.
        min_p: only tokens at least this share of the likeliest one's probability.
        repetition_penalty: divides positive and multiplies negative logits of tokens that stand in
            prompt or output (Keskar et al. 2019); 1 does nothing.
        presence_penalty: subtracted from the logits of tokens that were generated.
        frequency_penalty: subtracted once for each time that a token was generated.
        logit_bias: (token, bias) pairs added to the logits.
        seed: of this request's randomness; None draws one.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None

    def check(self) -> None:
        limits = {
            "temperature": (0.0, 100.0, "Use 0 for the likeliest token, 1 for the model's own distribution."),
            "top_p": (1e-9, 1.0, "Use a number above 0, up to 1."),
            "min_p": (0.0, 1.0, "Use a number from 0 to 1."),
            "repetition_penalty": (1e-6, 100.0, "Use a number above 0; 1 does nothing."),
            "presence_penalty": (-2.0, 2.0, "Use a number from -2 to 2."),
            "frequency_penalty": (-2.0, 2.0, "Use a number from -2 to 2."),
        }
        for name, (low, high, remedy) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}={getattr(self, name)} is outside its range", where=name, remedy=remedy)
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k} leaves no token", where="top_k", remedy="Use 1 or more, or none.")
        for token, bias in self.logit_bias:
            if not -100 <= bias <= 100:
                raise ConfigError(
                    f"the bias {bias} of token {token} is outside its range",
                    where="logit_bias",
                    remedy="Use numbers from -100 (never) to 100 (always).",
                )

    @property
    def penalizes(self) -> bool:
        """Whether earlier tokens change the logits."""
        return bool(self.repetition_penalty != 1 or self.presence_penalty or self.frequency_penalty)


class GrammarKind(enum.Enum):
    """In what language a grammar is written."""

    JSON_SCHEMA = "json_schema"
    """A JSON Schema, as JSON text; `{}` allows any JSON value, {"type": "object"} any object."""
    REGEX = "regex"
    CHOICE = "choice"
    """A JSON list of strings."""
    LARK = "lark"
    """EBNF as in Lark, llguidance's dialect."""


@dataclasses.dataclass(frozen=True)
class Grammar:
    """What the generated text must match, from its first token to its end.

    Args:
        kind: the language of `text`.
        text: the grammar.
    """

    kind: GrammarKind
    text: str


class Task(enum.Enum):
    """What a request wants of the model."""

    GENERATE = "generate"
    EMBED = "embed"
    """The mean of the last hidden states over the prompt, of length 1."""
    SCORE = "score"
    """The log-probability of each prompt token after the first; nothing is generated."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One continuation of one prompt; n choices are n requests that share a prompt.

    Args:
        id: unique among the requests of an engine.
        prompt: token ids, at least one.
        limit_tokens: at most so many are generated.
        sampling: how they are drawn.
        stop: texts that end the generation and are not part of its text.
        stop_tokens: token ids that end it; usually the ends of document and turn.
        grammar: what the text must match; None allows everything.
        top_logprobs: None: no log-probabilities; else those of each token and of so many of the likeliest.
        prompt_logprobs: also of the prompt's tokens (all but the first).
        priority: larger goes first, and may take the place of smaller ones.
        adapter: name of a low-rank adapter; None is the base model.
        namespace: whose cached prefixes it may share; equal namespaces share.
        timeout_seconds: from submission to the last token; None: no limit.
        task: what is wanted.
    """

    id: str
    prompt: tuple[int, ...]
    limit_tokens: int = 16
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    grammar: Grammar | None = None
    top_logprobs: int | None = None
    prompt_logprobs: bool = False
    priority: int = 0
    adapter: str | None = None
    namespace: str = ""
    timeout_seconds: float | None = None
    task: Task = Task.GENERATE


@dataclasses.dataclass(frozen=True)
class Token:
    """A token and its log-probability under the model, in nats, before temperature, cuts and masks.

    Args:
        id: the token.
        log_prob: None where none was asked for.
        top: (token, log-probability) of the likeliest tokens at this place, the likeliest first.
    """

    id: int
    log_prob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Reason(enum.Enum):
    """Why a request ended."""

    STOP = "stop"
    """A stop text, a stop token, or the end of its grammar."""
    LENGTH = "length"
    """Its limit of tokens, or the end of the model's context."""
    ABORT = "abort"
    """The client went away or asked for it."""
    TIMEOUT = "timeout"
    ERROR = "error"
    """The engine could not go on; `Finish.error` says why."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """How many tokens a request took.

    Args:
        prompt_tokens: of the prompt.
        cached_tokens: of these, how many were found in the prefix cache.
        completion_tokens: generated, those that end it among them.
        drafted_tokens: proposed by speculation.
        accepted_tokens: of these, how many the model agreed with.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclasses.dataclass(frozen=True)
class Finish:
    """The end of a request.

    Args:
        reason: why.
        usage: what it took.
        stop: the stop text that ended it, if one did.
        error: the `CupolaError` where the reason is ERROR.
        embedding: for EMBED.
        prompt: the prompt's tokens after the first with their log-probabilities, for SCORE and
            where `prompt_logprobs` was asked for.
    """

    reason: Reason
    usage: Usage
    stop: str | None = None
    error: Exception | None = None
    embedding: tuple[float, ...] | None = None
    prompt: tuple[Token, ...] = ()


@dataclasses.dataclass(frozen=True)
class Piece:
    """What a request has brought forth since the piece before.

    Args:
        text: never half a character, and never the beginning of a stop text that came.
        tokens: that made it; text may lag behind tokens.
        finish: in the last piece, and only there.
    """

    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish: Finish | None = None


Receive = Callable[[Piece], Any]
"""Takes a request's pieces in order, on the engine's thread; it must not block."""
