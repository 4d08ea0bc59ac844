"""The scheduler: what the next step computes, and who holds which pages meanwhile.

Not here: whether a request is possible (`admit.py`), the order of the queue (`waiting.py`), tokens,
texts and reasons (`engine.py`). One thread calls all of it; nothing here blocks.

The engine's loop, where the host works on one step while the device computes the one before:

    plan = scheduler.plan()            # None: nothing to compute before the step in flight is committed
    ...launch the plan's rows          # before any other call: these may change the rows' pages
    for row, tokens in results of the step before:
        scheduler.commit(row, tokens)
        if the sequence has ended: scheduler.finish(row.sequence)

Without overlap, the results are those of the plan just launched. Deeper pipelines work too.

Invariant: steps run on the device strictly in order. So pages that are released while a step in
flight still writes to them can be handed out at once, tokens whose row is planned can be found in
the tree by any later step, and a row may compute a token that only the device knows.

Source: Zheng et al. 2024, "SGLang: Efficient Execution of Structured Language Model Programs",
section 3; chunked prefill as in Agrawal et al. 2024, "Taming Throughput-Latency Tradeoff in LLM
Inference with Sarathi-Serve".
"""

import bisect
import heapq
import math
from collections import Counter
from collections.abc import Collection

from cupola.serve.admit import Cache, Limits, admit, check_queue
from cupola.serve.errors import InvalidRequest
from cupola.serve.pages import Pages
from cupola.serve.radix import Radix
from cupola.serve.request import Request
from cupola.serve.sequence import Plan, Row, Sequence, State
from cupola.serve.waiting import Waiting

EXAMINED = 32
"""How many waiting sequences a step looks at to admit some of them."""
RESERVE_FIRST, RESERVE_LAST, RESERVE_STEPS = 0.7, 0.1, 600
"""Which part of the tokens that running sequences may yet generate finds pages kept free for it when
another is admitted: at first, at last, and the steps in between. A retraction starts anew."""


class Scheduler:
    """Holds every request from submission to its end.

    Args:
        limits: what may be used.
        vocabulary: number of token ids.
        adapters: names of those that are loaded; the engine adds and removes names.

    Attributes:
        pages: the pool.
        tree: the prefix cache.
        waiting: the queue.
        running: sequences with pages, the last to be retracted first.
        retractions: how many there were.
    """

    def __init__(self, limits: Limits, *, vocabulary: int, adapters: Collection[str] = ()):
        self.limits, self.vocabulary, self.adapters = limits, vocabulary, set(adapters)
        self.pages = Pages(limits.pages, limits.page_size)
        self.tree = Radix(self.pages)
        self.waiting = Waiting(limits, self.tree)
        self.running: list[Sequence] = []
        self.retractions = 0
        self._by_id: dict[str, Sequence] = {}
        self._arrivals = 0
        self._deadlines: list[tuple[float, int, Sequence]] = []
        self._slots = list(range(limits.max_running))[::-1]
        self._reserve = RESERVE_FIRST
        self._decodes: dict[Sequence, Row] = {}
        self._chunks: dict[Sequence, Row] = {}

    @property
    def pages_used(self) -> int:
        """How many pages running sequences hold; the tree alone holds `tree.evictable_pages`."""
        return self.limits.pages - 1 - self.pages.available - self.tree.evictable_pages

    def submit(self, request: Request, *, now_seconds: float = 0.0) -> Sequence:
        """Queues a request.

        Args:
            now_seconds: on any clock that only goes forward; `expired` is asked on the same.

        Raises:
            RequestError: it can never be served, its id is taken, or the queue is full.
        """
        admit(request, self.limits, vocabulary=self.vocabulary, adapters=self.adapters)
        if request.id in self._by_id:
            raise InvalidRequest(
                f"a request {request.id!r} is being served", where="id", remedy="Give each request an id of its own."
            )
        check_queue(len(self.waiting), self.limits)
        self._arrivals += 1
        sequence = Sequence(request=request, arrival=self._arrivals)
        if request.timeout_seconds is not None:
            sequence.deadline_seconds = now_seconds + request.timeout_seconds
            heapq.heappush(self._deadlines, (sequence.deadline_seconds, sequence.arrival, sequence))
        self._by_id[request.id] = sequence
        self.waiting.add(sequence)
        return sequence

    def find(self, request_id: str) -> Sequence | None:
        """Returns the sequence of a request that has not ended."""
        return self._by_id.get(request_id)

    def expired(self, now_seconds: float) -> list[Sequence]:
        """Returns the sequences whose time is over, once each; the engine finishes them."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now_seconds:
            sequence = heapq.heappop(self._deadlines)[2]
            if sequence.state is not State.FINISHED:
                late.append(sequence)
        return late

    def plan(self) -> Plan | None:
        """Returns what the next step computes, and counts it as computed; None where there is nothing.

        Where steps are in flight, None may mean that their results must be committed first.
        """
        self._reserve = max(RESERVE_LAST, self._reserve - (RESERVE_FIRST - RESERVE_LAST) / RESERVE_STEPS)
        unfinished = self._decode()
        for sequence in unfinished:
            if sequence.state is State.RUNNING:
                self._chunk(sequence)
        self._admit(unfinished)
        plan = Plan(tuple(self._decodes.values()), tuple(self._chunks.values()))
        for sequence in self._chunks:
            self._share(sequence)
        self._decodes, self._chunks = {}, {}
        return plan if plan.decodes or plan.chunks else None

    def commit(self, row: Row, tokens: list[int]) -> None:
        """Takes in what a row has drawn; nothing where its sequence has ended meanwhile.

        Args:
            tokens: none where the row draws none; else one, or after a draft all that were accepted and
                the one that follows them. The engine may cut them where the sequence ends.
        """
        sequence = row.sequence
        if sequence.state is State.FINISHED:
            return
        if not row.draws <= len(tokens) <= row.draws * (1 + len(row.draft)):
            raise ValueError(f"a row that draws {'with a draft' if row.draft else row.draws} gave {len(tokens)} tokens")
        sequence.tokens += tokens
        sequence.in_flight -= row.draws
        if row.draft:  # What was rejected is written over by the next row.
            sequence.computed = min(sequence.computed, row.start + len(tokens))
        if sequence.state is State.WAITING:
            sequence.matchable = tuple(sequence.tokens[:-1])

    def extend(self, sequence: Sequence, tokens: list[int]) -> None:
        """Adds tokens that a grammar forces; the next row computes them and draws what follows."""
        if sequence.in_flight:
            raise ValueError("tokens can be added only when none is being drawn")
        sequence.tokens += tokens
        sequence.draft = []
        if sequence.state is State.WAITING:
            sequence.matchable = tuple(sequence.tokens[:-1])

    def finish(self, sequence: Sequence) -> None:
        """Ends a sequence in any state and frees its pages at once; those worth keeping stay in the tree."""
        if sequence.state is State.RUNNING:
            self._leave(sequence)
        elif sequence.state is State.WAITING:
            self.waiting.remove(sequence)
        else:
            return
        sequence.state = State.FINISHED
        del self._by_id[sequence.request.id]
        if len(self._deadlines) > 64 + 2 * len(self._by_id):
            self._deadlines = [entry for entry in self._deadlines if entry[2].state is not State.FINISHED]
            heapq.heapify(self._deadlines)

    def abort(self, request_id: str) -> Sequence | None:
        """Ends a request; returns its sequence, or None where it has ended already."""
        sequence = self._by_id.get(request_id)
        if sequence is not None:
            self.finish(sequence)
        return sequence

    def retract(self, sequence: Sequence) -> None:
        """Takes a running sequence's place and pages; it waits in front, and computes its known tokens again.

        A token in flight still arrives by `commit`; it runs again only after that.
        """
        row = self._decodes.pop(sequence, None) or self._chunks.pop(sequence, None)
        if row is not None:  # Planned for the step being planned, which then never computes it.
            sequence.computed = row.start
            sequence.in_flight -= row.draws
        self._leave(sequence)
        self.retractions += 1
        sequence.retracted, sequence.draft = True, []
        sequence.matchable = tuple(sequence.tokens[:-1])
        self.waiting.add(sequence)

    def clear(self, adapter: str | None = None) -> None:
        """Forgets the cached prefixes of an adapter, or all, whose weights change.

        Sequences that run go on with what they have, and nothing of it is kept; to have it computed
        again with the new weights, retract them afterwards.
        """
        self.tree.clear(adapter)

    def check(self) -> None:
        """Audits pages, locks and slots.

        Raises:
            RuntimeError: something is lost, held twice or counted wrongly.
        """
        held = Counter(self.tree.held())
        for sequence in self.running:
            held.update(sequence.pages)
            pages: list[int] = []
            above = sequence.node
            while above is not None:
                pages, above = above.pages + pages, above.parent
            if pages != sequence.pages[: len(pages)]:
                raise RuntimeError(f"{sequence.request.id} locks pages that it does not hold")
            if sequence.computed > len(sequence.pages) * self.pages.size:
                raise RuntimeError(f"{sequence.request.id} has computed more than its pages hold")
        self.pages.check(held)
        self.tree.check([sequence.node for sequence in self.running if sequence.node is not None])
        slots = self._slots + [sequence.slot for sequence in self.running]
        if sorted(slots) != list(range(self.limits.max_running)):
            raise RuntimeError(f"slots {sorted(slots)}")
        if any(sequence.pages or sequence.node for sequence in self.waiting):
            raise RuntimeError("a waiting sequence holds pages")

    def _decode(self) -> list[Sequence]:
        """Plans a row for each sequence whose last token alone is not computed; returns those with more to compute."""
        unfinished, size, rows = [], self.pages.size, self._decodes
        for sequence in tuple(self.running):
            known = len(sequence.tokens) + sequence.in_flight
            ahead = known - sequence.computed
            if ahead <= 0 or sequence.state is not State.RUNNING:
                continue
            if ahead > 1 or sequence.computed < sequence.prompt_tokens:
                if not sequence.in_flight:
                    unfinished.append(sequence)
                continue
            if known >= sequence.most_tokens or (sequence.in_flight and sequence.needs_sync):
                continue
            draft: tuple[int, ...] = ()
            if sequence.draft:
                draft = tuple(sequence.draft[: sequence.most_tokens - known - 1]) if not sequence.in_flight else ()
                sequence.draft = []
                draft = self._affordable(sequence, draft)
            if known > len(sequence.pages) * size and not self._grow(sequence, known):
                continue
            rows[sequence] = Row(sequence, known - 1, 1 + len(draft), True, sequence.in_flight > 0, draft)
            sequence.computed = known + len(draft)
            sequence.in_flight += 1
        return unfinished

    def _affordable(self, sequence: Sequence, draft: tuple[int, ...]) -> tuple[int, ...]:
        """Gives a sequence pages for a draft and returns as much of it as fits: nobody is retracted for a guess."""
        base = sequence.computed + 1
        lacking = self.pages.needed(base + len(draft)) - len(sequence.pages)
        if lacking > self.pages.available:
            self.tree.evict(lacking - self.pages.available)
        sequence.pages += self.pages.take(min(lacking, self.pages.available))
        return draft[: max(0, len(sequence.pages) * self.pages.size - base)]

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        """Gives a sequence pages for so many tokens, taking them from the cache, then from the last that run.

        Returns whether it still runs: it may be the last itself. The first never is unless it is alone,
        and then its pages fit (`admit`), so some sequence always gets on.
        """
        lacking = self.pages.needed(tokens) - len(sequence.pages)
        while lacking > self.pages.available:
            self.tree.evict(lacking - self.pages.available)
            if lacking > self.pages.available:
                self._reserve = RESERVE_FIRST
                victim = self.running[-1]
                self.retract(victim)
                if victim is sequence:
                    return False
        sequence.pages += self.pages.take(lacking)
        return True

    def _chunk(self, sequence: Sequence) -> None:
        """Plans the next tokens of a sequence that has more than one to compute, if the step has room."""
        known = len(sequence.tokens)
        ahead = known - sequence.computed
        if ahead == 1 and not sequence.reads_prompt and known < sequence.most_tokens:
            row = Row(sequence, sequence.computed, 1, True)  # A step of decoding is all that it lacks.
            self._decodes[sequence] = row
        else:
            # Whole pages are written: what stands in the first one already is computed again, to the same bits,
            # and a part ends where a page does, or the next would begin where this one did.
            size, room = self.pages.size, self._room()
            start = sequence.computed - sequence.computed % size
            count = known - start if known - start <= room else room - room % size
            if count <= 0 or not self._grow(sequence, start + count):
                return
            draws = start + count == known and known < sequence.most_tokens
            row = self._chunks[sequence] = Row(sequence, start, count, draws)
        sequence.computed = row.stop
        sequence.in_flight += row.draws

    def _room(self) -> int:
        """Returns how long one more chunk of this step may be."""
        limits, rows = self.limits, self._chunks.values()
        if len(rows) >= limits.max_chunks:
            return 0
        if not limits.chunk_widths:
            return limits.budget_tokens - sum(row.count for row in rows)
        longest = max((row.count for row in rows), default=0)
        most = limits.budget_tokens // (len(rows) + 1)
        return max((width for width in limits.chunk_widths if longest <= width <= most), default=0)

    def _admit(self, unfinished: list[Sequence]) -> None:
        """Lets waiting sequences run while there is room, the first first."""
        if not self.waiting or not self._room():
            return
        filling, admitted = [s for s in unfinished if s.state is State.RUNNING], False
        for sequence in self.waiting.first(EXAMINED):
            if not self._room():
                break
            if sequence.in_flight or self._better_later(sequence, filling):
                continue
            if not self._place(sequence):
                break  # Whoever is smaller does not go past it, or it might wait for ever.
            self._chunk(sequence)
            filling.append(sequence)
            admitted = True
        if admitted:
            self.waiting.passed()

    def _better_later(self, sequence: Sequence, filling: list[Sequence]) -> bool:
        """Whether one whose prompt is being computed will soon put more of this one's into the tree."""
        if sequence.urgent or sequence.reads_prompt or self.limits.cache is Cache.OFF:
            return False
        self.waiting.look(sequence)
        length = sequence.shared_tokens + self.pages.size
        return length <= len(sequence.matchable) and any(
            other.key == sequence.key and other.tokens[:length] == sequence.tokens[:length]
            for other in filling
            if other.state is State.RUNNING
        )

    def _place(self, sequence: Sequence) -> bool:
        """Lets a sequence run, in the place of some of smaller priority if need be; returns whether it does."""
        while not self._fit(sequence):
            last = self.running[-1]
            if last.urgent or last.request.priority >= sequence.request.priority:
                return False
            self.retract(last)
        self.waiting.remove(sequence)
        sequence.state, sequence.slot = State.RUNNING, self._slots.pop()
        bisect.insort(self.running, sequence, key=_rank)
        return True

    def _fit(self, sequence: Sequence) -> bool:
        """Gives a waiting sequence pages for its known tokens, shared ones first; returns whether there were enough."""
        if len(self.running) >= self.limits.max_running:
            return False
        shared: list[int] = []
        node = None
        if self.limits.cache is Cache.ON:
            shared, node = self.tree.match(sequence.key, () if sequence.reads_prompt else sequence.matchable)
            self.tree.lock(node)
        lacking = self.pages.needed(len(sequence.tokens)) - len(shared)
        room = self.pages.available + self.tree.evictable_pages
        if lacking + (self._promised(sequence) if self.running else 0) > room:
            if node is not None:
                self.tree.unlock(node)
            return False
        self.pages.hold(shared)
        self.tree.evict(lacking - self.pages.available)
        sequence.pages = shared + self.pages.take(lacking)
        sequence.node, sequence.stored_tokens = node, len(shared) * self.pages.size
        sequence.computed = sequence.stored_tokens
        if not sequence.retracted:
            sequence.cached_tokens = sequence.computed
        return True

    def _promised(self, sequence: Sequence) -> int:
        """Returns how many pages to keep free for what this sequence and the running ones may generate."""
        left = sum(other.most_tokens - len(other.tokens) for other in self.running)
        left += sequence.most_tokens - len(sequence.tokens)
        return math.ceil(self._reserve * left / self.pages.size)

    def _share(self, sequence: Sequence) -> None:
        """Puts the full pages of a running sequence into the tree, for later steps.

        Not where the tree has got them from another: a sequence must hold all that it locks, and
        without the lock the tree could not tell its pages from those that it may evict.
        """
        node, start = sequence.node, sequence.stored_tokens
        full = min(sequence.computed, len(sequence.tokens)) // self.pages.size
        stop = full * self.pages.size
        if node is None or stop <= start:
            return
        new = self.tree.extend(
            node, tuple(sequence.tokens[start:stop]), sequence.pages[start // self.pages.size : full]
        )
        if new is not None:
            self.tree.lock(new)
            self.tree.unlock(node)
            sequence.node, sequence.stored_tokens = new, stop

    def _leave(self, sequence: Sequence) -> None:
        """Takes a sequence's place, keeps its full pages in the tree and lets go of all."""
        if sequence.node is not None:
            start, size = sequence.stored_tokens, self.pages.size
            full = min(sequence.computed, len(sequence.tokens)) // size
            tokens = tuple(sequence.tokens[start : full * size])
            self.tree.insert(sequence.node, tokens, sequence.pages[start // size : full])
            self.tree.unlock(sequence.node)
        self.pages.release(sequence.pages)
        self.running.remove(sequence)
        self._slots.append(sequence.slot)
        sequence.pages, sequence.node, sequence.slot = [], None, -1
        sequence.computed = sequence.stored_tokens = 0


def _rank(sequence: Sequence) -> tuple[bool, int, int]:
    """Orders running sequences, those to be retracted last first."""
    return not sequence.urgent, -sequence.request.priority, sequence.arrival
