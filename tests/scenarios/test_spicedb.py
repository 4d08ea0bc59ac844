"""SpiceDB's validation files: each assertion as written, and what must follow from each file whatever it asserts."""

import json

import pytest
import yaml

from cupola.access import Graph, Object, Relationship, Subject, at_exactly, touch
from cupola.access.decision import Verdict
from cupola.access.engine.at import Holder
from cupola.access.relation import WILDCARD, Filter

EXPECTED = {"assertTrue": Verdict.YES, "assertFalse": Verdict.NO, "assertCaveated": Verdict.CONDITIONAL}


@pytest.fixture(params=["memory", "sqlite"])
def loaded(request, validation_file, tmp_path):
    """(graph with the file's schema and relationships, the file)."""
    file = yaml.safe_load(validation_file.read_text())
    with Graph.open(":memory:" if request.param == "memory" else str(tmp_path / "access.db")) as graph:
        graph.write_schema(file["schema"])
        lines = (line.strip() for line in (file.get("relationships") or "").splitlines())
        facts = [Relationship.parse(line) for line in lines if line and not line.startswith("//")]
        graph.write(*map(touch, facts))
        yield graph, file


def asked_by(assertion: str) -> tuple[Object, str, Subject, dict]:
    fact, _, context = assertion.partition(" with ")
    asked = Relationship.parse(fact)
    return asked.object, asked.relation, asked.subject, json.loads(context or "{}")


def test_assertions_hold(loaded):
    graph, file = loaded
    for kind, verdict in EXPECTED.items():
        for assertion in (file.get("assertions") or {}).get(kind) or ():
            object, permission, subject, context = asked_by(assertion)
            decision = graph.check((object, permission), subject, context=context)
            assert decision.verdict is verdict, (
                f"{assertion}\n{graph.explain((object, permission), subject, context=context)}"
            )


def test_lookups_find_what_checks_allow(loaded):
    graph, _ = loaded
    token, facts = graph.read(Filter())
    now = at_exactly(token)
    objects = sorted(
        {fact.object for fact in facts} | {fact.subject.object for fact in facts if fact.subject.id != WILDCARD}
    )
    subjects = sorted({fact.subject for fact in facts if fact.subject.id != WILDCARD})
    for definition in graph.schema().schema.definitions:
        ids = [object.id for object in objects if object.type == definition.name]
        for relation in definition:
            permission = relation.name
            for subject in subjects:
                verdicts = {id: graph.check((Object(definition.name, id), permission), subject).verdict for id in ids}
                expected = {
                    id: verdict is Verdict.CONDITIONAL for id, verdict in verdicts.items() if verdict is not Verdict.NO
                }
                _, found = graph.lookup_resources(definition.name, permission, subject, consistency=now)
                listed = list(found)
                assert {one.id: bool(one.missing) for one in listed} == expected, (
                    f"{definition.name}#{permission}@{subject}"
                )
                paged, last = [], ""
                while page := [
                    one
                    for one, _ in zip(
                        graph.lookup_resources(definition.name, permission, subject, consistency=now, after=last)[1],
                        range(2),
                        strict=False,
                    )
                ]:
                    paged, last = paged + page, page[-1].id
                assert paged == listed
            for id in ids:
                holders_agree(graph, Object(definition.name, id), permission, subjects)


def holders_agree(graph: Graph, object: Object, permission: str, subjects: list[Subject]) -> None:
    for type, relation in sorted({(subject.type, subject.relation) for subject in subjects}):
        _, found = graph.lookup_subjects((object, permission), type, relation)
        holders = {holder.id: holder for holder in found}
        for subject in subjects:
            if (subject.type, subject.relation) == (type, relation):
                verdict = graph.check((object, permission), subject).verdict
                assert verdict_of(holders, subject.id) is verdict, f"{object}#{permission}@{subject}: {holders}"


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


def test_expanding_never_fails(loaded):
    graph, file = loaded
    for assertions in (file.get("assertions") or {}).values():
        for assertion in assertions or ():
            object, permission, _, _ = asked_by(assertion)
            assert graph.expand((object, permission))[1].object == object
