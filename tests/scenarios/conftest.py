"""The conformance data of others, and the worlds that it is run in."""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import yaml

from cupola.access import Graph, Object, Relationship, Subject, touch
from cupola.access.decision import Verdict
from cupola.access.engine.at import Holder
from cupola.access.limits import Limits
from cupola.access.relation import WILDCARD
from cupola.access.schema.fga.json import to_json
from cupola.access.schema.fga.modules import read_modules
from cupola.access.server.grpc.server import Options
from cupola.access.server.http.bounds import Bounds
from cupola.access.server.identity import Identity, Role
from cupola.access.server.serve import Server
from cupola.access.server.tenants import Tenants

SHARED = Path(os.environ.get("CUPOLA_SHARED", Path(__file__).parents[3] / "shared"))

FOLDERS = {
    "validation_file": ("spicedb", "testconfigs*/*.yaml"),
    "sample_store": ("openfga_sample_stores", "*.fga.yaml"),
}


def pytest_generate_tests(metafunc):
    """A test that takes a scenario runs once for each file of its folder; without the data it says so."""
    for name, (folder, pattern) in FOLDERS.items():
        if name in metafunc.fixturenames:
            found = sorted((SHARED / "authz_conformance" / folder).glob(pattern))
            missing = pytest.mark.skip(reason=f"there is no {folder} in {SHARED}; set CUPOLA_SHARED")
            metafunc.parametrize(
                name, found or [pytest.param(None, marks=missing)], ids=lambda path: path and path.stem
            )
    if "thread" in metafunc.fixturenames:
        file = SHARED / "authz_conformance/spicedb/steelthread/operations.derived.yaml"
        threads = yaml.safe_load(file.read_text()) if file.exists() else []
        missing = pytest.param(None, marks=pytest.mark.skip(reason=f"there is no {file}; set CUPOLA_SHARED"))
        metafunc.parametrize("thread", threads or [missing], ids=lambda thread: thread and thread["name"])


CACHED, UNCACHED = "cached", "uncached"
WORLDS = [
    *(("memory", CACHED), ("postgres", CACHED)),
    *(("memory", UNCACHED), ("postgres", UNCACHED), ("sqlite", CACHED), ("sqlite", UNCACHED)),
]
MARKS = [], [pytest.mark.slow], [pytest.mark.slow, pytest.mark.long]
"""Of the first world, the second, and the others."""


@pytest.fixture(
    params=[pytest.param(world, id="-".join(world), marks=MARKS[min(index, 2)]) for index, world in enumerate(WORLDS)]
)
def empty(request, tmp_path) -> Iterator[Graph]:
    """An empty graph in each kind of store, with all caches and the index, and without."""
    store, caching = request.param
    limits = Limits() if caching == CACHED else Limits(cached_facts=0)
    address = {"memory": ":memory:", "sqlite": str(tmp_path / "access.db")}.get(store)
    address = address or request.getfixturevalue("postgres_address")
    with Graph.open(address, tenant=uuid.uuid4().hex, limits=limits) as graph:
        yield graph


class Case(NamedTuple):
    """A validation file of SpiceDB.

    Args:
        schema: text.
        facts: relationships, those that have expired too.
        assertions: (relationship, context, verdict).
    """

    schema: str
    facts: list[Relationship]
    assertions: list[tuple[Relationship, dict, Verdict]]

    @property
    def alive(self) -> list[Relationship]:
        """The relationships that have not expired."""
        return [fact for fact in self.facts if fact.expires_seconds is None or fact.expires_seconds > time.time()]

    @property
    def subjects(self) -> list[Subject]:
        """Every subject that is named, wildcards left out."""
        return sorted({fact.subject for fact in self.facts if fact.subject.id != WILDCARD})

    def objects(self, type: str) -> list[Object]:
        """Every object of a type that is named, as object or as subject."""
        named = {fact.object for fact in self.facts} | {fact.subject.object for fact in self.facts}
        return sorted(object for object in named if object.type == type and object.id != WILDCARD)


EXPECTED = {"assertTrue": Verdict.YES, "assertFalse": Verdict.NO, "assertCaveated": Verdict.CONDITIONAL}


def read_case(path: Path) -> Case:
    file = yaml.safe_load(path.read_text())
    lines = (line.strip() for line in (file.get("relationships") or "").splitlines())
    facts = [Relationship.parse(line) for line in lines if line and not line.startswith("//")]
    assertions = []
    for kind, verdict in EXPECTED.items():
        for text in (file.get("assertions") or {}).get(kind) or ():
            fact, _, context = text.partition(" with ")
            assertions.append((Relationship.parse(fact), yaml.safe_load(context or "{}"), verdict))
    return Case(file["schema"], facts, assertions)


@pytest.fixture
def case(validation_file) -> Case:
    return read_case(validation_file)


@pytest.fixture
def loaded(empty, case) -> Graph:
    """A graph with the file's schema and relationships."""
    empty.write_schema(case.schema)
    empty.write(*map(touch, case.facts))
    return empty


class Asked(NamedTuple):
    """What a test of a sample store asks.

    Args:
        object: or a type, where objects are listed.
        extra: tuples that hold for this question only.
        filters: of the users that are listed.
        expected: whether it is allowed, or the objects or users of a list.
    """

    user: str
    relation: str
    object: str
    context: dict
    extra: list[dict]
    expected: bool | set[str]
    filters: list[dict] = []


class Sample(NamedTuple):
    """A sample store of OpenFGA."""

    model: str
    tuples: list[dict]
    checks: list[Asked]
    objects: list[Asked]
    users: list[Asked]


def read_sample(path: Path) -> Sample:
    """Returns a sample store, from the folder where everything stands in one file if it takes parts from others."""
    file = yaml.safe_load(path.read_text())
    inlined = path.parent / "inlined" / path.name
    if inlined.exists() and not isinstance(file.get("model"), str):
        file = yaml.safe_load(inlined.read_text())
    if "modules" in file:
        file["model"] = json.dumps(to_json(read_modules(file["modules"])))
    found = Sample(file["model"], file.get("tuples") or [], [], [], [])
    for test in file.get("tests") or ():
        extra = test.get("tuples") or []
        for check in test.get("check") or ():
            for user in check.get("users") or [check["user"]]:
                for name in check.get("objects") or [check["object"]]:
                    for relation, allowed in check["assertions"].items():
                        found.checks.append(Asked(user, relation, name, check.get("context") or {}, extra, allowed))
        for listed in test.get("list_objects") or ():
            for relation, expected in listed["assertions"].items():
                context = listed.get("context") or {}
                asked = Asked(listed["user"], relation, listed["type"], context, extra, set(expected or ()))
                found.objects.append(asked)
        for listed in test.get("list_users") or ():
            for relation, expected in listed["assertions"].items():
                context, users = listed.get("context") or {}, set(expected["users"] or ())
                asked = Asked("", relation, listed["object"], context, extra, users, listed["user_filter"])
                found.users.append(asked)
    return found


@pytest.fixture
def sample(sample_store) -> Sample:
    return read_sample(sample_store)


def verdict_of(holders: dict[str, Holder], id: str) -> Verdict:
    """What a list of holders says of one subject."""
    own = holders.get(id)
    if own is not None and not own.missing:
        return Verdict.YES
    everyone = holders.get(WILDCARD)
    left_out = next((one for one in everyone.excluded if one.id == id), None) if everyone else None
    if everyone is not None and left_out is None:
        return Verdict.CONDITIONAL if everyone.missing else Verdict.YES
    if own is not None or (left_out is not None and left_out.missing):
        return Verdict.CONDITIONAL
    return Verdict.NO


class ByName:
    """Lets everybody in, to the tenant that is their credential: a graph of its own for each file."""

    def authenticate(self, credential: str) -> Identity:
        return Identity("tester", credential or "default", Role.ADMIN)


@pytest.fixture(scope="session", params=[pytest.param(CACHED), pytest.param(UNCACHED, marks=pytest.mark.slow)])
def server(request) -> Iterator[Server]:
    """Our server on free ports, over gRPC and HTTP, with caches and without."""
    limits = Limits() if request.param == CACHED else Limits(cached_facts=0)
    made = Server(
        Tenants(limits=limits, most=10_000),
        authenticator=ByName(),
        grpc=Options(port=0, pulse_seconds=0.2),
        bounds=Bounds(grace_seconds=0.5),
    )
    with made.running():
        yield made


@pytest.fixture(scope="session")
def scenario() -> SimpleNamespace:
    """What is written above, for the tests, which cannot import it."""
    return SimpleNamespace(verdict_of=verdict_of, read_case=read_case, folder=SHARED / "authz_conformance")


@pytest.fixture
def closing() -> Iterator[Callable]:
    """Closes what is entered when the test ends."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context
