"""Thoughts before the answer: found in generated text, allowed by grammars, counted.

Not here: calls of tools (`tools_parser.py`).
Invariant: the text of thoughts never stands in the answer, and joined deltas do not depend on where
the text was cut.
"""

import enum
import json
import re
from collections.abc import Sequence

from cupola.config.value import Value
from cupola.serve.http.tools_parser import Delta, Parser, Reasoning
from cupola.serve.request import Grammar, GrammarKind


class Begins(enum.Enum):
    """Where a model's first token stands."""

    OUTSIDE = "outside"
    """Before the sign that opens; the model may think or not."""
    INSIDE = "inside"
    """In the thoughts: the prompt ends with the sign that opens."""


class Thinking(Value):
    """How a model marks its thoughts.

    Args:
        opens: begins them.
        closes: ends them.
        begins: where the first token stands.
    """

    opens: str = "<think>"
    closes: str = "</think>"
    begins: Begins = Begins.OUTSIDE

    def after(self, prompt: str) -> "Thinking":
        """Returns how generation begins after a prompt that a template has written."""
        inside = prompt.rstrip().endswith(self.opens)
        return self.replace("begins", Begins.INSIDE if inside else Begins.OUTSIDE)

    def then(self, grammar: Grammar) -> Grammar:
        """Returns the grammar of thoughts, and after them what `grammar` allows."""
        thoughts = "thoughts" if self.begins is Begins.INSIDE else f"({json.dumps(self.opens)} thoughts)?"
        text = (
            f"start: {thoughts} answer\n"
            "thoughts: thought BLANK\n"
            f"thought[suffix={json.dumps(self.closes)}]: /(.|\\n)*/\n"
            "BLANK: /[ \\n]{0,2}/\n"
            f"answer: {_inline(grammar)}\n"
        )
        return Grammar(GrammarKind.LARK, text)


def _inline(grammar: Grammar) -> str:
    """What stands for a grammar of any kind on the right of a rule of Lark."""
    if grammar.kind is GrammarKind.JSON_SCHEMA:
        return f"%json {grammar.text}"
    if grammar.kind is GrammarKind.CHOICE:
        return " | ".join(json.dumps(choice) for choice in json.loads(grammar.text))
    if grammar.kind is GrammarKind.REGEX:
        escaped = re.sub(r"(\\.)|/", lambda found: found[1] or "\\/", grammar.text, flags=re.DOTALL)
        return f"/{escaped}/"
    return f"%lark {{\n{grammar.text}\n}}"


def find_thinking(template: str) -> Thinking | None:
    """Returns how the model of a chat template (its source) thinks; None: the template knows of no thoughts."""
    tags = Thinking()
    return tags if tags.opens in template or tags.closes in template else None


class Part(enum.Enum):
    """Of a message that may begin with thoughts."""

    START = enum.auto()
    LEAD = enum.auto()
    """Blanks before the thoughts."""
    THOUGHTS = enum.auto()
    GAP = enum.auto()
    """Blanks after them."""
    ANSWER = enum.auto()


class ReasoningParser:
    """Parts thoughts from the answer, which goes on to another parser.

    Thoughts begin the message or are not thoughts. Blanks beside the signs are part of neither.

    Args:
        thinking: the signs, and where the text begins.
        answer: reads what follows the thoughts.
    """

    def __init__(self, thinking: Thinking, answer: Parser):
        self._thinking, self._answer = thinking, answer
        self._part = Part.START
        self._held = ""

    def feed(self, text: str) -> list[Delta]:
        self._held += text
        out: list[Delta] = []
        before = None
        while self._part is not before:
            before = self._part
            self._part = self._advance(out)
        return out

    def finish(self) -> list[Delta]:
        held, self._held = self._held, ""
        inside = self._part is Part.THOUGHTS or self._thinking.begins is Begins.INSIDE
        if self._part in (Part.START, Part.THOUGHTS) and inside:
            thought: list[Delta] = [Reasoning(held)] if held.strip() else []
            return thought + self._answer.finish()
        return (self._answer.feed(held) if self._part is Part.START else []) + self._answer.finish()

    def _advance(self, out: list[Delta]) -> Part:
        """Handles what is certain and returns the part that comes next."""
        match self._part:
            case Part.START:
                return self._start()
            case Part.LEAD | Part.GAP:
                self._held = self._held.lstrip()
                after = Part.THOUGHTS if self._part is Part.LEAD else Part.ANSWER
                return after if self._held else self._part
            case Part.THOUGHTS:
                return self._thoughts(out)
            case Part.ANSWER:
                out += self._answer.feed(self._held)
                self._held = ""
        return self._part

    def _start(self) -> Part:
        opens, bare = self._thinking.opens, self._held.lstrip()
        if bare.startswith(opens):
            self._held = bare.removeprefix(opens)
            return Part.LEAD
        if opens.startswith(bare):
            return Part.START
        return Part.LEAD if self._thinking.begins is Begins.INSIDE else Part.ANSWER

    def _thoughts(self, out: list[Delta]) -> Part:
        thoughts, sign, rest = self._held.partition(self._thinking.closes)
        if sign:
            self._held = rest
        else:
            keep = overlap(thoughts, self._thinking.closes)
            thoughts = thoughts[: len(thoughts) - keep].rstrip()
            self._held = self._held[len(thoughts) :]
        if bare := thoughts.rstrip():
            out.append(Reasoning(bare))
        return Part.GAP if sign else Part.THOUGHTS


def overlap(text: str, sign: str) -> int:
    """Returns how many characters at the end of a text may be the beginning of a sign."""
    return next((n for n in range(min(len(text), len(sign) - 1), 0, -1) if sign.startswith(text[-n:])), 0)


class ReasoningCounter:
    """Counts the tokens of thoughts: those of pieces up to the last that brought more of them."""

    def __init__(self) -> None:
        self.tokens = 0
        self._pending = 0

    def see(self, tokens: int, deltas: Sequence[Delta]) -> None:
        """Takes how many tokens a piece had and what a parser made of its text."""
        self._pending += tokens
        if any(isinstance(delta, Reasoning) for delta in deltas):
            self.tokens += self._pending
        if deltas:
            self._pending = 0
