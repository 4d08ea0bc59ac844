"""What must hold of every graph, whatever it says: its ways to an answer agree, now and at every revision."""

import itertools
import random
import time
from collections import Counter

import pytest
import random_graphs
from compare import differences, moments, play
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cupola.access.consistency import at_exactly
from cupola.access.decision import Question, Verdict
from cupola.access.engine.index import BACKLOG, Index
from cupola.access.errors import RevisionGone, SchemaError
from cupola.access.graph import Graph
from cupola.access.limits import Limits
from cupola.access.relation import WILDCARD, Filter, Object, Operation, Relationship, Subject, delete, touch
from cupola.access.schema.read import read_schema
from cupola.access.store.memory import MemoryStore
from cupola.access.store.open import open_store

RANK = {Verdict.NO: 0, Verdict.CONDITIONAL: 1, Verdict.YES: 2}
GROUPS, USERS, MEMBERSHIPS = 40, 60, 120
CROWD = """
use expiration
caveat early(hour int) { hour == 1 }
definition user {}
definition group {
    relation guest: user | user:* | user with early | user with expiration | group#guest | group#member | group#member with early
    relation lead: user | group#member
    permission member = guest + lead
}
"""
NAMED = ["#guest@group:{}#guest", "#guest@group:{}#member", "#lead@group:{}#member"]
SUBJECTS = ["user:{}", "user:{}", "user:{}", "group:{}#member", "group:{}#lead"]


def sayable(seed: int) -> bool:
    """Whether the language of a case lets its schema pass; databases keep no others."""
    case = random_graphs.make(random.Random(seed))
    try:
        read_schema(case.text, case.schema.language)
    except SchemaError:
        return False
    return True


SAYABLE = list(itertools.islice(filter(sayable, itertools.count()), 6))

explored = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(autouse=True)
def clock(unchecked, monkeypatch):
    """The time of day, which stands still unless a test moves it."""
    now = [random_graphs.NOW]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def new_store(request, tmp_path):
    """Makes stores of one kind, each empty."""
    count = iter(range(10**6))

    def make():
        if request.param == "memory":
            return MemoryStore()
        if request.param == "sqlite":
            return open_store(str(tmp_path / f"{next(count)}.db"))
        address = request.getfixturevalue("postgres_address")
        return open_store(address, tenant=f"{request.node.name}-{next(count)}")

    return make


def likely(played, draw):
    """Returns a moment of a case, and questions about it: (object, relation, subject)."""
    moment = moments(played, draw)[1]
    nodes = draw.choices(moment.naive.nodes, k=4)
    plain = [subject for subject in moment.naive.subjects if not subject.relation and subject.id != WILDCARD]
    return moment, [(Object(type, id), name, draw.choice(plain)) for type, id, name in nodes]


def check(graph, moment, object, name, subject):
    return RANK[graph.check((object, name), subject, context=moment.context, **moment.options).verdict]


@explored
@given(st.randoms(use_true_random=False))
def test_a_tree_evaluates_to_what_a_check_says(draw):
    played = play(random_graphs.make(draw), Counter())
    graph = played.graphs[1]
    moment, asked = likely(played, draw)
    assume(moment.naive.decided)

    def condition_of(one):
        if one is None or one.caveat is None:
            return 2
        return random_graphs.holds(one.caveat.name, {**moment.context, **one.caveat.parameters})[0]

    def holds(one, subject):
        condition = condition_of(one)
        if one.subject.relation:
            return min(condition, check(graph, moment, one.subject.object, one.subject.relation, subject))
        return condition if one.subject in (subject, Subject(subject.type, WILDCARD)) else 0

    def says(tree, subject):
        return min(condition_of(tree.through), inner(tree, subject))

    def inner(tree, subject):
        if not tree.operator:
            return max((holds(one, subject) for one in tree.relationships), default=0)
        parts = [says(child, subject) for child in tree.children]
        if tree.operator == "exclusion":
            return min(parts[0], 2 - parts[1])
        return (max if tree.operator == "union" else min)(parts)

    for object, name, subject in asked:
        _, tree = graph.expand((object, name), **moment.options)
        assert says(tree, subject) == check(graph, moment, object, name, subject)


@explored
@given(st.randoms(use_true_random=False))
def test_lookups_equal_asking_about_each(draw):
    played = play(random_graphs.make(draw), Counter())
    graph = draw.choice(played.graphs)
    moment, asked = likely(played, draw)
    for object, name, subject in asked:
        options = {"context": moment.context, **moment.options}
        _, found = graph.lookup_resources(object.type, name, subject, **options)
        each = {
            id: check(graph, moment, Object(object.type, id), name, subject) for id in random_graphs.IDS[object.type]
        }
        assert {one.id: 1 if one.missing else 2 for one in found} == {id: said for id, said in each.items() if said}
        _, found = graph.lookup_subjects((object, name), subject.type, **options)
        said = {one.id: one for one in found}
        public = said.get(WILDCARD)
        without = {one.id: 1 if one.missing else 0 for one in public.excluded} if public else {}
        for id in random_graphs.IDS[subject.type]:
            rank = {one.id: 1 if one.missing else 2 for one in said.values()}
            told = rank.get(id, without.get(id, rank.get(WILDCARD, 0)))
            assert told == check(graph, moment, object, name, Subject(subject.type, id))


@pytest.mark.parametrize("seed", SAYABLE)
def test_every_store_answers_alike(new_store, seed):
    assert not list(differences(random_graphs.make(random.Random(seed)), seed, store=new_store()))


@pytest.mark.parametrize("seed", SAYABLE)
def test_the_past_is_what_the_changelog_says(new_store, clock, seed):
    played = play(random_graphs.make(random.Random(seed)), Counter(), new_store())
    graph, tokens = played.graphs[0], played.tokens
    _, changes = graph.changes(tokens[0])
    assert len(changes) == len(tokens) - 1
    state, states = {}, [{}]
    for change in changes:
        for operation, one in change.updates:
            state.pop(one.key, None) if operation is Operation.DELETE else state.__setitem__(one.key, one)
        states.append(dict(state))
    for at in random.Random(seed).sample(range(len(tokens)), len(tokens)):
        _, found = graph.read(Filter(), consistency=at_exactly(tokens[at]))
        there = [one for one in states[at].values() if one.expires_seconds is None or one.expires_seconds > clock[0]]
        assert sorted(map(str, found)) == sorted(map(str, there))
        assert sorted(map(str, played.case.state(at))) == sorted(map(str, states[at].values()))


class Crowd:
    """Groups whose members come and go.

    Args:
        clock: a list with the time.
    """

    def __init__(self, draw: random.Random, clock: list):
        self.draw, self.clock = draw, clock
        store = MemoryStore()
        self.indexed = Graph(store, limits=Limits(index_after=0))
        self.recursive = Graph(store, limits=Limits(cached_facts=0))
        self.indexed.write_schema(CROWD)
        self.tokens, self.there = [self.indexed.token()], {}

    def change(self, updates: int) -> None:
        """Makes about so many changes at one revision; a moment later, some of what is there has expired."""
        draw, found = self.draw, {}
        for _ in range(updates):
            if len(self.there) > draw.randrange(2 * MEMBERSHIPS):
                key = draw.choice(list(self.there))
                found[key] = delete(self.there.pop(key))
            else:
                one = self.relationship()
                found[one.key], self.there[one.key] = touch(one), one
        self.tokens.append(self.indexed.write(*found.values()))
        self.clock[0] += 1

    def relationship(self) -> Relationship:
        draw, kind = self.draw, self.draw.random()
        group = draw.randrange(GROUPS)
        if kind < 0.005:
            return Relationship.parse(f"group:{group}#guest@user:*")
        if kind < 0.06:
            trait = draw.choice(["[early]", "[expiration:2033-05-18T03:33:30Z]"])
            expiring = Relationship.parse(f"group:{group}#guest@user:{draw.randrange(USERS)}{trait}")
            soon = None if expiring.expires_seconds is None else self.clock[0] + draw.randint(1, 20)
            return expiring._replace(expires_seconds=soon)
        if kind < 0.7:
            relation = draw.choice(["guest", "lead"])
            return Relationship.parse(f"group:{group}#{relation}@user:{draw.randrange(USERS)}")
        inner = draw.randrange(GROUPS)
        named = draw.choice(NAMED)
        bound = "[early]" if kind > 0.98 and named == NAMED[1] else ""
        return Relationship.parse(f"group:{group}{named.format(inner)}{bound}")

    def compare(self, questions: int) -> None:
        """Asks both at the newest revision, and at one of the last."""
        draw = self.draw
        for token in (self.tokens[-1], draw.choice(self.tokens[-5:])):
            asked = []
            for _ in range(questions):
                relation = draw.choice(["member", "guest", "lead"])
                who = draw.choice(SUBJECTS).format(draw.randrange(GROUPS))
                asked.append(Question(Object("group", str(draw.randrange(GROUPS))), relation, Subject.parse(who)))
            options = {"consistency": at_exactly(token)}
            found = self.indexed.check_many(asked, **options)
            wanted = self.recursive.check_many(asked, **options)
            assert [(one.verdict, one.missing) for one in found] == [(one.verdict, one.missing) for one in wanted]


@pytest.mark.parametrize(
    ("updates", "silent"), [(4_000, 0), pytest.param(100_000, BACKLOG + 5_000, marks=pytest.mark.slow)]
)
def test_the_index_equals_recursion(monkeypatch, clock, updates, silent):
    said, ask = Counter(), Index.member_of_any

    def counted(self, *question):
        answer = ask(self, *question)
        said[answer] += 1
        return answer

    monkeypatch.setattr(Index, "member_of_any", counted)
    draw = random.Random(updates)
    crowd, made = Crowd(draw, clock), 0
    while made < updates:
        size = draw.choice([1, 5, 50, 200])
        crowd.change(size)
        made += size
        if not updates // 2 < made < updates // 2 + silent and draw.random() < 0.4:
            crowd.compare(20)
        if draw.random() < 0.02:
            crowd.indexed.collect(keep_seconds=30)
    crowd.compare(200)
    assert said[True] >= updates // 400
    assert said[False] >= updates // 400
    crowd.indexed.collect(keep_seconds=-1)
    with pytest.raises(RevisionGone):
        crowd.indexed.check("group:1#member", "user:1", consistency=at_exactly(crowd.tokens[0]))
    crowd.tokens = crowd.tokens[-1:]
    crowd.compare(50)
