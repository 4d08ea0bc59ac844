"""What may come next: grammars compiled to masks over tokens, over the library `llguidance`.

Not here: applying a mask (`sample.py`), tool calls and response formats (`http/`).
A mask bounds each step: a token is drawn from the model's distribution over the allowed tokens, made to sum
to 1. That is not the model's distribution over whole texts that match, which no step can know.
Properties come in the order of the schema, and one-line text: `json.dumps` writes the same. A schema bounds
what a grammar can: `format` is enforced by shape (2021-02-29 is a date), keys that no `properties` names may
come twice. Keywords that cannot be enforced are refused by name, never ignored.
Invariant: before the end there is always a token to draw, and where the text may end, that is a stop token.
"""

import collections
import enum
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import llguidance
import numpy as np
from jaxtyping import UInt32

from cupola.data.tokenizer import Tokenizer
from cupola.serve.errors import InvalidRequest
from cupola.serve.request import Grammar, GrammarKind

_LIMITS = llguidance.LLParserLimits(verbose_errors=False)
"""The library's bounds on work, in steps that it counts: some 20 ms to build a lexer, 15 ms for a mask."""
_SILENT = 0
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose object's keys are names, not keywords."""
_DATA = ("const", "enum", "default", "examples")
"""Keywords whose values are data, not schemas."""
_INSTEAD = {
    "oneOf": "Use anyOf, or alternatives that differ in type or in a required constant.",
    "if": "Use anyOf with both cases.",
    "not": "Name what is allowed instead.",
    "uniqueItems": "Leave it out and check the answer, or list the choices with enum.",
    "format": "Use date-time, time, date, duration, email, hostname, ipv4, ipv6, uuid, uri, or a pattern.",
}
_MESSAGES = {
    "oneOf": ("oneOf",),
    "Unknown format": ("format",),
    "regex parse error": ("pattern", "patternProperties"),
    "patternProperty": ("patternProperties",),
    "Resource": ("$ref", "$schema"),
    "Anchor": ("$ref",),
    "Pointer": ("$ref",),
    "Failed to generate regex for": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
"""How the library's messages begin, and the keywords that they are about."""
_QUOTED = ("format", "$schema")
"""Keywords whose value the message quotes, so that others of the same name are not at fault."""
_SUPPORTED = (
    "Supported are type, enum, const, anyOf, allOf, $ref within the schema, properties, required, "
    "additionalProperties, patternProperties, minProperties, maxProperties, items, prefixItems, minItems, maxItems, "
    "minLength, maxLength, pattern, format, minimum, maximum, exclusiveMinimum, exclusiveMaximum and multipleOf."
)


class Spacing(enum.Enum):
    """How JSON is written between its values."""

    SPACED = "spaced"
    """One space after each comma and colon, as json.dumps and most text that models have read."""
    COMPACT = "compact"
    """None."""


class Grammars:
    """Compiles grammars for one vocabulary, and keeps those used last.

    Args:
        tokenizer: whose tokens are allowed or not.
        vocabulary: of the model; ids beyond the tokenizer's are never allowed.
        stop_tokens: any of which ends a text that is complete; none: the tokenizer's end.
        spacing: of JSON.
        kept: how many compiled grammars.
        limit_bytes: longest grammar that is read.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocabulary: int,
        stop_tokens: Iterable[int] = (),
        *,
        spacing: Spacing = Spacing.SPACED,
        kept: int = 256,
        limit_bytes: int = 2**18,
    ):
        self._spacing, self._kept, self._limit_bytes = spacing, kept, limit_bytes
        stops = sorted(stop_tokens) or [tokenizer.end]
        self._inner = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Vocabulary(tokenizer, vocabulary, stops[0])), eos_token=stops
        )
        self._compiled: collections.OrderedDict[Grammar, llguidance.LLMatcher] = collections.OrderedDict()
        self._lock = threading.Lock()

    def compile(self, grammar: Grammar, *, where: str = "") -> "Matcher":
        """Returns a matcher at the beginning of a text.

        Args:
            grammar: what the text must match.
            where: what the client called it, for errors; empty: the kind's name.

        Raises:
            InvalidRequest: it cannot be read or enforced, matches nothing, or takes too much work.
        """
        where = where or grammar.kind.value
        with self._lock:
            compiled = self._compiled.get(grammar)
            if compiled is not None:
                self._compiled.move_to_end(grammar)
        if compiled is None:
            compiled = self._build(grammar, where)
            with self._lock:
                self._compiled[grammar] = compiled
                while len(self._compiled) > self._kept:
                    self._compiled.popitem(last=False)
        return Matcher(compiled.deep_copy())

    def _build(self, grammar: Grammar, where: str) -> llguidance.LLMatcher:
        try:
            size = len(grammar.text.encode())
        except UnicodeEncodeError:
            raise InvalidRequest(
                "it holds half of a surrogate pair, which is no character", where=where, remedy="Send valid Unicode."
            ) from None
        if size > self._limit_bytes:
            raise InvalidRequest(
                f"it has {size} bytes, more than the {self._limit_bytes} that this server reads",
                where=where,
                remedy="Use a smaller grammar; $ref and rules let it say things once.",
            )
        matcher = llguidance.LLMatcher(
            self._inner, _source(grammar, self._spacing, where), log_level=_SILENT, limits=_LIMITS
        )
        if matcher.is_error():
            raise _refusal(grammar, matcher.get_error(), where)
        return matcher


class Matcher:
    """Where one text stands in its grammar. Made by `Grammars.compile`; not for two threads at once."""

    def __init__(self, inner: llguidance.LLMatcher):
        self._inner = inner

    @property
    def ended(self) -> bool:
        """Whether it is certain that nothing can come any more but a stop token, or one has come."""
        return self._inner.is_stopped()

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return self._inner.is_accepting()

    def mask(self, out: UInt32[np.ndarray, " W"]) -> None:
        """Writes which tokens may come next: a bit for each, the lowest first; after the end, the stop tokens.

        Args:
            out: ceil(vocabulary / 32) words.

        Raises:
            InvalidRequest: the grammar took too much work here.
        """
        if not out.flags.c_contiguous:
            raise ValueError("the library writes a mask into memory as it lies: give it whole rows")
        self._inner.unsafe_compute_mask_ptr(out.ctypes.data, out.nbytes)
        self._check()

    def masks(self, out: UInt32[np.ndarray, "N W"], draft: Sequence[int]) -> int:
        """Writes the masks of the next token and of those after each drafted one, and stays where it is.

        Returns:
            How many drafted tokens the grammar allows: out[0] to out[that] are written.

        Raises:
            InvalidRequest: as `mask`.
        """
        self.mask(out[0])
        allowed = 0
        for token in draft:
            if not out[allowed][token // 32] >> np.uint32(token % 32) & 1:
                break
            self.accept(token)
            allowed += 1
            self.mask(out[allowed])
        self.rollback(allowed)
        return allowed

    def accept(self, token: int) -> None:
        """Takes a token that has come.

        Raises:
            InvalidRequest: it is not allowed here, or the grammar took too much work; the matcher is then spent.
        """
        self._inner.consume_token(token)
        self._check()

    def forced(self, least: int = 1) -> list[int]:
        """Returns the tokens that must come, without taking them; none where they are fewer than `least`.

        They are the tokenizer's own tokens of the forced text. Those at its end that could merge with
        what comes after are left out, so that text after a jump is split as if it had been generated.
        """
        # No token is shorter than a byte, and bytes come at a fiftieth of the price of tokens.
        if len(self._inner.compute_ff_bytes()) < least:
            return []
        forced = self._inner.compute_ff_tokens()
        return forced if len(forced) >= least else []

    def validate(self, tokens: Sequence[int]) -> int:
        """Returns how many of the tokens may come, one after the other, without taking them."""
        return self._inner.validate_tokens(list(tokens))

    def rollback(self, count: int) -> None:
        """Takes back the last tokens that were accepted."""
        if count:
            self._inner.rollback(count)
            self._check()

    def copy(self) -> "Matcher":
        """Returns a matcher of the same state that goes its own way."""
        return Matcher(self._inner.deep_copy())

    def _check(self) -> None:
        if self._inner.is_error():
            raise InvalidRequest(
                f"the grammar cannot go on: {self._inner.get_error().splitlines()[0]}",
                where="grammar",
                remedy="Use a grammar with fewer alternatives at each place, and shorter bounds on repetition.",
            )


class _Vocabulary:
    """A tokenizer in the shape that the library asks for."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, stop: int):
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = stop, None
        self.special_token_ids = sorted(tokenizer.special)
        self.tokens = [tokenizer.token_bytes(i) for i in range(min(vocabulary, tokenizer.vocabulary))]
        self.tokens += [b""] * (vocabulary - len(self.tokens))
        for name, i in tokenizer.special_names.items():
            if i < vocabulary:
                self.tokens[i] = name.encode()

    def __call__(self, text: str) -> list[int]:
        # What a grammar forces never stands first: a prompt is before it.
        return self._tokenizer.encode_parts(("", text)).tolist()


def _source(grammar: Grammar, spacing: Spacing, where: str) -> str:
    make = llguidance.LLMatcher
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            schema = _schema(grammar.text, where)
            blank = " " if spacing is Spacing.SPACED else ""
            try:
                return make.grammar_from_json_schema(
                    json.dumps(schema),
                    overrides={
                        "item_separator": "," + blank,
                        "key_separator": ":" + blank,
                        "whitespace_flexible": False,
                        "coerce_one_of": False,
                        "lenient": False,
                    },
                )
            except ValueError as error:
                raise InvalidRequest(
                    f"the schema cannot be read ({error})", where=where, remedy="Use $ref for what nests deeply."
                ) from None
        case GrammarKind.REGEX:
            return make.grammar_from_regex(grammar.text)
        case GrammarKind.CHOICE:
            choices = _parsed(grammar.text, where)
            if not (isinstance(choices, list) and choices and all(isinstance(c, str) for c in choices)):
                raise InvalidRequest("it is no list of strings", where=where, remedy='Send such as ["yes", "no"].')
            return make.grammar_from_lark("start: " + " | ".join(map(json.dumps, choices)))
        case GrammarKind.LARK:
            return make.grammar_from_lark(grammar.text)


def _schema(text: str, where: str) -> dict[str, Any]:
    schema = _parsed(text, where)
    if schema is True:
        return {}
    if schema is False:
        raise InvalidRequest("the schema is false: no value fits", where=where, remedy="Use a schema that some fits.")
    if not isinstance(schema, dict):
        raise InvalidRequest("a schema is an object", where=where, remedy='Send such as {"type": "object"}.')
    if "x-guidance" in schema:
        raise InvalidRequest(
            "x-guidance is not read: this server decides how JSON is written", where=where, remedy="Leave it out."
        )
    return schema


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"it is no JSON ({error})", where=where, remedy="Send valid JSON.") from None
    except RecursionError:
        raise InvalidRequest("it is nested too deeply", where=where, remedy="Use $ref for what nests.") from None


def _refusal(grammar: Grammar, error: str, where: str) -> InvalidRequest:
    """Makes the library's message one that names the place and what to send instead."""
    lines = error.strip().splitlines()
    if grammar.kind is not GrammarKind.JSON_SCHEMA:
        problem = "\n".join(lines)
        return InvalidRequest(f"it cannot be used: {problem}", where=where, remedy=_REMEDIES[grammar.kind])
    keywords = _keywords_in(error)
    places = list(_places(json.loads(grammar.text), keywords, error)) or keywords
    named = f"{', '.join(places)} ({lines[0]})" if places else lines[0]
    remedies = [_INSTEAD[k] for k in keywords if k in _INSTEAD]
    return InvalidRequest(
        f"the schema cannot be enforced: {named}", where=where, remedy=" ".join([*remedies, _SUPPORTED])
    )


_REMEDIES = {
    GrammarKind.REGEX: "Use a regular expression without look-around and back references; it matches the whole text.",
    GrammarKind.CHOICE: "Send fewer or shorter choices.",
    GrammarKind.LARK: "Use Lark's syntax with a rule named start; terminals are in upper case.",
}


def _keywords_in(error: str) -> list[str]:
    """Returns the keywords that a message of the library is about."""
    _, found, listed = error.partition("Unimplemented keys: ")
    if found:
        return json.loads(listed[: listed.index("]") + 1])
    return next((list(keywords) for start, keywords in _MESSAGES.items() if error.startswith(start)), [])


def _places(schema: Any, keywords: list[str], error: str, path: str = "") -> Iterator[str]:
    """Yields where the keywords stand as keywords, such as "properties.tags.uniqueItems"."""
    if isinstance(schema, list):
        for i, item in enumerate(schema):
            yield from _places(item, keywords, error, f"{path}[{i}]")
    elif isinstance(schema, dict):
        for key, held in schema.items():
            here = f"{path}.{key}" if path else key
            if key in keywords and (key not in _QUOTED or str(held) in error):
                yield here
            elif key in _NAMED and isinstance(held, dict):
                for name, inner in held.items():
                    yield from _places(inner, keywords, error, f"{here}.{name}")
            elif key not in _DATA:
                yield from _places(held, keywords, error, here)
