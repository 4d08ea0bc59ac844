"""What the commands ask: a database, or a server, by one address.

Not here: the commands.
Invariant: a question never makes a database: a mistyped name is an error, not an empty graph.
"""

import contextlib
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from cupola.access import LATEST, Filter, Graph, Relationship, at_exactly, at_least
from cupola.access.calls import Seen
from cupola.access.client import Client
from cupola.access.consistency import Consistency
from cupola.access.engine.at import Holder, Resource
from cupola.access.errors import InvalidArgument, StoreUnavailable
from cupola.access.server.tls import Insecure, is_loopback
from cupola.access.store.open import MEMORY, SCHEME
from cupola.access.token import token_of

PAGE = 1000
"""Relationships that are read, or written, at a time."""

ADDRESS = "A SQLite file, a postgresql:// address, or a server: grpc://HOST:PORT, or grpcs:// with TLS."
Address = Annotated[str, typer.Argument(metavar="ADDRESS", help=ADDRESS)]
Key = Annotated[Path | None, typer.Option("--key", help="File with the key of a server; - reads standard input.")]
Roots = Annotated[Path | None, typer.Option("--roots", help="Certificates of authorities, PEM, for grpcs://.")]
Clear = Annotated[
    Insecure, typer.Option("--insecure", help="Whether a key may travel in the clear to another machine.")
]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose graph in a database; a server knows by the key.")]


class Asked(NamedTuple):
    """Where a command is to ask.

    Args:
        address: of a database or a server.
        key: file with the key of a server.
        roots: certificates of authorities.
        insecure: whether a key may travel in the clear.
        tenant: whose graph in a database.
    """

    address: str
    key: Path | None = None
    roots: Path | None = None
    insecure: Insecure = Insecure.REFUSED
    tenant: str = "default"

    @property
    def remote(self) -> bool:
        """Whether it is a server."""
        return self.address.startswith(("grpc://", "grpcs://"))


class Local:
    """A database."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self.check, self.expand, self.write = graph.check, graph.expand, graph.write
        self.load, self.write_schema = graph.load, graph.write_schema

    def resources(self, type: str, permission: str, subject: str, **how: Any) -> Iterator[Resource]:
        """Returns the objects that a subject has a permission on."""
        yield from self._graph.lookup_resources(type, permission, subject, **how)[1]

    def subjects(self, permission: str, type: str, relation: str, **how: Any) -> Iterator[Holder]:
        """Returns the subjects that have a permission."""
        yield from self._graph.lookup_subjects(permission, type, relation, **how)[1]

    def export(self) -> Iterator[Relationship]:
        """Returns all relationships at one revision."""
        token, found = self._graph.read(Filter(), consistency=LATEST, limit=PAGE)
        while found:
            yield from found
            _, found = self._graph.read(Filter(), consistency=at_exactly(token), after=found[-1], limit=PAGE)

    def watch(self, after: str) -> Iterator[Seen]:
        """Returns what is written after a token, or from now on, for as long as one listens."""
        after = after or self._graph.token()
        yield Seen(after, checkpoint=True)
        while True:
            _, changes = self._graph.changes(after)
            for change in changes:
                after = token_of(self._graph.store.id, change.revision)
                yield Seen(after, change.updates, schema=bool(change.schema_id))
            if not changes:
                self._graph.wait(after, 0.5)

    def schema(self) -> str:
        """Returns the text of the schema."""
        return self._graph.schema().text


class Remote:
    """A server."""

    def __init__(self, client: Client):
        self._client = client
        self.check, self.expand, self.write = client.check, client.expand, client.write
        self.load, self.write_schema, self.export = client.load, client.write_schema, client.export

    def resources(self, type: str, permission: str, subject: str, **how: Any) -> Iterator[Resource]:
        """Returns the objects that a subject has a permission on."""
        yield from self._client.lookup_resources(type, permission, subject, **how).found

    def subjects(self, permission: str, type: str, relation: str, **how: Any) -> Iterator[Holder]:
        """Returns the subjects that have a permission."""
        yield from self._client.lookup_subjects(permission, type, relation, **how).found

    def watch(self, after: str) -> Iterator[Seen]:
        """Returns what is written after a token, or from now on, for as long as one listens."""
        yield from self._client.watch(after)

    def schema(self) -> str:
        """Returns the text of the schema."""
        return self._client.read_schema()[1]


Target = Local | Remote


@contextlib.contextmanager
def opened(asked: Asked, *, make: bool = False) -> Iterator[Target]:
    """Opens a database or a server.

    Args:
        make: whether a database may be made.

    Raises:
        InvalidArgument: the address is none, or an option does not go with it.
        StoreUnavailable: there is no such database.
    """
    if asked.remote:
        with _client(asked) as client:
            yield Remote(client)
        return
    if asked.key is not None or asked.roots is not None:
        raise InvalidArgument("a database asks for no key", where=asked.address, remedy="Leave --key and --roots out.")
    if asked.address == MEMORY:
        raise InvalidArgument("it would be gone with the command", where=MEMORY, remedy="Name a file.")
    name = asked.address.removeprefix(f"{SCHEME}/")
    if not make and "://" not in name and not Path(name).exists():
        raise StoreUnavailable(
            "there is no such database",
            where=asked.address,
            remedy=f"Make it: cupola access schema write {asked.address} SCHEMA",
        )
    with Graph.open(asked.address, tenant=asked.tenant) as graph:
        yield Local(graph)


def _client(asked: Asked) -> Client:
    parsed = urllib.parse.urlsplit(asked.address)
    if not parsed.netloc or parsed.path.strip("/"):
        raise InvalidArgument("this names no server", where=asked.address, remedy="Write grpc://HOST:50051")
    if asked.tenant != "default":
        raise InvalidArgument("a server knows the tenant by the key", where="--tenant", remedy="Leave it out.")
    key = "" if asked.key is None else read_input(asked.key).strip()
    clear = parsed.scheme == "grpc"
    if clear and key and not is_loopback(parsed.hostname or "") and asked.insecure is Insecure.REFUSED:
        raise InvalidArgument(
            f"the key would travel in the clear to {parsed.hostname}",
            where=asked.address,
            remedy="Use grpcs://, or say --insecure allowed.",
        )
    roots = None if asked.roots is None else read_input(asked.roots).encode()
    return Client(parsed.netloc, key, roots=roots, insecure=Insecure.ALLOWED if clear else Insecure.REFUSED)


def read_input(path: Path) -> str:
    """Returns the text of a file, or of standard input for "-".

    Raises:
        InvalidArgument: it cannot be read.
    """
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InvalidArgument(f"cannot be read: {why}", where=str(path), remedy="Look at its name.") from None


def freshness(least: str, exactly: str) -> Consistency:
    """Returns how fresh an answer must be: as fresh as a token, exactly it, or else the newest.

    Raises:
        InvalidArgument: both are given.
    """
    if least and exactly:
        raise InvalidArgument("both are given", where="--at-least, --exactly", remedy="Leave one of them out.")
    return at_least(least) if least else at_exactly(exactly) if exactly else LATEST
