"""The words of OpenFGA's DSL, each with its place.

Not here: the grammar (`parser.py`). Spaces and line ends are words, for the grammar says where they must stand.
Invariant: comments are taken off the ends of lines before words are cut, so no column moves. A `#` begins a comment
at the start of a line or after a space, outside quotes; elsewhere it stands between a type and a relation.
Source: openfga/language, OpenFGALexer.g4.
"""

import bisect
import re
from collections.abc import Iterator
from typing import NamedTuple

from cupola.access.schema.fga.errors import Place

SPACE, NEWLINE, END, BUT_NOT = "space", "newline", "end", "but not"
NAME, EXTENDED, VERSION, OTHER = "name", "extended name", "version", "other"
PARAMETER_TYPE, CONTAINER = "parameter type", "container"

PARAMETER_TYPES = ("bool", "string", "int", "uint", "double", "duration", "timestamp", "ipaddress")
CONTAINERS = ("map", "list")
_SOFT = frozenset(("module", "model", "schema", "extend", "type", "relation"))
NAMES = frozenset((NAME, EXTENDED)) | _SOFT
"""Kinds of words that can name a type or a relation: keywords that are only such in their places can too."""
_KEYWORDS = _SOFT | {"condition", "relations", "define", "with", "and", "or", "from"}
_RESERVED = frozenset(("in", "true", "false", "null"))
"""Words of conditions, which name nothing."""

_STRING = (
    r"""[rR]?(?:\"{3}(?s:(?:\\.|[^\\])*?)\"{3}|'{3}(?s:(?:\\.|[^\\])*?)'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
)
_WORD = re.compile(
    rf"""(?P<newline>[ \t\f]*\n(?:[ \t\f]*\n)*[ \t\f]*)
    |(?P<space>[ \t\f]+)
    |(?P<remark>//.*)
    |(?P<string>{_STRING})
    |(?P<but_not>but[ ]not(?![A-Za-z0-9_-]))
    |(?P<extended>[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*(?:[/.][A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*)+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_-]*)
    |(?P<version>[0-9]+\.[0-9]+)
    |(?P<number>[0-9]+)
    |(?P<sign>.)""",
    re.VERBOSE,
)
_QUOTED_OR_COMMENT = re.compile(rf"(?P<string>{_STRING})|(?P<comment>(?:^|(?<=[ \t]))\#.*)", re.VERBOSE)
_SIGNS = frozenset(":,[]()<>#*{}")


class Word(NamedTuple):
    """A word of the text.

    Args:
        kind: the word itself for keywords and signs.
        start: its offset in the text without comments.
    """

    kind: str
    text: str
    start: int
    place: Place


class Words(NamedTuple):
    """A text cut into words.

    Args:
        text: without its comments.
        comments: what follows the `#`, by line.
    """

    text: str
    words: tuple[Word, ...]
    comments: dict[int, str]


def cut(text: str, source: str = "") -> Words:
    """Returns the words of a text; the last one is its end."""
    comments: dict[int, str] = {}
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        kept, comment = _without_comment(line)
        lines.append(kept)
        if comment is not None:
            comments[number] = comment
    clean = "\n".join(lines)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)

    def place(start: int, length: int) -> Place:
        line = bisect.bisect_right(starts, start) if start < len(clean) else len(lines)
        column = start - starts[line - 1] + 1
        return Place(line, column, column + length, source)

    words = [Word(kind, word, start, place(start, len(word))) for kind, word, start in _kinds(clean)]
    return Words(clean, (*words, Word(END, "<EOF>", len(clean), place(len(clean), len("<EOF>")))), comments)


def _without_comment(line: str) -> tuple[str, str | None]:
    """Returns a line without its comment, and the comment."""
    if line.lstrip().startswith("#"):
        return "", line.lstrip()[1:].strip()
    for found in _QUOTED_OR_COMMENT.finditer(line):
        if found["comment"]:
            return line[: found.start()].rstrip(), found["comment"][1:].strip()
    return line.rstrip(), None


def _kinds(text: str) -> Iterator[tuple[str, str, int]]:
    """Yields the kind, text and offset of each word; parameter types are words between `condition` and `)` alone."""
    parameters = False
    for found in _WORD.finditer(text):
        kind = _kind(found.lastgroup or OTHER, found[0], parameters)
        parameters = kind == "condition" or (parameters and kind != ")")
        yield kind, found[0], found.start()


def _kind(group: str, word: str, parameters: bool) -> str:
    if group == "sign":
        return word if word in _SIGNS else OTHER
    if group == "name" and parameters:
        return PARAMETER_TYPE if word in PARAMETER_TYPES else CONTAINER if word in CONTAINERS else NAME
    if group == "name":
        return word if word in _KEYWORDS else OTHER if word in _RESERVED else NAME
    return {"extended": EXTENDED, "but_not": BUT_NOT, "remark": OTHER, "string": OTHER, "number": OTHER}.get(
        group, group
    )
