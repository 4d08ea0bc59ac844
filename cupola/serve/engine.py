"""The engine: many requests at once on one model, from submission to the last piece.

One thread owns the scheduler and the device; whoever submits only leaves a note in its inbox. While a
step runs, the thread plans the next one and deals with the results of the one before.
Not here: what a step computes (`schedule.py`, `run.py`), one request's tokens and texts (`job.py`).
Invariant: every accepted request gets exactly one last piece, also when the engine fails or closes.
"""

import collections
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from cupola.core.errors import CupolaError
from cupola.core.module import Tree
from cupola.data.tokenizer import Tokenizer
from cupola.models.decoder import Decoder
from cupola.serve.adapters import Adapters, Factors
from cupola.serve.admit import admit, check_queue
from cupola.serve.draft import draft_of
from cupola.serve.errors import InvalidRequest, Unavailable
from cupola.serve.generator import Stats
from cupola.serve.grammar import Grammars
from cupola.serve.job import Job, draws_of
from cupola.serve.options import Options, WarmUp
from cupola.serve.request import Reason, Receive, Request, Task
from cupola.serve.rows import Settings
from cupola.serve.run import Begun, Launched, Runner
from cupola.serve.schedule import Scheduler
from cupola.serve.sequence import Row, Sequence, State
from cupola.serve.shapes import Shape
from cupola.serve.weights import for_serving, least_rows

logger = logging.getLogger(__name__)

TOP = 20
"""How many of the likeliest tokens a step finds where any request asks for some."""
JUMP_LEAST, JUMP_SHARE = 3, 2
"""A grammar's forced tokens are computed at once, like a prompt, if there are three, and two for each that runs.

That takes a wider step, for which all that decode wait; fewer tokens are drawn sooner with theirs.
"""
JUMP_PADDING = 8
"""Before a request runs they join its prompt, unless each of them would bring more tokens of padding than these."""
IDLE_SECONDS = 0.5
"""Without work the engine looks that often whether a request's time is over."""


class Engine:
    """Generates for many requests at once; use it in a `with` block, or call `start` and `close`.

    Args:
        model: as in training.
        params: its parameters, stacked or cut into layers.
        tokenizer: of the model.
        options: how much memory, how many requests, how prefixes are kept.
        stop_tokens: that end a text, for grammars; empty: the tokenizer's end.
        draft: a smaller model of the same tokens and its parameters, for SpeculationKind.DRAFT.

    Raises:
        ConfigError: the options do not fit the model, the draft model or the memory.
    """

    def __init__(
        self,
        model: Decoder,
        params: Tree,
        tokenizer: Tokenizer,
        options: Options = Options(),
        *,
        stop_tokens: Iterable[int] = (),
        draft: tuple[Decoder, Tree] | None = None,
    ):
        tokenizer.check_vocabulary(model.vocabulary)
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.limits, self._vocabulary = options.limits(model, draft and draft[0]), tokenizer.vocabulary
        self._adapters = Adapters(options.adapters, options.adapter_rank) if options.adapters else None
        formed = for_serving(model, params, join=self._adapters is None)
        self.shapes = options.shapes(least_rows(formed))
        self._runner = Runner(
            model,
            formed,
            shapes=self.shapes,
            pages=self.limits.pages,
            page_size=self.limits.page_size,
            max_length=self.limits.max_length,
            vocabulary=self._vocabulary,
            adapters=self._adapters,
        )
        self._draft = draft_of(draft, options.speculation, self.shapes, self.limits, self._vocabulary)
        self._grammars = Grammars(tokenizer, model.vocabulary, stop_tokens)
        self._scheduler = Scheduler(self.limits, vocabulary=self._vocabulary)
        self._jobs: dict[Sequence, Job] = {}
        self._drawing: list[tuple[Row, Job]] = []
        self._inbox: collections.deque[Callable[[], None]] = collections.deque()
        self._arriving = 0
        self._ids: set[str] = set()
        self._wake = threading.Condition()
        self._closing = self._stopped = False
        self._counts: collections.Counter[str] = collections.Counter()
        self._finished: collections.Counter[str] = collections.Counter()
        self._seconds = {"step": 0.0, "schedule": 0.0}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._compiler = threading.Thread(target=self._compile_rest, name="engine-compiler", daemon=True)
        self.failure: BaseException | None = None

    def __enter__(self) -> "Engine":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, progress: Callable[[Shape, int, int], Any] = lambda *_: None) -> None:
        """Compiles the steps that every plan fits, and begins; the other shapes are compiled while it serves.

        Args:
            progress: called before each compilation with its shape, its number and how many there are.
        """
        for number, shape in enumerate(self.shapes.essential):
            progress(shape, number, len(self.shapes.essential))
            self._compile(shape)
        self._thread.start()
        self._compiler.start()

    def wait_compiled(self) -> None:
        """Waits until all shapes are compiled; a measurement should begin only then."""
        self._compiler.join()

    def close(self, grace_seconds: float = 0.0) -> None:
        """Refuses new requests, waits for those that run, then ends the rest with Reason.ABORT."""
        with self._wake:
            self._closing = True
            self._wake.wait_for(lambda: not self._ids or self._stopped, grace_seconds)
            self._stopped = True
            self._wake.notify_all()
        for thread in (self._thread, self._compiler):
            if thread.is_alive():
                thread.join()

    def submit(self, request: Request, receive: Receive) -> None:
        """Queues a request; `receive` gets its pieces on the engine's thread.

        Raises:
            RequestError: it cannot be served; then `receive` is never called.
        """
        adapters = self._adapters.numbers if self._adapters is not None else ()
        admit(request, self.limits, vocabulary=self._vocabulary, adapters=adapters)
        job = self._job(request, receive)
        with self._wake:
            if self.failure is not None:
                raise Unavailable(f"the engine has failed: {self.failure}", remedy="Restart the server.")
            if self._closing:
                raise Unavailable("the server is shutting down", remedy="Try again in a moment.", retry_after_seconds=5)
            if request.id in self._ids:
                raise InvalidRequest(
                    f"a request {request.id!r} is being served", where="id", remedy="Give each request its own id."
                )
            check_queue(len(self._scheduler.waiting) + self._arriving, self.limits)
            self._ids.add(request.id)
            self._arriving += 1
            self._inbox.append(lambda: self._enqueue(job))
            self._wake.notify_all()

    def abort(self, request_id: str) -> None:
        """Ends a request with Reason.ABORT; nothing happens where it has ended already."""
        self._post(lambda: self._end_by_id(request_id, Reason.ABORT))

    def load_adapter(self, name: str, factors: Factors) -> None:
        """Makes a low-rank adapter available under a name; running requests are not disturbed.

        Raises:
            InvalidRequest: the engine has no place for adapters, or it does not fit the model.
        """
        adapters = self._with_adapters()

        def load() -> None:
            adapters.load(name, factors, self._runner.params)
            self._runner.refresh()
            self._scheduler.adapters.add(name)

        self._ask(load)

    def unload_adapter(self, name: str) -> None:
        """Takes an adapter away; requests that use it end with an error, its cached prefixes are forgotten.

        Raises:
            NotFound: there is none of that name.
        """
        adapters = self._with_adapters()

        def unload() -> None:
            adapters.unload(name)
            self._scheduler.adapters.discard(name)
            gone = InvalidRequest(f"adapter {name!r} was unloaded", where="model", remedy="Load it again.")
            for job in [job for job in self._jobs.values() if job.request.adapter == name]:
                self._end(job, Reason.ERROR, gone)
            self._scheduler.clear(name)
            self._runner.refresh()

        self._ask(unload)

    def update(self, params: Tree) -> None:
        """Takes other weights of the same model from the next step on, and forgets all cached prefixes.

        Running requests go on with the new weights and compute their tokens anew.
        """
        formed = for_serving(self.model, params, join=self._adapters is None)

        def replace() -> None:
            self._runner.replace(formed)
            self._scheduler.clear()
            for sequence in tuple(self._scheduler.running):
                self._scheduler.retract(sequence)

        self._ask(replace)

    def forget(self) -> None:
        """Forgets all cached prefixes."""
        self._ask(self._scheduler.clear)

    def stats(self) -> Stats:
        """Returns what it is doing, at once, whatever step is running."""
        pages, tree = self._scheduler.pages, self._scheduler.tree
        free, cached = pages.available, tree.evictable_pages
        return Stats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting) + self._arriving,
            pages=pages.count - 1,
            pages_used=pages.count - 1 - free - cached,
            pages_cached=cached,
            retractions=self._scheduler.retractions,
            finished=dict(self._finished),
            step_seconds=self._seconds["step"],
            schedule_seconds=self._seconds["schedule"],
            **self._counts,
        )

    def _with_adapters(self) -> Adapters:
        if self._adapters is None:
            raise InvalidRequest(
                "this engine has no place for adapters",
                remedy="Start the server with --adapters 8, or how many you need.",
            )
        return self._adapters

    def _job(self, request: Request, receive: Receive) -> Job:
        seed = request.sampling.seed
        settings = Settings(
            request.sampling, seed=secrets.randbits(63) if seed is None else seed, vocabulary=self._vocabulary
        )
        matcher = None if request.grammar is None else self._grammars.compile(request.grammar)
        proposer = self.options.speculation.proposer() if request.task is Task.GENERATE else None
        return Job(request, receive, self.tokenizer, settings, matcher, proposer)

    def _post(self, note: Callable[[], None]) -> None:
        with self._wake:
            self._inbox.append(note)
            self._wake.notify_all()

    def _ask(self, work: Callable[[], None]) -> None:
        """Has the engine's thread do something between two steps, and waits for it."""
        done: Future[None] = Future()

        def note() -> None:
            try:
                work()
                done.set_result(None)
            except Exception as error:
                done.set_exception(error)

        if self._thread.is_alive():
            self._post(note)
        else:
            note()
        done.result()

    # From here on: the engine's thread.

    def _run(self) -> None:
        flying: Launched | None = None
        try:
            while self._await_work(flying is not None):
                started = time.perf_counter()
                if flying is not None and any(sequence.needs_sync for sequence in self._scheduler.running):
                    self._land(flying)
                    flying = None
                begun = self._begin()
                if flying is not None:
                    self._land(flying)
                flying = None if begun is None else self._draw(begun)
                self._seconds["step"] += time.perf_counter() - started
        # Whatever it is, those who wait must hear of it.
        except BaseException as error:
            logger.exception("the engine has failed")
            self.failure = error
        self._end_all()

    def _await_work(self, flying: bool) -> bool:
        """Deals with notes and expired requests; returns False when it is time to stop."""
        with self._wake:
            idle = not (flying or self._scheduler.running or self._scheduler.waiting)
            if idle and not self._inbox and not self._stopped:
                self._wake.wait(IDLE_SECONDS)
            notes, self._inbox = self._inbox, collections.deque()
        for note in notes:
            note()
        for sequence in self._scheduler.expired(time.monotonic()):
            self._end(self._jobs[sequence], Reason.TIMEOUT)
        return not self._stopped

    def _enqueue(self, job: Job) -> None:
        self._arriving -= 1
        try:
            sequence = self._scheduler.submit(job.request, now_seconds=time.monotonic())
        except CupolaError as error:  # Its adapter has gone since it was admitted.
            self._tell(job, Reason.ERROR, error)
            return
        job.sequence = sequence
        self._jobs[sequence] = job
        self._jump(job)

    def _begin(self) -> Begun | None:
        """Plans a step and begins its forward."""
        started = time.perf_counter()
        for sequence in self._scheduler.running:
            job = self._jobs[sequence]
            if job.proposer is not None and not sequence.in_flight:
                sequence.draft = job.proposer.propose(sequence.tokens, self.options.speculation.count)
        plan = self._scheduler.plan()
        self._seconds["schedule"] += time.perf_counter() - started
        if plan is None:
            return None
        self._counts["steps"] += 1
        if self._draft is not None:
            plan = self._draft.step(plan, [self._jobs[row.sequence].settings for row in plan.decodes])
        self._drawing = [(row, self._jobs[row.sequence]) for row in plan.rows if row.draws]
        return self._runner.begin(plan)

    def _draw(self, begun: Begun) -> Launched:
        """Begins the draws of a step; what the step before drew has been taken in."""
        draws = draws_of(
            self._drawing,
            begun.shape.draws,
            vocabulary=self.model.vocabulary,
            failed=lambda job, error: self._end(job, Reason.ERROR, error),
        )
        asked = any(job.request.top_logprobs for _, job in self._drawing)
        return self._runner.draw(begun, draws, top=TOP if asked else 0)

    def _land(self, launched: Launched) -> None:
        """Takes in the results of a step."""
        for row, drawn in launched.rows():
            sequence = row.sequence
            if sequence.state is State.FINISHED:
                continue
            job = self._jobs[sequence]
            try:
                self._take_in(launched, row, job, drawn)
            except CupolaError as error:  # A grammar that took too much work.
                self._end(job, Reason.ERROR, error)

    def _take_in(self, launched: Launched, row: Row, job: Job, drawn: list[Any]) -> None:
        sequence, request = row.sequence, job.request
        if sequence.reads_prompt and row in launched.plan.chunks and row.start < sequence.prompt_tokens:
            wanted = request.top_logprobs or 0
            scored = self._runner.scores(launched, row, top=wanted) if request.task is not Task.EMBED else []
            job.read(row.start, scored, launched.states_of(row) if request.task is Task.EMBED else None)
        if not row.draws:
            self._scheduler.commit(row, [])
            if row.stop >= sequence.most_tokens:
                self._end(job)
            return
        self._scheduler.commit(row, job.draw(row, drawn))
        if job.ended:
            self._end(job)
        else:
            self._jump(job)

    def _jump(self, job: Job) -> None:
        """Adds the tokens that a grammar forces, so that no step draws them; later, where one is being drawn."""
        sequence = job.sequence
        if sequence is None:
            return
        # The token in flight is the first of those that are forced.
        least = max(JUMP_LEAST, JUMP_SHARE * len(self._scheduler.running)) + sequence.in_flight
        forced = job.forced(least)
        if sequence.state is State.WAITING:
            known, padded = len(sequence.tokens), self.limits.padded_tokens
            if padded(known + len(forced)) - padded(known) > JUMP_PADDING * len(forced):
                forced = []
        sequence.needs_sync = job.needs_sync or bool(forced and sequence.in_flight)
        if forced and not sequence.in_flight:
            self._scheduler.extend(sequence, job.jump(forced))
        if job.ended:
            self._end(job)

    def _end_by_id(self, request_id: str, reason: Reason) -> None:
        sequence = self._scheduler.find(request_id)
        if sequence is not None:
            self._end(self._jobs[sequence], reason)

    def _end(self, job: Job, reason: Reason | None = None, error: Exception | None = None) -> None:
        if job.sequence is not None:
            self._scheduler.finish(job.sequence)
            del self._jobs[job.sequence]
        self._tell(job, reason, error)

    def _tell(self, job: Job, reason: Reason | None, error: Exception | None = None) -> None:
        finish = job.finish(reason, error)
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "drafted_tokens", "accepted_tokens"):
            self._counts[name] += getattr(finish.usage, name)
        self._finished[finish.reason.value] += 1
        with self._wake:
            self._ids.discard(job.request.id)
            self._wake.notify_all()

    def _end_all(self) -> None:
        """Ends what is left when the thread ends, and does what was noted meanwhile."""
        with self._wake:
            self._closing = self._stopped = True
            notes, self._inbox = self._inbox, collections.deque()
        for note in notes:
            note()
        failed = None if self.failure is None else Unavailable(f"the engine has failed: {self.failure}")
        for job in list(self._jobs.values()):
            self._end(job, Reason.ABORT if failed is None else Reason.ERROR, failed)

    def _compile_rest(self) -> None:
        """Compiles the shapes that are not essential, one after the other, while the engine serves."""
        for shape in self.shapes.all:
            if self._stopped or self.options.warm_up is not WarmUp.ALL:
                return
            if shape not in self._runner.ready:
                self._compile(shape)

    def _compile(self, shape: Shape) -> None:
        self._runner.compile(shape)
        if self._draft is not None:
            self._draft.compile(shape)
