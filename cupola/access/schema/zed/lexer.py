"""The tokens of a `.zed` text, each with its place and the comments before it.

Not here: which words are keywords: what a text switches on with `use` decides that, so the parser does.
Invariant: a newline ends a statement when what stands before it could be the end of one; other newlines, blanks
and comments make no token.
"""

import enum
import re
from collections.abc import Iterator
from typing import NamedTuple

from cupola.access.errors import SchemaError


class Kind(enum.Enum):
    """What a token is."""

    WORD = "a name"
    STRING = "a string"
    MARK = "a mark"
    STOP = "the end of a statement"
    END = "the end of the text"


class Token(NamedTuple):
    """One token.

    Args:
        text: of it; "" at the end of a line or of the text.
        start: offset of its first character in the text.
        comments: since the token before, as written.
    """

    kind: Kind
    text: str
    start: int
    line: int
    column: int
    comments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"`{self.text}`" if self.text else self.kind.value


_LONG = r'"""(?:{any})*?"""|' + r"'''(?:{any})*?'''"
_SHORT = r'"(?:{any}|[^"\\\r\n])*"|' + r"'(?:{any}|[^'\\\r\n])*'"
_TOKEN = re.compile(
    "|".join(
        (
            r"(?P<blank>[ \t]+)",
            r"(?P<newline>\r\n|\r|\n)",
            r"(?P<comment>//[^\r\n]*|/\*(?s:.*?)\*/)",
            # CEL's raw strings come first: a backslash in them escapes nothing.
            r"""(?P<raw>(?:[bB]?[rR]|[rR][bB])(?:\"""(?s:.*?)\"""|'''(?s:.*?)'''|"[^"\r\n]*"|'[^'\r\n]*'))""",
            "(?P<string>" + _LONG.format(any=r"\\(?s:.)|[^\\]") + "|" + _SHORT.format(any=r"\\[^\r\n]") + ")",
            r"(?P<word>\w+)",
            r"(?P<mark>->|\.\.\.|/(?!\*)|\|\||&&|!=|<=|>=|==|[{}()\[\]|+\-&=:#*?!.,%<>])",
            r"(?P<stop>;)",
        )
    )
)
_LAST = frozenset("}])*") | {"..."}
"""Marks that a statement may end with."""


def tokens(text: str, source: str = "") -> Iterator[Token]:
    """Yields the tokens of a text, the last of kind END.

    Args:
        source: name of the file, for errors.

    Raises:
        SchemaError: a character that the language does not have, a string or comment without an end.
    """
    at, line, line_start = 0, 1, 0
    comments: list[str] = []
    may_stop = False
    while at < len(text):
        found = _TOKEN.match(text, at)
        column = at - line_start + 1
        if found is None:
            raise SchemaError(_fault(text, at), line=line, column=column, source=source)
        group, value = found.lastgroup, found[0]
        if group == "comment":
            comments.append(value)
        elif group == "stop" or (group == "newline" and may_stop):
            yield Token(Kind.STOP, "", at, line, column)
            comments, may_stop = [], False
        elif group not in ("blank", "newline"):
            kind = Kind.WORD if group == "word" else Kind.MARK if group == "mark" else Kind.STRING
            yield Token(kind, value, at, line, column, tuple(comments))
            comments, may_stop = [], kind is not Kind.MARK or value in _LAST
        at = found.end()
        breaks = re.findall(r"\r\n|\r|\n", value)
        if breaks:
            line += len(breaks)
            line_start = at - len(re.split(r"\r\n|\r|\n", value)[-1])
    yield Token(Kind.END, "", at, line, at - line_start + 1, tuple(comments))


def _fault(text: str, at: int) -> str:
    if text[at] in "\"'":
        return "a string without its closing quote"
    if text.startswith("/*", at):
        return "a comment without its closing */"
    return f"the language has no character {text[at]!r}"
