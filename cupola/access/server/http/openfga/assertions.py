"""OpenFGA's assertions: what somebody expects of a model, kept with it.

Not here: running them, which is the reader's business.
"""

from typing import Any

import msgspec
from starlette.responses import Response

from cupola.access.schema.model import Schema
from cupola.access.server.http.body import Lenient
from cupola.access.server.http.call import Call, Endpoint
from cupola.access.server.http.errors import json_response
from cupola.access.server.http.openfga.errors import Code, Refused, refuse
from cupola.access.server.http.openfga.stores import store_of, version_of
from cupola.access.server.http.openfga.tuples import Key, contextual, object_of, relation_of, user_of
from cupola.access.server.identity import Role

MOST = 100
"""Assertions of a model."""


class Assertion(Lenient, kw_only=True, omit_defaults=True):
    """What a check is expected to answer."""

    tuple_key: Key
    expectation: bool | None = None
    contextual_tuples: list[Key] = []
    context: dict[str, Any] | None = None


class Assertions(Lenient, kw_only=True):
    """All of a model's."""

    assertions: list[Assertion] = []


async def write(call: Call) -> Response:
    """Puts assertions in the place of a model's."""
    store, model = await store_of(call), call.http.path_params["model_id"]
    asserted = call.parse(Assertions).assertions
    if len(asserted) > MOST:
        raise Refused(Code.assertions_too_many_items, f"value must contain no more than {MOST} item(s)")
    schema = (await call.ask(lambda graph: version_of(graph, model), store)).schema
    for one in asserted:
        _check(one, schema)
    kept = [msgspec.to_builtins(one) for one in asserted]
    await call.service.workers.run(lambda: call.service.stores.keep_assertions(store, model, kept))
    call.wrote("assertions", store, schema_id=model, assertions=len(kept))
    return Response(status_code=204)


async def read(call: Call) -> Response:
    """Returns a model's assertions."""
    store, model = await store_of(call), call.http.path_params["model_id"]
    await call.ask(lambda graph: version_of(graph, model), store)
    found = await call.service.workers.run(lambda: call.service.stores.assertions(store, model))
    for one in found:
        one.setdefault("expectation", False)
    return json_response({"authorization_model_id": model, "assertions": found})


def _check(one: Assertion, schema: Schema) -> None:
    key = one.tuple_key
    object, relation = object_of(key.object), relation_of(key.relation)
    user_of(key.user)
    if schema.relation(object.type, relation) is None:
        raise Refused(Code.validation_error, f"relation '{object.type}#{relation}' not found")
    if one.expectation is None:
        raise Refused(Code.validation_error, f"the assertion of {key} expects nothing", remedy="Send expectation.")
    contextual(one.contextual_tuples, schema)


_PATH = "/stores/{store_id}/assertions/{model_id}"
ROUTES = [
    Endpoint("PUT", _PATH, Role.ADMIN, write, refuse),
    Endpoint("GET", _PATH, Role.READER, read, refuse),
]
