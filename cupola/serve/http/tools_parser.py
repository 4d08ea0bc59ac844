"""Reads what a model writes: text, and calls of tools in the markup of its family, piece by piece.

Not here: which tools there are and what a request may say of them (`tools.py`), thoughts
(`reasoning.py`).
Invariant: joined, the deltas do not depend on where the text was cut; nothing is lost: what turns
out to be no call is text, and only markup of true calls and blank text beside them is left out.
"""

import dataclasses
import enum
import json
import re
import secrets
from typing import Protocol, runtime_checkable

from cupola.serve.http.tools_scan import JsonScanner


@dataclasses.dataclass(frozen=True)
class Text:
    """More of the answer."""

    text: str


@dataclasses.dataclass(frozen=True)
class Reasoning:
    """More of the thoughts before the answer."""

    text: str


@dataclasses.dataclass(frozen=True)
class ToolBegin:
    """A call begins.

    Args:
        index: of the call within the message, from 0.
        id: names the call in the message that answers it.
        name: of the tool; always one that the request offered.
    """

    index: int
    id: str
    name: str


@dataclasses.dataclass(frozen=True)
class ToolArguments:
    """More of a call's arguments, which together are JSON text."""

    index: int
    text: str


Delta = Text | Reasoning | ToolBegin | ToolArguments


@runtime_checkable
class Parser(Protocol):
    """Turns pieces of generated text into deltas."""

    def feed(self, text: str) -> list[Delta]:
        """Returns what is certain once this text, too, has come."""

    def finish(self) -> list[Delta]:
        """Returns what was held back; nothing is fed after it."""


class ToolFormat(enum.Enum):
    """How a family of models writes its calls."""

    AUTO = "auto"
    """Whichever the chat template shows."""
    HERMES = "hermes"
    """<tool_call>{"name": ..., "arguments": {...}}</tool_call>, or a list within one tag."""
    LLAMA = "llama"
    """{"name": ..., "parameters": {...}} as the whole message, perhaps after <|python_tag|>."""
    MISTRAL = "mistral"
    """[TOOL_CALLS] and a list of calls, or [TOOL_CALLS]name[ARGS]{...}."""


@dataclasses.dataclass(frozen=True)
class Markup:
    """The signs of one format.

    Args:
        opens: begins a call anywhere in a message.
        closes: ends what `opens` began; "" where nothing does.
        bare: begins a call where nothing was said before.
    """

    opens: str
    closes: str = ""
    bare: str = ""


MARKUP = {
    ToolFormat.HERMES: Markup("<tool_call>", "</tool_call>"),
    ToolFormat.LLAMA: Markup("<|python_tag|>", bare="{"),
    ToolFormat.MISTRAL: Markup("[TOOL_CALLS]", bare="["),
}

KEYS = {"name", "arguments", "parameters", "id", "type"}
HEAD = re.compile(r"([\w.-]+)\s*(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*")
LONGEST_HEAD = 256


class Where(enum.Enum):
    """In which part of a message the next character stands."""

    TEXT = enum.auto()
    OPENED = enum.auto()
    """After the sign that opens: an object, a list or, for Mistral, a name."""
    HEAD = enum.auto()
    """In Mistral's name before the arguments."""
    LIST = enum.auto()
    """Before the first object of a list."""
    NEXT = enum.auto()
    """Before a further object of a list."""
    OBJECT = enum.auto()
    ARGUMENTS = enum.auto()
    """In arguments that stand by themselves, after a head."""
    AFTER = enum.auto()
    """After an object of a list."""
    END = enum.auto()
    """After the last object: only the sign that closes, or a further object."""
    BROKEN = enum.auto()
    """In arguments that have stopped being JSON; they are handed on as written."""


class PlainParser:
    """Takes everything for text: what reads where no tools are offered."""

    def feed(self, text: str) -> list[Delta]:
        return [Text(text)] if text else []

    def finish(self) -> list[Delta]:
        return []


class ToolParser:
    """Finds the calls in a message of one format.

    A call is certain, and begins to be handed on, once the name of an offered tool and the brace
    that opens its arguments have come; until then it may still become text.

    Args:
        format: how calls are written; not AUTO.
        names: of the tools that were offered.
    """

    def __init__(self, format: ToolFormat, names: frozenset[str]):
        self._format, self._names, self._markup = format, names, MARKUP[format]
        self._where = Where.TEXT
        self._out: list[Delta] = []
        self._calls = 0
        self._fresh = True  # nothing but blanks since the beginning or since a call
        self._blank = ""
        self._held = ""  # may become a sign
        self._raw: list[str] = []  # of the call being read, to be given back
        self._in_list = False
        self._scan = JsonScanner()
        self._key = self._name = ""
        self._begun = False
        self._streaming = False

    def feed(self, text: str) -> list[Delta]:
        plain = self._where is Where.TEXT and not self._fresh and not self._held
        if plain and self._markup.opens[0] not in text:
            self._emit(Text(text))
        else:
            for char in text:
                self._step(char)
        return self._taken()

    def finish(self) -> list[Delta]:
        if self._where is Where.TEXT:
            self._say(self._held)
        elif self._where is Where.BROKEN:
            self._emit(ToolArguments(self._calls - 1, self._held))
        elif not self._begun and self._where is not Where.END:
            self._say("".join(self._raw))
        if self._blank and not self._calls:
            self._emit(Text(self._blank))
        self._held, self._blank, self._raw = "", "", []
        return self._taken()

    def _taken(self) -> list[Delta]:
        out, self._out = self._out, []
        return out

    def _emit(self, delta: Delta) -> None:
        """Appends a delta, joined with the one before where both are of one kind."""
        if not isinstance(delta, ToolBegin) and not delta.text:
            return
        last = self._out[-1] if self._out else None
        if type(last) is type(delta) and not isinstance(delta, ToolBegin):
            delta = dataclasses.replace(delta, text=last.text + delta.text)  # type: ignore[union-attr]
            self._out.pop()
        self._out.append(delta)

    def _say(self, text: str) -> None:
        if self._fresh:
            self._blank += text
            if not self._blank.strip("; \n\r\t" if self._calls and self._format is ToolFormat.LLAMA else None):
                return
            text, self._blank, self._fresh = self._blank, "", False
        self._emit(Text(text))

    def _step(self, char: str) -> None:
        match self._where:
            case Where.TEXT:
                self._in_text(char)
            case Where.END:
                self._at_end(char)
            case Where.BROKEN:
                self._in_broken(char)
            case Where.OBJECT | Where.ARGUMENTS:
                self._in_json(char)
            case _:
                self._between(char)

    def _in_text(self, char: str) -> None:
        self._held += char
        while self._held and not self._markup.opens.startswith(self._held):
            if self._fresh and self._held[0] == self._markup.bare:
                held = self._held
                self._open("")
                for one in held:
                    self._step(one)
                return
            first, self._held = self._held[0], self._held[1:]
            self._say(first)
        if self._held == self._markup.opens:
            self._open(self._held)

    def _open(self, sign: str) -> None:
        self._where, self._raw, self._held, self._in_list, self._begun = Where.OPENED, [sign], "", False, False

    def _between(self, char: str) -> None:
        """Outside of objects but within the signs: blanks, brackets and commas."""
        self._raw.append(char)
        where = self._where
        if where is Where.HEAD:
            self._in_head(char)
        elif char.isspace():
            return
        elif char == "{" and where in (Where.OPENED, Where.LIST, Where.NEXT):
            self._begin_object(char)
        elif char == "[" and where is Where.OPENED:
            self._where, self._in_list = Where.LIST, True
        elif char == "," and where is Where.AFTER:
            self._where = Where.NEXT
        elif char == "]" and (where is Where.AFTER or (where is Where.LIST and self._raw[0])):
            self._end()
        elif where is Where.OPENED and self._format is ToolFormat.MISTRAL and self._raw[0]:
            self._where, self._held = Where.HEAD, char
        else:
            self._give_back()

    def _in_head(self, char: str) -> None:
        if char == "{":
            found = HEAD.fullmatch(self._held)
            if found is None or found[1] not in self._names:
                return self._give_back()
            self._held, self._scan, self._where = "", JsonScanner(), Where.ARGUMENTS
            self._begin(found[1])
            self._scan.feed(char)
            self._emit(ToolArguments(self._calls - 1, char))
        else:
            self._held += char
            if len(self._held) > LONGEST_HEAD or char == "\n":
                self._give_back()

    def _begin_object(self, char: str) -> None:
        self._scan, self._where = JsonScanner(), Where.OBJECT
        self._key = self._name = ""
        self._begun = self._streaming = False
        self._scan.feed(char)

    def _in_json(self, char: str) -> None:
        self._raw.append(char)
        valid = self._scan.feed(char)
        if self._where is Where.ARGUMENTS or self._streaming:
            self._emit(ToolArguments(self._calls - 1, char))
            if not valid:
                self._where = Where.BROKEN
            elif self._scan.depth == (0 if self._where is Where.ARGUMENTS else 1):
                self._streaming, self._raw = False, []
                if self._where is Where.ARGUMENTS:
                    self._end()
        elif not valid:
            self._give_back()
        elif self._scan.done:
            self._close_object()
        else:
            self._in_call(char)

    def _in_call(self, char: str) -> None:
        """In an object that may be a call, outside of arguments that are being handed on."""
        scan = self._scan
        if scan.depth == 2 and char == "{" and self._key in ("arguments", "parameters") and self._name:
            if not self._begun:
                self._begin(self._name)
                self._streaming = True
                self._emit(ToolArguments(self._calls - 1, char))
        elif scan.depth == 1 and scan.string is not None:
            if scan.string_is_key:
                self._key = scan.string
                if self._key not in KEYS and not self._begun:
                    self._give_back()
            elif self._key == "name":
                self._name = scan.string
                if self._name not in self._names and not self._begun:
                    self._give_back()

    def _begin(self, name: str) -> None:
        size = 9 if self._format is ToolFormat.MISTRAL else 24  # Mistral's templates insist on nine
        id = secrets.token_hex(size)[:size]
        self._emit(ToolBegin(self._calls, id if size == 9 else f"call_{id}", name))
        self._calls, self._begun, self._fresh, self._blank = self._calls + 1, True, True, ""

    def _close_object(self) -> None:
        if not self._begun:
            text = "".join(self._raw)
            arguments = whole_arguments(text[text.index("{") :], self._names)
            if arguments is None:
                return self._give_back()
            self._begin(self._name)
            self._emit(ToolArguments(self._calls - 1, arguments))
        self._raw = []
        if self._in_list:
            self._where = Where.AFTER
        else:
            self._end()

    def _end(self) -> None:
        self._where, self._held, self._raw = Where.END if self._markup.closes else Where.TEXT, "", []

    def _at_end(self, char: str) -> None:
        if not self._held and char.isspace():
            return
        self._held += char
        if self._held == self._markup.closes:
            self._where, self._held = Where.TEXT, ""
        elif self._held == "{":
            self._raw = [self._held]
            self._held, self._in_list = "", False
            self._begin_object("{")
        elif not self._markup.closes.startswith(self._held):
            self._where, held, self._held = Where.TEXT, self._held, ""
            for one in held:
                self._step(one)

    def _in_broken(self, char: str) -> None:
        self._held += char
        closes = self._markup.closes
        if closes and self._held == closes:
            self._where, self._held = Where.TEXT, ""
            return
        while self._held and not closes.startswith(self._held):
            first, self._held = self._held[0], self._held[1:]
            self._emit(ToolArguments(self._calls - 1, first))

    def _give_back(self) -> None:
        """It is no call: what was read of it is text, save for the last character, which is read again."""
        raw = "".join(self._raw)
        self._where, self._held, self._raw = Where.TEXT, "", []
        self._say(raw[:-1])
        self._step(raw[-1])


def whole_arguments(text: str, names: frozenset[str]) -> str | None:
    """Returns the arguments, as JSON text, of a call that has come in one piece; None: it is no call."""
    call = json.loads(text)
    given = call.get("arguments", call.get("parameters"))
    if isinstance(given, str):  # some models write the object as JSON within JSON
        try:
            given = json.loads(given)
        except ValueError:
            return None
    if given is None:
        given = {}
    if call.get("name") not in names or not isinstance(given, dict):
        return None
    return json.dumps(given, ensure_ascii=False)
