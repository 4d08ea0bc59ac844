"""Keys in a file: who holds them and what they may use, with nothing in it that lets anyone in.

Not here: the permission graph (`access/`), which can say more. A key is 256 random bits, so that its
SHA-256 can be kept in its place: there is nothing to guess from a hash of that.
Invariant: the file can be read by its owner alone, and holds no key.
"""

import dataclasses
import datetime
import enum
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cupola.config.suggest import did_you_mean
from cupola.core.errors import ConfigError
from cupola.serve.errors import Forbidden, NotFound, Unauthorized
from cupola.serve.http.guard import SERVER, Action, Caller

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SUBJECT = re.compile(r"[a-z][a-z0-9_/]*:[A-Za-z0-9_|=+/.@-]+")


class Role(enum.Enum):
    """What a key's holder may do besides using models."""

    USER = "user"
    OPERATOR = "operator"
    """Load and unload adapters, read metrics."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One line of the file.

    Args:
        name: of the holder.
        digest: SHA-256 of the key, in hex.
        models: patterns of names, such as "smollm*".
        namespace: whose cached prefixes it shares; each holder's own, unless told otherwise.
        role: what it may do besides.
        created: the day.
        subject: who that is in a permission graph, such as "user:ada"; "": nobody.
    """

    name: str
    digest: str
    models: tuple[str, ...] = ("*",)
    namespace: str = ""
    role: Role = Role.USER
    created: str = ""
    subject: str = ""

    def sees(self, model: str) -> bool:
        """Whether one of its patterns fits."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


def read_keys(path: Path) -> list[Key]:
    """Returns the keys in a file.

    Raises:
        ConfigError: no such file, others can read it, or it is no file of keys.
    """
    where = os.fspath(path)
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=where, remedy="Make a key first.") from None
    if mode & 0o077:
        raise ConfigError(
            f"others than its owner can use it (mode {mode:o})", where=where, remedy=f"Type: chmod 600 {where}"
        )
    try:
        return [_read(entry) for entry in json.loads(text)["keys"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"is no file of keys ({error})", where=where, remedy="Restore it, or make new keys in a new file."
        ) from None


def make_key(
    path: Path,
    name: str,
    *,
    models: tuple[str, ...] = ("*",),
    namespace: str | None = None,
    role: Role = Role.USER,
    subject: str = "",
) -> str:
    """Adds a key to a file, which is made if there is none, and returns it: it is never shown again.

    Args:
        path: the file.
        name: of the holder, of whom there is no key yet.
        models: patterns of names of models that it may use.
        namespace: whose cached prefixes it shares; None: its own.
        role: what it may do besides.
        subject: who that is in a permission graph, such as "user:ada"; several keys may be of one.

    Raises:
        ConfigError: the name is taken or no name, the subject is none, or the file cannot be used.
    """
    keys = read_keys(path) if path.exists() else []
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a holder", where="name", remedy="Use up to 64 letters, digits and . _ @ -"
        )
    if any(key.name == name for key in keys):
        raise ConfigError(f"{name!r} has a key", where="name", remedy="Revoke it first, or use another name.")
    if subject and not _SUBJECT.fullmatch(subject):
        raise ConfigError(
            f"{subject!r} is nobody", where="subject", remedy="Write TYPE:ID, such as user:ada or service_account:ci"
        )
    secret = f"sk-cupola-{secrets.token_urlsafe(32)}"
    today = datetime.date.today().isoformat()
    keys.append(Key(name, _digest(secret), models, name if namespace is None else namespace, role, today, subject))
    _write(path, keys)
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Takes a holder's key out of a file; a running server knows within a second.

    Raises:
        ConfigError: there is no such holder, or the file cannot be used.
    """
    keys = read_keys(path)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        raise ConfigError(f"{name!r} has no key", where="name", remedy=did_you_mean(name, [key.name for key in keys]))
    _write(path, left)


class Keys:
    """A guard that knows the keys of a file, and reads it again when it has changed.

    Raises:
        ConfigError: as `read_keys`; a file that becomes unusable later lets nobody in.
    """

    def __init__(self, path: Path):
        self._path = path
        self._seen = _stamp(path)
        self._keys = read_keys(path)

    async def authenticate(self, credentials: str | None) -> Caller:
        if not credentials:
            raise Unauthorized("there is no key", remedy="Send Authorization: Bearer KEY.")
        digest = _digest(credentials)
        found = None
        # All of them are compared, so that the time tells nothing of where one stands.
        for key in self._current():
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise Unauthorized("the key is unknown or revoked", remedy="Ask whoever runs the server for one.")
        return Caller(found.name, found.namespace, found.subject)

    async def check(self, caller: Caller, action: Action, object: str) -> None:
        key = next((key for key in self._keys if key.name == caller.name), None)
        if key is None or (object != SERVER and not key.sees(_name(object))):
            raise NotFound(f"there is no {object}")
        if key.role is not Role.OPERATOR and (object == SERVER or action in (Action.MANAGE, Action.OBSERVE)):
            raise Forbidden(
                f"{caller.name} may not {action.value} {object}", remedy="Use the key of an operator of this server."
            )

    async def visible(self, caller: Caller, objects: Iterable[str]) -> list[str]:
        key = next((key for key in self._keys if key.name == caller.name), None)
        return [object for object in objects if key is not None and key.sees(_name(object))]

    def _current(self) -> list[Key]:
        stamp = _stamp(self._path)
        if stamp != self._seen:
            try:
                self._keys, self._seen = read_keys(self._path), stamp
            except ConfigError as error:
                self._keys = []
                raise Unauthorized("the server's keys cannot be read", remedy="Tell whoever runs it.") from error
        return self._keys


def _name(object: str) -> str:
    return object.partition(":")[2]


def _stamp(path: Path) -> tuple[int, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _read(entry: dict[str, Any]) -> Key:
    known = {field.name for field in dataclasses.fields(Key)}
    if not re.fullmatch(r"[0-9a-f]{64}", entry["digest"]) or set(entry) - known:
        raise ValueError("an entry is not as it was written")
    return Key(**{**entry, "models": tuple(entry["models"]), "role": Role(entry["role"])})


def _write(path: Path, keys: list[Key]) -> None:
    """Replaces the file at once, readable by its owner from its first byte on."""
    entries = [{**dataclasses.asdict(key), "role": key.role.value} for key in keys]
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"keys": entries}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot be written ({error.strerror})", where=os.fspath(path), remedy="Name a file in a folder of yours."
        ) from None
