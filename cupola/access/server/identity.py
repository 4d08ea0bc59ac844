"""Who asks a server, and in whose name: what every way of authentication ends in.

Not here: the ways themselves (`keys.py`, `jwt.py`), what a caller may use up (`quota.py`).
Invariant: a tenant comes from the credential alone, never from what a request says of itself; whoever holds no
good credential is `Unauthenticated`, whoever holds one of too small a role is `Denied`, and neither learns more.
"""

import enum
from typing import NamedTuple, Protocol, runtime_checkable

from cupola.access.errors import AccessError, Denied, InvalidArgument, Unauthenticated

RESERVED = "_"
"""What the names of the server's own tenants begin with, and nobody else's."""


class Role(enum.Enum):
    """What a caller may do; each role may do all that those before it may."""

    READER = "reader"
    """Ask, read and watch."""
    WRITER = "writer"
    """Write and delete relationships."""
    ADMIN = "admin"
    """Write schemas."""

    def covers(self, other: "Role") -> bool:
        """Whether it may do all that another may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class Identity(NamedTuple):
    """A caller who was recognised.

    Args:
        name: for the audit log and the quota; never a secret.
        tenant: whose graph the caller sees.
        role: what the caller may do in it.
    """

    name: str
    tenant: str
    role: Role

    def require(self, role: Role) -> None:
        """Lets a caller of this role pass.

        Raises:
            Denied: the role is smaller, or the tenant is the server's own, whoever says that it is the caller's.
        """
        if self.tenant.startswith(RESERVED):
            raise Denied(
                f"tenant {self.tenant!r} is the server's own",
                where="authorization",
                remedy="Use a credential of a tenant that begins with a letter or digit.",
            )
        if not self.role.covers(role):
            raise Denied(
                f"{self.name} is a {self.role.value}, and this needs a {role.value}",
                where="authorization",
                remedy=f"Use a credential whose role is {role.value}.",
            )

    @classmethod
    def of(cls, name: str, tenant: str, role: str) -> "Identity":
        """Returns the identity that a file or a token describes.

        Raises:
            InvalidArgument: no name or tenant, a tenant of the server's own (they begin with an underscore), or
                no such role.
        """
        if not name or not tenant or tenant.startswith(RESERVED):
            raise InvalidArgument(
                f"name {name!r} and tenant {tenant!r} identify nobody",
                where="identity",
                remedy="Give both; a tenant begins with a letter or digit.",
            )
        try:
            return cls(name, tenant, Role(role))
        except ValueError:
            roles = ", ".join(one.value for one in Role)
            raise InvalidArgument(f"{role!r} is no role", where="identity", remedy=f"Use one of {roles}.") from None


@runtime_checkable
class Authenticator(Protocol):
    """Tells who holds a credential."""

    def authenticate(self, credential: str) -> Identity:
        """Returns the caller.

        Args:
            credential: what follows `Bearer ` in the `authorization` header; "" where there was none.

        Raises:
            Unauthenticated: it is not good here.
        """


class Everybody:
    """Lets everybody in as one identity: for tests, and for a server that only its own machine can reach.

    Raises:
        InvalidArgument: the identity is of nobody, or of a tenant of the server's own.
    """

    def __init__(self, identity: Identity = Identity("everybody", "default", Role.ADMIN)):
        self._identity = Identity.of(identity.name, identity.tenant, identity.role.value)

    def authenticate(self, credential: str) -> Identity:
        """Returns the one identity, whatever the credential."""
        return self._identity


class FirstOf:
    """Several ways side by side: the first that knows the credential says who it is."""

    def __init__(self, *ways: Authenticator):
        self._ways = ways

    def authenticate(self, credential: str) -> Identity:
        """Returns the caller.

        Raises:
            Unauthenticated: no way knows the credential; the reason is the last one's.
        """
        last: AccessError = unknown()
        for way in self._ways:
            try:
                return way.authenticate(credential)
            except Unauthenticated as error:
                last = error
        raise last


def bearer(header: str | None) -> str:
    """Returns the credential of an `authorization` header; "" where there is none.

    Raises:
        Unauthenticated: the header is of another scheme.
    """
    if not header:
        return ""
    scheme, _, credential = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(
            "the authorization header is of another scheme", where="authorization", remedy="Send: Bearer YOUR-KEY"
        )
    return credential.strip()


def unknown() -> Unauthenticated:
    """Returns the one refusal of all unknown credentials, so that it tells nothing about them."""
    return Unauthenticated(
        "the credential is missing or not known here",
        where="authorization",
        remedy="Send `authorization: Bearer KEY` with a key of this server.",
    )
