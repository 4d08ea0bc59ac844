"""OpenFGA's sample stores in process: models, tuples, and what their tests assert of checks and lists."""

import pytest

from cupola.access import Object, Relationship, Subject, touch
from cupola.access.relation import Caveated


def relationship(entry: dict) -> Relationship:
    condition = entry.get("condition")
    caveat = Caveated.of(condition["name"], condition.get("context")) if condition else None
    return Relationship(thing(entry["object"]), entry["relation"], Subject.parse(entry["user"]), caveat)


def thing(name: str) -> Object:
    type, _, id = name.partition(":")
    return Object(type, id)


@pytest.fixture
def graph(empty, sample):
    empty.write_schema(sample.model)
    if sample.tuples:
        empty.write(*(touch(relationship(entry)) for entry in sample.tuples))
    return empty


def test_checks(graph, sample):
    for asked in sample.checks:
        extra = tuple(map(relationship, asked.extra))
        how = {"context": asked.context, "extra": extra}
        decision = graph.check((thing(asked.object), asked.relation), Subject.parse(asked.user), **how)
        assert decision.allowed is asked.expected, asked


def test_lists_of_objects(graph, sample):
    for asked in sample.objects:
        how = {"context": asked.context, "extra": tuple(map(relationship, asked.extra))}
        _, found = graph.lookup_resources(asked.object, asked.relation, Subject.parse(asked.user), **how)
        assert {f"{asked.object}:{one.id}" for one in found if not one.missing} == asked.expected, asked


def test_lists_of_users(graph, sample):
    for asked in sample.users:
        how = {"context": asked.context, "extra": tuple(map(relationship, asked.extra))}
        users = set()
        for kind in asked.filters:
            relation = kind.get("relation", "")
            _, found = graph.lookup_subjects((thing(asked.object), asked.relation), kind["type"], relation, **how)
            suffix = f"#{relation}" if relation else ""
            users |= {f"{kind['type']}:{one.id}{suffix}" for one in found if not one.missing}
        assert users == asked.expected, asked
