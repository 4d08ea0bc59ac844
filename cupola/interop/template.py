"""Chat templates: messages to the text, or the tokens, that a model was trained to continue.

Not here: the sandbox in which a template of others runs (`sandbox.py`).
Invariant: a special token in a prompt was written by the template; the same characters in a message
are text, whatever the message holds.
"""

import copy
import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes

from cupola.data.tokenizer import Tokenizer
from cupola.interop.errors import TemplateError
from cupola.interop.sandbox import Sandbox, parse

_MARKS = range(0xD800, 0xE000)
"""Halves of surrogate pairs: characters that no text can hold, so none can be forged."""
_HALF = re.compile("[\ud800-\udfff]")
_LOOKS = {"count", "endswith", "find", "index", "partition", "removeprefix", "removesuffix", "replace", "rfind"}
_LOOKS |= {"rindex", "rpartition", "rsplit", "split", "startswith", "strip", "lstrip", "rstrip"}
"""Methods whose first argument is looked for in a text and never written."""
_PROBE = "cupola-probe"


class ChatTemplate:
    """A Hugging Face chat template.

    Args:
        source: jinja.
        tokens: what it calls `bos_token`, `eos_token` and so on.

    Raises:
        TemplateError: it is no template.
    """

    def __init__(self, source: str, *, tokens: Mapping[str, str] = {}):
        self.source, self.tokens = source, dict(tokens)
        self._sandbox = Sandbox()
        self._tree = parse(self._sandbox, source)
        self._plain = self._compiled(copy.deepcopy(self._tree))
        self._marked: dict[tuple[str, ...], tuple[_Marks, jinja2.Template]] = {}
        self._supports: dict[str, bool] = {}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """Returns the text of a conversation.

        Args:
            messages: {"role": ..., "content": ...} and what else the template knows.
            tools: what the model may call, as the OpenAI API describes it.
            add_generation_prompt: whether the beginning of the answer follows.
            extra: what else the template knows, such as enable_thinking.

        Raises:
            TemplateError: the template refuses these messages, fails, or asks for too much.
        """
        given = _given(messages, tools, add_generation_prompt, extra)
        return self._run(self._plain, self.tokens | given)

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> tuple[int, ...]:
        """Returns the tokens of a conversation; only the template can write special ones.

        Raises:
            TemplateError: as `render`; or the template looks for special tokens in what it wrote itself.
        """
        given = _given(messages, tools, add_generation_prompt, extra)
        marks, template = self._marking(tokenizer)
        tokens = {name: marks.mark(text) for name, text in self.tokens.items()}
        text = self._run(template, tokens | given)
        if marks.unmark(text) != self._run(self._plain, self.tokens | given):
            raise TemplateError(
                "the chat template writes another text when its special tokens are told from those in messages",
                remedy="Give another template, or send the prompt as tokens.",
            )
        return tuple(tokenizer.encode_parts(marks.parts(text)).tolist())

    @property
    def supports_tools(self) -> bool:
        """Whether it tells the model which tools there are."""
        tool = {"name": _PROBE, "description": "", "parameters": {"type": "object", "properties": {}}}
        return self._shows("tools", [_USER], tools=[{"type": "function", "function": tool}])

    @property
    def supports_system(self) -> bool:
        """Whether it gives a system message to the model."""
        return self._shows("system", [{"role": "system", "content": _PROBE}, _USER])

    def _shows(self, what: str, messages: list[dict[str, Any]], **given: Any) -> bool:
        if what not in self._supports:
            try:
                self._supports[what] = _PROBE in self.render(messages, **given)
            except TemplateError:
                self._supports[what] = False
        return self._supports[what]

    def _marking(self, tokenizer: Tokenizer) -> "tuple[_Marks, jinja2.Template]":
        names = tokenizer.special_names
        key = tuple(names)
        if key not in self._marked:
            marks = _Marks(names)
            tree = copy.deepcopy(self._tree)
            _mark_constants(tree, marks)
            self._marked[key] = marks, self._compiled(tree)
        return self._marked[key]

    def _compiled(self, tree: nodes.Template) -> jinja2.Template:
        try:
            return self._sandbox.load(tree)
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:
            raise TemplateError(f"the chat template is broken: {error}", remedy="Give another template.") from None

    def _run(self, template: jinja2.Template, values: Mapping[str, Any]) -> str:
        try:
            return self._sandbox.run(template, values)
        except jinja2.UndefinedError as error:
            raise TemplateError(
                f"the chat template misses something: {error.message}",
                where="messages",
                remedy="Give each message the fields that the template reads, such as role and content.",
            ) from None
        except jinja2.TemplateError as error:
            raise TemplateError(
                f"the chat template says: {error.message}", where="messages", remedy="Send messages that it takes."
            ) from None
        # A template can reach any mistake of Python's; none of them is ours.
        except Exception as error:
            raise TemplateError(
                f"the chat template fails on these messages ({type(error).__name__}: {error})",
                where="messages",
                remedy="Give each message the fields that the template reads, such as role and content.",
            ) from None


_USER = {"role": "user", "content": "hello"}


class _Marks:
    """Tells special tokens that a template wrote from the same characters in a message.

    Each character of a special token that is no letter or digit has a mark. A special token counts
    only where all of these stand as marks: a template may put a role between "<|" and "|>", while
    what comes from a message holds no mark.
    """

    def __init__(self, names: Mapping[str, int]):
        guarded = {name: _guarded(name) for name in names}
        characters = sorted({name[i] for name, places in guarded.items() for i in places})
        if len(characters) > len(_MARKS):
            raise TemplateError(f"the special tokens hold {len(characters)} kinds of characters")
        self._names = names
        self._mark_of = {ord(c): mark for c, mark in zip(characters, _MARKS, strict=False)}
        self._character_of = {mark: c for c, mark in self._mark_of.items()}
        longest_first = sorted(names, key=len, reverse=True)
        self._written = {n: self._masked(n, guarded[n]) for n in longest_first}
        self._plain = _any_of(longest_first)
        self._find = _any_of(self._written.values())
        self._ids = {self._written[name]: i for name, i in names.items()}
        self._beginnings = {name[:k] for name in names for k in range(1, len(name))}
        self._ends = {name[k:] for name in names for k in range(1, len(name))}

    def _masked(self, name: str, places: frozenset[int]) -> str:
        return "".join(chr(self._mark_of[ord(c)]) if i in places else c for i, c in enumerate(name))

    def mark(self, text: str) -> str:
        """Returns a template's own text with marks in whole special tokens, and in a part of one at an edge."""
        text = self._plain.sub(lambda found: self._written[found[0]], text)
        longest = max(map(len, self._names), default=0)
        for k in range(min(longest, len(text)), 0, -1):
            if text[-k:] in self._beginnings:
                text = text[:-k] + text[-k:].translate(self._mark_of)
                break
        for k in range(min(longest, len(text)), 0, -1):
            if text[:k] in self._ends:
                text = text[:k].translate(self._mark_of) + text[k:]
                break
        return text

    def unmark(self, text: str) -> str:
        """Returns the text with its characters in the place of marks."""
        return text.translate(self._character_of)

    def parts(self, text: str) -> Iterator[str | int]:
        """Yields the texts and, between them, the ids of special tokens."""
        at = 0
        for found in self._find.finditer(text):
            if found.start() > at:
                yield self.unmark(text[at : found.start()])
            yield self._ids[found[0]]
            at = found.end()
        if at < len(text):
            yield self.unmark(text[at:])


def _guarded(name: str) -> frozenset[int]:
    """Where a special token's name holds what is no letter or digit; everywhere, if it holds only those."""
    places = [i for i, c in enumerate(name) if not c.isalnum()]
    return frozenset(places or range(len(name)))


def _any_of(texts: Any) -> re.Pattern[str]:
    # An empty alternative would match everywhere; this one matches nowhere.
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


def _mark_constants(tree: nodes.Template, marks: _Marks) -> None:
    """Marks what a template writes; texts that it only looks for stay as they are."""
    skipped = set(map(id, _looked_for(tree)))
    for data in tree.find_all(nodes.TemplateData):
        data.data = marks.mark(data.data)
    for constant in tree.find_all(nodes.Const):
        if isinstance(constant.value, str) and id(constant) not in skipped:
            constant.value = marks.mark(constant.value)


def _looked_for(tree: nodes.Template) -> Iterator[nodes.Node]:
    for compare in tree.find_all(nodes.Compare):
        yield from compare.find_all(nodes.Const)
    yield from (item.arg for item in tree.find_all(nodes.Getitem))
    yield from (pair.key for pair in tree.find_all(nodes.Pair))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in _LOOKS:
            yield from call.args[:1]
    for chosen in tree.find_all((nodes.Filter, nodes.Test)):
        if chosen.name != "join" and chosen.name != "default":
            yield from chosen.args[:1]


def _given(messages: Any, tools: Any, add_generation_prompt: bool, extra: Mapping[str, Any]) -> dict[str, Any]:
    now = datetime.datetime.now()
    return {
        **{name: _plain(value, name) for name, value in extra.items()},
        "messages": _plain(messages, "messages"),
        "tools": None if tools is None else _plain(tools, "tools"),
        "add_generation_prompt": add_generation_prompt,
        # One moment for every time that the template is run on these messages.
        "strftime_now": lambda pattern: now.strftime(str(pattern)[:100]),
    }


def _plain(value: Any, where: str) -> Any:
    """A copy made of nothing but what JSON has, so that a template reaches no method of ours."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if half := _HALF.search(value):
            raise TemplateError(
                f"character {half.start()} is half of a surrogate pair, which is no character",
                where=where,
                remedy="Repair the text: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace').",
            )
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {_plain(str(key), where): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TemplateError(
        f"is {type(value).__name__}, which is no part of a message",
        where=where,
        remedy="Send texts, numbers and lists.",
    )
