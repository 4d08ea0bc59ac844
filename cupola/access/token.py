"""Opaque tokens: which revision of which store a write made or an answer was given at (zookies).

Not here: which revision answers a question (`consistency.py`).
Invariant: a token says nothing to its holder and is good in its own store alone. Nobody is harmed by a forged one:
it can only ask for a revision that the store has, or be refused.
Source: Pang et al. 2019, "Zanzibar", section 2.2.
"""

import base64
import binascii

from cupola.access.errors import InvalidArgument

_KIND = "c1"


def token_of(store_id: str, revision: int) -> str:
    """Returns the token of a store's revision."""
    return base64.urlsafe_b64encode(f"{_KIND}.{store_id}.{revision}".encode()).decode().rstrip("=")


def revision_of(token: str, store_id: str) -> int:
    """Returns the revision of a token.

    Raises:
        InvalidArgument: it is no token, or another store's.
    """
    try:
        kind, store, revision = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().split(".")
        number = int(revision)
    except (binascii.Error, ValueError):
        kind, store, number = "", "", -1
    if kind != _KIND or number < 0:
        raise InvalidArgument(f"{token!r} is no token", where="token", remedy="Pass what a write or a check returned.")
    if store != store_id:
        raise InvalidArgument("the token is of another store", where="token", remedy="Pass one that this store gave.")
    return number
