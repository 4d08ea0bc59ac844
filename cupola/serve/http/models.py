"""Models: which there are, for this caller, and low-rank adapters that come and go.

Not here: who may see what (`guard.py`). Invariant: a name is listed only to whom the guard shows it.
"""

import asyncio
import dataclasses
import time
from typing import Any, Protocol, runtime_checkable

import orjson
from starlette.responses import Response

from cupola.serve.errors import InvalidRequest
from cupola.serve.generator import Served
from cupola.serve.http.call import Call, Endpoint
from cupola.serve.http.guard import SERVER, Action
from cupola.serve.http.schema import LoadAdapterBody, UnloadAdapterBody
from cupola.serve.http.skills import Skilled


@runtime_checkable
class Adaptable(Protocol):
    """An engine whose adapters come and go while it runs."""

    def load_adapter(self, name: str, folder: str) -> None:
        """Reads an adapter; from then on requests may name it.

        Raises:
            CupolaError: it cannot be read, or does not fit the model.
        """

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter, once the requests that use it have ended.

        Raises:
            CupolaError: there is none.
        """


async def list_models(call: Call) -> Response:
    """Lists what the caller may know of."""
    models = call.service.models
    data = [_described(models[name]) for name in await call.visible() if name in models]
    data += [_described_other(other) for other in await call.skilled()]
    return _json({"object": "list", "data": data})


async def get_model(call: Call) -> Response:
    """Describes one model."""
    name = call.http.path_params["id"]
    other = next((each for each in await call.skilled() if each.name == name), None)
    if other is not None:
        await call.service.guard.check(call.caller, Action.READ, f"model:{name}")
        return _json(_described_other(other))
    return _json(_described(await call.model(name, Action.READ)))


async def load_adapter(call: Call) -> Response:
    """Makes an engine read an adapter, which is then a model of its own name."""
    body = call.parse(LoadAdapterBody)
    await call.service.guard.check(call.caller, Action.MANAGE, SERVER)
    models = call.service.models
    bases = [name for name in await call.visible() if name in models and models[name].adapter is None]
    if body.model is None and len(bases) != 1:
        raise InvalidRequest(
            f"there are {len(bases)} models that it could belong to",
            where="model",
            remedy=f"Name one: {', '.join(bases)}." if bases else "",
        )
    base = await call.model(bases[0] if body.model is None else body.model, Action.MANAGE)
    if base.adapter is not None:
        raise InvalidRequest(f"{base.name} is itself an adapter", where="model", remedy=f"Name {base.parent}.")
    if body.lora_name in models:
        raise InvalidRequest(
            f"the name {body.lora_name!r} is taken", where="lora_name", remedy="Use another, or unload that one."
        )
    if not body.lora_name or not body.lora_path:
        raise InvalidRequest(
            "name and folder are both needed", where="lora_name", remedy="Send lora_name and lora_path."
        )
    await asyncio.to_thread(_adaptable(base).load_adapter, body.lora_name, body.lora_path)
    models[body.lora_name] = dataclasses.replace(
        base, name=body.lora_name, adapter=body.lora_name, parent=base.name, created=int(time.time())
    )
    return _json(_described(models[body.lora_name]))


async def unload_adapter(call: Call) -> Response:
    """Makes an engine forget an adapter."""
    body = call.parse(UnloadAdapterBody)
    await call.service.guard.check(call.caller, Action.MANAGE, SERVER)
    served = await call.model(body.lora_name, Action.MANAGE)
    if served.adapter is None:
        raise InvalidRequest(f"{served.name} is no adapter", where="lora_name", remedy="Only adapters are unloaded.")
    # No request may start with it from here on.
    del call.service.models[served.name]
    await asyncio.to_thread(_adaptable(served).unload_adapter, served.adapter)
    return _json({"id": served.name, "object": "model", "deleted": True})


ENDPOINTS = (
    Endpoint("GET", "/v1/models", list_models),
    Endpoint("GET", "/v1/models/{id:path}", get_model),
    Endpoint("POST", "/v1/load_lora_adapter", load_adapter),
    Endpoint("POST", "/v1/unload_lora_adapter", unload_adapter),
)


def _adaptable(served: Served) -> Adaptable:
    if not isinstance(served.engine, Adaptable):
        raise InvalidRequest(
            f"the engine of {served.name} takes no adapters while it runs",
            where="model",
            remedy="Name its adapters when the server starts.",
        )
    return served.engine


def _described(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "cupola",
        "parent": served.parent,
        "max_model_len": served.max_length,
        "chats": served.template is not None,
    }


def _described_other(other: Skilled) -> dict[str, Any]:
    described = {"id": other.name, "object": "model", "created": other.created, "owned_by": "cupola", "parent": None}
    return described | {"chats": False, other.skill.value: True}


def _json(data: Any) -> Response:
    return Response(orjson.dumps(data), media_type="application/json")
