"""OpenFGA's own client, unmodified, synchronous and asynchronous."""

import asyncio

import pytest
from openfga_sdk import OpenFgaClient
from openfga_sdk.client.models import (
    ClientAssertion,
    ClientBatchCheckItem,
    ClientBatchCheckRequest,
    ClientCheckRequest,
    ClientExpandRequest,
    ClientListObjectsRequest,
    ClientListRelationsRequest,
    ClientReadChangesRequest,
    ClientTuple,
    ClientWriteRequest,
)
from openfga_sdk.client.models.list_users_request import ClientListUsersRequest
from openfga_sdk.exceptions import NotFoundException, UnauthorizedException, ValidationException
from openfga_sdk.models import CreateStoreRequest, FgaObject, ReadRequestTupleKey, RelationshipCondition, UserTypeFilter

from cupola.access.server.keys import Keys

ANNE = ClientTuple(user="user:anne", relation="owner", object="document:1")
BEN = ClientTuple(user="user:ben", relation="blocked", object="document:1")
TEMP = ClientTuple(
    user="user:temp", relation="viewer", object="document:1", condition=RelationshipCondition(name="office", context={})
)


def asks(user, relation="can_read", object="document:1", **more):
    return ClientCheckRequest(user=user, relation=relation, object=object, **more)


def test_stores_and_models(sdk, store):
    assert sdk.get_store().id == store
    made = sdk.create_store(CreateStoreRequest(name="another"))
    assert {one.id for one in sdk.list_stores().stores} == {store, made.id}
    latest = sdk.read_latest_authorization_model().authorization_model
    assert sdk.read_authorization_model().authorization_model.id == latest.id
    assert len(sdk.read_authorization_models().authorization_models) == 1
    sdk.set_store_id(made.id)
    sdk.delete_store()
    with pytest.raises(NotFoundException) as refused:
        sdk.get_store()
    assert refused.value.code == "store_id_not_found"
    assert refused.value.request_id


def test_writes_reads_and_changes(sdk):
    sdk.write(ClientWriteRequest(writes=[ANNE, BEN, TEMP]))
    assert {one.key.user for one in sdk.read(ReadRequestTupleKey(object="document:1")).tuples} == {
        "user:anne",
        "user:ben",
        "user:temp",
    }
    sdk.write(ClientWriteRequest(deletes=[BEN]))
    changes = sdk.read_changes(ClientReadChangesRequest(type="document")).changes
    assert [one.operation for one in changes][-1] == "TUPLE_OPERATION_DELETE"
    with pytest.raises(ValidationException) as refused:
        sdk.write(ClientWriteRequest(writes=[ANNE]))
    assert refused.value.code == "write_failed_due_to_invalid_input"


def test_questions(sdk):
    sdk.write(ClientWriteRequest(writes=[ANNE, TEMP]))
    assert sdk.check(asks("user:anne")).allowed
    assert not sdk.check(asks("user:ben")).allowed
    assert sdk.check(asks("user:ben", contextual_tuples=[ANNE.__class__("user:ben", "owner", "document:1")])).allowed
    assert sdk.check(asks("user:temp", context={"hour": 12})).allowed
    with pytest.raises(ValidationException) as refused:
        sdk.check(asks("user:anne", "nothing"))
    assert refused.value.code == "validation_error"
    batch = [
        ClientBatchCheckItem(user=user, relation="can_read", object="document:1", correlation_id=user[5:])
        for user in ("user:anne", "user:ben")
    ]
    result = sdk.batch_check(ClientBatchCheckRequest(checks=batch)).result
    assert {one.correlation_id: one.allowed for one in result} == {"anne": True, "ben": False}
    found = sdk.list_relations(
        ClientListRelationsRequest(user="user:anne", object="document:1", relations=["owner", "blocked", "can_read"])
    )
    assert found == ["owner", "can_read"]
    tree = sdk.expand(ClientExpandRequest(relation="viewer", object="document:1")).tree
    assert tree.root.union.nodes[1].leaf.computed.userset == "document:1#owner"


def test_lists(sdk):
    sdk.write(ClientWriteRequest(writes=[ANNE]))
    asked = ClientListObjectsRequest(user="user:anne", relation="can_read", type="document")
    assert sdk.list_objects(asked).objects == ["document:1"]
    assert [one.object for one in sdk.streamed_list_objects(asked)] == ["document:1"]
    users = sdk.list_users(
        ClientListUsersRequest(
            object=FgaObject(type="document", id="1"), relation="can_read", user_filters=[UserTypeFilter(type="user")]
        )
    ).users
    assert [one.object.id for one in users] == ["anne"]


def test_assertions(sdk):
    sdk.write_assertions([ClientAssertion("user:anne", "can_read", "document:1", expectation=True)])
    (only,) = sdk.read_assertions().assertions
    assert only.expectation
    assert only.tuple_key.user == "user:anne"


def test_the_asynchronous_client(async_configuration):
    async def run():
        async with OpenFgaClient(async_configuration) as client:
            answers = await asyncio.gather(*(client.check(asks(f"user:{name}")) for name in ("anne", "ben", "zoe")))
            asked = ClientListObjectsRequest(user="user:ben", relation="can_read", type="document")
            streamed = [one.object async for one in client.streamed_list_objects(asked)]
            with pytest.raises(ValidationException):
                await client.check(asks("user:anne", "nothing"))
            return [one.allowed for one in answers], streamed

    assert asyncio.run(run()) == ([True, True, False], ["document:1"])


def test_a_wrong_key_is_401(serve, async_configuration):
    api = serve(authenticator=Keys([]))
    async_configuration.api_url = str(api.base_url).rstrip("/")

    async def run():
        async with OpenFgaClient(async_configuration) as client:
            await client.check(asks("user:anne"))

    with pytest.raises(UnauthorizedException):
        asyncio.run(run())
