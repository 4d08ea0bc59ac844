"""Keys that a server and its callers share, kept as hashes.

Not here: tokens that somebody else signs (`jwt.py`).
Invariant: a key is 256 random bits and is shown once, when it is made; what is kept is its SHA-256, from which it
cannot be found. How long a refusal takes says nothing about the keys that exist.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cupola.access.errors import InvalidArgument
from cupola.access.server.identity import Identity, Role, unknown

PREFIX = "cupola_"
"""How a key begins, so that scanners for leaked secrets can find it."""

_NOBODY = bytes(32)


class HashedKey(NamedTuple):
    """What a server keeps of a key.

    Args:
        sha256: of the key, in hex.
        holder: whom it lets in.
    """

    sha256: str
    holder: Identity

    def __str__(self) -> str:
        facts = {"name": self.holder.name, "tenant": self.holder.tenant, "role": self.holder.role.value}
        return json.dumps({**facts, "sha256": self.sha256})

    @classmethod
    def parse(cls, text: str, *, where: str = "key") -> "HashedKey":
        """Returns the key of a line, as `str` writes it.

        Raises:
            InvalidArgument: it is none.
        """
        try:
            facts = json.loads(text)
            digest = bytes.fromhex(facts["sha256"])
            name, tenant, role = (str(facts[part]) for part in ("name", "tenant", "role"))
        except (ValueError, KeyError, TypeError):
            digest, name, tenant, role = b"", "", "", ""
        if len(digest) != 32:
            raise InvalidArgument(
                "the line is no hashed key",
                where=where,
                remedy='Write {"name": ..., "tenant": ..., "role": ..., "sha256": 64 hex digits}.',
            )
        return cls(digest.hex(), Identity.of(name, tenant, role))


def new_key(name: str, tenant: str = "default", role: Role = Role.READER) -> tuple[str, HashedKey]:
    """Returns a new key, which is to be given to its holder, and what the server keeps of it."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, HashedKey(_digest(key).hex(), Identity.of(name, tenant, role.value))


class Keys:
    """Lets in whoever holds one of these keys.

    Args:
        keys: hashed.
    """

    def __init__(self, keys: Iterable[HashedKey]):
        self._by_start: dict[bytes, list[tuple[bytes, Identity | None]]] = {}
        for key in keys:
            digest = bytes.fromhex(key.sha256)
            self._by_start.setdefault(digest[:2], []).append((digest, key.holder))

    @classmethod
    def read(cls, path: str | Path) -> "Keys":
        """Returns the keys of a file, one a line; empty lines and those that begin with # do not count.

        Raises:
            InvalidArgument: the file is not there, or a line is no hashed key.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InvalidArgument(
                f"the keys cannot be read: {error.strerror}", where=str(path), remedy="Make one: cupola access key"
            ) from None
        numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
        return cls(
            HashedKey.parse(line, where=f"{path}:{number}")
            for number, line in numbered
            if line and not line.startswith("#")
        )

    def authenticate(self, credential: str) -> Identity:
        """Returns the holder of a key.

        Raises:
            Unauthenticated: it is none of these.
        """
        digest = _digest(credential)
        # The start of a hash may be looked up: nobody can choose it without the key. The rest is compared in a time
        # that does not depend on it, with a hash of nothing where no key begins so.
        found: Identity | None = None
        nobody: list[tuple[bytes, Identity | None]] = [(_NOBODY, None)]
        for other, holder in self._by_start.get(digest[:2]) or nobody:
            if hmac.compare_digest(digest, other):
                found = holder
        if found is None:
            raise unknown()
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
