"""Tokens that an identity provider signs (OpenID Connect access tokens, JWT).

Not here: keys of our own (`keys.py`), logging in.
Invariant: a token lets in only where one of the pinned algorithms, with a key of the provider made for it, signed
exactly these claims, for this audience, by this issuer, and its time has come and is not over. `none` is never an
algorithm, and a public key is never taken for a shared secret.
Source: RFC 7519; RFC 8725 (best practice), sections 3.1 to 3.10.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jwt

from cupola.access.errors import InvalidArgument, StoreUnavailable, Unauthenticated
from cupola.access.server.identity import Identity, Role

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""Of signatures; all with a private key that only the provider has."""
LONGEST_BYTES = 1 << 20
"""Of a set of keys that is fetched."""


@runtime_checkable
class KeySet(Protocol):
    """The provider's keys."""

    def find(self, id: str) -> Sequence[jwt.PyJWK]:
        """Returns the keys of an id; all, where the token names none ("")."""


class FixedKeys:
    """The keys of a JWKS document.

    Args:
        document: `{"keys": [...]}`.

    Raises:
        InvalidArgument: it is none.
    """

    def __init__(self, document: Mapping[str, Any]):
        self._keys = _read(document, "jwks")

    def find(self, id: str) -> Sequence[jwt.PyJWK]:
        """Returns the keys of an id."""
        return [key for key in self._keys if id in ("", key.key_id)]


class FileKeys:
    """The keys of a JWKS file, which is read again when it has changed.

    Args:
        path: of the file.

    Raises:
        InvalidArgument: it is not there or is none.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._lock = threading.Lock()
        self._stamp, self._keys = self._load()

    def find(self, id: str) -> Sequence[jwt.PyJWK]:
        """Returns the keys of an id, as the file has them now; the last good ones where it cannot be read."""
        with self._lock:
            try:
                if self._path.stat().st_mtime_ns != self._stamp:
                    self._stamp, self._keys = self._load()
            except (OSError, InvalidArgument):
                self._stamp = -1
            return self._keys.find(id)

    def _load(self) -> tuple[int, FixedKeys]:
        try:
            stamp = self._path.stat().st_mtime_ns
            return stamp, FixedKeys(json.loads(self._path.read_bytes()))
        except (OSError, ValueError) as error:
            raise InvalidArgument(
                f"the keys cannot be read: {error}", where=str(self._path), remedy="Give a JWKS file."
            ) from None


class FetchedKeys:
    """The keys that a provider publishes, fetched when one is asked for that is not known, but not too often.

    Args:
        url: of the JWKS document; https.
        keep_seconds: after which they are fetched again.
        pause_seconds: between two fetches at least, so that made-up key ids do not make us a burden.
        timeout_seconds: of a fetch.
    """

    def __init__(
        self,
        url: str,
        *,
        keep_seconds: float | int = 3600.0,
        pause_seconds: float | int = 30.0,
        timeout_seconds: float | int = 5.0,
    ):
        if not url.startswith("https://"):
            raise InvalidArgument(f"{url!r} is not https", where="jwks", remedy="Give an https:// address.")
        self._url, self._keep, self._pause, self._timeout = url, keep_seconds, pause_seconds, timeout_seconds
        self._lock = threading.Lock()
        self._keys: FixedKeys | None = None
        self._fetched = self._tried = float("-inf")

    def find(self, id: str) -> Sequence[jwt.PyJWK]:
        """Returns the keys of an id.

        Raises:
            StoreUnavailable: no keys could be fetched yet.
        """
        with self._lock:
            now = time.monotonic()
            known = self._keys is not None and bool(self._keys.find(id)) and now < self._fetched + self._keep
            if not known and now >= self._tried + self._pause:
                self._tried = now
                self._fetch(now)
            if self._keys is None:
                raise StoreUnavailable("the provider's keys cannot be fetched", where=self._url, remedy="Try again.")
            return self._keys.find(id)

    def _fetch(self, now: float) -> None:
        try:
            with urllib.request.urlopen(self._url, timeout=self._timeout) as answer:
                self._keys = FixedKeys(json.loads(answer.read(LONGEST_BYTES)))
            self._fetched = now
        except (urllib.error.URLError, OSError, ValueError):
            # The keys that are known go on being good: a provider that is away for a minute must not lock us out.
            return


class Tokens:
    """Lets in whoever brings a token of a provider.

    Args:
        keys: of the provider.
        issuer: that the token must name.
        audience: that the token must be for: us.
        algorithms: that may have signed it.
        tenant_claim: claim that names the tenant; a dot goes into an object.
        role_claim: claim that names the role, or a list of names.
        roles: what the names in it mean; the greatest counts, others are overlooked.
        tenant: of tokens without the claim; "": they are refused.
        leeway_seconds: by which clocks may differ.

    Raises:
        InvalidArgument: no issuer or audience, or an algorithm that is no signature.
    """

    def __init__(
        self,
        keys: KeySet,
        *,
        issuer: str,
        audience: str,
        algorithms: Sequence[str] = ALGORITHMS,
        tenant_claim: str = "tenant",
        role_claim: str = "role",
        roles: Mapping[str, Role] | None = None,
        tenant: str = "",
        leeway_seconds: float | int = 30.0,
    ):
        if not issuer or not audience:
            raise InvalidArgument("a token is checked for both", where="issuer, audience", remedy="Give both.")
        strange = [name for name in algorithms if not name.startswith(("RS", "PS", "ES", "Ed"))]
        if strange or not algorithms:
            raise InvalidArgument(
                f"{', '.join(strange) or 'nothing'} is no algorithm to pin",
                where="algorithms",
                remedy=f"Use some of {', '.join(ALGORITHMS)}.",
            )
        self._keys, self._issuer, self._audience = keys, issuer, audience
        self._algorithms, self._leeway = list(algorithms), float(leeway_seconds)
        self._tenant_claim, self._role_claim, self._tenant = tenant_claim, role_claim, tenant
        self._roles = {role.value: role for role in Role} if roles is None else dict(roles)

    def authenticate(self, credential: str) -> Identity:
        """Returns whom a token is about.

        Raises:
            Unauthenticated: it is not good here, or no longer.
        """
        claims = self._claims(credential)
        tenant = _claim(claims, self._tenant_claim) or self._tenant
        named = _claim(claims, self._role_claim)
        names = named if isinstance(named, list) else str(named or "").split()
        roles = [self._roles[name] for name in names if isinstance(name, str) and name in self._roles]
        greatest = next((role for role in reversed(Role) if role in roles), None)
        if not tenant or not isinstance(tenant, str) or greatest is None:
            raise _refused(f"claims no tenant ({self._tenant_claim}) or role ({self._role_claim}) that is known here")
        try:
            return Identity.of(str(claims["sub"]), tenant, greatest.value)
        except InvalidArgument as error:
            raise _refused(error.problem) from None

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _refused("is none") from None
        algorithm, id = header.get("alg"), header.get("kid", "")
        if algorithm not in self._algorithms:
            raise _refused("is signed by an algorithm that is not taken here")
        # A key is good for its own algorithm alone, whatever the token says.
        fitting = [key for key in self._keys.find(id) if key.algorithm_name == algorithm]
        for key in fitting:
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=self._leeway,
                    options={"require": ["exp", "iss", "aud", "sub"]},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError as error:
                raise _refused(_REASONS.get(type(error), "lacks a claim or has a strange one")) from None
        raise _refused("is not signed by a key of the issuer")


_REASONS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "has expired",
    jwt.ImmatureSignatureError: "is not good yet",
    jwt.InvalidAudienceError: "is for somebody else",
    jwt.InvalidIssuerError: "is of another issuer",
}


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"the token {why}", where="authorization", remedy="Get a new one from the issuer.")


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path of names with dots; a name that has a dot itself goes first."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _read(document: Any, where: str) -> list[jwt.PyJWK]:
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise InvalidArgument("has no list of keys", where=where, remedy='Give a JWKS document: {"keys": [...]}.')
    found = []
    for entry in listed:
        # Keys to encrypt with, shared secrets and kinds that are not known are for others.
        if not isinstance(entry, Mapping) or entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
            continue
        try:
            found.append(jwt.PyJWK(dict(entry)))
        except (jwt.PyJWTError, ValueError):
            continue
    return found
