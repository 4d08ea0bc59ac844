"""What a program adds to a state: text, turns of roles, and places that a model fills in.

Not here: doing it (`executor.py`). Invariant: an expression is a value, checked when it is made, so that
a mistake in it is raised on the line that has it.
Source: the primitives of SGLang, arXiv 2312.07104, section 2.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cupola.serve.program.choose import Method
from cupola.serve.program.errors import ProgramError
from cupola.serve.program.transcript import Role
from cupola.serve.request import Grammar, GrammarKind, Sampling

LIMIT_TOKENS = 128
"""Of a `gen` that says none."""

REASONING = "_reasoning"
"""Added to the name of a variable for what was thought before it."""


class Expression:
    """Something that can be added to a state, and joined with `+` to text or another one."""

    def __add__(self, other: Any) -> "Expression":
        return Sequenced((self, expression(other)))

    def __radd__(self, other: Any) -> "Expression":
        return Sequenced((expression(other), self))

    def primitives(self) -> Iterator["Expression"]:
        """Yields what it consists of, in order, none of which consists of others."""
        yield self


@dataclasses.dataclass(frozen=True)
class Text(Expression):
    """Constant text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Sequenced(Expression):
    """One after another."""

    parts: tuple[Expression, ...]

    def primitives(self) -> Iterator[Expression]:
        for part in self.parts:
            yield from part.primitives()


@dataclasses.dataclass(frozen=True)
class Open(Expression):
    """The beginning of a turn."""

    role: Role


@dataclasses.dataclass(frozen=True)
class Close(Expression):
    """The end of a turn."""


@dataclasses.dataclass(frozen=True)
class Gen(Expression):
    """Text that a model generates; made by `gen`.

    Args:
        name: of the variable that takes it; None keeps it in the text alone.
        limit_tokens: at most so many.
        stop: texts that end it and are not part of it.
        changes: fields of the state's sampling that are other here.
        grammar: what it must match.
        top_logprobs: see `Request`.
        reasoning: (opening, closing) marks of what is thought before it and is no part of it.
    """

    name: str | None
    limit_tokens: int
    stop: tuple[str, ...]
    changes: tuple[tuple[str, Any], ...]
    grammar: Grammar | None
    top_logprobs: int | None
    reasoning: tuple[str, str] | None = None

    def sampling(self, usual: Sampling | None) -> dict[str, Any]:
        """Returns every field of the sampling that the run or this place names."""
        named = {} if usual is None else {f.name: getattr(usual, f.name) for f in dataclasses.fields(usual)}
        return named | dict(self.changes)


@dataclasses.dataclass(frozen=True)
class Select(Expression):
    """The likeliest of some texts; made by `select`."""

    name: str | None
    choices: tuple[str, ...]
    method: Method


def expression(value: Any) -> Expression:
    """Returns text as an expression, and an expression as it is.

    Raises:
        ProgramError: it is neither.
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, str):
        return Text(value)
    raise ProgramError(
        f"{value!r} is a {type(value).__name__}, and a state takes text and expressions",
        remedy="Make it text, as str(...), or use gen, select, system, user or assistant.",
    )


def gen(
    name: str | None = None,
    *,
    limit_tokens: int = LIMIT_TOKENS,
    stop: str | Sequence[str] = (),
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    presence_penalty: float | None = None,
    frequency_penalty: float | None = None,
    seed: int | None = None,
    regex: str | None = None,
    json_schema: Mapping[str, Any] | str | None = None,
    choices: Sequence[str] | None = None,
    grammar: str | None = None,
    logprobs: int | None = None,
) -> Gen:
    """Returns a place that the model fills with text, up to a limit, a stop text or the end of its turn.

    What is left out here is as the run says (`Program.run(sampling=...)`), or else as the back-end has it.

    Args:
        name: the text is `state[name]` afterwards.
        limit_tokens: at most so many.
        stop: texts that end it; they are no part of it.
        temperature, top_p, top_k, min_p, repetition_penalty, presence_penalty, frequency_penalty, seed:
            see `Sampling`.
        regex: it matches this expression.
        json_schema: it is JSON that fits this schema, given as a mapping or as JSON text.
        choices: it is one of these, each token drawn among those that can follow; `select` weighs them whole.
        grammar: it fits this grammar in Lark's form.
        logprobs: None, or with each token's log-probability those of so many of the likeliest.

    Raises:
        ProgramError: a limit below 1, an empty stop text or choice, or more than one grammar.
        ConfigError: a number outside its range.
    """
    if limit_tokens < 1:
        raise ProgramError(
            f"limit_tokens={limit_tokens} leaves no token", where=f"gen {name!r}", remedy="Use 1 or more."
        )
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in stops:
        raise ProgramError("an empty stop text ends every text", where=f"gen {name!r}", remedy="Leave it out.")
    given: dict[str, Any] = {
        "temperature": None if temperature is None else float(temperature),
        "top_p": None if top_p is None else float(top_p),
        "top_k": top_k,
        "min_p": None if min_p is None else float(min_p),
        "repetition_penalty": None if repetition_penalty is None else float(repetition_penalty),
        "presence_penalty": None if presence_penalty is None else float(presence_penalty),
        "frequency_penalty": None if frequency_penalty is None else float(frequency_penalty),
        "seed": seed,
    }
    changes = tuple((key, value) for key, value in given.items() if value is not None)
    made = Gen(name, limit_tokens, stops, changes, _grammar(name, regex, json_schema, choices, grammar), logprobs)
    Sampling(**dict(changes))  # raises now what would be raised when it runs
    return made


def select(
    name: str | None = None, choices: Sequence[str] = (), *, method: Method = Method.TOKEN_LENGTH_NORMALIZED
) -> Select:
    """Returns a place for the one of `choices` that the model finds likeliest; nothing is drawn.

    Args:
        name: the chosen text is `state[name]` afterwards; its scores stand in `state.result(name)`.
        choices: texts, each as it would follow what stands before.
        method: how log-probabilities of texts of different lengths are compared.

    Raises:
        ProgramError: no choices, or an empty or repeated one.
    """
    _check_choices(name, choices)
    return Select(name, tuple(choices), method)


def system(content: Expression | str) -> Expression:
    """Returns a turn of the system, closed."""
    return _turn(Role.SYSTEM, content)


def user(content: Expression | str) -> Expression:
    """Returns a turn of the user, closed."""
    return _turn(Role.USER, content)


def assistant(content: Expression | str) -> Expression:
    """Returns a turn of the assistant, closed; the only one in which a model generates."""
    return _turn(Role.ASSISTANT, content)


def separate_reasoning(place: Gen, *, opening: str = "<think>", closing: str = "</think>") -> Gen:
    """Returns a `gen` whose thoughts stand in the variable NAME_reasoning, and are no part of the text.

    Later turns do not see the thoughts, as templates of reasoning models have it.

    Args:
        place: a `gen` with a name.
        opening: begins the thoughts; the prompt may have written it already.
        closing: ends them. A text that never ends them is all thoughts if it opened them, else none.

    Raises:
        ProgramError: it has no name, or a grammar that leaves no room for thoughts.
    """
    if place.name is None or place.grammar is not None:
        raise ProgramError(
            "thoughts are kept beside a variable, and a grammar holds from the first token on",
            where=f"gen {place.name!r}",
            remedy='Give it a name and no grammar: separate_reasoning(gen("answer")).',
        )
    return dataclasses.replace(place, reasoning=(opening, closing))


def separated(text: str, marks: tuple[str, str]) -> tuple[str, str]:
    """Returns (thoughts, the rest) of a text in which marks enclose thoughts."""
    opening, closing = marks
    begun = text.lstrip().startswith(opening)
    body = text.lstrip().removeprefix(opening) if begun else text
    thoughts, ended, rest = body.partition(closing)
    if ended:
        return thoughts.strip(), rest.lstrip()
    return (body.strip(), "") if begun else ("", text)


def _turn(role: Role, content: Expression | str) -> Expression:
    return Sequenced((Open(role), expression(content), Close()))


def _grammar(
    name: str | None,
    regex: str | None,
    json_schema: Mapping[str, Any] | str | None,
    choices: Sequence[str] | None,
    lark: str | None,
) -> Grammar | None:
    given = {"regex": regex, "json_schema": json_schema, "choices": choices, "grammar": lark}
    named = [key for key, value in given.items() if value is not None]
    if len(named) > 1:
        raise ProgramError(f"{' and '.join(named)} at once", where=f"gen {name!r}", remedy="Keep one of them.")
    if regex is not None:
        return Grammar(GrammarKind.REGEX, regex)
    if json_schema is not None:
        return Grammar(
            GrammarKind.JSON_SCHEMA, json_schema if isinstance(json_schema, str) else json.dumps(json_schema)
        )
    if choices is not None:
        _check_choices(name, choices)
        return Grammar(GrammarKind.CHOICE, json.dumps(list(choices)))
    return None if lark is None else Grammar(GrammarKind.LARK, lark)


def _check_choices(name: str | None, choices: Sequence[str]) -> None:
    if isinstance(choices, str) or not choices or "" in choices or len(set(choices)) < len(choices):
        raise ProgramError(
            f"choices={choices!r} must be different texts, none of them empty",
            where=f"the choice of {name!r}",
            remedy='Write them as a list: ["yes", "no"].',
        )
