"""Cursors: where a page ended, at which revision, and of which request.

Not here: the pages (`read.py`, `lookup.py`).
Invariant: pages that are read with the cursor of the page before show one revision and together everything once. A
cursor that is given to another request is refused; consistency and limit may differ, as they do not say what is
looked for.
"""

import base64
import binascii
import hashlib
import json
from typing import Any, NamedTuple

from authzed.api.v1 import core_pb2 as core

from cupola.access.consistency import Consistency, at_exactly
from cupola.access.server.grpc.status import InvalidCursor
from cupola.access.wire import read_consistency

_KIND = "p1"
_PAGING = ("consistency", "optional_limit", "optional_concrete_limit", "optional_cursor")


class Place(NamedTuple):
    """Where a page begins.

    Args:
        consistency: to read with: exactly the revision of the page before, if there was one.
        after: last key of the page before; "" at the beginning.
    """

    consistency: Consistency
    after: str


class Cursors:
    """Makes and reads the cursors of one request.

    Args:
        request: a message with `consistency` and `optional_cursor`.
    """

    def __init__(self, request: Any):
        what = type(request)()
        what.CopyFrom(request)
        for field in _PAGING:
            if field in what.DESCRIPTOR.fields_by_name:
                what.ClearField(field)
        known = what.DESCRIPTOR.full_name.encode() + b"\0" + what.SerializeToString(deterministic=True)
        self._digest = hashlib.sha256(known).hexdigest()[:24]
        self._request = request

    def place(self) -> Place:
        """Returns where the page begins.

        Raises:
            InvalidCursor: the cursor is none, or another request's.
        """
        token = self._request.optional_cursor.token
        if not token:
            return Place(read_consistency(self._request.consistency), "")
        try:
            text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            kind, digest, revision, after = map(str, json.loads(text))
        except (binascii.Error, ValueError, TypeError):
            kind, digest, revision, after = "", "", "", ""
        if kind != _KIND:
            raise InvalidCursor("is none", where="optional_cursor", remedy="Pass one that came with a result.")
        if digest != self._digest:
            raise InvalidCursor(
                "is another request's", where="optional_cursor", remedy="Ask the same, or begin without a cursor."
            )
        return Place(at_exactly(revision), after)

    def after(self, revision: str, key: str) -> core.Cursor:
        """Returns the cursor behind a key at a revision's token."""
        text = json.dumps([_KIND, self._digest, revision, key], separators=(",", ":"))
        return core.Cursor(token=base64.urlsafe_b64encode(text.encode()).decode().rstrip("="))
