"""The graphs that bench/access.py asks about, and how one side is asked: the same for us and for the peers.

Shapes follow SpiceDB's own benchmarks by their description; each has many more questions than a turn asks. Only
the standard library is imported: peers' environments hold no Cupola.
Invariant: every turn begins with a write, so that no answer of an earlier revision is good any more, and asks each
question once; a wrong answer ends the bench.
"""

import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import harness

PLAIN = """
definition user {}
definition group {
    relation member: user | group#member
}
definition file {
    relation viewer: user | group#member
    permission view = viewer
}
"""
PARENTS = """
definition user {}
definition file {
    relation parent: file
    relation viewer: user
    permission view = viewer + parent->view
}
"""
WIDE = """
definition user {}
definition group {
    relation member: user
}
definition file {
    relation group: group
    relation viewer: user
    permission view = viewer + group->member
}
"""
DOUBLE = """
definition user {}
definition group {
    relation member: user
}
definition org {
    relation group: group
    permission member = group->member
}
definition file {
    relation org: org
    relation viewer: user
    permission view = viewer + org->member
}
"""
BOTH = """
definition user {}
definition org {
    relation reader: user
    relation banned: user
    permission read = reader - banned
}
definition file {
    relation viewer: user
    relation org: org
    permission read = org->read
    permission view = viewer & read
}
"""
SAME = """
definition user {}
definition group {
    relation direct: user | group#member | group#manager | group#helper
    relation helper: user | group#member | group#manager | group#helper
    relation manager: user | group#member | group#manager
    permission member = direct + helper + manager
}
definition file {
    relation viewer: user | group#member | group#manager
    relation editor: user | group#member | group#manager
    relation creator: user | group#member | group#manager
    relation owner: user | group#member | group#manager
    permission view = viewer + editor + creator + owner
}
"""
PUBLIC = """
definition user {}
definition file {
    relation viewer: user | user:*
    relation banned: user
    permission view = viewer - banned
}
"""
OFFICE = """
definition user {}
caveat office(hour int) {
    hour >= 9 && hour < 17
}
definition file {
    relation viewer: user with office
    permission view = viewer
}
"""


class Question(NamedTuple):
    """May a user view a file, with what is known of the moment."""

    file: str
    user: str
    context: Mapping[str, int] | None = None


class Shape(NamedTuple):
    """A graph and what is asked about it.

    Args:
        name: of the workload.
        schema: in SpiceDB's language.
        relationships: texts.
        yes: questions with this answer.
        no: likewise.
        found: files that each of some users may view, by user; looked up where there are any.
    """

    name: str
    schema: str
    relationships: list[str]
    yes: list[Question]
    no: list[Question]
    found: dict[str, int]


STRANGERS = 2000
"""Users who may view nothing that is asked about."""


def shapes() -> list[Shape]:
    """Returns all of them; always the same."""
    return [
        wide_direct(),
        wide_groups(),
        chains(),
        deep_arrow(),
        wide_arrow(),
        double_wide_arrow(),
        intersection(),
        same_types(),
        wildcard(),
        caveat(),
    ]


def shape(
    name: str, schema: str, facts: Iterable[str], yes: Iterable[Question], no: Iterable[Question], **more: Any
) -> Shape:
    """Returns a shape whose questions come in no order."""
    mixed = list(yes), list(no)
    for questions in mixed:
        random.Random(0).shuffle(questions)
    return Shape(name, schema, list(facts), *mixed, more.get("found", {}))


def wide_direct() -> Shape:
    users = [f"user:u{i}" for i in range(9000)]
    facts = [f"file:f#viewer@{user}" for user in users]
    strange = [Question("file:f", f"user:x{i}") for i in range(STRANGERS)]
    return shape("wide direct", PLAIN, facts, [Question("file:f", user) for user in users], strange)


def wide_groups() -> Shape:
    facts, yes = ["file:f#viewer@group:all#member"], []
    for i in range(81):
        facts += [f"group:all#member@group:g{i}#member", f"group:g{i}#member@group:g{i}_in#member"]
        users = [f"user:u{i}_{j}" for j in range(25)]
        facts += [f"group:g{i}_in#member@{user}" for user in users]
        yes += [Question("file:f", user) for user in users]
    strange = [f"user:x{i}" for i in range(STRANGERS)]
    facts += [f"group:other#member@{user}" for user in strange]
    return shape("wide groups", PLAIN, facts, yes, [Question("file:f", user) for user in strange])


def chains() -> Shape:
    facts = [f"group:first#member@user:u{j}" for j in range(40)]
    for i in range(100):
        facts += [f"group:a{i}#member@group:first#member", f"group:b{i}#member@group:a{i}#member"]
        facts += [f"group:c{i}#member@group:b{i}#member", f"file:f{i}#viewer@group:c{i}#member"]
    facts += [f"group:other#member@user:x{j}" for j in range(40)]
    pairs = list(itertools.product(range(100), range(40)))
    yes = [Question(f"file:f{i}", f"user:u{j}") for i, j in pairs]
    return shape("3 x 100 chains", PLAIN, facts, yes, [Question(f"file:f{i}", f"user:x{j}") for i, j in pairs])


def deep_arrow() -> Shape:
    facts, yes, no = [], [], []
    for i in range(20):
        facts += [f"file:f{i}_{level}#parent@file:f{i}_{level + 1}" for level in range(30)]
        users = [f"user:u{i}_{j}" for j in range(100)]
        facts += [f"file:f{i}_30#viewer@{user}" for user in users]
        yes += [Question(f"file:f{i}_0", user) for user in users]
        no += [Question(f"file:f{(i + 1) % 20}_0", user) for user in users]
    return shape("deep arrow", PARENTS, facts, yes, no)


def wide_arrow() -> Shape:
    chance = random.Random(1)
    members = {f"group:g{i}": chance.sample(range(997), 20) for i in range(97)}
    facts = [f"{group}#member@user:u{user}" for group, users in members.items() for user in users]
    yes, no = [], []
    for i in range(10):
        groups = chance.sample(sorted(members), 30)
        facts += [f"file:f{i}#group@{group}" for group in groups]
        inside = {user for group in groups for user in members[group]}
        for user in range(997):
            (yes if user in inside else no).append(Question(f"file:f{i}", f"user:u{user}"))
    return shape("wide arrow", WIDE, facts, yes, no)


def double_wide_arrow() -> Shape:
    chance = random.Random(2)
    members = {f"group:g{i}": chance.sample(range(997), 20) for i in range(97)}
    orgs = {f"org:o{i}": chance.sample(sorted(members), 10) for i in range(23)}
    facts = [f"{group}#member@user:u{user}" for group, users in members.items() for user in users]
    facts += [f"{org}#group@{group}" for org, groups in orgs.items() for group in groups]
    facts += [f"group:other#member@user:x{i}" for i in range(500)]
    yes, no = [], []
    for i in range(10):
        some = chance.sample(sorted(orgs), 20)
        facts += [f"file:f{i}#org@{org}" for org in some]
        inside = {user for org in some for group in orgs[org] for user in members[group]}
        yes += [Question(f"file:f{i}", f"user:u{user}") for user in sorted(inside)]
        no += [Question(f"file:f{i}", f"user:x{user}") for user in range(500)]
    return shape("double wide arrow", DOUBLE, facts, yes, no)


def intersection() -> Shape:
    files, users, bad = [f"file:f{i}" for i in range(499)], range(8), range(4)
    facts = [f"org:o#reader@user:{who}" for who in [*(f"u{i}" for i in users), *(f"x{i}" for i in bad)]]
    facts += [f"org:o#banned@user:x{i}" for i in bad] + [f"{file}#org@org:o" for file in files]
    facts += [f"{file}#viewer@user:u{i}" for file in files for i in users]
    facts += [f"{file}#viewer@user:x{i}" for file in files for i in bad]
    yes = [Question(file, f"user:u{i}") for file in files for i in users]
    no = [Question(file, f"user:x{i}") for file in files for i in bad]
    return shape("intersection", BOTH, facts, yes, no, found={f"user:u{i}": len(files) for i in users})


def same_types() -> Shape:
    facts, yes, no, found = [], [], [], {}
    for i in range(40):
        teams = [f"group:{name}{i}" for name in ("product", "applications", "engineering", "chiefs")]
        product, _, engineering, chiefs = teams
        facts += [f"{team}#manager@user:{team[6:]}_manager" for team in teams]
        users = [f"user:engineer{i}_{j}" for j in range(20)]
        facts += [f"{product}#direct@{user}" for user in users]
        facts += [f"{outer}#direct@{inner}#member" for outer, inner in itertools.pairwise((engineering, *teams[1::-1]))]
        facts += [f"{engineering}#direct@{chiefs}#member", f"file:a{i}#creator@{users[0]}"]
        facts += [f"file:{name}{i}#viewer@{engineering}#member" for name in "ab"]
        yes += [Question(f"file:{name}{i}", user) for name in "ab" for user in users]
        no += [Question(f"file:{name}{(i + 1) % 40}", user) for name in "ab" for user in users]
        found |= dict.fromkeys(users, 2)
    return shape("same types", SAME, facts, yes, no, found=found)


def wildcard() -> Shape:
    files = [f"file:f{i}" for i in range(100)]
    facts = [f"{file}#viewer@user:*" for file in files]
    facts += [f"{file}#banned@user:x{j}" for file in files for j in range(20)]
    yes = [Question(file, f"user:u{j}") for file in files for j in range(20)]
    return shape("wildcard", PUBLIC, facts, yes, [Question(file, f"user:x{j}") for file in files for j in range(20)])


def caveat() -> Shape:
    pairs = list(itertools.product(range(100), range(20)))
    facts = [f"file:f{i}#viewer@user:u{j}[office]" for i, j in pairs]
    yes = [Question(f"file:f{i}", f"user:u{j}", {"hour": 9 + (i + j) % 8}) for i, j in pairs]
    no = [Question(f"file:f{i}", f"user:u{j}", {"hour": (i + j) % 9}) for i, j in pairs]
    return shape("caveat", OFFICE, facts, yes, no)


# From here on: how a side is asked.


class Side(Protocol):
    """One shape, loaded into one engine."""

    def ready(self, question: Question) -> Any:
        """Returns a question as the engine takes it; this is not timed."""

    def ask(self, ready: Any) -> bool:
        """Returns the answer."""

    def look_up(self, user: str) -> int:
        """Returns how many files a user may view."""

    def write(self, relationship: str) -> None:
        """Writes a relationship that matters to nobody."""


class Asked:
    """Turns of one shape.

    Args:
        shape: asked about.
        side: asked.
        questions: of each answer, a turn.
    """

    def __init__(self, shape: Shape, side: Side, questions: int):
        self.shape, self._side, self._count = shape, side, questions
        self._numbers = itertools.count()
        self._questions: dict[bool, itertools.cycle[Any]] = {}
        for answer, several in ((True, shape.yes), (False, shape.no)):
            self._questions[answer] = itertools.cycle([side.ready(one) for one in several])
        self._users = itertools.cycle(shape.found)

    def cases(self) -> dict[str, Callable[[], dict[str, float]]]:
        """Returns what can be timed, by the name of the case."""
        name = self.shape.name
        made: dict[str, Callable[[], dict[str, float]]] = {
            f"{name}, yes": lambda: self._check(True, self._count),
            f"{name}, no": lambda: self._check(False, self._count),
        }
        if self.shape.found:
            made[f"look up, {name}"] = self._look_up
        return made

    def first(self) -> list[float]:
        """Returns microseconds of the first questions that are ever asked."""
        return [1e6 * one for answer in (True, False) for one in self._time(answer, 10)]

    def _write(self) -> None:
        condition = "[office]" if "office" in self.shape.schema else ""
        self._side.write(f"file:written#viewer@user:w{next(self._numbers)}{condition}")

    def _check(self, answer: bool, count: int) -> dict[str, float]:
        self._write()
        return quantiles(self._time(answer, count))

    def _time(self, answer: bool, count: int) -> list[float]:
        ask, clock, seconds = self._side.ask, time.perf_counter, []
        for one in itertools.islice(self._questions[answer], count):
            start = clock()
            found = ask(one)
            seconds.append(clock() - start)
            if found is not answer:
                raise RuntimeError(f"{self.shape.name}: {one} is answered {found}")
        return seconds

    def _look_up(self) -> dict[str, float]:
        self._write()
        seconds = []
        for user in itertools.islice(self._users, 4):
            start = time.perf_counter()
            found = self._side.look_up(user)
            seconds.append(time.perf_counter() - start)
            if found != self.shape.found[user]:
                raise RuntimeError(f"{self.shape.name}: {user} may view {found} files")
        return quantiles(seconds)


def serve(sides: Sequence[tuple[Shape, Side]], questions: int, **facts: Any) -> None:
    """Serves turns of all shapes, with the microseconds of the first questions of each among the facts."""
    every = [Asked(shape, side, questions) for shape, side in sides]
    first = {asked.shape.name: asked.first() for asked in every}
    cases = {name: case for asked in every for name, case in asked.cases().items()}
    harness.serve(cases, first=json.dumps(first), **facts)


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Returns p50, p95 and p99 in microseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": 1e6 * cuts[49], "p95": 1e6 * cuts[94], "p99": 1e6 * cuts[98]}
