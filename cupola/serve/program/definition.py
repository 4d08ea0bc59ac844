"""Programs: functions that write on a state, run once, on many arguments, or in the background.

Not here: how a state works (`state.py`, `executor.py`), back-ends (`local.py`, `endpoint.py`).
"""

import concurrent.futures
import enum
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cupola.config.suggest import did_you_mean
from cupola.serve.program.backend import Backend
from cupola.serve.program.errors import ProgramError
from cupola.serve.program.executor import Body, Executor, hint
from cupola.serve.program.state import State
from cupola.serve.program.trace import trace
from cupola.serve.program.transcript import Transcript
from cupola.serve.request import Sampling

logger = logging.getLogger(__name__)

_TAKEN = ("backend", "sampling")


class Ahead(enum.Enum):
    """What is computed before a batch begins."""

    TRACED = "traced"
    """The text that all runs begin with, found by running the function once on symbols."""
    NOTHING = "nothing"


class Program:
    """A function whose first argument is a state; made by `program`.

    Raises:
        ProgramError: it takes no state, takes arguments without names, or names one as `run` names its own.
    """

    def __init__(self, function: Callable[..., Any]):
        functools.update_wrapper(self, function)
        self._function = function
        parameters = list(inspect.signature(function).parameters.values())
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
        if not parameters or any(p.kind in kinds for p in parameters[1:]):
            raise ProgramError(
                "a program takes a state and arguments with names",
                where=self.name,
                remedy=f"Write it as: def {self.name}(s, topic): ...",
            )
        self._parameters = {p.name: p for p in parameters[1:]}
        if taken := [name for name in _TAKEN if name in self._parameters]:
            raise ProgramError(
                f"{taken[0]!r} is what `run` calls its own argument",
                where=self.name,
                remedy=f"Give the program's argument another name than {' or '.join(_TAKEN)}.",
            )

    @property
    def name(self) -> str:
        """Of the function."""
        return getattr(self._function, "__name__", "program")

    def __call__(self, state: State, *arguments: Any, **named: Any) -> Any:
        """Goes on with a state inside another program, as the function would."""
        return self._function(state, *arguments, **named)

    def run(self, *, backend: Backend, sampling: Sampling | None = None, **arguments: Any) -> State:
        """Runs the function and returns its state, on which things may still be going on.

        Args:
            backend: generates.
            sampling: where a `gen` says nothing; None: as the back-end has it.
            arguments: of the function.

        Raises:
            ProgramError: an argument is missing or unknown.
            Exception: what the function raises; what it read from the state among it.
        """
        self._check(arguments)
        state = State(Executor(backend.session(), sampling, Body()))
        state.returned = self._function(state, **arguments)
        return state

    def start(self, *, backend: Backend, sampling: Sampling | None = None, **arguments: Any) -> State:
        """Returns a state at once, while the function runs on a thread of its own; else as `run`.

        What the function raises is raised by whoever reads from the state.
        """
        self._check(arguments)
        body = Body()
        state = State(Executor(backend.session(), sampling, body))
        began = threading.Event()

        def work() -> None:
            body.thread = threading.get_ident()
            began.set()
            try:
                state.returned = self._function(state, **arguments)
            except BaseException as error:
                body.end(error)
            else:
                body.end(None)

        threading.Thread(target=work, name=f"cupola-{self.name}", daemon=True).start()
        began.wait()
        return state

    def run_batch(
        self,
        batch: Sequence[Mapping[str, Any]],
        *,
        backend: Backend,
        sampling: Sampling | None = None,
        concurrency: int = 8,
        ahead: Ahead = Ahead.TRACED,
    ) -> list[State]:
        """Runs the function on each set of arguments and returns the finished states, in the same order.

        A run that fails does not end the others: its error is raised by reading from its state.

        Args:
            batch: arguments of each run.
            backend: generates.
            sampling: where a `gen` says nothing; None: as the back-end has it.
            concurrency: at most so many runs at the same time.
            ahead: what is computed before they begin.

        Raises:
            ProgramError: an argument is missing or unknown, or a concurrency below 1.
        """
        if concurrency < 1:
            raise ProgramError(f"concurrency={concurrency} runs nothing", where=self.name, remedy="Use 1 or more.")
        for index, arguments in enumerate(batch):
            self._check(arguments, f"batch[{index}]")
        if ahead is Ahead.TRACED and len(batch) > 1:
            self._cache(batch, backend)

        def one(arguments: Mapping[str, Any]) -> State:
            state = self.start(backend=backend, sampling=sampling, **arguments)
            try:
                state.wait()
            except BaseException:  # the state keeps it for whoever reads
                logger.debug("a run of %s failed", self.name, exc_info=True)
            return state

        with concurrent.futures.ThreadPoolExecutor(min(concurrency, max(1, len(batch)))) as pool:
            return list(pool.map(one, batch))

    def trace(self, **known: Any) -> Transcript:
        """Returns what the program says before anything depends on an argument or on a model.

        The function is run once, on symbols in the place of all arguments but `known`.
        """
        self._check_names(known)
        return trace(self._function, tuple(self._parameters), known)

    def _cache(self, batch: Sequence[Mapping[str, Any]], backend: Backend) -> None:
        first, *others = batch
        same = {name: value for name, value in first.items() if all(_same(o.get(name), value) for o in others)}
        prefix = self.trace(**self._defaults(batch), **same)
        if prefix.all:
            hint(backend.session(), prefix)

    def _defaults(self, batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        unset = {n: p.default for n, p in self._parameters.items() if p.default is not inspect.Parameter.empty}
        return {name: value for name, value in unset.items() if not any(name in one for one in batch)}

    def _check(self, given: Mapping[str, Any], where: str = "") -> None:
        self._check_names(given, where)
        missing = [n for n, p in self._parameters.items() if p.default is inspect.Parameter.empty and n not in given]
        if missing:
            raise ProgramError(
                f"{' and '.join(missing)} not given",
                where=f"{self.name} {where}".strip(),
                remedy=f"Give {missing[0]}=... to each run.",
            )

    def _check_names(self, given: Mapping[str, Any], where: str = "") -> None:
        for name in given:
            if name not in self._parameters:
                raise ProgramError(
                    f"there is no argument {name!r}",
                    where=f"{self.name} {where}".strip(),
                    remedy=did_you_mean(name, self._parameters),
                )


def program(function: Callable[..., Any]) -> Program:
    """Makes a function that writes on a state a program; used as a decorator.

    Raises:
        ProgramError: as `Program`.
    """
    return Program(function)


def _same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, str) and one == other)
