"""The engine against the naive evaluator, over random schemas, relationships and questions."""

import pytest
from oracle import Oracle
from plain_store import PlainStore
from random_graph import NOW, holds, make

from cupola.access.decision import Verdict
from cupola.access.engine.at import At
from cupola.access.engine.engine import Engine
from cupola.access.limits import Limits
from cupola.access.relation import Subject

VERDICTS = (Verdict.NO, Verdict.CONDITIONAL, Verdict.YES)
PARTS = 10


def differences(seeds):
    """Yields what differs from the naive evaluator, with all stored, and with some brought by the question."""
    for seed in seeds:
        case = make(seed)
        for brought in (0, len(case.relationships) // 3):
            extra = tuple(case.relationships[:brought])
            store = PlainStore(case.schema, case.relationships[brought:])
            engine = Engine(store, Limits())
            for object, name, subject, context in case.questions:
                at = At(store.head(), store.version, NOW, context, extra)
                sure, missing = Oracle(case.schema, case.relationships, subject, NOW, context, holds).answer(
                    object, name
                )
                wanted = VERDICTS[sure], tuple(sorted(missing))
                why = engine.explain(at, object, name, subject)
                for _ in range(2):
                    found = engine.check(at, object, name, subject)
                    if not found == wanted == (why.verdict, why.missing):
                        yield seed, brought, str(object), name, str(subject), found, wanted
            engine.close()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("part", range(PARTS))
def test_same_answers(part):
    assert not list(differences(range(part * 26, part * 26 + 26)))


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, PARTS))])
def test_same_answers_ten_thousand_times(part):
    start = 10_000 + part * 130
    assert not list(differences(range(start, start + 130)))


@pytest.mark.usefixtures("unchecked")
def test_the_comparison_can_fail(monkeypatch):
    monkeypatch.setattr(Oracle, "condition", lambda self, one: (2, frozenset()))
    assert list(differences(range(20)))


def test_same_answers_with_types_checked():
    assert not list(differences(range(5_000, 5_003)))


def verdict(node, engine, at, subject):
    """Whether a subject is in an expanded tree; groups at its leaves are asked about."""
    if not node.operator:
        return any(
            one == subject
            or (one.id == "*" and one.type == subject.type)
            or (one.relation and engine.check(at, one.object, one.relation, subject)[0] is Verdict.YES)
            for one in node.subjects
        )
    parts = [verdict(child, engine, at, subject) for child in node.children]
    if node.operator == "exclusion":
        return parts[0] and not parts[1]
    return (any if node.operator == "union" else all)(parts)


@pytest.mark.usefixtures("unchecked")
def test_expanded_trees_say_the_same():
    asked = 0
    for seed in range(300):
        case = make(seed, caveats=False)
        if any("Exclusion" in repr(definition) for definition in case.schema.definitions):
            continue  # a circle through an exclusion has no tree
        store = PlainStore(case.schema, case.relationships)
        engine, at = Engine(store, Limits()), At(store.head(), store.version, NOW)
        for object, name, _, _ in case.questions:
            for subject in (Subject("user", "a"), Subject("user", "b"), Subject("robot", "a")):
                asked += 1
                found = engine.check(at, object, name, subject)[0] is Verdict.YES
                assert verdict(engine.expand(at, object, name), engine, at, subject) == found, (seed, object, name)
    assert asked > 1000
