"""What a graph answers about a case, beside what the naive evaluator says."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from naive import Naive, Value, both, either
from random_graphs import IDS, NOW, Case, contexts, holds

from cupola.access.consistency import at_exactly
from cupola.access.decision import Question, Verdict
from cupola.access.engine.at import Node
from cupola.access.errors import AccessError, SchemaError
from cupola.access.graph import Graph
from cupola.access.limits import Limits
from cupola.access.relation import WILDCARD, Object, Relationship, Subject, delete, touch
from cupola.access.store.memory import MemoryStore
from cupola.access.store.protocol import Store

VERDICTS = {Verdict.NO: 0, Verdict.CONDITIONAL: 1, Verdict.YES: 2}
Answer = tuple[int, tuple[str, ...]]


class Difference(NamedTuple):
    """A question that was answered otherwise."""

    question: str
    found: object
    wanted: object

    def __str__(self) -> str:
        return f"{self.question}: {self.found}, and not {self.wanted}"


class Moment(NamedTuple):
    """Where questions are asked: after so many writes, with a context and with relationships that they bring."""

    naive: Naive
    token: str
    context: dict[str, int]
    extra: tuple[Relationship, ...]

    @property
    def options(self) -> dict:
        return {"consistency": at_exactly(self.token), "extra": self.extra}


class Played(NamedTuple):
    """A case in a store.

    Args:
        graphs: over it, the first with all groups in the index at once, the second with none.
        tokens: after each write.
        tally: what was met, counted.
    """

    case: Case
    graphs: tuple[Graph, Graph]
    tokens: list[str]
    tally: Counter[str]


def play(case: Case, tally: Counter[str], store: Store | None = None) -> Played:
    """Writes a case; what its language refuses to say is stored as it is."""
    store = store or MemoryStore()
    graphs = Graph(store, limits=Limits(index_after=0)), Graph(store, limits=Limits(index_after=10**9))
    try:
        graphs[0].write_schema(case.text, language=case.schema.language)
    except SchemaError:
        tally["schema that its language refuses"] += 1
        store.write((), schema=(case.text, case.schema))
    tokens = [graphs[0].token()]
    for touched, deleted in case.writes:
        tokens.append(graphs[0].write(*map(touch, touched), *map(delete, deleted)))
    return Played(case, graphs, tokens, tally)


def moments(played: Played, draw: random.Random) -> list[Moment]:
    """Returns the last moment without a context, and some other with one."""
    case, found = played.case, []
    ids = {definition.name: IDS[definition.name] for definition in case.schema.definitions}
    last, bare = len(case.writes), True
    for context in contexts(draw):
        writes = last if bare else draw.randint(0, last)
        bare = False
        stored, extra = writes, ()
        if writes and not case.writes[writes - 1][1] and draw.random() < 0.5:
            stored, extra = writes - 1, tuple(case.writes[writes - 1][0])
        naive = Naive(case.schema, case.state(writes), ids, NOW, context, holds, case.parameters)
        found.append(Moment(naive, played.tokens[stored], context, extra))
    return found


def differences(
    case: Case, seed: int, tally: Counter[str] | None = None, store: Store | None = None
) -> Iterator[Difference]:
    """Yields what a graph answers otherwise than the naive evaluator, at two moments of a case."""
    draw = random.Random(seed)
    played = play(case, Counter() if tally is None else tally, store)
    try:
        for moment in moments(played, draw):
            yield from _checks(played, moment, draw)
            yield from _resources(played, moment, draw)
            yield from _subjects(played, moment, draw)
            yield from _trees(played, moment, draw)
    finally:
        for graph in played.graphs:
            graph.close()


def _checks(played: Played, moment: Moment, draw: random.Random) -> Iterator[Difference]:
    asked = [(node, _someone(moment, node, draw)) for node in draw.choices(moment.naive.nodes, k=24)]
    wanted = [moment.naive.answer(*one) for one in asked]
    played.tally.update(f"answer {sure}" for sure, _ in wanted)
    questions = [Question(Object(type, id), name, subject, moment.context) for (type, id, name), subject in asked]
    for graph in (played.graphs[0], played.graphs[1], played.graphs[0]):
        found = graph.check_many(questions, **moment.options)
        yield from _compare("check", moment, asked, map(_answer, found), wanted)
    cold = Graph(played.graphs[0].store, limits=Limits(cached_facts=0))
    one = questions[0]
    for explain in (False, True):
        place = one.object, one.permission
        decision = cold.check(place, one.subject, context=moment.context, explain=explain, **moment.options)
        yield from _compare("check" + " and explain" * explain, moment, asked[:1], [_answer(decision)], wanted[:1])


def _someone(moment: Moment, node: tuple[str, str, str], draw: random.Random) -> Subject:
    """Returns a subject, who may well be in a relation."""
    naive = moment.naive
    sure, possible = naive.inside[node][:2]
    among = draw.choice([naive.everybody, possible, possible & ~sure or naive.everybody])
    return draw.choice([subject for subject in naive.subjects if naive.bit[subject] & among])


def _compare(what: str, moment: Moment, asked, found, wanted) -> Iterator[Difference]:
    for ((type, id, name), subject), one, other in zip(asked, found, wanted, strict=True):
        if one != other:
            yield Difference(f"{what} {type}:{id}#{name}@{subject} with {moment.context}", one, other)


def _answer(decision) -> Answer:
    return decision.error or (VERDICTS[decision.verdict], decision.missing)


def _resources(played: Played, moment: Moment, draw: random.Random) -> Iterator[Difference]:
    naive = moment.naive
    for type, name in draw.sample(played.case.kinds, min(3, len(played.case.kinds))):
        subject = draw.choice(naive.subjects)
        graph = draw.choice(played.graphs)
        _, found = graph.lookup_resources(type, name, subject, context=moment.context, **moment.options)
        ids = sorted(id for other, id, relation in naive.nodes if (other, relation) == (type, name))
        wanted = [(id, *naive.answer((type, id, name), subject)) for id in ids]
        told = [(one.id, 1 if one.missing else 2, one.missing) for one in found]
        if told != [one for one in wanted if one[1]]:
            yield Difference(f"resources {type}#{name}@{subject} with {moment.context}", told, wanted)


def _subjects(played: Played, moment: Moment, draw: random.Random) -> Iterator[Difference]:
    naive = moment.naive
    kinds = [(type, "") for type in {subject.type for subject in naive.subjects}] + played.case.kinds
    for type, id, name in draw.sample(naive.nodes, min(4, len(naive.nodes))):
        kind, relation = draw.choice([*kinds, ("user", "")])
        graph = draw.choice(played.graphs)
        _, found = graph.lookup_subjects(
            (Object(type, id), name), kind, relation, context=moment.context, **moment.options
        )
        told = list(found)
        named = {one.id: one for one in told}
        public = named.get(WILDCARD)
        excluded = {} if public is None else {one.id: one for one in public.excluded}
        for subject in naive.subjects:
            if (subject.type, subject.relation) != (kind, relation):
                continue
            wanted = naive.answer((type, id, name), subject)
            if (one := named.get(subject.id)) is not None:
                said = (1, one.missing) if one.missing else (2, ())
            elif public is None or (subject.id in excluded and not excluded[subject.id].missing):
                said = 0, ()
            elif subject.id in excluded:
                said = 1, excluded[subject.id].missing
            else:
                said = (1, public.missing) if public.missing else (2, ())
            if said != wanted:
                yield Difference(f"subjects {type}:{id}#{name}@{subject} with {moment.context}", told, wanted)


def _trees(played: Played, moment: Moment, draw: random.Random) -> Iterator[Difference]:
    naive = moment.naive
    if not naive.decided:
        played.tally["moment without trees"] += 1  # A circle through an exclusion has none.
        return
    for type, id, name in draw.sample(naive.nodes, min(3, len(naive.nodes))):
        _, tree = played.graphs[0].expand((Object(type, id), name), **moment.options)
        value, wanted = _in_tree(tree, naive), naive.inside[type, id, name]
        # That every set is in itself, a tree does not say; what is missing, it says more often.
        plain = sum(naive.bit[subject] for subject in naive.subjects if not subject.relation)
        if [one & plain for one in value[:2]] != [one & plain for one in wanted[:2]]:
            yield Difference(f"expand {type}:{id}#{name} with {moment.context}", tree, wanted)


def _in_tree(tree: Node, naive: Naive) -> Value:
    """Returns who is in a tree; who is in the groups at its leaves is looked up."""
    parts = [_in_tree(child, naive) for child in tree.children]
    if not tree.operator:
        named = ((naive.named(one.subject, naive.inside), naive.condition(one)) for one in tree.relationships)
        value = either([naive.nobody, *map(both, named)])
    elif tree.operator == "exclusion":
        value = both([parts[0], naive.opposite(parts[1])])
    else:
        value = (either if tree.operator == "union" else both)(parts)
    return value if tree.through is None else both([value, naive.condition(tree.through)])


def shrunk(case: Case, seed: int) -> Case:
    """Returns a smaller case that is answered otherwise too: without what can be left out one by one."""

    def differs(smaller: Case) -> bool:
        try:
            return any(next(differences(smaller, other), None) for other in (seed, *range(8)))
        except (KeyError, AccessError):  # It named what is no longer there.
            return False

    found = True
    while found:
        found = False
        for smaller in case.smaller():
            if differs(smaller):
                case, found = smaller, True
                break
    return case
