"""OpenFGA's sample stores over the wire: our server, driven by OpenFGA's own client, synchronous and asynchronous."""

import asyncio
import inspect
import json
import uuid

import openfga_sdk
import openfga_sdk.sync
import pytest
from openfga_sdk.client.models import (
    ClientAssertion,
    ClientBatchCheckItem,
    ClientBatchCheckRequest,
    ClientCheckRequest,
    ClientExpandRequest,
    ClientListObjectsRequest,
    ClientReadChangesRequest,
    ClientTuple,
    ClientWriteRequest,
)
from openfga_sdk.client.models.list_users_request import ClientListUsersRequest
from openfga_sdk.credentials import CredentialConfiguration, Credentials
from openfga_sdk.models import CreateStoreRequest, FgaObject, ReadRequestTupleKey, RelationshipCondition, UserTypeFilter

from cupola.access.schema.fga.json import to_json
from cupola.access.schema.read import read_schema

BATCH = 50
"""Checks of one call."""
WRITES = 100
"""Tuples of one call."""


def fact(entry: dict) -> ClientTuple:
    condition = entry.get("condition")
    bound = RelationshipCondition(name=condition["name"], context=condition.get("context") or {}) if condition else None
    return ClientTuple(user=entry["user"], relation=entry["relation"], object=entry["object"], condition=bound)


class Waiting:
    """The synchronous client, to be awaited as the other one is."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        method = getattr(self.client, name)

        async def call(*args):
            return method(*args)

        return call


@pytest.fixture(params=["sync", "async"])
def run(request, server):
    """Runs a test with a client of either kind, in a tenant of its own."""
    configuration = openfga_sdk.ClientConfiguration(
        api_url=server.url,
        credentials=Credentials(method="api_token", configuration=CredentialConfiguration(api_token=uuid.uuid4().hex)),
    )

    def start(test):
        if request.param == "sync":
            with openfga_sdk.sync.OpenFgaClient(configuration) as client:
                asyncio.run(test(Waiting(client)))
            return

        async def inside():
            async with openfga_sdk.OpenFgaClient(configuration) as client:
                await test(client)

        asyncio.run(inside())

    return start


async def load(client, sample) -> None:
    """Makes a store with the sample's model and tuples."""
    made = await client.create_store(CreateStoreRequest(name="a sample"))
    await configured(client.set_store_id(made.id))
    written = await client.write_authorization_model(json.loads(json.dumps(to_json(read_schema(sample.model)))))
    await configured(client.set_authorization_model_id(written.authorization_model_id))
    tuples = list(map(fact, sample.tuples))
    for start in range(0, len(tuples), WRITES):
        await client.write(ClientWriteRequest(writes=tuples[start : start + WRITES]))


async def configured(told) -> None:
    if inspect.isawaitable(told):
        await told


def test_checks(run, sample):
    async def test(client):
        await load(client, sample)
        for asked in sample.checks:
            answer = await client.check(
                ClientCheckRequest(
                    user=asked.user,
                    relation=asked.relation,
                    object=asked.object,
                    context=asked.context,
                    contextual_tuples=list(map(fact, asked.extra)),
                )
            )
            assert answer.allowed is asked.expected, asked
        for start in range(0, len(sample.checks), BATCH):
            items = [
                ClientBatchCheckItem(
                    user=asked.user,
                    relation=asked.relation,
                    object=asked.object,
                    context=asked.context,
                    contextual_tuples=list(map(fact, asked.extra)),
                    correlation_id=str(number),
                )
                for number, asked in enumerate(sample.checks[start : start + BATCH])
            ]
            found = (await client.batch_check(ClientBatchCheckRequest(checks=items))).result
            allowed = {int(one.correlation_id): one.allowed for one in found}
            expected = [asked.expected for asked in sample.checks[start : start + BATCH]]
            assert [allowed[number] for number in range(len(items))] == expected

    run(test)


def test_lists(run, sample):
    async def test(client):
        await load(client, sample)
        for asked in sample.objects:
            answer = await client.list_objects(
                ClientListObjectsRequest(
                    user=asked.user,
                    relation=asked.relation,
                    type=asked.object,
                    context=asked.context,
                    contextual_tuples=list(map(fact, asked.extra)),
                )
            )
            assert set(answer.objects) == asked.expected, asked
        for asked in sample.users:
            type, _, id = asked.object.partition(":")
            users = set()
            # The standard takes one filter for a call.
            for kind in asked.filters:
                answer = await client.list_users(
                    ClientListUsersRequest(
                        object=FgaObject(type=type, id=id),
                        relation=asked.relation,
                        user_filters=[UserTypeFilter(type=kind["type"], relation=kind.get("relation"))],
                        context=asked.context,
                        contextual_tuples=list(map(fact, asked.extra)),
                    )
                )
                users |= set(map(shown, answer.users))
            assert users == asked.expected, asked

    run(test)


def shown(user) -> str:
    if user.wildcard:
        return f"{user.wildcard.type}:*"
    if user.userset:
        return f"{user.userset.type}:{user.userset.id}#{user.userset.relation}"
    return f"{user.object.type}:{user.object.id}"


def test_tuples_changes_trees_and_assertions(run, sample):
    async def test(client):
        await load(client, sample)
        written = sorted((one["user"], one["relation"], one["object"]) for one in sample.tuples)
        read, token = [], ""
        while True:
            page = await client.read(ReadRequestTupleKey(), {"page_size": 7, "continuation_token": token})
            read += [(one.key.user, one.key.relation, one.key.object) for one in page.tuples]
            token = page.continuation_token
            if not token:
                break
        assert sorted(read) == written
        changes = (await client.read_changes(ClientReadChangesRequest(type=""), {"page_size": 100})).changes
        told = [(one.tuple_key.user, one.tuple_key.relation, one.tuple_key.object) for one in changes]
        assert sorted(told) == written
        assert {one.operation for one in changes} <= {"TUPLE_OPERATION_WRITE"}
        for asked in sample.checks:
            tree = (await client.expand(ClientExpandRequest(relation=asked.relation, object=asked.object))).tree
            assert tree.root.name == f"{asked.object}#{asked.relation}"
        kept = [
            ClientAssertion(asked.user, asked.relation, asked.object, expectation=asked.expected)
            for asked in sample.checks[:100]
        ]
        await client.write_assertions(kept)
        assertions = (await client.read_assertions()).assertions
        assert [one.expectation for one in assertions] == [one.expectation for one in kept]

    run(test)
