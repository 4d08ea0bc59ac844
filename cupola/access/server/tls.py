"""Certificates for the servers, and saying in words that there is to be none.

Not here: how each server takes them (`grpc/server.py`, `http/`).
Invariant: a certificate that cannot be used is refused when the server starts, not when the first caller comes.
"""

import dataclasses
import enum
import ipaddress
import ssl
from pathlib import Path
from typing import Any

from cupola.access.errors import InvalidArgument


class Insecure(enum.Enum):
    """Whether keys and answers may travel in the clear."""

    REFUSED = "refused"
    ALLOWED = "allowed"


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How a server proves who it is.

    Args:
        chain: file of the certificates, PEM, the server's own first.
        key: file of the private key, PEM, without a password.
        callers: file of the authority whose certificates callers must show; None: they need none.

    Raises:
        InvalidArgument: a file is not there, is none of these, or key and certificate do not belong together.
    """

    chain: Path
    key: Path
    callers: Path | None = None

    def __post_init__(self) -> None:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # A password is given so that a locked key is an error, where it would be asked for on the terminal.
            context.load_cert_chain(self.chain, self.key, password=lambda: b"")
            if self.callers is not None:
                context.load_verify_locations(self.callers)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise InvalidArgument(
                f"the certificate cannot be used: {error}",
                where=f"{self.chain}, {self.key}",
                remedy="Give a PEM chain and the private key that belongs to it, without a password.",
            ) from None

    def uvicorn(self) -> dict[str, Any]:
        """Returns the options under which uvicorn takes it."""
        options: dict[str, Any] = {"ssl_certfile": str(self.chain), "ssl_keyfile": str(self.key)}
        if self.callers is not None:
            options |= {"ssl_ca_certs": str(self.callers), "ssl_cert_reqs": int(ssl.CERT_REQUIRED)}
        return options


def require_secure(host: str, certificate: Certificate | None, insecure: Insecure) -> None:
    """Refuses to listen in the clear where others than this machine can hear, unless it was allowed.

    Raises:
        InvalidArgument: there is no certificate.
    """
    if certificate is None and insecure is Insecure.REFUSED and not is_loopback(host):
        raise InvalidArgument(
            f"{host} can be reached from elsewhere, and keys would travel in the clear",
            where="host",
            remedy="Give a certificate, listen on 127.0.0.1, or say Insecure.ALLOWED.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
