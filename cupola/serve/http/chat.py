"""POST /v1/chat/completions: a conversation is continued, at once or as a stream of deltas.

Not here: messages to a prompt (`messages.py`), calls of tools and thoughts in the text (`tools.py`,
`reasoning.py`). Invariant: each choice has exactly one finish_reason, and in a stream its first
delta, and no other, has the role.
"""

import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.responses import Response

from cupola.serve.errors import InvalidRequest
from cupola.serve.generator import Served
from cupola.serve.http.answers import Answers
from cupola.serve.http.call import Call, Endpoint
from cupola.serve.http.guard import Action
from cupola.serve.http.limits import Limits
from cupola.serve.http.logprobs import chat_logprobs
from cupola.serve.http.messages import read_prompt
from cupola.serve.http.reasoning import ReasoningCounter
from cupola.serve.http.sampling import bounded, check_stream, expand, read_grammar, read_limit
from cupola.serve.http.schema import CHAT_REFUSED, ChatBody
from cupola.serve.http.sse import DONE, EventStream, event
from cupola.serve.http.tools import Delta, Parser, Reasoning, Text, ToolArguments, ToolBegin
from cupola.serve.http.usage import usage
from cupola.serve.request import Finish, Piece, Reason, Token


async def chat(call: Call) -> Response:
    """Continues a conversation."""
    body = call.parse(ChatBody, CHAT_REFUSED)
    served = await call.model(body.model, Action.GENERATE)
    check_stream(body)
    top_logprobs = _top_logprobs(body, call.service.limits)
    asked = read_grammar(body)
    prompt = await read_prompt(served, body)
    limit, name = _limit(body)
    limit_tokens = read_limit(prompt.tokens, limit, served, name)
    grammar = prompt.grammar(asked)
    requests = expand(
        call,
        served,
        body,
        [prompt.tokens],
        lambda _: {"limit_tokens": limit_tokens, "grammar": grammar, "top_logprobs": top_logprobs},
    )
    answers = await call.answers(served, requests)
    reply = _Reply(call, served, body, [_Choice(prompt.parser()) for _ in requests])
    if body.stream:
        return EventStream(reply.stream(answers))
    return Response(orjson.dumps(await reply.whole(answers)), media_type="application/json")


ENDPOINTS = (Endpoint("POST", "/v1/chat/completions", chat),)


def _top_logprobs(body: ChatBody, limits: Limits) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest(
            "top_logprobs are asked for, but no logprobs", where="top_logprobs", remedy="Send logprobs: true, too."
        )
    return bounded(body.top_logprobs, 0, 0, limits.top_logprobs, "top_logprobs") if body.logprobs else None


def _limit(body: ChatBody) -> tuple[int | None, str]:
    """How many tokens are asked for, and by which of the two names."""
    new, old = body.max_completion_tokens, body.max_tokens
    if new is not None and old is not None and new != old:
        raise InvalidRequest(
            f"max_completion_tokens={new}, but max_tokens={old}",
            where="max_tokens",
            remedy="Send max_completion_tokens alone.",
        )
    name = "max_tokens" if new is None else "max_completion_tokens"
    asked = old if new is None else new
    if asked == 0:
        raise InvalidRequest(f"{name}=0 leaves no answer", where=name, remedy="Use 1 or more, or leave it out.")
    return asked, name


class _Choice:
    """What one choice has come to."""

    def __init__(self, parser: Parser):
        self._parser = parser
        self._counter = ReasoningCounter()
        self.text: list[str] = []
        self.thoughts: list[str] = []
        self.calls: dict[int, dict[str, Any]] = {}
        self.tokens: list[Token] = []
        self.finish: Finish | None = None

    def take(self, piece: Piece) -> list[Delta]:
        """Adds a piece and returns what it brings."""
        deltas = self._parser.feed(piece.text) if piece.text else []
        if piece.finish is not None:
            self.finish = piece.finish
            deltas += self._parser.finish()
        self._counter.see(len(piece.tokens), deltas)
        self.tokens += piece.tokens
        for delta in deltas:
            match delta:
                case Text(text):
                    self.text.append(text)
                case Reasoning(text):
                    self.thoughts.append(text)
                case ToolBegin(index, id, name):
                    self.calls[index] = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                case ToolArguments(index, text):
                    self.calls[index]["function"]["arguments"] += text
        return deltas

    @property
    def reasoning_tokens(self) -> int:
        return self._counter.tokens

    @property
    def reason(self) -> str | None:
        if self.finish is None:
            return None
        if self.finish.reason is Reason.LENGTH:
            return "length"
        return "tool_calls" if self.calls else "stop"

    def message(self) -> dict[str, Any]:
        text = "".join(self.text)
        made: dict[str, Any] = {"role": "assistant", "content": text if text or not self.calls else None}
        made["refusal"] = None
        if self.thoughts:
            made["reasoning_content"] = "".join(self.thoughts)
        if self.calls:
            made["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        return made


def _as_delta(delta: Delta) -> dict[str, Any]:
    match delta:
        case Text(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case ToolBegin(index, id, name):
            call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
            return {"tool_calls": [call]}
        case ToolArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


class _Reply:
    """Writes the choices of one call."""

    def __init__(self, call: Call, served: Served, body: ChatBody, choices: list[_Choice]):
        self._served, self._body, self._choices = served, body, choices
        self._head = {
            "id": f"chatcmpl-{call.id.removeprefix('req_')}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": None,
        }
        self._usage_asked = bool(body.stream_options and body.stream_options.include_usage)

    async def whole(self, answers: Answers) -> dict[str, Any]:
        async for index, piece in answers:
            self._choices[index].take(piece)
        choices = [
            {
                "index": index,
                "message": choice.message(),
                "logprobs": self._logprobs(choice.tokens),
                "finish_reason": choice.reason,
            }
            for index, choice in enumerate(self._choices)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage()}

    async def stream(self, answers: Answers) -> AsyncIterator[bytes]:
        for index in range(len(self._choices)):
            yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
        async for index, piece in answers:
            choice = self._choices[index]
            deltas = [_as_delta(delta) for delta in choice.take(piece)]
            logprobs = self._logprobs(piece.tokens) if piece.tokens else None
            if logprobs and not deltas:
                deltas = [{"content": ""}]
            for delta in deltas:
                yield self._chunk(index, delta, logprobs)
                logprobs = None
            if choice.reason is not None:
                yield self._chunk(index, {}, reason=choice.reason)
        if self._usage_asked:
            yield event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage()})
        yield DONE

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, reason: str | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return event({**chunk, "usage": None} if self._usage_asked else chunk)

    def _logprobs(self, tokens: Any) -> dict[str, Any] | None:
        return chat_logprobs(self._served.tokenizer, tokens) if self._body.logprobs else None

    def _usage(self) -> dict[str, Any]:
        finishes = [choice.finish for choice in self._choices if choice.finish is not None]
        thoughts = sum(choice.reasoning_tokens for choice in self._choices)
        return usage(finishes, choices=len(self._choices), reasoning_tokens=thoughts)
