"""What a program says whatever its arguments: its function run on symbols, up to the first that is not constant.

Not here: the run itself (`definition.py`).
Invariant: nothing is generated, and what is returned is only ever a hint of what to compute ahead.
Source: tracing and prefix caching ahead of a batch, SGLang, arXiv 2312.07104, section 2 and appendix.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from cupola.serve.program.executor import Body, Executor
from cupola.serve.program.expression import Close, Expression, Open, Text
from cupola.serve.program.state import State
from cupola.serve.program.transcript import Transcript

_MARK = "\ufdd0"
"""A character that no text may hold: what follows it in a traced text depends on an argument."""


class _Stop(BaseException):
    """Ends a trace; no `except Exception` of the program catches it."""


def _stop(*_: Any, **__: Any) -> Any:
    raise _Stop


@dataclasses.dataclass(frozen=True, eq=False)
class Argument(Expression):
    """Stands for an argument of a program whose value is not known yet.

    It can be added to text and put into an f-string; whatever else is done with it ends the trace.
    """

    name: str

    def __str__(self) -> str:
        return _MARK

    def __format__(self, form: str) -> str:
        return _MARK

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _stop
    __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = __call__ = __getattr__ = _stop
    __int__ = __float__ = __index__ = __mul__ = __rmul__ = __mod__ = __sub__ = __truediv__ = _stop


class _Tracer(Executor):
    """Writes down constant text and stops at anything else."""

    def __init__(self):
        super().__init__(None, None, Body())

    def append(self, primitive: Expression, place: str) -> None:
        if isinstance(primitive, Open):
            self._change(lambda t: t.opened(primitive.role))
        elif isinstance(primitive, Close):
            self._change(lambda t: t.closed())
        elif isinstance(primitive, Text):
            constant, mark, _ = primitive.text.partition(_MARK)
            self._change(lambda t: t.written(constant))
            if mark:
                raise _Stop
        else:
            raise _Stop

    open_scope = close_scope = fork = gather = concatenate = variable = wait = _stop

    @property
    def traced(self) -> Transcript:
        return self._transcript


def trace(function: Callable[..., Any], names: tuple[str, ...], known: Mapping[str, Any]) -> Transcript:
    """Returns what a program's function says before anything depends on an argument or on a model.

    Args:
        function: takes a state and the arguments; it is run once, with its side effects.
        names: of its arguments.
        known: values of those that are constant too.
    """
    tracer = _Tracer()
    try:
        function(State(tracer), **{name: known.get(name, Argument(name)) for name in names})
    except _Stop:
        pass
    # A program need not cope with symbols: what it said before it failed is constant all the same.
    except Exception:
        return tracer.traced
    return tracer.traced
