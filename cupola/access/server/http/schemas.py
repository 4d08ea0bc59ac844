"""Plain REST's schemas: read, write, compare, reflect.

Not here: the languages (`schema/`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from cupola.access.consistency import LATEST, at_exactly
from cupola.access.errors import InvalidArgument, NotFound
from cupola.access.graph import Graph
from cupola.access.schema.diff import Difference, diff
from cupola.access.schema.model import Definition, Language
from cupola.access.schema.read import read_schema
from cupola.access.schema.reflect import Reference, computable_permissions, dependent_relations
from cupola.access.server.http.call import Call, Endpoint
from cupola.access.server.http.errors import json_response
from cupola.access.server.http.records import SchemaText
from cupola.access.server.identity import Role
from cupola.access.store.protocol import SchemaVersion
from cupola.access.token import token_of


async def read(call: Call) -> Response:
    """Returns the schema in force, one in force at a revision, or one by its id."""
    query = call.query("at_exactly", "id")

    def run(graph: Graph) -> tuple[SchemaVersion, str]:
        version = _version(graph, query)
        return version, token_of(graph.store.id, version.revision)

    version, token = await call.ask(run)
    return json_response({**_shown(version), "revision": token, "text": version.text})


async def versions(call: Call) -> Response:
    """Returns all versions without their texts, the newest last."""
    call.query()
    found = await call.ask(lambda graph: graph.schemas())
    return json_response({"versions": [_shown(one) for one in found]})


async def write(call: Call) -> Response:
    """Makes a text the schema from now on, and returns the token of that."""
    asked = call.parse(SchemaText)

    def run(graph: Graph) -> tuple[str, str]:
        token = graph.write_schema(asked.text, language=_language(asked))
        return token, graph.schema(at_exactly(token)).id

    token, id = await call.ask(run)
    call.wrote("schema", schema_id=id, revision=token)
    return json_response({"revision": token, "id": id})


async def compare(call: Call) -> Response:
    """Returns what a text would change in the schema in force."""
    asked = call.parse(SchemaText)

    def run(graph: Graph) -> Sequence[Difference]:
        return diff(graph.schema().schema, read_schema(asked.text, _language(asked)))

    return json_response({"differences": [_shown_difference(one) for one in await call.ask(run)]})


async def reflect(call: Call) -> Response:
    """Returns the types, relations, permissions and caveats of the schema in force."""
    version = await call.ask(lambda graph: graph.schema())
    caveats = [
        {"name": one.name, "parameters": dict(one.parameters), "expression": one.expression, "doc": one.doc}
        for one in version.schema.caveats
    ]
    types = [_shown_type(one) for one in version.schema.definitions]
    return json_response({**_shown(version), "types": types, "caveats": caveats})


async def computable(call: Call) -> Response:
    """Returns the permissions that a subject could have through a relation."""
    query = call.query("type", "relation")
    type, relation = _needed(query, "type"), query.get("relation", "")
    found = await call.ask(lambda graph: computable_permissions(graph.schema().schema, type, relation))
    return json_response({"permissions": [_shown_reference(one) for one in found]})


async def dependent(call: Call) -> Response:
    """Returns the relations that a permission is computed from."""
    query = call.query("type", "permission")
    type, permission = _needed(query, "type"), _needed(query, "permission")
    found = await call.ask(lambda graph: dependent_relations(graph.schema().schema, type, permission))
    return json_response({"relations": [_shown_reference(one) for one in found]})


def _needed(query: dict[str, str], name: str) -> str:
    if not query.get(name):
        raise InvalidArgument(f"{name} is missing", where=name, remedy=f"Send ?{name}=...")
    return query[name]


def _version(graph: Graph, query: dict[str, str]) -> SchemaVersion:
    if "id" not in query:
        return graph.schema(at_exactly(query["at_exactly"]) if "at_exactly" in query else LATEST)
    found = next((one for one in graph.schemas() if one.id == query["id"]), None)
    if found is None:
        raise NotFound(
            f"there is no version {query['id'][:64]!r}", where="id", remedy="List them: GET /v1/schema/versions"
        )
    return found


def _language(asked: SchemaText) -> Language | None:
    return None if asked.language is None else Language(asked.language)


def _shown(version: SchemaVersion) -> dict[str, Any]:
    return {"id": version.id, "language": version.schema.language.value}


def _shown_reference(one: Reference) -> dict[str, str]:
    return {"type": one.type, "relation": one.relation}


def _shown_difference(one: Difference) -> dict[str, Any]:
    facts = dataclasses.asdict(one) | {"kind": one.kind.value, "allowed": str(one.allowed or "")}
    return {name: value for name, value in facts.items() if value}


def _shown_type(definition: Definition) -> dict[str, Any]:
    relations = [
        {
            "name": one.name,
            "kind": "relation" if one.writable else "permission",
            "subjects": [str(allowed) for allowed in one.allowed],
            "doc": one.doc,
        }
        for one in definition
    ]
    return {"name": definition.name, "doc": definition.doc, "relations": relations}


ROUTES = [
    Endpoint("GET", "/v1/schema", Role.READER, read),
    Endpoint("POST", "/v1/schema", Role.ADMIN, write),
    Endpoint("GET", "/v1/schema/versions", Role.READER, versions),
    Endpoint("POST", "/v1/schema/diff", Role.READER, compare),
    Endpoint("GET", "/v1/schema/reflect", Role.READER, reflect),
    Endpoint("GET", "/v1/schema/computable", Role.READER, computable),
    Endpoint("GET", "/v1/schema/dependent", Role.READER, dependent),
]
