"""Cursors: where a page ended, and of which question it was.

Invariant: a cursor says nothing to its holder, goes on at the revision of its first page, and is refused for any
other question than its own. Nobody is harmed by a forged one: it names a place, and no right.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from cupola.access.errors import InvalidArgument


def cursor_of(question: Sequence[Any], *place: Any) -> str:
    """Returns the cursor of a place in the answer to a question."""
    text = json.dumps([_digest(question), *place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(cursor: str, question: Sequence[Any], parts: int) -> list[Any]:
    """Returns the place of a cursor, of so many parts.

    Raises:
        InvalidArgument: it is no cursor, or of another question.
    """
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        place = None
    if not isinstance(place, list) or len(place) != parts + 1 or not all(isinstance(x, str | int) for x in place):
        raise InvalidArgument("this is no cursor", where="cursor", remedy="Pass what the page before returned.")
    if place[0] != _digest(question):
        raise InvalidArgument(
            "the cursor is of another question", where="cursor", remedy="Repeat the question of the first page."
        )
    return place[1:]


def _digest(question: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True, default=str).encode()).hexdigest()[:12]
