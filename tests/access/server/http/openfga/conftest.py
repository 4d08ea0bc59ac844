"""OpenFGA's own client, unmodified, and stores with a model."""

import json
from collections.abc import Iterator

import openfga_sdk
import pytest
from openfga_sdk.credentials import CredentialConfiguration, Credentials
from openfga_sdk.sync import OpenFgaClient

from cupola.access.schema.fga.json import to_json
from cupola.access.schema.read import read_schema

MODEL = """
model
  schema 1.1

type user

type team
  relations
    define member: [user, team#member]

type folder
  relations
    define viewer: [user, user:*]

type document
  relations
    define parent: [folder]
    define owner: [user]
    define viewer: [user, team#member, user with office] or owner or viewer from parent
    define blocked: [user]
    define can_read: viewer but not blocked

condition office(hour: int) {
  hour >= 9
}
"""


@pytest.fixture(scope="session")
def model() -> dict:
    """The model as JSON."""
    return to_json(read_schema(MODEL))


@pytest.fixture
def store(api) -> str:
    """An empty store."""
    return api.ask("/stores", 201, name="some store")["id"]


@pytest.fixture
def loaded(api, store, model) -> str:
    """The path of a store with the model and some tuples."""
    path = f"/stores/{store}"
    api.ask(f"{path}/authorization-models", 201, **model)
    tuples = [
        ("user:anne", "owner", "document:1"),
        ("team:core#member", "viewer", "document:1"),
        ("user:ben", "member", "team:core"),
        ("user:ben", "blocked", "document:2"),
        ("folder:public", "parent", "document:2"),
        ("user:*", "viewer", "folder:public"),
    ]
    keys = [{"user": user, "relation": relation, "object": object} for user, relation, object in tuples]
    keys.append({"user": "user:temp", "relation": "viewer", "object": "document:1", "condition": {"name": "office"}})
    api.ask(f"{path}/write", writes={"tuple_keys": keys})
    return path


def configured(api, store: str | None = None) -> openfga_sdk.ClientConfiguration:
    """How OpenFGA's client reaches the server as the same caller."""
    token = api.headers["authorization"].removeprefix("Bearer ")
    return openfga_sdk.ClientConfiguration(
        api_url=str(api.base_url).rstrip("/"),
        store_id=store,
        credentials=Credentials(method="api_token", configuration=CredentialConfiguration(api_token=token)),
    )


@pytest.fixture
def sdk(api, store, model) -> Iterator[OpenFgaClient]:
    """OpenFGA's client, of a store with the model."""
    with OpenFgaClient(configured(api, store)) as made:
        written = made.write_authorization_model(json.loads(json.dumps(model)))
        made.set_authorization_model_id(written.authorization_model_id)
        yield made


@pytest.fixture
def async_configuration(api, loaded) -> openfga_sdk.ClientConfiguration:
    """How OpenFGA's asynchronous client reaches a store with tuples."""
    return configured(api, loaded.removeprefix("/stores/"))
