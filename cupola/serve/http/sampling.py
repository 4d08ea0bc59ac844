"""From a body's fields to an engine's records: sampling, limits, stops, grammars, prompts.

Not here: messages (`messages.py`), what comes back. Invariant: what reaches the engine is within the
server's limits and the model's vocabulary and context.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from cupola.core.errors import TokenizerError
from cupola.serve.errors import ContextOverflow, InvalidRequest
from cupola.serve.generator import Served
from cupola.serve.http.call import Call
from cupola.serve.http.errors import TooLarge
from cupola.serve.http.limits import Limits
from cupola.serve.http.schema import Generation, Texts
from cupola.serve.request import Grammar, GrammarKind, Request, Sampling

Tokens = tuple[int, ...]

_SEEDS = 2**31
"""Seeds count modulo this: every engine's random numbers can start from so many places."""

_LARGEST_TEMPERATURE = 2.0
_SMALLEST_TOP_P = 1e-9
"""Stands for 0, which clients send to mean the likeliest token alone."""


def bounded(value: int | None, default: int, low: int, high: int, name: str) -> int:
    """Returns the value, or the default where there is none.

    Raises:
        InvalidRequest: it is outside the range.
    """
    chosen = default if value is None else value
    if not low <= chosen <= high:
        raise InvalidRequest(f"{name}={chosen} is outside its range", where=name, remedy=f"Use {low} to {high}.")
    return chosen


def read_sampling(body: Generation, served: Served, limits: Limits) -> Sampling:
    """Returns how tokens are drawn: as the body says, and where it says nothing as the model's default.

    Raises:
        InvalidRequest: a number outside its range, or a token that the model does not have.
        ConfigError: likewise.
    """
    said: dict[str, Any] = {
        field.name: getattr(body, field.name)
        for field in dataclasses.fields(Sampling)
        if field.name != "logit_bias" and getattr(body, field.name) is not None
    }
    if not 0 <= said.get("temperature", 0) <= _LARGEST_TEMPERATURE:
        raise InvalidRequest(
            f"temperature={body.temperature} is outside its range", where="temperature", remedy="Use 0 to 2."
        )
    if said.get("top_p") == 0:
        said["top_p"] = _SMALLEST_TOP_P
    if said.get("top_k") in (-1, 0):
        said["top_k"] = None
    if "seed" in said:
        said["seed"] %= _SEEDS
    if body.logit_bias is not None:
        said["logit_bias"] = _biases(body.logit_bias, served, limits)
    return dataclasses.replace(served.sampling, **said)


def _biases(given: dict[str, float], served: Served, limits: Limits) -> tuple[tuple[int, float], ...]:
    if len(given) > limits.logit_biases:
        raise InvalidRequest(
            f"there are {len(given)} biases", where="logit_bias", remedy=f"Send up to {limits.logit_biases}."
        )
    for name in given:
        if not (name.isascii() and name.isdigit() and len(name) < 10 and int(name) < served.tokenizer.vocabulary):
            raise InvalidRequest(
                f"{name[:40]!r} is no token of {served.name}",
                where="logit_bias",
                remedy=f"Use token ids, 0 to {served.tokenizer.vocabulary - 1}; POST /tokenize gives them.",
            )
    return tuple(sorted((int(name), bias) for name, bias in given.items()))


def read_stop(body: Generation, served: Served, limits: Limits) -> tuple[tuple[str, ...], frozenset[int]]:
    """Returns the texts and the tokens that end the generation.

    Raises:
        InvalidRequest: too many, too long, empty, or no tokens of the model.
    """
    texts = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(texts) > limits.stop_texts:
        raise InvalidRequest(
            f"there are {len(texts)} stop texts", where="stop", remedy=f"Use up to {limits.stop_texts}."
        )
    if not all(0 < len(text) <= limits.stop_characters for text in texts):
        raise InvalidRequest(
            "a stop text is empty or too long", where="stop", remedy=f"Use 1 to {limits.stop_characters} characters."
        )
    tokens = check_tokens(body.stop_token_ids or [], served, "stop_token_ids")
    return texts, frozenset(tokens) | (frozenset() if body.ignore_eos else served.stop_tokens)


def read_grammar(body: Generation) -> Grammar | None:
    """Returns what the text must match.

    Raises:
        InvalidRequest: more than one field says so, or a schema is missing.
    """
    found: dict[str, Grammar] = {}
    if body.regex is not None:
        found["regex"] = Grammar(GrammarKind.REGEX, body.regex)
    if body.grammar is not None:
        found["grammar"] = Grammar(GrammarKind.LARK, body.grammar)
    for name in ("choices", "guided_choice"):
        if (choices := getattr(body, name)) is not None:
            if not choices:
                raise InvalidRequest("there is nothing to choose from", where=name, remedy="Send one text or more.")
            found[name] = Grammar(GrammarKind.CHOICE, json.dumps(choices))
    if body.response_format is not None and body.response_format.type != "text":
        found["response_format"] = Grammar(GrammarKind.JSON_SCHEMA, _schema(body))
    if len(found) > 1:
        names = " and ".join(found)
        raise InvalidRequest(
            f"{names} each say what the text must match", where=list(found)[-1], remedy="Send one of them."
        )
    return next(iter(found.values()), None)


def _schema(body: Generation) -> str:
    form = body.response_format
    if form is None or form.type == "json_object":
        return json.dumps({"type": "object"})
    if form.json_schema is None or form.json_schema.schema is None:
        raise InvalidRequest(
            "the schema is missing",
            where="response_format.json_schema.schema",
            remedy='Send {"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}.',
        )
    return json.dumps(form.json_schema.schema)


def read_limit(prompt: Sequence[int], asked: int | None, served: Served, name: str) -> int:
    """Returns how many tokens may be generated: as asked, else as many as the context has room for.

    Raises:
        ContextOverflow: prompt and limit are longer than the model's context.
        InvalidRequest: the limit is negative.
    """
    room = served.max_length - len(prompt)
    if asked is not None and asked < 0:
        raise InvalidRequest(
            f"{name}={asked} is negative", where=name, remedy="Use a number of tokens, or leave it out."
        )
    if asked is not None and asked > room:
        remedy = f"Use {name}={room} or less, or a shorter prompt." if room > 0 else "Send a shorter prompt."
        raise ContextOverflow(
            f"{served.name} holds {served.max_length} tokens, but the prompt has {len(prompt)} and {asked} are "
            f"asked for, {len(prompt) + asked} in all",
            where=name,
            remedy=remedy,
        )
    if asked is None and room < 1:
        raise ContextOverflow(
            f"{served.name} holds {served.max_length} tokens, but the prompt alone has {len(prompt)}",
            remedy="Send a shorter prompt.",
        )
    return room if asked is None else asked


def check_tokens(tokens: Sequence[int], served: Served, where: str) -> Tokens:
    """Returns the tokens.

    Raises:
        InvalidRequest: one of them is none of the model's.
    """
    if not tokens or (min(tokens) >= 0 and max(tokens) < served.tokenizer.vocabulary):
        return tuple(tokens)
    for index, token in enumerate(tokens):
        if not 0 <= token < served.tokenizer.vocabulary:
            raise InvalidRequest(
                f"{token} is no token of {served.name}",
                where=f"{where}[{index}]",
                remedy=f"Use 0 to {served.tokenizer.vocabulary - 1}; POST /tokenize gives them.",
            )
    return tuple(tokens)


def read_texts(given: Texts, served: Served, limits: Limits, where: str) -> list[tuple[Tokens, str | None]]:
    """Returns (tokens, text, None where it was sent as tokens) of each prompt.

    Raises:
        InvalidRequest: there is none, one is empty, they are of different kinds, or no tokens of the model.
        TooLarge: there are too many.
    """
    if isinstance(given, list) and given and all(isinstance(item, int) for item in given):
        items: list[Any] = [given]
        places = [where]
    else:
        items = given if isinstance(given, list) else [given]
        places = [f"{where}[{index}]" for index in range(len(items))] if isinstance(given, list) else [where]
    if not items:
        raise InvalidRequest("it is empty", where=where, remedy="Send a text, a list of texts, or tokens.")
    if len(items) > limits.inputs:
        raise TooLarge(f"there are {len(items)} inputs", where=where, remedy=f"Send up to {limits.inputs} at once.")
    return [_read_text(item, served, place) for item, place in zip(items, places, strict=True)]


def _read_text(item: Any, served: Served, where: str) -> tuple[Tokens, str | None]:
    if isinstance(item, int):
        raise InvalidRequest(
            "tokens and texts stand in one list",
            where=where,
            remedy="Send a list of texts or a list of lists of tokens.",
        )
    if isinstance(item, list):
        tokens, text = check_tokens(item, served, where), None
    else:
        try:
            tokens, text = (*served.begin_tokens, *served.tokenizer.encode(item).tolist()), item
        except TokenizerError as error:
            raise InvalidRequest(error.problem, where=where, remedy=error.remedy) from None
    if not tokens:
        raise InvalidRequest("it has no tokens", where=where, remedy="Send at least one character.")
    if len(tokens) > served.max_length:
        raise ContextOverflow(
            f"{served.name} holds {served.max_length} tokens, but it has {len(tokens)}",
            where=where,
            remedy="Send a shorter one.",
        )
    return tokens, text


def expand(
    call: Call, served: Served, body: Generation, prompts: Sequence[Tokens], change: Callable[[Tokens], dict[str, Any]]
) -> list[Request]:
    """Returns n requests for each prompt, in order; the choices of one prompt draw from seeds of their own.

    Args:
        call: whose namespace and limits hold.
        served: the model.
        body: what it says of sampling and ends.
        prompts: tokens of each.
        change: what else a prompt's requests hold, such as their limit and grammar.
    """
    limits = call.service.limits
    choices = bounded(body.n, 1, 1, limits.choices, "n")
    sampling = read_sampling(body, served, limits)
    stop, stop_tokens = read_stop(body, served, limits)
    made: list[Request] = []
    for prompt in prompts:
        for choice in range(choices):
            seed = None if sampling.seed is None else (sampling.seed + choice) % _SEEDS
            made.append(
                Request(
                    id=f"{call.id}-{len(made)}",
                    prompt=prompt,
                    sampling=dataclasses.replace(sampling, seed=seed),
                    stop=stop,
                    stop_tokens=stop_tokens,
                    priority=bounded(body.priority, 0, -limits.priority, limits.priority, "priority"),
                    adapter=served.adapter,
                    namespace=call.namespace(body.cache_salt),
                    timeout_seconds=limits.request_seconds,
                    **change(prompt),
                )
            )
    return made


def check_stream(body: Generation) -> None:
    """Checks that what is said of a stream is said of one.

    Raises:
        InvalidRequest: it is not.
    """
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest(
            "there are stream_options, but no stream",
            where="stream_options",
            remedy="Send stream: true, or leave them out.",
        )
