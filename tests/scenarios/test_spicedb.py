"""SpiceDB's validation files: each assertion as written, and what must follow from each file whatever it asserts.

What follows is SpiceDB's own consistency suite: checks one by one and in bulk, expand, both lookups whole and in
pages, and reading back all that was written.
"""

import itertools

from cupola.access import Object, Subject, at_exactly, create, delete
from cupola.access.caveat.compile import compile_caveat
from cupola.access.decision import Question, Verdict
from cupola.access.engine.at import Holder
from cupola.access.relation import WILDCARD, Filter

PAGES = (1, 2, None)


def verdicts(graph, questions) -> list[Verdict]:
    """What a bulk check says."""
    answers = graph.check_many(questions)
    assert [answer.error for answer in answers] == [None] * len(answers)
    return [answer.verdict for answer in answers]


def permissions(graph) -> list[tuple[str, str]]:
    schema = graph.schema().schema
    return [(definition.name, relation.name) for definition in schema.definitions for relation in definition]


def pages(size, ask) -> list:
    """All results of a list that is read in pages, each from after the last id of the one before."""
    found, last = [], ""
    while True:
        page = list(itertools.islice(ask(last), size))
        found += page
        if size is None or len(page) < size:
            return found
        last = page[-1].id


def test_assertions_hold(loaded, case):
    answers = verdicts(
        loaded, [Question(a.object, a.relation, a.subject, context) for a, context, _ in case.assertions]
    )
    for (asked, context, verdict), in_bulk in zip(case.assertions, answers, strict=True):
        permission = asked.object, asked.relation
        alone = loaded.check(permission, asked.subject, context=context)
        why = loaded.explain(permission, asked.subject, context=context)
        assert alone.verdict is verdict, f"{asked}\n{why}"
        assert (in_bulk, why.verdict) == (verdict, verdict), f"{asked}\n{why}"


def test_what_is_written_is_read_back(loaded, case):
    alive = set(case.alive)
    assert set(loaded.read(Filter())[1]) == alive
    for fact in case.facts:
        (kind, id), relation, subject = fact.key
        only = Filter(kind, id, "", relation, subject.type, subject.id, subject.relation)
        assert list(loaded.read(only)[1]) == ([fact] if fact in alive else [])
        token = loaded.write(delete(fact))
        assert not loaded.read(only, consistency=at_exactly(token))[1]
        loaded.write(create(fact))
    assert set(loaded.read(Filter())[1]) == alive


def test_lookup_of_resources_finds_what_checks_allow(loaded, case):
    now = at_exactly(loaded.token())
    for (kind, permission), subject in itertools.product(permissions(loaded), case.subjects):
        objects = case.objects(kind)
        asked = [Question(object, permission, subject) for object in objects]
        expected = {
            object.id: verdict is Verdict.CONDITIONAL
            for object, verdict in zip(objects, verdicts(loaded, asked), strict=True)
            if verdict is not Verdict.NO
        }

        def ask(last, what=(kind, permission, subject)):
            return loaded.lookup_resources(*what, consistency=now, after=last)[1]

        for size in PAGES if expected else (None,):
            found = pages(size, ask)
            assert {one.id: bool(one.missing) for one in found} == expected, f"{kind}#{permission}@{subject}"
            assert [one.id for one in found] == sorted(expected)


def test_lookup_of_subjects_finds_what_checks_allow(loaded, case, scenario):
    now = at_exactly(loaded.token())
    kinds = sorted({(subject.type, subject.relation) for subject in case.subjects})
    for kind, permission in permissions(loaded):
        for object, (type, relation) in itertools.product(case.objects(kind), kinds):
            subjects = [one for one in case.subjects if (one.type, one.relation) == (type, relation)]

            def ask(last, what=((object, permission), type, relation)):
                return loaded.lookup_subjects(*what, consistency=now, after=last)[1]

            whole = pages(None, ask)
            assert [one.id for one in whole] == sorted(one.id for one in whole)
            if whole:
                assert pages(1, ask) == pages(2, ask) == whole
            listed = {one.id: one for one in whole}
            # Also those that no relationship names, and a stranger, whom only a wildcard lets in.
            ids = {one.id for one in subjects} | {"somebody-else"} | listed.keys() - {WILDCARD}
            asked = [Subject(type, id, relation) for id in sorted(ids)]
            answers = verdicts(loaded, [Question(object, permission, one) for one in asked])
            for subject, verdict in zip(asked, answers, strict=True):
                assert scenario.verdict_of(listed, subject.id) is verdict, f"{object}#{permission}@{subject}: {whole}"


class Leaves:
    """Who has a permission, by the leaves of `expand` and those of the groups at them, however deep."""

    def __init__(self, graph):
        self.graph, self.schema = graph, graph.schema().schema
        self.trees, self.known = {}, {}

    def verdict(self, object: Object, permission: str, subject: Subject) -> Verdict:
        key = object, permission, subject
        if key not in self.known:
            # A group that contains itself gains nobody by that.
            self.known[key] = Verdict.NO
            if (object, permission) not in self.trees:
                self.trees[object, permission] = self.graph.expand((object, permission))[1]
            self.known[key] = self.of_node(self.trees[object, permission], subject)
        return self.known[key]

    def of_node(self, node, subject) -> Verdict:
        inside = self.inside(node, subject)
        return inside if node.through is None else every([inside, self.condition(node.through)])

    def inside(self, node, subject) -> Verdict:
        parts = [self.of_node(child, subject) for child in node.children]
        match node.operator:
            case "union":
                return either(parts)
            case "intersection":
                return every(parts)
            case "exclusion":
                return every([parts[0], *map(negated, parts[1:])])
        return either(self.of_fact(fact, subject) for fact in node.relationships)

    def of_fact(self, fact, subject) -> Verdict:
        found = fact.subject
        if found == subject or (found.id == WILDCARD and (found.type, "") == (subject.type, subject.relation)):
            inside = Verdict.YES
        elif found.relation:
            inside = self.verdict(found.object, found.relation, subject)
        else:
            inside = Verdict.NO
        return every([inside, self.condition(fact)])

    def condition(self, fact) -> Verdict:
        if fact.caveat is None:
            return Verdict.YES
        caveat = next(one for one in self.schema.caveats if one.name == fact.caveat.name)
        return compile_caveat(caveat, self.schema.language).evaluate(fact.caveat.parameters, cost=10_000).verdict


def either(verdicts) -> Verdict:
    return negated(every(map(negated, verdicts)))


def every(verdicts) -> Verdict:
    found = set(verdicts)
    if Verdict.NO in found:
        return Verdict.NO
    return Verdict.CONDITIONAL if Verdict.CONDITIONAL in found else Verdict.YES


def negated(verdict: Verdict) -> Verdict:
    return {Verdict.YES: Verdict.NO, Verdict.NO: Verdict.YES}.get(verdict, verdict)


def test_leaves_of_expand_are_those_who_may(loaded, case):
    leaves = Leaves(loaded)
    subjects = [one for one in case.subjects if not one.relation]
    for kind, permission in permissions(loaded):
        for object in case.objects(kind):
            answers = verdicts(loaded, [Question(object, permission, subject) for subject in subjects])
            for subject, verdict in zip(subjects, answers, strict=True):
                assert leaves.verdict(object, permission, subject) is verdict, f"{object}#{permission}@{subject}"


def test_a_wrong_list_is_seen(scenario):
    """The negative control: what lists and trees say is compared, not only asked for."""
    holders = {"ada": Holder("ada"), "bob": Holder("bob", ("hour",)), "*": Holder("*", (), (Holder("eve"),))}
    assert scenario.verdict_of({}, "ada") is Verdict.NO
    assert scenario.verdict_of(holders, "eve") is Verdict.NO
    assert [scenario.verdict_of(holders, id) for id in ("ada", "bob", "zoe")] == [Verdict.YES] * 3
    del holders["*"]
    assert scenario.verdict_of(holders, "bob") is Verdict.CONDITIONAL
    assert either([Verdict.NO, Verdict.CONDITIONAL]) is Verdict.CONDITIONAL
    assert every([Verdict.YES, Verdict.NO]) is Verdict.NO
