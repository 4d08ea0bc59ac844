"""The gate that every call comes through: who calls, whether it may, what it uses up, and how it ends.

Not here: the answers (`check.py`, `read.py`, ...), which are functions of a call and a message and know no gRPC.
Invariant: nothing is read or written for a caller who was not let in; a call ends with one status, and an error
that we did not foresee is logged here and told to nobody.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grpc
from google.protobuf.message import Message

from cupola.access.errors import AccessError, Late, StoreUnavailable
from cupola.access.graph import Graph
from cupola.access.server.grpc.status import Refusal, Unexpected, refusal_of
from cupola.access.server.identity import Authenticator, Identity, Role, bearer
from cupola.access.server.quota import Quota, Spending, Work

logger = logging.getLogger(__name__)


@runtime_checkable
class Lends(Protocol):
    """Lends the graph of a tenant."""

    def graph(self, tenant: str) -> contextlib.AbstractContextManager[Graph]:
        """Returns the graph, to be given back by leaving the context."""


class Served(NamedTuple):
    """A call that has ended, as metrics and the audit log want it.

    Args:
        method: such as `CheckPermission`.
        caller: None: was not let in.
        code: name of the gRPC status.
        seconds: that it took.
        request: message; None where the caller sends a stream of them.
        answer: message of a call that has one; None otherwise.
    """

    method: str
    caller: Identity | None
    code: str
    seconds: float
    request: Any
    answer: Any


class Call(NamedTuple):
    """What an answer may use.

    Args:
        graph: of the caller's tenant; its questions end when the caller waits no longer.
        caller: who was let in.
        gone: set when nobody waits for the answer any more.
        stopping: set when the server is about to end.
        charge: takes so much more from the caller's quota.
        pulse_seconds: between two signs of life of a stream that goes on for ever.
    """

    graph: Graph
    caller: Identity
    gone: threading.Event
    stopping: threading.Event
    charge: Callable[[int], None]
    pulse_seconds: float


class Method(NamedTuple):
    """How a method of the API is answered.

    Args:
        answer: of a call and a message, or an iterator of messages where the caller streams.
        role: that the caller needs.
        work: CALLS: one message; STREAMS: an iterator of messages, or a stream that the caller sends.
        spending: what it uses up.
        cost: of a message.
    """

    answer: Callable[[Call, Any], Any]
    role: Role = Role.READER
    work: Work = Work.CALLS
    spending: Spending = Spending.QUESTIONS
    cost: Callable[[Any], int] = lambda _: 1


class Gate:
    """Lets calls in.

    Args:
        graphs: of the tenants.
        authenticator: knows the callers.
        quota: of the tenants.
        observe: is told of every call that ended; must not raise.
        pulse_seconds: see `Call`.
    """

    def __init__(
        self,
        graphs: Lends,
        authenticator: Authenticator,
        quota: Quota,
        *,
        observe: Callable[[Served], None],
        pulse_seconds: float,
    ):
        self._graphs, self._authenticator, self._quota = graphs, authenticator, quota
        self._observe, self._pulse = observe, pulse_seconds
        self.stopping = threading.Event()

    def one(self, name: str, method: Method) -> Callable[[Any, grpc.ServicerContext], Any]:
        """Returns the handler of a method that answers with one message."""

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            ending = _Ending(name, request)
            try:
                with self._enter(method, request, context, ending) as call:
                    ending.answer = method.answer(call, request)
            # All that may happen: gRPC would tell the caller the text of whatever got past this.
            except Exception as error:
                ending.refuse(error)
            return self._end(ending, context)

        return handle

    def many(self, name: str, method: Method) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
        """Returns the handler of a method that answers with a stream."""

        def handle(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            ending = _Ending(name, request)
            try:
                with self._enter(method, request, context, ending) as call:
                    for answer in method.answer(call, request):
                        if call.gone.is_set():
                            break
                        yield answer
                    ending.left = call.gone.is_set()
            except Exception as error:
                ending.refuse(error)
            except GeneratorExit:
                # gRPC drops a stream whose caller has gone away.
                ending.left = True
                self._tell(ending)
                raise
            self._end(ending, context)

        return handle

    @contextlib.contextmanager
    def _enter(self, method: Method, request: Any, context: grpc.ServicerContext, ending: "_Ending") -> Iterator[Call]:
        gone = threading.Event()
        # What has waited for a thread until nobody wants it any more is not begun.
        if not context.add_callback(gone.set):
            raise Late("nobody waits for the answer", remedy="Give it more time.")
        sent: Any = dict(context.invocation_metadata())
        caller = self._authenticator.authenticate(bearer(sent.get("authorization")))
        ending.caller = caller
        caller.require(method.role)
        if self.stopping.is_set():
            raise StoreUnavailable("the server is shutting down", remedy="Send it again in a while.")

        def charge(amount: int) -> None:
            self._quota.spend(caller.tenant, method.spending, amount)

        with self._quota.working(caller.tenant, method.work):
            charge(method.cost(request))
            with self._graphs.graph(caller.tenant) as graph:
                left = context.time_remaining()
                bounded = graph if left is None else graph.within(left)
                yield Call(bounded, caller, gone, self.stopping, charge, self._pulse)

    def _end(self, ending: "_Ending", context: grpc.ServicerContext) -> Any:
        self._tell(ending)
        if ending.refusal is not None:
            context.abort_with_status(ending.refusal)
        return ending.answer

    def _tell(self, ending: "_Ending") -> None:
        seconds = time.perf_counter() - ending.began
        self._observe(Served(ending.method, ending.caller, ending.code, seconds, ending.request, ending.answer))


class _Ending:
    """What is known of a call when it ends."""

    def __init__(self, method: str, request: Any):
        self.method, self.began = method, time.perf_counter()
        self.request = request if isinstance(request, Message) else None
        self.caller: Identity | None = None
        self.answer: Any = None
        self.refusal: Refusal | None = None
        self.left = False

    @property
    def code(self) -> str:
        """Name of the status, as the caller sees it or would have seen it."""
        if self.refusal is not None:
            return self.refusal.code.name
        return (grpc.StatusCode.CANCELLED if self.left else grpc.StatusCode.OK).name

    def refuse(self, error: Exception) -> None:
        """Notes the status of an error."""
        self.answer = None
        if isinstance(error, AccessError):
            self.refusal = refusal_of(error)
        elif isinstance(error, grpc.RpcError):
            self.refusal = Refusal(grpc.StatusCode.CANCELLED, "the caller has gone", ())
        else:
            logger.error("%s failed", self.method, exc_info=error)
            self.refusal = refusal_of(Unexpected("the server has made a mistake, which is in its log"))
