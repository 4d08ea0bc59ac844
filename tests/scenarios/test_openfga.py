"""OpenFGA's sample stores: models, tuples, and what their tests assert of checks and lists."""

import pytest
import yaml

from cupola.access import Graph, Object, Relationship, Subject, touch
from cupola.access.relation import Caveated


def relationship(entry: dict) -> Relationship:
    type, _, id = entry["object"].partition(":")
    condition = entry.get("condition")
    caveat = Caveated.of(condition["name"], condition.get("context")) if condition else None
    return Relationship(Object(type, id), entry["relation"], Subject.parse(entry["user"]), caveat)


@pytest.fixture
def store(sample_store):
    """(graph with the model and the tuples, the tests)."""
    file = yaml.safe_load(sample_store.read_text())
    if "model" not in file:
        inlined = sample_store.parent / "inlined" / sample_store.name
        file = yaml.safe_load(inlined.read_text()) if inlined.exists() else file
    if not isinstance(file.get("model"), str):
        pytest.skip("its model stands in another file")
    with Graph.open() as graph:
        graph.write_schema(file["model"])
        facts = [relationship(entry) for entry in file.get("tuples") or ()]
        if facts:
            graph.write(*map(touch, facts))
        yield graph, file.get("tests") or []


def test_what_a_store_asserts_holds(store):
    graph, tests = store
    for test in tests:
        extra = tuple(relationship(entry) for entry in test.get("tuples") or ())
        for check in test.get("check") or ():
            for user in check.get("users") or [check["user"]]:
                for name in check.get("objects") or [check["object"]]:
                    for relation, allowed in check["assertions"].items():
                        how = {"context": check.get("context") or {}, "extra": extra}
                        type, _, id = name.partition(":")
                        decision = graph.check((Object(type, id), relation), Subject.parse(user), **how)
                        assert decision.allowed is allowed, f"{test.get('name')}: {name}#{relation}@{user}"
        for listed in test.get("list_objects") or ():
            for relation, expected in listed["assertions"].items():
                how = {"context": listed.get("context") or {}, "extra": extra}
                _, found = graph.lookup_resources(listed["type"], relation, Subject.parse(listed["user"]), **how)
                assert {f"{listed['type']}:{one.id}" for one in found if not one.missing} == set(expected or ())
        for listed in test.get("list_users") or ():
            type, _, id = listed["object"].partition(":")
            for relation, expected in listed["assertions"].items():
                users = set()
                for kind in listed["user_filter"]:
                    how = {"context": listed.get("context") or {}, "extra": extra}
                    _, found = graph.lookup_subjects(
                        (Object(type, id), relation), kind["type"], kind.get("relation", ""), **how
                    )
                    suffix = f"#{kind['relation']}" if kind.get("relation") else ""
                    users |= {f"{kind['type']}:{one.id}{suffix}" for one in found if not one.missing}
                assert users == set(expected["users"] or ()), f"{test.get('name')}: {listed['object']}#{relation}"
