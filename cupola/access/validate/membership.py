"""Who, all in all, is in a permission, and by which relations: the tree of an expansion, groups followed to their end.

Not here: comparing it with what a file expects (`run.py`), the engine's own lists (`engine/`), which this does not
use: it is a second opinion on them.
Invariant: a condition counts as undecided here, whatever parameters its relationship brings, as in SpiceDB's own
validation: `[...]` marks who is in by grace of a condition.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from cupola.access.consistency import at_exactly
from cupola.access.engine.at import Node
from cupola.access.graph import Graph
from cupola.access.relation import WILDCARD, Object, Subject

Group = tuple[Object, str]


@dataclasses.dataclass(frozen=True)
class Member:
    """How a subject is in.

    Args:
        conditional: whether by grace of a condition.
        sources: relations that it stands in, `TYPE:ID#RELATION`.
        excluded: subjects that a wildcard leaves out, and whether only perhaps.
    """

    conditional: bool = False
    sources: frozenset[str] = frozenset()
    excluded: Mapping[Subject, bool] = dataclasses.field(default_factory=dict)


Members = dict[Subject, Member]


def members(graph: Graph, object: Object, relation: str) -> Members:
    """Returns all who are in a relation or permission: objects, wildcards, and groups as such.

    Raises:
        UnknownName: there is no such type, relation or permission.
    """
    token, top = graph.expand((object, relation))
    trees: dict[Group, Node] = {(object, relation): top}
    todo = [top]
    while todo:
        for subject in _groups(todo.pop()):
            group = (subject.object, subject.relation)
            if group not in trees:
                trees[group] = graph.expand(group, consistency=at_exactly(token))[1]
                todo.append(trees[group])
    # Groups may be in each other: again, until nobody is added.
    found: dict[Group, Members] = {group: {} for group in trees}
    for _ in range(len(trees) + 1):
        before = dict(found)
        for group, tree in trees.items():
            found[group] = _evaluate(tree, found)
        if found == before:
            break
    return found[object, relation]


def _groups(node: Node) -> Iterable[Subject]:
    for child in node.children:
        yield from _groups(child)
    yield from (subject for subject in node.subjects if subject.relation)


def _evaluate(node: Node, known: Mapping[Group, Members]) -> Members:
    parts = [_evaluate(child, known) for child in node.children]
    if not parts:
        return _leaf(node, known)
    found = parts[0]
    for part in parts[1:]:
        if node.operator == "union":
            found = unite(found, part)
        elif node.operator == "intersection":
            found = intersect(found, part)
        else:
            found = subtract(found, part)
    return found


def _leaf(node: Node, known: Mapping[Group, Members]) -> Members:
    here = frozenset((f"{node.object}#{node.relation}",))
    found: Members = {}
    for fact in node.relationships:
        conditional = fact.caveat is not None
        found = unite(found, {fact.subject: Member(conditional, here)})
        if fact.subject.relation:
            inner = known.get((fact.subject.object, fact.subject.relation), {})
            found = unite(
                found,
                {
                    who: dataclasses.replace(one, conditional=one.conditional or conditional)
                    for who, one in inner.items()
                },
            )
    return found


def unite(one: Members, other: Members) -> Members:
    """Returns who is in either."""
    found: Members = {}
    for who in {**one, **other}:
        a, b = one.get(who), other.get(who)
        if a is None or b is None:
            found[who] = a or b or Member()
            continue
        excluded = {}
        for out in {**a.excluded, **b.excluded}:
            in_both = out in a.excluded and out in b.excluded
            if in_both:
                excluded[out] = a.excluded[out] or b.excluded[out]
            elif (b if out in a.excluded else a).conditional:
                excluded[out] = True
        found[who] = Member(a.conditional and b.conditional, a.sources | b.sources, excluded)
    for who, member in found.items():
        if who.id == WILDCARD:
            kept = {
                out: perhaps or out in found for out, perhaps in member.excluded.items() if not _certain(found, out)
            }
            found[who] = dataclasses.replace(member, excluded=kept)
    return found


def intersect(one: Members, other: Members) -> Members:
    """Returns who is in both."""
    found: Members = {}
    for who in {**one, **other}:
        a, b = _find(one, who), _find(other, who)
        if a is not None and b is not None:
            excluded = {
                out: a.excluded.get(out, True) and b.excluded.get(out, True) for out in {**a.excluded, **b.excluded}
            }
            excluded = excluded if who.id == WILDCARD else {}
            found[who] = Member(a.conditional or b.conditional, a.sources | b.sources, excluded)
    return found


def subtract(one: Members, other: Members) -> Members:
    """Returns who is in the one and not in the other."""
    found: Members = {}
    for who, member in one.items():
        gone = _find(other, who)
        if who.id != WILDCARD:
            if gone is None or gone.conditional:
                found[who] = dataclasses.replace(member, conditional=member.conditional or gone is not None)
            continue
        if gone is None or gone.conditional:
            out = {each: other[each].conditional for each in other if _covers(who, each)}
            excluded = {
                each: out.get(each, True) and member.excluded.get(each, True) for each in {**out, **member.excluded}
            }
            found[who] = Member(member.conditional or gone is not None, member.sources, excluded)
            continue
        # Of all, all but some are taken away: those are left.
        for each, perhaps in gone.excluded.items():
            left = _find(one, each)
            if left is not None and each not in other:
                found[each] = Member(left.conditional or perhaps, left.sources)
    return found


def _covers(wildcard: Subject, who: Subject) -> bool:
    return who.type == wildcard.type and not who.relation and who.id != WILDCARD


def _find(members: Members, who: Subject) -> Member | None:
    """How a subject is in, by itself or by a wildcard."""
    own = members.get(who)
    wildcard = members.get(Subject(who.type, WILDCARD)) if not who.relation and who.id != WILDCARD else None
    if wildcard is None or wildcard.excluded.get(who) is False:
        return own
    by_all = Member(wildcard.conditional or who in wildcard.excluded, wildcard.sources)
    if own is None:
        return by_all
    return Member(own.conditional and by_all.conditional, own.sources | by_all.sources)


def _certain(members: Members, who: Subject) -> bool:
    return who in members and not members[who].conditional
