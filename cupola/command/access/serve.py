"""`cupola access serve` and `key`: the permission graph behind gRPC and HTTP, and who may ask it."""

from pathlib import Path
from typing import Annotated

import typer

from cupola.access.errors import InvalidArgument
from cupola.access.server.audit import Audit
from cupola.access.server.grpc.server import Options
from cupola.access.server.identity import Authenticator, FirstOf, Role
from cupola.access.server.jwt import FetchedKeys, FileKeys, Tokens
from cupola.access.server.keys import Keys, new_key
from cupola.access.server.serve import Address, Exposure, Server
from cupola.access.server.tenants import Tenants
from cupola.access.server.tls import Certificate, Insecure

_SPELLED = {
    "Exposure.ANYONE": "--let-in anyone",
    "Insecure.ALLOWED": "--insecure allowed",
    "a certificate": "--certificate and --private-key",
    "Give keys": "Give --keys",
}
"""How options that the library names are typed here."""


def serve(
    database: Annotated[
        str, typer.Argument(metavar="DATABASE", help="A SQLite file, :memory: or a postgresql:// address.")
    ],
    host: Annotated[str, typer.Option(help="127.0.0.1 is reached from this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of HTTP; 0 takes a free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Of gRPC; 0 takes a free one.")] = 50051,
    keys: Annotated[Path | None, typer.Option(help="File of keys, made with `cupola access key`.")] = None,
    let_in: Annotated[
        Exposure, typer.Option(help="Who may come in without keys on an open address.")
    ] = Exposure.THIS_MACHINE,
    certificate: Annotated[Path | None, typer.Option(help="Chain of certificates for TLS, PEM.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    callers: Annotated[Path | None, typer.Option(help="Authority whose certificates callers must show.")] = None,
    insecure: Annotated[
        Insecure, typer.Option(help="Whether keys may travel in the clear to others.")
    ] = Insecure.REFUSED,
    issuer: Annotated[str, typer.Option(help="Of OpenID Connect tokens that are let in.")] = "",
    audience: Annotated[str, typer.Option(help="That such tokens must be for.")] = "",
    jwks: Annotated[str, typer.Option(help="The issuer's keys: an https:// address or a file.")] = "",
    audit: Annotated[Path | None, typer.Option(help="File that writes and sampled decisions are noted in.")] = None,
    audit_sample: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of decisions that are noted.")] = 0.0,
    quantum_seconds: Annotated[
        float, typer.Option(min=0.0, help="For which answers that need not be the newest share one moment.")
    ] = 0.0,
) -> None:
    """Serves a permission graph to programs and people.

    gRPC is as SpiceDB speaks it; HTTP has OpenFGA's API, AuthZEN, plain REST and a playground.

    \b
    cupola access serve access.db
    cupola access serve access.db --host 0.0.0.0 --keys keys --certificate tls.pem --private-key tls.key
    """
    proof = _certificate(certificate, private_key, callers)
    known = _authenticator(keys, issuer, audience, jwks)
    noted, graphs = _audit(audit, audit_sample), _graphs(database, quantum_seconds)
    try:
        server = Server(
            graphs,
            http=Address(host, port),
            grpc=Options(host=host, port=grpc_port),
            authenticator=known,
            exposure=let_in,
            certificate=proof,
            insecure=insecure,
            audit=noted,
        )
    except InvalidArgument as error:
        graphs.close()
        raise InvalidArgument(error.problem, where=error.where, remedy=_spelled(error.remedy)) from None
    if server.grpc is not None:
        typer.echo(f"gRPC at {server.grpc.address}")
    typer.echo(f"HTTP and the playground at {server.url}; Ctrl-C stops")
    server.run()
    typer.echo("stopped")


def key(
    holder: Annotated[str, typer.Argument(help="Who holds the key.")],
    file: Annotated[Path, typer.Option(help="The file of keys, which is appended to.")] = Path("keys"),
    role: Annotated[Role, typer.Option(help="reader asks, writer writes relationships, admin schemas.")] = Role.READER,
    tenant: Annotated[str, typer.Option(help="Whose graph it opens.")] = "default",
) -> None:
    """Makes a key and prints it; it is never shown again.

    A server knows it when it is started anew.

    \b
    cupola access key ada --role writer
    """
    if file.exists():
        Keys.read(file)
    made, kept = new_key(holder, tenant, role)
    try:
        file.touch(mode=0o600)
        with file.open("a", encoding="utf-8") as out:
            out.write(f"{kept}\n")
    except OSError as error:
        raise InvalidArgument(f"cannot be written: {error.strerror}", where=str(file)) from None
    typer.echo(made)


def _certificate(chain: Path | None, key: Path | None, callers: Path | None) -> Certificate | None:
    if chain is None and key is None and callers is None:
        return None
    if chain is None or key is None:
        raise InvalidArgument(
            "TLS needs both", where="--certificate, --private-key", remedy="Give the chain and its private key."
        )
    return Certificate(chain, key, callers)


def _authenticator(keys: Path | None, issuer: str, audience: str, jwks: str) -> Authenticator | None:
    ways: list[Authenticator] = [] if keys is None else [Keys.read(keys)]
    if issuer or audience or jwks:
        if not (issuer and audience and jwks):
            raise InvalidArgument("go together", where="--issuer, --audience, --jwks", remedy="Give all three.")
        signed = FetchedKeys(jwks) if "://" in jwks else FileKeys(jwks)
        ways.append(Tokens(signed, issuer=issuer, audience=audience))
    return FirstOf(*ways) if ways else None


def _audit(file: Path | None, sample: float) -> Audit:
    try:
        return Audit(file, sample=sample)
    except OSError as error:
        raise InvalidArgument(f"cannot be written: {error.strerror}", where=str(file)) from None


def _graphs(database: str, quantum_seconds: float) -> Tenants:
    graphs = Tenants(database, quantum_seconds=quantum_seconds)
    # Opened before anybody asks, so that a database that cannot be is said here and not to the first caller.
    with graphs.graph("default"):
        return graphs


def _spelled(remedy: str) -> str:
    for name, typed in _SPELLED.items():
        remedy = remedy.replace(name, typed)
    return remedy
