"""The guard of a server whose rights stand in a permission graph: keys say who calls, the graph what they may do.

Not here: keys (`serve/http/keys.py`), how the graph finds its answers (`access/`), the lab's schema (`access.zed`).
Invariant: every request asks the graph as it is at that moment, so that what was taken away is gone with the next
one; where the graph does not answer, nobody gets in. A key can narrow what its subject may do, and never adds to it.
"""

import asyncio
import datetime
import enum
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from cupola.access.consistency import LATEST
from cupola.access.decision import Question
from cupola.access.errors import AccessError, NotFound
from cupola.access.graph import Graph
from cupola.access.relation import Object, Subject
from cupola.access.store.open import MEMORY, POSTGRES
from cupola.core.errors import ConfigError
from cupola.serve import errors
from cupola.serve.http.guard import SERVER, Action, Caller
from cupola.serve.http.keys import Key, Keys, read_keys

logger = logging.getLogger(__name__)

Inputs = ParamSpec("Inputs")
Answer = TypeVar("Answer")

SCHEMA = Path(__file__).with_name("access.zed")
"""The lab's own, written into a graph that has none."""

USE, SHARE = "use", "share"
CACHE = "prefix_cache"
NEEDED: Mapping[str, tuple[str, ...]] = {
    "model": (USE, "manage"),
    "adapter": (USE, "manage"),
    CACHE: (SHARE,),
    "server": ("manage", "observe"),
}
"""What the guard asks about: permissions or relations by type."""

_OWN = {Action.MANAGE: "manage", Action.OBSERVE: "observe"}
"""What needs a permission of its own; all else is use."""
_MOST_KNOWN = 10_000
"""Subjects whose caches are remembered."""
_ODD = re.compile(r"[^A-Za-z0-9/_|+-]")


class Pace(enum.Enum):
    """How the graph is asked."""

    AT_ONCE = "at once"
    """In place: memory and SQLite take microseconds."""
    ASIDE = "aside"
    """On another thread: a database elsewhere makes one wait, and others are to be served meanwhile."""


class GraphGuard:
    """Asks a permission graph about whoever holds a key.

    Args:
        keys: each of which names its subject.
        graph: whose schema has what is `NEEDED`.
        pace: how it is asked.
        file: of the graph's database, where it is one; when it is not there any more, nobody gets in.
    """

    def __init__(self, keys: Keys, graph: Graph, *, pace: Pace = Pace.AT_ONCE, file: Path | None = None):
        self.keys, self.graph, self._pace, self._file = keys, graph, pace, file
        self._seen = None if file is None else _identity(file)
        self._known: dict[str, tuple[str, list[str]]] = {}

    def close(self) -> None:
        """Lets go of the graph."""
        self.graph.close()

    async def authenticate(self, credentials: str | None) -> Caller:
        caller = await self.keys.authenticate(credentials)
        if not caller.subject:
            raise errors.Unauthorized(
                "the key is nobody's in the permission graph",
                remedy="Ask whoever runs the server for one that was made with --subject.",
            )
        return Caller(caller.name, await self._asked(self._namespace, caller), caller.subject)

    async def check(self, caller: Caller, action: Action, object: str) -> None:
        await self.keys.check(caller, action, object)
        permission = _OWN.get(action, USE)
        if object == SERVER and permission != USE:
            if not (await self._asked(self._may, caller, [(_object(object), permission)]))[0]:
                raise _forbidden(caller, action, object)
            return
        used, allowed = await self._asked(self._may, caller, [(_object(object), USE), (_object(object), permission)])
        if not used:
            raise errors.NotFound(f"there is no {object}")
        if not allowed:
            raise _forbidden(caller, action, object)

    async def visible(self, caller: Caller, objects: Iterable[str]) -> list[str]:
        left = await self.keys.visible(caller, objects)
        allowed = await self._asked(self._may, caller, [(_object(object), USE) for object in left])
        return [object for object, yes in zip(left, allowed, strict=True) if yes]

    def _namespace(self, caller: Caller) -> str:
        """Whose cached prefixes the caller shares: those of a cache that the graph gives it, else its own alone.

        Of several caches it is the one that its key names, or the first by name.
        """
        caches = self._caches(caller.subject)
        allowed = self._may(caller, [(Object(CACHE, name), SHARE) for name in caches]) if caches else []
        shared = [name for name, yes in zip(caches, allowed, strict=True) if yes]
        if not shared:
            return f"own:{caller.subject}"
        return f"{CACHE}:{caller.namespace if caller.namespace in shared else shared[0]}"

    def _caches(self, subject: str) -> list[str]:
        """The caches that the subject may share, if conditions hold and nothing has expired: that is asked each time.

        Which they are is looked up once for each revision.
        """
        now = self.graph.token(LATEST)
        revision, caches = self._known.get(subject, ("", []))
        if revision != now:
            now, found = self.graph.lookup_resources(CACHE, SHARE, subject, consistency=LATEST)
            caches = [cache.id for cache in found]
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[subject] = now, caches
        return caches

    def _may(self, caller: Caller, asked: list[tuple[Object, str]]) -> list[bool]:
        """Whether the caller has each permission on its object, all at one moment."""
        subject, context = Subject.parse(caller.subject), _context()
        questions = [Question(object, permission, subject, context) for object, permission in asked]
        found = self.graph.check_many(questions, consistency=LATEST)
        for one in found:
            if one.error is not None:
                raise one.error
        return [bool(one) for one in found]

    async def _asked(self, question: Callable[Inputs, Answer], *given: Inputs.args, **named: Inputs.kwargs) -> Answer:
        """Returns the answer to a question.

        Raises:
            Unavailable: there is none.
        """
        try:
            if self._file is not None and _identity(self._file) != self._seen:
                raise NotFound("the database was deleted or replaced", where=str(self._file))
            if self._pace is Pace.ASIDE:
                return await asyncio.to_thread(question, *given, **named)
            return question(*given, **named)
        except AccessError as error:
            logger.error("the permission graph does not answer, so nobody gets in: %s", error)
            raise errors.Unavailable(
                "who may do what cannot be looked up now",
                remedy="Send it again in a while.",
                retry_after_seconds=5,
            ) from error


def open_guard(address: str, keys: Path, *, say: Callable[[str], None] = logger.info) -> GraphGuard:
    """Opens the permission graph of a server; one without a schema gets the lab's own.

    Args:
        address: a SQLite file or "postgresql://...".
        keys: file of keys, each of which names its subject.
        say: is told what was written.

    Raises:
        ConfigError: the graph cannot be opened, or its schema lacks what the guard asks; a key names no subject, or
            one of a type that the schema does not have.
    """
    if address == MEMORY:
        raise ConfigError(
            "a graph in memory has no rights, and nobody else could give any",
            where="--access",
            remedy="Name a file, such as access.db, or postgresql://USER@HOST/DATABASE.",
        )
    known, elsewhere = Keys(keys), address.startswith(POSTGRES)
    try:
        graph = Graph.open(address)
    except AccessError as error:
        raise _config_error(error) from error
    try:
        if not graph.schemas():
            graph.write_schema(SCHEMA.read_text(encoding="utf-8"))
            say(f"{_shown(address)} had no schema: it has the lab's own now ({SCHEMA})")
        check_schema(graph)
        check_keys(graph, read_keys(keys), keys)
        file = None if elsewhere else _own_file(Path(address.removeprefix("sqlite:///")))
        return GraphGuard(known, graph, pace=Pace.ASIDE if elsewhere else Pace.AT_ONCE, file=file)
    except AccessError as error:
        graph.close()
        raise _config_error(error) from error
    except BaseException:
        graph.close()
        raise


def check_schema(graph: Graph) -> None:
    """Checks that a graph's schema has what the guard asks.

    Raises:
        ConfigError: something is missing; it is named.
    """
    schema = graph.schema().schema
    lacking = []
    for type, permissions in NEEDED.items():
        definition = schema.types.get(type)
        if definition is None:
            lacking.append(f"definition {type}")
        else:
            lacking += [f"permission {name} in definition {type}" for name in permissions if not definition.get(name)]
    if lacking:
        raise ConfigError(
            f"the graph's schema has no {', no '.join(lacking)}", where="--access", remedy=f"Add it; {SCHEMA} has it."
        )


def check_keys(graph: Graph, keys: Iterable[Key], where: Path) -> None:
    """Checks that each key names a subject that the schema can give rights to.

    Raises:
        ConfigError: one does not.
    """
    types = graph.schema().schema.types
    for key in keys:
        again = f"Type: cupola keys revoke {key.name} --file {where}; cupola keys make {key.name} --file {where}"
        if not key.subject:
            raise ConfigError(
                f"the key of {key.name} does not say who that is in the permission graph",
                where=os.fspath(where),
                remedy=f"{again} --subject user:{key.name}",
            )
        if Subject.parse(key.subject).type not in types:
            raise ConfigError(
                f"the key of {key.name} is of {key.subject}, and the graph's schema has no such type",
                where=os.fspath(where),
                remedy=f"{again} --subject TYPE:ID with one of {', '.join(sorted(types))}",
            )


def object_id(name: str) -> str:
    """Returns the id of a model of this name: characters that ids do not have are written as =HH, such as =2E."""
    return _ODD.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), name)


def _object(text: str) -> Object:
    type, _, name = text.partition(":")
    return Object(type, object_id(name))


def _context() -> dict[str, Any]:
    """What conditions can ask of the moment."""
    return {"hour": datetime.datetime.now(datetime.UTC).hour}


def _forbidden(caller: Caller, action: Action, object: str) -> errors.Forbidden:
    return errors.Forbidden(
        f"{caller.subject} may not {action.value} {object}", remedy="Ask whoever runs the server for the right to."
    )


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _own_file(file: Path) -> Path:
    """Returns the file, which not everyone can write.

    Raises:
        ConfigError: everyone can.
    """
    if file.stat().st_mode & 0o002:
        raise ConfigError(
            "everyone on this machine can write it, and so give themselves any right",
            where=str(file),
            remedy=f"Type: chmod o-w {file}",
        )
    return file


def _config_error(error: AccessError) -> ConfigError:
    return ConfigError(error.problem, where=error.where or "--access", remedy=error.remedy)


def _shown(address: str) -> str:
    """An address without its password."""
    return re.sub(r"//[^@/]*@", "//", address)
