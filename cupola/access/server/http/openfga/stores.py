"""OpenFGA's stores and authorization models.

Not here: where the list of stores is kept (`server/stores.py`).
Invariant: models are versions side by side and never change; a store is a tenant of its own, seen only by callers of
the tenant that made it.
"""

import json
import re
from typing import Any

import msgspec
from starlette.responses import Response

from cupola.access.consistency import at_exactly
from cupola.access.errors import NotFound, SchemaError
from cupola.access.graph import Graph
from cupola.access.relation import format_time
from cupola.access.schema.fga.json import to_json
from cupola.access.schema.model import Language
from cupola.access.server.http.body import Lenient
from cupola.access.server.http.call import Call, Endpoint
from cupola.access.server.http.cursor import cursor_of, place_of
from cupola.access.server.http.errors import json_response
from cupola.access.server.http.openfga.errors import Code, Refused, refuse
from cupola.access.server.identity import Role
from cupola.access.server.stores import Entry
from cupola.access.store.protocol import SchemaVersion

MOST_TYPES = 100
"""Types of a model."""
PAGE, MOST_PAGE = 50, 100
"""Entries of a page, where none is asked for, and at most."""

_NAME = re.compile(r"[a-zA-Z0-9 _./:@-]{3,64}")
_VERSIONS = ("1.1", "1.2")


class NewStore(Lenient, kw_only=True):
    """A store to be made."""

    name: str = ""


class NewModel(Lenient, kw_only=True):
    """An authorization model."""

    schema_version: str = ""
    type_definitions: list[dict[str, Any]] = []
    conditions: dict[str, Any] = {}


async def store_of(call: Call) -> str:
    """Returns the tenant of the store in the path: one that the caller's tenant made, or that tenant itself.

    Raises:
        Refused: there is none, or the caller may not know of it.
    """
    id = call.http.path_params["store_id"]
    if id != call.caller.tenant and call.service.stores.seen(call.caller.tenant, id) is None:
        await _entry(call, id)
    return id


async def _entry(call: Call, id: str) -> Entry:
    try:
        return await call.service.workers.run(lambda: call.service.stores.get(call.caller.tenant, id))
    except NotFound as error:
        raise Refused(Code.store_id_not_found, error.problem, remedy=error.remedy) from None


async def create_store(call: Call) -> Response:
    """Makes a store."""
    name = call.parse(NewStore).name
    if not _NAME.fullmatch(name):
        raise Refused(
            Code.validation_error, f"invalid CreateStoreRequest.Name: {name[:100]!r}", remedy="Use 3 to 64 characters."
        )
    made = await call.service.workers.run(lambda: call.service.stores.create(call.caller.tenant, name))
    call.wrote("store created", made.id, name=name)
    return json_response(_shown(made), 201)


async def list_stores(call: Call) -> Response:
    """Returns a page of the stores of the caller's tenant."""
    query = call.query("page_size", "continuation_token", "name")
    name, size = query.get("name", ""), page_size(query.get("page_size"))
    question = ["stores", name]
    after = str(place(query.get("continuation_token", ""), question, 1)[0])
    owner, stores = call.caller.tenant, call.service.stores
    found = await call.service.workers.run(lambda: stores.owned(owner, name=name, after=after, limit=size + 1))
    token = cursor_of(question, found[size - 1].id) if len(found) > size else ""
    return json_response({"stores": [_shown(one) for one in found[:size]], "continuation_token": token})


async def get_store(call: Call) -> Response:
    """Returns a store."""
    return json_response(_shown(await _entry(call, call.http.path_params["store_id"])))


async def delete_store(call: Call) -> Response:
    """Deletes a store and its tuples."""
    entry = await _entry(call, call.http.path_params["store_id"])
    await call.service.workers.run(lambda: call.service.stores.delete(call.caller.tenant, entry.id))
    call.wrote("store deleted", entry.id, name=entry.name)
    return Response(status_code=204)


async def write_model(call: Call) -> Response:
    """Adds a model, which is the latest from then on."""
    store, model = await store_of(call), call.parse(NewModel)
    if not model.type_definitions:
        raise Refused(Code.type_definitions_too_few_items, "type_definitions must contain at least 1 item")
    if len(model.type_definitions) > MOST_TYPES:
        raise Refused(
            Code.exceeded_entity_limit, f"{len(model.type_definitions)} type definitions, at most {MOST_TYPES}"
        )
    if model.schema_version not in _VERSIONS:
        raise Refused(
            Code.unsupported_schema_version if model.schema_version else Code.validation_error,
            f"unsupported schema_version {model.schema_version[:20]!r}",
            remedy=f"Use {' or '.join(_VERSIONS)}.",
        )
    text = msgspec.json.encode(model).decode()

    def run(graph: Graph) -> str:
        return graph.schema(at_exactly(graph.write_schema(text, language=Language.FGA))).id

    try:
        id = await call.ask(run, store)
    except SchemaError as error:
        raise Refused(Code.invalid_authorization_model, str(error)) from None
    call.wrote("schema", store, schema_id=id)
    return json_response({"authorization_model_id": id}, 201)


async def read_model(call: Call) -> Response:
    """Returns a model."""
    store, id = await store_of(call), call.http.path_params["model_id"]
    version = await call.ask(lambda graph: version_of(graph, id), store)
    return json_response({"authorization_model": shown_model(version)})


async def list_models(call: Call) -> Response:
    """Returns a page of the models, the newest first."""
    store = await store_of(call)
    query = call.query("page_size", "continuation_token")
    size = page_size(query.get("page_size"))
    (before,) = place(query.get("continuation_token", ""), ["models", store], 1)
    versions = await call.ask(lambda graph: graph.schemas(), store)
    found = [one for one in reversed(versions) if not before or one.id < str(before)]
    token = cursor_of(["models", store], found[size - 1].id) if len(found) > size else ""
    shown = [shown_model(one) for one in found[:size]]
    return json_response({"authorization_models": shown, "continuation_token": token})


def version_of(graph: Graph, id: str) -> SchemaVersion:
    """Returns a version of the schema; the latest where the id is empty.

    Raises:
        Refused: there is none.
    """
    if not id:
        try:
            return graph.schema()
        except NotFound:
            problem = f"No authorization models found for store '{graph.store.tenant}'"
            raise Refused(Code.latest_authorization_model_not_found, problem) from None
    found = next((one for one in graph.schemas() if one.id == id), None)
    if found is None:
        raise Refused(Code.authorization_model_not_found, f"Authorization Model '{id[:64]}' not found")
    return found


def shown_model(version: SchemaVersion) -> dict[str, Any]:
    """Returns a model as it was written, with its id."""
    try:
        model = json.loads(version.text)
    except ValueError:
        model = to_json(version.schema)
    return {"id": version.id, **model}


def page_size(asked: str | int | None) -> int:
    """Returns how many entries a page shall have.

    Raises:
        Refused: they are none or too many.
    """
    size = str(PAGE if asked is None else asked)
    if not (size.isascii() and size.isdigit() and len(size) < 6 and 1 <= int(size) <= MOST_PAGE):
        raise Refused(Code.page_size_invalid, f"invalid PageSize: {size[:20]} is not inside range [1, {MOST_PAGE}]")
    return int(size)


def place(token: str, question: list[Any], parts: int) -> list[Any]:
    """Returns the place of a continuation token; empty texts where there is none.

    Raises:
        Refused: it is no such token.
    """
    if not token:
        return [""] * parts
    try:
        return place_of(token, question, parts)
    except ValueError:
        raise Refused(Code.invalid_continuation_token, "Invalid continuation token") from None


def _shown(entry: Entry) -> dict[str, Any]:
    made = format_time(entry.made_seconds)
    return {"id": entry.id, "name": entry.name, "created_at": made, "updated_at": made}


ROUTES = [
    Endpoint("POST", "/stores", Role.ADMIN, create_store, refuse),
    Endpoint("GET", "/stores", Role.READER, list_stores, refuse),
    Endpoint("GET", "/stores/{store_id}", Role.READER, get_store, refuse),
    Endpoint("DELETE", "/stores/{store_id}", Role.ADMIN, delete_store, refuse),
    Endpoint("POST", "/stores/{store_id}/authorization-models", Role.ADMIN, write_model, refuse),
    Endpoint("GET", "/stores/{store_id}/authorization-models", Role.READER, list_models, refuse),
    Endpoint("GET", "/stores/{store_id}/authorization-models/{model_id}", Role.READER, read_model, refuse),
]
