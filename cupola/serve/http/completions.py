"""POST /v1/completions: texts are continued as they stand, and may be given back with log-probabilities.

Not here: conversations (`chat.py`). Invariant: `choices[i * n + j]` is the j-th choice of the i-th prompt.
"""

import asyncio
import dataclasses
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
from cupola.serve.http.logprobs import OldLogprobs
from cupola.serve.http.sampling import Tokens, bounded, check_stream, expand, read_grammar, read_limit, read_texts
from cupola.serve.http.schema import COMPLETION_REFUSED, CompletionBody
from cupola.serve.http.sse import DONE, EventStream, event
from cupola.serve.http.usage import usage
from cupola.serve.request import Finish, Piece, Reason, Task, Token

_USUAL_LIMIT_TOKENS = 16
"""What the OpenAI API takes here where a body says nothing."""

_LONG_BYTES = 16_384
"""Longer bodies are made tokens on another thread, since others wait meanwhile."""


async def complete(call: Call) -> Response:
    """Continues texts."""
    body = call.parse(CompletionBody, COMPLETION_REFUSED)
    served = await call.model(body.model, Action.GENERATE)
    _check(body, served)
    limits = call.service.limits
    read = (body.prompt, served, limits, "prompt")
    prompts = await asyncio.to_thread(read_texts, *read) if len(call.body) > _LONG_BYTES else read_texts(*read)
    top_logprobs = None if body.logprobs is None else bounded(body.logprobs, 0, 0, limits.top_logprobs, "logprobs")
    grammar = read_grammar(body)
    asked = _USUAL_LIMIT_TOKENS if body.max_tokens is None else body.max_tokens

    def change(prompt: Tokens) -> dict[str, Any]:
        room = served.max_length - len(prompt)
        usual = min(asked, room) if body.max_tokens is None and room > 0 else asked
        return {
            "limit_tokens": read_limit(prompt, usual, served, "max_tokens"),
            "grammar": grammar,
            "top_logprobs": top_logprobs,
            "prompt_logprobs": bool(body.echo) and top_logprobs is not None,
            "task": Task.SCORE if asked == 0 else Task.GENERATE,
        }

    count = len(prompts) * bounded(body.n, 1, 1, limits.choices, "n")
    if count > limits.inputs:
        raise InvalidRequest(f"{count} choices are asked for in all", where="n", remedy=f"Use up to {limits.inputs}.")
    requests = expand(call, served, body, [tokens for tokens, _ in prompts], change)
    answers = await call.answers(served, requests)
    each = len(requests) // len(prompts)
    choices = [_Choice(served, body, *prompts[index // each]) for index in range(len(requests))]
    reply = _Reply(call, served, body, choices, each)
    if body.stream:
        return EventStream(reply.stream(answers))
    return Response(orjson.dumps(await reply.whole(answers)), media_type="application/json")


ENDPOINTS = (Endpoint("POST", "/v1/completions", complete),)


def _check(body: CompletionBody, served: Served) -> None:
    check_stream(body)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise InvalidRequest(
            f"best_of={body.best_of}, but n={body.n or 1}: choices are not thrown away here",
            where="best_of",
            remedy="Ask for n choices with logprobs and keep the best.",
        )
    if body.stream and body.echo and body.logprobs is not None:
        raise InvalidRequest(
            "the log-probabilities of a prompt are known at the end, which a stream cannot begin with",
            where="stream",
            remedy="Leave out stream, echo or logprobs.",
        )


class _Choice:
    """What one choice has come to."""

    def __init__(self, served: Served, body: CompletionBody, prompt: Tokens, text: str | None):
        self._prompt = prompt
        self._logprobs = None if body.logprobs is None else OldLogprobs(served.tokenizer, body.logprobs)
        self.echo = (served.tokenizer.decode(prompt) if text is None else text) if body.echo else ""
        self.text = ""
        self.tokens: list[Token] = []
        self.finish: Finish | None = None

    def take(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens += piece.tokens
        self.finish = piece.finish or self.finish

    @property
    def reason(self) -> str | None:
        if self.finish is None:
            return None
        # Nothing but the prompt was asked for, so the limit is what ended it.
        ended = self.finish.reason is Reason.STOP and self.finish.usage.completion_tokens > 0
        return "stop" if ended else "length"

    def logprobs(self, tokens: Any) -> dict[str, Any] | None:
        return self._logprobs.write(tokens) if self._logprobs else None

    def all_logprobs(self) -> dict[str, Any] | None:
        """Those of the prompt, where it is given back, and of what was generated."""
        prompt = (Token(self._prompt[0]), *self.finish.prompt) if self.echo and self.finish else ()
        return self.logprobs([*prompt, *self.tokens])


@dataclasses.dataclass
class _Reply:
    """Writes the choices of one call."""

    call: Call
    served: Served
    body: CompletionBody
    choices: list[_Choice]
    each: int

    def __post_init__(self):
        self._head = {
            "id": f"cmpl-{self.call.id.removeprefix('req_')}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.served.name,
        }
        self._usage_asked = bool(self.body.stream_options and self.body.stream_options.include_usage)

    async def whole(self, answers: Answers) -> dict[str, Any]:
        async for index, piece in answers:
            self.choices[index].take(piece)
        choices = [
            {
                "index": index,
                "text": choice.echo + choice.text,
                "logprobs": choice.all_logprobs(),
                "finish_reason": choice.reason,
            }
            for index, choice in enumerate(self.choices)
        ]
        return {**self._head, "choices": choices, "usage": self._usage()}

    async def stream(self, answers: Answers) -> AsyncIterator[bytes]:
        for index, choice in enumerate(self.choices):
            if choice.echo:
                yield self._chunk(index, choice.echo)
        async for index, piece in answers:
            choice = self.choices[index]
            choice.take(piece)
            if piece.text or piece.tokens or piece.finish:
                logprobs = choice.logprobs(piece.tokens) if piece.tokens else None
                yield self._chunk(index, piece.text, logprobs, choice.reason)
        if self._usage_asked:
            yield event({**self._head, "choices": [], "usage": self._usage()})
        yield DONE

    def _chunk(self, index: int, text: str, logprobs: dict[str, Any] | None = None, reason: str | None = None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head, "choices": [choice]}
        return event({**chunk, "usage": None} if self._usage_asked else chunk)

    def _usage(self) -> dict[str, Any]:
        return usage([choice.finish for choice in self.choices if choice.finish is not None], choices=self.each)
