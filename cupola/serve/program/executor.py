"""One executor for one state: primitives are queued, done in order, and waited for only when fetched.

Not here: the words that a program is written in (`state.py`, `expression.py`).
Invariant: after an error nothing more is done, and everybody who waits or will wait gets that error.
Source: the interpreter of SGLang, arXiv 2312.07104, section 2.
"""

import collections
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from cupola.config.suggest import did_you_mean
from cupola.core.errors import CupolaError
from cupola.serve.program.backend import Call, Session
from cupola.serve.program.choose import choose
from cupola.serve.program.errors import ProgramError
from cupola.serve.program.expression import REASONING, Close, Expression, Gen, Open, Select, Text, separated
from cupola.serve.program.transcript import Role, Transcript
from cupola.serve.program.variable import Result, Variable
from cupola.serve.request import Finish, Reason, Sampling, Token

logger = logging.getLogger(__name__)

Change = Callable[[Transcript], Transcript]
Fail = Callable[[BaseException], None]


class Body:
    """The run of a program's function, which decides whether more can still be added to its states."""

    def __init__(self):
        self.changed = threading.Condition()
        self.thread: int | None = None
        """The thread of its own that it runs on, as long as it does."""
        self.error: BaseException | None = None

    def may_add(self) -> bool:
        """Whether someone other than the thread that asks may add to a state."""
        return self.thread not in (None, threading.get_ident())

    def end(self, error: BaseException | None) -> None:
        """Notes that the function has returned, or what it raised."""
        with self.changed:
            self.thread, self.error = None, error
            self.changed.notify_all()


class Executor:
    """Does a state's primitives, one after the other, on a thread that lives while there are any.

    Args:
        session: of the back-end; None: a branch, which gets its own with the transcript.
        sampling: where a `gen` says nothing; None: as the back-end has it.
        body: of the run that the state belongs to.
    """

    def __init__(self, session: Session | None, sampling: Sampling | None, body: Body):
        self._session, self._sampling, self.body = session, sampling, body
        self._transcript = Transcript()
        self._variables: dict[str, Variable] = {}
        self._own: list[str] = []  # names announced here, not in the state that this one was forked from
        self._changes: list[Change] = []  # made here, likewise
        self._tasks: collections.deque[tuple[Callable[[], None], Fail, str]] = collections.deque()
        self._idle = threading.Condition()
        self._busy = False
        self._error: BaseException | None = None

    def append(self, primitive: Expression, place: str) -> None:
        """Queues a primitive and announces the variables that it will fill in.

        Args:
            primitive: one of those that `Expression.primitives` yields.
            place: where in the program, for errors.
        """
        if isinstance(primitive, Text):
            self._submit(lambda: self._change(lambda t: t.written(primitive.text)), place)
        elif isinstance(primitive, Open):
            self._submit(lambda: self._change(lambda t: t.opened(primitive.role)), place)
        elif isinstance(primitive, Close):
            self._submit(lambda: self._change(lambda t: t.closed()), place)
        elif isinstance(primitive, Gen):
            made = self._announce(primitive.name)
            thoughts = self._announce(f"{primitive.name}{REASONING}" if primitive.reasoning else None)
            self._submit(
                lambda: self._generate(primitive, made, thoughts), f"{place}, gen {primitive.name!r}", made, thoughts
            )
        elif isinstance(primitive, Select):
            made = self._announce(primitive.name)
            self._submit(lambda: self._select(primitive, made), f"{place}, select {primitive.name!r}", made)
        else:
            raise ProgramError(
                f"{primitive!r} stands for what is known only in a run", where=place, remedy="Use it in `trace` alone."
            )

    def open_scope(self) -> "Future[int]":
        """Returns what will be the length of the text so far."""
        begin: Future[int] = Future()
        self._submit(lambda: begin.set_result(len(self._transcript.text)), "var_scope", fail=begin.set_exception)
        return begin

    def close_scope(self, name: str, begin: "Future[int]", place: str) -> None:
        """Announces a variable that takes all text since `begin`."""
        made = self._announce(name)
        self._submit(lambda: made.end(Result(self._transcript.text[begin.result() :])), place, made)

    def fork(self, count: int, place: str) -> list["Executor"]:
        """Returns branches that go on from here, each on its own; they wait until this one has come so far."""
        branches = [Executor(None, self._sampling, self.body) for _ in range(count)]
        ready: Future[tuple[Transcript, list[Session]]] = Future()

        def part() -> None:
            session = self._ready()
            if count > 1:
                # Without it each branch would ask before any other has left the prefix to be found.
                hint(session, self._transcript)
            ready.set_result((self._transcript, [session.fork() for _ in range(count)]))

        def inherit(branch: Executor, index: int) -> None:
            try:
                branch._transcript, sessions = ready.result()
            except BaseException as error:
                raise _Placed(error) from None
            branch._session = sessions[index]

        self._submit(part, f"{place}, fork", fail=ready.set_exception)
        for index, branch in enumerate(branches):
            branch._variables = dict(self._variables)
            branch._submit(lambda branch=branch, index=index: inherit(branch, index), place)
        return branches

    def gather(self, branches: Sequence["Executor"], place: str) -> None:
        """Announces, for each variable of the branches, one that takes the list of theirs."""
        names = list(dict.fromkeys(name for branch in branches for name in branch._own))
        made = {name: self._announce(name) for name in names}
        theirs = {name: [b._variables[name] for b in branches if name in b._own] for name in names}

        def wait() -> None:
            _wait_for(branches)
            for name, variable in made.items():
                variable.end([one for each in theirs[name] for one in _listed(each.wait())])

        self._submit(wait, f"{place}, join", *made.values())

    def concatenate(self, branches: Sequence["Executor"], place: str) -> None:
        """Queues to add what each branch has said since it was forked, the first branch's first."""

        def wait() -> None:
            _wait_for(branches)
            for change in [change for branch in branches for change in branch._changes]:
                self._change(change)

        self._submit(wait, f"{place}, join")

    def variable(self, name: str) -> Variable:
        """Returns a variable that was announced, or will be by a function that still runs.

        Raises:
            ProgramError: there is none and none can come.
        """
        with self.body.changed:
            self.body.changed.wait_for(lambda: name in self._variables or not self.body.may_add())
            if name in self._variables:
                return self._variables[name]
            if self.body.error is not None:
                raise self.body.error
        raise ProgramError(f"there is no variable {name!r}", remedy=did_you_mean(name, self._variables))

    def names(self) -> list[str]:
        """The variables that were announced so far."""
        return list(self._variables)

    def wait(self) -> Transcript:
        """Returns the transcript once everything queued is done, or raises the error."""
        with self.body.changed:
            self.body.changed.wait_for(lambda: not self.body.may_add())
        with self._idle:
            self._idle.wait_for(lambda: not self._busy)
        error = self._error or self.body.error
        if error is not None:
            raise error
        return self._transcript

    def _announce(self, name: str | None) -> Variable:
        made = Variable()
        if name is not None:
            with self.body.changed:
                self._variables[name] = made
                self._own.append(name)
                self.body.changed.notify_all()
        return made

    def _submit(self, task: Callable[[], None], place: str, *made: Variable, fail: Fail | None = None) -> None:
        """Queues a task; what it makes, or `fail`, is told of an error in it or before it."""

        def failed(error: BaseException) -> None:
            for variable in made:
                variable.end(error)
            if fail is not None:
                fail(error)

        with self._idle:
            self._tasks.append((task, failed, place))
            if self._busy:
                return
            self._busy = True
        threading.Thread(target=self._drain, name="cupola-program", daemon=True).start()

    def _drain(self) -> None:
        while True:
            with self._idle:
                if not self._tasks:
                    self._busy = False
                    self._idle.notify_all()
                    return
                task, failed, place = self._tasks.popleft()
            if self._error is None:
                try:
                    task()
                # Whatever it is, it belongs to whoever fetches, not to this thread.
                except BaseException as error:
                    self._error = _placed(error, place)
            if self._error is not None:
                failed(self._error)

    def _change(self, change: Change) -> None:
        self._transcript = change(self._transcript)
        self._changes.append(change)

    def _ready(self) -> Session:
        if self._session is None:
            raise RuntimeError("a branch was used before it had come into being")
        return self._session

    def _check_speaker(self) -> None:
        role = self._transcript.open.role if self._transcript.open else None
        if role in (Role.SYSTEM, Role.USER) or (self._transcript.turns and self._transcript.open is None):
            where = "after turns that are closed" if role is None else f"in a turn of the {role.value}"
            raise ProgramError(f"a model cannot speak {where}", remedy="Put it into one of its own: assistant(...).")

    def _generate(self, place: Gen, made: Variable, thoughts: Variable) -> None:
        self._check_speaker()
        sampling = place.sampling(self._sampling)
        call = Call(place.limit_tokens, sampling, place.stop, place.grammar, place.top_logprobs)
        texts: list[str] = []
        tokens: list[Token] = []
        finish: Finish | None = None
        for piece in self._ready().generate(self._transcript, call):
            texts.append(piece.text)
            tokens.extend(piece.tokens)
            finish = piece.finish
            if piece.text and not place.reasoning:
                made.add(piece.text)
        text, ids = "".join(texts), tuple(token.id for token in tokens)
        if finish is None or finish.reason in (Reason.ERROR, Reason.ABORT, Reason.TIMEOUT):
            raise _broken(finish)
        if place.reasoning:
            thought, text = separated(text, place.reasoning)
            ids = ()
            thoughts.add(thought)
            made.add(text)
            thoughts.end(Result(thought))
        self._change(lambda t: t.generated(text, ids))
        made.end(Result(text, tuple(tokens), finish.reason, finish.usage))

    def _select(self, place: Select, made: Variable) -> None:
        self._check_speaker()
        scores = self._ready().score(self._transcript, place.choices, place.method)
        best = choose(scores, place.method)
        self._change(lambda t: t.generated(place.choices[best], scores[best].tokens))
        made.add(place.choices[best])
        made.end(Result(place.choices[best], scores=scores))


def hint(session: Session, prefix: Transcript) -> None:
    """Has a prefix computed; what is wrong with it is told by whoever goes on from it."""
    try:
        session.cache(prefix)
    except CupolaError as error:
        logger.warning("a common prefix was not computed ahead: %s", error)


class _Placed(Exception):
    """Carries an error that already says where it happened out of a task."""


def _placed(error: BaseException, place: str) -> BaseException:
    if isinstance(error, _Placed):
        return error.args[0]
    if isinstance(error, CupolaError):
        where = f"{place}, {error.where}" if error.where else place
        placed = type(error)(error.problem, where=where, remedy=error.remedy)
        placed.__cause__ = error
        return placed
    error.add_note(f"in a program, at {place}")
    return error


def _broken(finish: Finish | None) -> Exception:
    if finish is not None and finish.error is not None:
        return finish.error
    why = "without an end" if finish is None else f"with {finish.reason.value!r}"
    return ProgramError(f"the back-end stopped {why}", remedy="Run it again; the engine's log says more.")


def _wait_for(branches: Sequence[Executor]) -> None:
    for branch in branches:
        with branch._idle:
            branch._idle.wait_for(lambda branch=branch: not branch._busy)
        if branch._error is not None:
            raise _Placed(branch._error)


def _listed(result: Result | list[Result]) -> list[Result]:
    return result if isinstance(result, list) else [result]
