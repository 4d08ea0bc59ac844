"""A model that reads its whole context back from pages of paper, and an engine's loop around the scheduler.

A wrong page, a stale page, a wrong position or a leak between owners changes what is generated, or
raises. Not here: what is expected of it (`test_schedule*.py`).
"""

import collections
import zlib

from cupola.serve.schedule import Scheduler

VOCABULARY = 16
STOP = 15


def following(tokens, adapter=None):
    """Returns what follows these tokens: it depends on each of them."""
    return zlib.crc32(bytes(tokens), zlib.crc32((adapter or "").encode())) % VOCABULARY


def continuation(request):
    """Returns what the model generates for a request that has it for itself."""
    tokens = list(request.prompt)
    while len(tokens) - len(request.prompt) < request.limit_tokens:
        tokens.append(following(tokens, request.adapter))
        if tokens[-1] == STOP:
            break
    return tokens[len(request.prompt) :]


class Device:
    """Runs plans in the order in which they are launched."""

    def __init__(self, size):
        self.size, self.steps = size, 0
        self.cells = {}  # (page, place): (owner, token, step, writer)
        self.drawn = {}  # slot: token

    def launch(self, plan):
        """Returns [(row, tokens)]; what a page table and the tokens are is read now."""
        self.steps += 1
        owners = [row.sequence for row in plan.rows]
        assert len(set(owners)) == len(owners), "a sequence has two rows"
        return [(row, self._run(row)) for row in plan.rows]

    def _run(self, row):
        sequence = row.sequence
        if row.unknown:
            assert row.count == 1
            tokens = [self.drawn[sequence.slot]]
        else:
            tokens = row.tokens
        assert len(tokens) == row.count > 0
        for position, token in enumerate(tokens, row.start):
            page = sequence.pages[position // self.size]
            assert page > 0
            self.cells[page, position % self.size] = (sequence.key, token, self.steps, sequence)
        if not row.draws:
            return []
        context = [self._read(sequence, position) for position in range(row.stop)]
        accepted = []
        for i in range(len(row.draft) + 1):
            accepted.append(following(context[: row.stop - len(row.draft) + i], sequence.request.adapter))
            if i == len(row.draft) or row.draft[i] != accepted[-1]:
                break
        self.drawn[sequence.slot] = accepted[-1]
        return accepted

    def _read(self, sequence, position):
        owner, token, step, writer = self.cells[sequence.pages[position // self.size], position % self.size]
        assert owner == sequence.key, "a page of another owner"
        assert step < self.steps or writer is sequence, "a page that another row of the same step writes"
        return token


class Engine:
    """Submits, steps and answers, as the real one does; `depth` steps are in flight at most."""

    def __init__(self, limits, depth=1, adapters=(), guess=None):
        self.scheduler = Scheduler(limits, vocabulary=VOCABULARY, adapters=adapters)
        self.device = Device(limits.page_size)
        self.depth, self.guess = depth, guess
        self.flight = collections.deque()
        self.answers = collections.defaultdict(list)
        self.cached = {}

    def submit(self, request, **options):
        sequence = self.scheduler.submit(request, **options)
        sequence.needs_sync = sequence.needs_sync or self.guess is not None
        return sequence

    def end(self, sequence, why):
        self.cached[sequence.request.id] = sequence.cached_tokens
        self.answers[sequence.request.id].append((why, sequence.generated))
        self.scheduler.finish(sequence)

    def step(self):
        """Launches a step and commits the oldest where as many are in flight as may be; returns whether it did anything."""
        for sequence in self.scheduler.running if self.guess else ():
            if not sequence.in_flight:
                sequence.draft = self.guess(sequence)
        plan = self.scheduler.plan()
        if plan is not None:
            self.flight.append(self.device.launch(plan))
        busy = bool(self.flight)
        if self.flight and (plan is None or len(self.flight) >= self.depth):
            for row, tokens in self.flight.popleft():
                self.commit(row, tokens)
        return busy

    def commit(self, row, tokens):
        sequence, request = row.sequence, row.sequence.request
        if STOP in tokens:
            tokens = tokens[: tokens.index(STOP) + 1]
        alive = self.scheduler.find(request.id) is sequence
        self.scheduler.commit(row, tokens)
        if not alive:
            return
        if STOP in tokens or (len(sequence.tokens) == sequence.most_tokens and row.stop >= len(request.prompt)):
            self.end(sequence, "done")

    def drain(self, steps=5000):
        """Steps until nothing is left to do."""
        for _ in range(steps):
            if not self.step() and not self.scheduler.waiting:
                return
        raise AssertionError("the scheduler does not come to an end")

    def audit(self):
        self.scheduler.check()

    def audit_end(self):
        scheduler = self.scheduler
        self.audit()
        assert not scheduler.running
        assert not scheduler.waiting
        assert scheduler.pages.available + scheduler.tree.evictable_pages == scheduler.limits.pages - 1
