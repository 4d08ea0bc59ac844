"""Plays the two examples of the new-enemy problem against real graphs, in random orders, and counts who got in.

A, neglecting the order of changes: Alice removes Bob from a folder; then Charlie puts a document into it, whose readers
are the folder's. Bob must not read the document. B, an old list for new content: Alice removes Bob from a document;
then Charlie changes what it says. Bob must not read what is new.

Three readers answer Bob: graphs over one store, each with caches of its own, a clock that is set and runs differently,
a quantum of its own, and news of writes that come late. Questions of A are asked whole, or in parts with anything in
between: where is the document, which Charlie's graph may say too, and then who may read there. Questions that were
begun are ended in any order. The content keeps the token of its change, and questions about it pass it on; where tokens are
ignored they do not.

Nothing is remembered from one round to the next but what graphs and stores remember themselves: every round makes its
writes, and every answer is a real one. What is simulated is the time that graphs see and how late news are. A change of
content is checked at the newest revision of the store itself, as it must be.
Source: Pang et al. 2019, "Zanzibar", section 2.2.

Type: python new_enemy.py ROUNDS SEED [ignored|deaf] [ADDRESS]
"""

import json
import random
import sys
import time
from types import SimpleNamespace

from cupola.access import consistency
from cupola.access.consistency import FAST, LATEST, at_least
from cupola.access.engine.cache import Cache
from cupola.access.graph import Graph
from cupola.access.relation import Filter, Object, delete, touch
from cupola.access.store.open import open_store

SCHEMA = """
definition user {}
definition folder {
    relation viewer: user
}
definition document {
    relation parent: folder
    relation viewer: user
    relation editor: user
    permission view = viewer + parent->viewer
}
"""
BOB, CHARLIE = "user:bob", "user:charlie"
READERS = 3
QUANTA = (0.0, 2.0, 8.0)
KEPT_SECONDS = 5.0
"""Old revisions are forgotten after that, by the real clock; a round takes less than a thousandth of it."""


PLACES = 1000
"""Folders and documents, which come up again; a document has left its folder long before. No news is that late."""


class Round:
    """What one round is about.

    Args:
        n: of the folder and the document.
    """

    def __init__(self, n: int):
        self.document, self.folder = Object("document", f"d{n}"), Object("folder", f"f{n}")
        self.place = Filter(type="document", id=self.document.id, relation="parent")
        inside, listed, own = (
            f"{self.document}#parent@{self.folder}",
            f"{self.folder}#viewer@{BOB}",
            f"{self.document}#viewer@{BOB}",
        )
        self.enter, self.leave = touch(inside), delete(inside)
        self.folder_shut, self.shut = delete(listed), delete(own)
        self.start = {
            "A": (touch(listed), self.shut),
            "B": (touch(own), self.folder_shut, touch(f"{self.document}#editor@{CHARLIE}")),
        }


class Behind:
    """A store whose news come late."""

    def __init__(self, store):
        self._store, self._heard = store, store.head()
        self.id, self.tenant = store.id, store.tenant

    def hear(self) -> None:
        """Has all news."""
        self._heard = self._store.head()

    def head(self) -> int:
        """Returns the newest revision that was heard of."""
        return self._heard

    def __getattr__(self, name):
        return getattr(self._store, name)


class World:
    """The graphs of Alice and Charlie, who write, and of the readers who answer Bob.

    Args:
        seed: of all that is left to chance.
        ignored: whether questions leave out the tokens.
        address: of the store.
    """

    def __init__(self, seed: int, *, ignored: bool = False, address: str = ":memory:"):
        self.chance, self.ignored = random.Random(seed), ignored
        self.writer = Graph.open(address)
        self.writer.write_schema(SCHEMA)
        own = address != ":memory:"
        self.stores = [Behind(open_store(address) if own else self.writer.store) for _ in range(READERS)]
        self.readers = [Graph(store, quantum_seconds=QUANTA[n]) for n, store in enumerate(self.stores)]
        self.rates = [self.chance.uniform(0.3, 3.0) for _ in range(READERS)]
        self.offsets = [self.chance.uniform(-1e5, 1e5) for _ in range(READERS)]
        self.seconds, self.seen = 0.0, 0.0
        consistency.time = SimpleNamespace(monotonic=lambda: self.seen)
        self.places = [Round(n) for n in range(PLACES)]
        self.asked, self.orders, self.rounds = 0, set(), {"A": 0, "B": 0}
        self.violations = {"A": 0, "B": 0}

    def reader(self) -> Graph:
        """Returns one of the readers, whose clock is looked at next."""
        n = int(self.chance.random() * READERS)
        self.seen = self.seconds * self.rates[n] + self.offsets[n]
        self.asked += 1
        return self.readers[n]

    def fresh(self, token: str) -> consistency.Consistency:
        """Returns how fresh an answer about content of this token must be."""
        return FAST if self.ignored or not token else at_least(token)

    def play(self) -> None:
        """Plays one round of one of the examples."""
        chance = self.chance
        example = "A" if chance.random() < 0.5 else "B"
        steps = ["change"] * 2 + chance.choices(["ask", "hear", "end", "noise"], [6, 3, 3, 1], k=chance.randrange(4, 9))
        chance.shuffle(steps)
        n = sum(self.rounds.values())
        about, old = self.places[n % PLACES], self.places[(n + PLACES // 2) % PLACES]
        self.writer.write(*about.start[example], old.leave)
        token, changes, begun, told, entered = "", 0, [], [], False
        for step in [*steps, "ask"]:
            self.seconds += chance.random() * 4
            told.append(step)
            if step == "change":
                token = self._change(about, example, changes)
                changes += 1
            elif step == "hear":
                self.stores[int(chance.random() * READERS)].hear()
            elif step == "noise":
                self.writer.write(touch(f"folder:other#viewer@user:{chance.randrange(50)}"))
            elif step == "end" and begun:
                entered |= self._end(about, begun.pop(chance.randrange(len(begun))))
            elif step == "ask":
                entered |= self._ask(about, example, token, changes, begun)
        while begun:
            entered |= self._end(about, begun.pop(chance.randrange(len(begun))))
        self.orders.add(hash((example, *told)))
        self.rounds[example] += 1
        self.violations[example] += entered

    def _change(self, about: Round, example: str, changes: int) -> str:
        """Makes the first or the second change; returns the token that the content keeps after the second."""
        if example == "A":
            return self.writer.write(about.enter) if changes else self.writer.write(about.folder_shut) and ""
        if not changes:
            return self.writer.write(about.shut) and ""
        allowed = self.writer.check((about.document, "editor"), CHARLIE, consistency=LATEST)
        assert allowed
        return allowed.revision

    def _ask(self, about: Round, example: str, token: str, changes: int, begun: list) -> bool:
        """Lets Bob ask, or begin to; returns whether he got in where he must not."""
        fresh = self.fresh(token)
        if example == "A" and self.chance.random() < 0.5:
            finder = self.writer if self.chance.random() < 0.5 else self.reader()
            found_at, found = finder.read(about.place, consistency=fresh)
            if found:
                begun.append(found_at)
            return False
        allowed = self.reader().check((about.document, "view"), BOB, consistency=fresh).allowed
        # Before the content is new, B's old list was his right; A's document is never open to him.
        return allowed and (example == "A" or changes == 2)

    def _end(self, about: Round, found_at: str) -> bool:
        """Ends a question of A: the document was found in the folder."""
        return self.reader().check((about.folder, "viewer"), BOB, consistency=self.fresh(found_at)).allowed


def main(rounds: int, seed: int, fault: str = "", address: str = ":memory:") -> None:
    """Plays rounds and prints what came of them, as JSON."""
    if fault == "deaf":
        Cache._touch = lambda *_: None
    began, world = time.monotonic(), World(seed, ignored=fault == "ignored", address=address)
    for n in range(rounds):
        world.play()
        if n % 5000 == 4999:
            for store in world.stores:
                store.hear()
            world.writer.collect(KEPT_SECONDS)
    told = {"asked": world.asked, "orders": len(world.orders), "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps({"rounds": world.rounds, "violations": world.violations, **told}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
