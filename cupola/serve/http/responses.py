"""/v1/responses: an answer as items, kept so that the next can continue it.

Not here: items to messages (`responses_items.py`), the events of what is generated
(`responses_output.py`), keeping (`responses_store.py`).
Invariant: a stream's events count from 0 without a gap, and its last, and no other, says how the
response ended; only what has ended is kept, and only for its caller.
"""

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from starlette.responses import Response

from cupola.core.errors import CupolaError
from cupola.serve.errors import Busy, InvalidRequest, RequestError
from cupola.serve.generator import Served
from cupola.serve.http.answers import Answers
from cupola.serve.http.call import Call, Endpoint
from cupola.serve.http.errors import as_request_error
from cupola.serve.http.guard import Action
from cupola.serve.http.logprobs import chat_logprobs
from cupola.serve.http.messages import Prompt, read_prompt
from cupola.serve.http.reasoning import ReasoningCounter
from cupola.serve.http.responses_body import REFUSED, ResponseBody, as_chat, check_body
from cupola.serve.http.responses_items import as_messages, read_items
from cupola.serve.http.responses_output import Event, Output
from cupola.serve.http.responses_store import Item, Kept, ResponseStore
from cupola.serve.http.sampling import bounded, expand, read_grammar, read_limit
from cupola.serve.http.schema import ChatBody
from cupola.serve.http.sse import EventStream, event
from cupola.serve.http.tools import Parser, Text
from cupola.serve.http.usage import usage
from cupola.serve.request import Finish, Piece, Reason

logger = logging.getLogger(__name__)

LOGPROBS = "message.output_text.logprobs"
MOST_LISTED = 100


def routes(store: ResponseStore | None = None) -> list[Endpoint]:
    """Returns the rows of the table of routes.

    Args:
        store: keeps the responses; None makes one with the default limits.
    """
    handlers = _Handlers(ResponseStore() if store is None else store)
    one = "/v1/responses/{id}"
    return [
        Endpoint("POST", "/v1/responses", handlers.create),
        Endpoint("GET", one, handlers.retrieve),
        Endpoint("DELETE", one, handlers.delete),
        Endpoint("POST", f"{one}/cancel", handlers.cancel),
        Endpoint("GET", f"{one}/input_items", handlers.input_items),
    ]


class _Handlers:
    """Answers the calls; all share one store."""

    def __init__(self, store: ResponseStore):
        self._store = store

    async def create(self, call: Call) -> Response:
        body = call.parse(ResponseBody, REFUSED)
        served = await call.model(body.model, Action.GENERATE)
        check_body(body)
        owner = call.caller.owner
        before: tuple[Item, ...] = ()
        if body.previous_response_id is not None:
            before = self._store.get(owner, body.previous_response_id, "previous_response_id").conversation
        items = (*before, *read_items(body.input))
        chat, prompt, limit_tokens = await _prompt(body, served, items, len(before))
        wants_logprobs = LOGPROBS in (body.include or ()) or bool(body.top_logprobs)
        top = bounded(body.top_logprobs, 0, 0, call.service.limits.top_logprobs, "top_logprobs")
        grammar = prompt.grammar(read_grammar(chat))
        changes = {"limit_tokens": limit_tokens, "grammar": grammar, "top_logprobs": top if wants_logprobs else None}
        answers = await call.answers(served, expand(call, served, chat, [prompt.tokens], lambda _: changes))
        reply = _Reply(body, served, prompt.parser(), logprobs=wants_logprobs)

        def keep(response: dict[str, Any]) -> None:
            if body.store is not False:
                self._store.keep(owner, Kept(response, items))

        if body.stream:
            return EventStream(_numbered(reply.events(answers, keep)))
        async for _, piece in answers:
            reply.take(piece)
        response = reply.response()
        keep(response)
        return _json(response)

    async def retrieve(self, call: Call) -> Response:
        if call.http.query_params.get("stream", "false") != "false":
            raise InvalidRequest("a kept response is not streamed again", where="stream", remedy="Leave stream out.")
        return _json(self._kept(call).response)

    async def delete(self, call: Call) -> Response:
        id = call.http.path_params["id"]
        self._store.delete(call.caller.owner, id)
        return _json({"id": id, "object": "response", "deleted": True})

    async def cancel(self, call: Call) -> Response:
        kept = self._kept(call)
        raise InvalidRequest(
            f"the response {kept.response['id']} has ended",
            where="response_id",
            remedy="End a response that is being made by closing its connection.",
        )

    async def input_items(self, call: Call) -> Response:
        items: list[Item] = list(self._kept(call).input)
        query = call.http.query_params
        order, after, limit = query.get("order", "desc"), query.get("after"), query.get("limit", "20")
        if order not in ("asc", "desc"):
            raise InvalidRequest(f"there is no order {order[:100]!r}", where="order", remedy="Use asc or desc.")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= MOST_LISTED):
            raise InvalidRequest("limit is outside its range", where="limit", remedy=f"Use 1 to {MOST_LISTED}.")
        if order == "desc":
            items.reverse()
        if after is not None:
            places = [index for index, item in enumerate(items) if item["id"] == after]
            if not places:
                raise InvalidRequest(
                    f"there is no item {after[:100]!r}", where="after", remedy="Use the id of an item."
                )
            items = items[places[0] + 1 :]
        shown = items[: int(limit)]
        ids = {"first_id": shown[0]["id"] if shown else "", "last_id": shown[-1]["id"] if shown else ""}
        return _json({"object": "list", "data": shown, **ids, "has_more": len(items) > len(shown)})

    def _kept(self, call: Call) -> Kept:
        return self._store.get(call.caller.owner, call.http.path_params["id"])


async def _prompt(
    body: ResponseBody, served: Served, items: tuple[Item, ...], before: int
) -> tuple[ChatBody, Prompt, int]:
    """The chat that a response comes to, its prompt and how many tokens may follow it.

    With truncation "auto", the oldest turns that do not fit the context are left out.
    """
    asked = body.max_output_tokens

    async def without(start: int) -> tuple[ChatBody, Prompt]:
        chat = as_chat(body, as_messages(body.instructions, items[start:], before - start))
        try:
            return chat, await read_prompt(served, chat)
        except CupolaError as error:
            if error.where.startswith("messages"):
                error.where = "input"
            raise

    chat, prompt = await without(0)
    if body.truncation == "auto" and len(prompt.tokens) + (asked or 1) > served.max_length:
        starts = [index for index, item in enumerate(items) if item.get("role") == "user"]
        low, high = 0, len(starts) - 1
        while low < high:
            middle = (low + high) // 2
            chat, prompt = await without(starts[middle])
            if len(prompt.tokens) + (asked or 1) > served.max_length:
                low = middle + 1
            else:
                high = middle
        if starts:
            chat, prompt = await without(starts[low])
    return chat, prompt, read_limit(prompt.tokens, asked, served, "max_output_tokens")


class _Reply:
    """One response as it comes to be."""

    def __init__(self, body: ResponseBody, served: Served, parser: Parser, *, logprobs: bool):
        self._body, self._served, self._parser, self._wants_logprobs = body, served, parser, logprobs
        self._output, self._counter = Output(), ReasoningCounter()
        self._logprobs: list[Any] = []  # of tokens whose text is yet to come
        self._finish: Finish | None = None
        self._error: RequestError | None = None
        self._id, self._created = f"resp_{secrets.token_hex(24)}", int(time.time())

    def take(self, piece: Piece) -> list[Event]:
        """Adds a piece and returns the events of what it brings."""
        deltas = self._parser.feed(piece.text) if piece.text else []
        if piece.finish is not None:
            self._finish = piece.finish
            deltas += self._parser.finish()
        self._counter.see(len(piece.tokens), deltas)
        if self._wants_logprobs and piece.tokens:
            self._logprobs += chat_logprobs(self._served.tokenizer, piece.tokens)["content"]
        events: list[Event] = []
        for delta in deltas:
            events += self._output.add(delta, self._logprobs if isinstance(delta, Text) else [])
            self._logprobs = []
        if piece.finish is not None:
            events += self._output.finish("incomplete" if piece.finish.reason is Reason.LENGTH else "completed")
        return events

    async def events(self, answers: Answers, keep: Callable[[dict[str, Any]], None]) -> AsyncIterator[Event]:
        yield {"type": "response.created", "response": self.response()}
        yield {"type": "response.in_progress", "response": self.response()}
        try:
            async for _, piece in answers:
                for one in self.take(piece):
                    yield one
        except Exception as error:
            self._error = as_request_error(error)
            if self._error is not error and self._error.status >= 500:
                logger.exception("%s: failed while answering", self._id)
            for one in self._output.end("incomplete"):
                yield one
        response = self.response()
        keep(response)
        yield {"type": f"response.{response['status']}", "response": response}

    def response(self) -> dict[str, Any]:
        """Returns the response as it stands."""
        error = self._error
        status = self._status()
        failed = error and {
            "code": "rate_limit_exceeded" if isinstance(error, Busy) else "server_error",
            "message": f"{error.problem}\n{error.remedy}" if error.remedy else error.problem,
        }
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": False,
            "error": failed,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": self._served.name,
            "output": [dict(item) for item in self._output.items] if status != "in_progress" else [],
            "usage": self._usage(),
            **self._body.echo(self._served.sampling),
        }

    def _status(self) -> str:
        if self._error is not None:
            return "failed"
        if self._finish is None:
            return "in_progress"
        return "incomplete" if self._finish.reason is Reason.LENGTH else "completed"

    def _usage(self) -> dict[str, Any] | None:
        if self._finish is None:
            return None
        counted = usage([self._finish], reasoning_tokens=self._counter.tokens)
        return {
            "input_tokens": counted["prompt_tokens"],
            "input_tokens_details": {**counted["prompt_tokens_details"], "cache_write_tokens": 0},
            "output_tokens": counted["completion_tokens"],
            "output_tokens_details": counted["completion_tokens_details"],
            "total_tokens": counted["total_tokens"],
        }


async def _numbered(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    number = 0
    async for one in events:
        yield event({**one, "sequence_number": number}, one["type"])
        number += 1


def _json(data: Any) -> Response:
    return Response(orjson.dumps(data), media_type="application/json")
