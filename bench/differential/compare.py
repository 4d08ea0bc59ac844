"""Where two engines answer a world differently, and which of that is known.

Not here: asking them (`cupola_side.py`, `spicedb.py`).
Invariant: a known difference is recognised by what it is, never by the seed: SpiceDB contradicts itself, or says why
it gives no answer.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from differential.cupola_side import plain_tree
from differential.worlds import World

KNOWN = {
    "depth": "relationships form a cycle: SpiceDB gives up at 50 levels, Cupola answers by fixed point",
    "time": "SpiceDB does not answer in time: the world was not compared, and is not counted",
    "self": "LookupResources of SpiceDB ends with an internal error where a permission holds `self`",
    "check": "SpiceDB's lookup or bulk check contradicts its own CheckPermission, which agrees with Cupola",
    "caveat": "SpiceDB's CheckPermission overlooks a conditional or an expired subject where the relation also allows "
    "sets of that type without such traits, and contradicts its own LookupSubjects, which agrees with Cupola",
    "context": "OpenFGA fails where any condition lacks context, Cupola only where the answer depends on it: with "
    "whatever values, OpenFGA says the same",
    "entry": "OpenFGA's server refuses some relations that nobody can have, or that lead to themselves, which its editors take",
    "users": "OpenFGA's ListUsers, asked for sets such as group#member, also lists plain objects of that type",
}
"""Differences that need no change, as docs/access.md tells them."""
STRANGER = "zz"
"""An id that no relationship names: a wildcard alone holds it."""

Answers = Callable[[dict[str, Any]], dict[str, Any] | None]


class Difference(NamedTuple):
    """A question with two answers."""

    question: Any
    ours: Any
    theirs: Any
    known: str = ""


def plain(world: World) -> dict[str, Any]:
    """Returns a world as both engines get it."""
    return json.loads(json.dumps(world.message()))


def differences(world: World, ours: dict[str, Any], theirs: dict[str, Any] | None, ask: "Ask") -> list[Difference]:
    """Returns where the answers to a world differ, with the key of `KNOWN` where that is known."""
    if theirs is None:
        return [Difference("all", "answers", "no answer in time", "time")]
    if bool(ours["schema"]) != bool(theirs["schema"]):
        return [Difference("schema", ours["schema"] or "taken", theirs["schema"] or "taken")]
    if ours["schema"]:
        return []
    message = plain(world)
    found = [
        Difference(["relationship", one], mine or "taken", other or "taken")
        for one, mine, other in zip(
            message["relationships"], ours["relationships"], theirs["relationships"], strict=True
        )
        if bool(mine) != bool(other)
    ]
    if found:
        return found
    for question, mine, other in zip(message["questions"], ours["answers"], theirs["answers"], strict=True):
        if question[0] == "expand":
            mine, other = (one if failed(one) else plain_tree(one) for one in (mine, other))
        if mine != other and not (failed(mine) and failed(other)):
            difference = Difference(question, mine, other)
            found.append(difference._replace(known=_known(difference, world, ask)))
    return found


class Ask(NamedTuple):
    """How to put more questions to both sides."""

    ours: Answers
    theirs: Answers


def failed(answer: Any) -> bool:
    """Whether an answer is an error."""
    return isinstance(answer, dict) and "error" in answer


def _known(difference: Difference, world: World, ask: Ask) -> str:
    kind, theirs = difference.question[0], difference.theirs
    if failed(difference.ours):
        return ""
    if failed(theirs):
        if "max depth exceeded" in theirs["error"] and world.cyclic:
            return "depth"
        return "self" if "SELF_ENTRYPOINT" in theirs["error"] else ""
    if kind in ("check", "bulk"):
        return _witness([["check", *difference.question[1:]]], [difference.ours], world, ask)
    if kind in ("resources", "subjects"):
        checks, listed = _checks(difference)
        ours = ask.ours(plain(world) | {"questions": checks})
        return _witness(checks, listed, world, ask) if ours is not None and ours["answers"] == listed else ""
    return ""


def _witness(checks: list[Any], listed: list[Any], world: World, ask: Ask) -> str:
    """Returns which other answer of SpiceDB bears out what we say to checks; "" where none does for one of them."""
    lookups = [["subjects", object, name, who[0], who[2], context] for _, object, name, who, context in checks]
    theirs = ask.theirs(plain(world) | {"questions": checks + lookups})
    if theirs is None:
        return ""
    known, answers = "check", theirs["answers"]
    for check, mine, checked, found in zip(checks, listed, answers, answers[len(checks) :], strict=False):
        if checked == mine or (world.cyclic and failed(checked) and "max depth" in checked["error"]):
            continue
        if not world.doubtful or failed(found) or _listed(found, check[3][1]) != mine:
            return ""
        known = "caveat"
    return known


def _checks(difference: Difference) -> tuple[list[Any], list[Any]]:
    """Returns a check for each id in either list, and what our list says to it."""
    question, ours, theirs = difference.question, difference.ours, difference.theirs
    if question[0] == "resources":
        _, type, name, who, context = question
        ids = sorted({*ours, *theirs})
        return [["check", [type, id], name, who, context] for id in ids], [_verdict(ours.get(id)) for id in ids]
    _, object, name, type, relation, context = question
    more = {one for found in (ours, theirs) if "*" in found for one in found["*"][1]}
    ids = sorted(({*ours, *theirs, *more} - {"*"}) | {STRANGER})
    return [["check", object, name, [type, id, relation], context] for id in ids], [_listed(ours, id) for id in ids]


def _listed(found: dict[str, Any], id: str) -> Any:
    """Returns what a list of subjects says of one."""
    if id in found:
        return _verdict(found[id][0])
    everyone = found.get("*")
    if everyone is None:
        return "no"
    missing, excluded = everyone
    if id in excluded and not excluded[id]:
        return "no"
    return _verdict(sorted({*missing, *excluded.get(id, [])}))


def _verdict(missing: list[str] | None) -> Any:
    return "no" if missing is None else missing or "yes"
