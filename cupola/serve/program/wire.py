"""Calls to an OpenAI-compatible server: bodies, streams and errors.

Not here: what a state has said and what is asked ahead (`endpoint.py`).
Invariant: a field that the server's dialect has no name for is refused before anything is sent.
"""

import contextlib
import enum
import json
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from cupola.serve.errors import (
    Busy,
    ContextOverflow,
    Forbidden,
    InvalidRequest,
    NotFound,
    RequestError,
    Unauthorized,
    Unavailable,
)
from cupola.serve.program.backend import Call
from cupola.serve.program.errors import BackendError, ProgramError
from cupola.serve.request import GrammarKind, Sampling

_KINDS = {400: InvalidRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 422: InvalidRequest}
_KINDS |= {429: Busy, 503: Unavailable}
_AGAIN = (408, 429, 502, 503, 504)
"""Statuses after which the same request may be served."""
_LONGEST_WAIT_SECONDS = 30.0


class Dialect(enum.Enum):
    """Which fields a server knows."""

    OPENAI = "openai"
    """Those of the OpenAI API."""
    CUPOLA = "cupola"
    """Also top_k, min_p, repetition_penalty and grammars, as our server has them."""


_EXTRA = ("top_k", "min_p", "repetition_penalty")
_GRAMMARS = {GrammarKind.REGEX: "regex", GrammarKind.LARK: "grammar", GrammarKind.CHOICE: "choices"}


def body(call: Call, dialect: Dialect, *, chat: bool) -> dict[str, Any]:
    """Returns the fields of a call.

    Raises:
        ProgramError: the dialect has no field for something that was asked.
    """
    neutral = Sampling()
    sent: dict[str, Any] = {"max_tokens": call.limit_tokens}
    for name, value in call.sampling.items():
        if value is None or (name == "logit_bias" and not value):
            continue
        if name in _EXTRA and dialect is Dialect.OPENAI:
            if value != getattr(neutral, name):
                raise _nameless(name)
            continue
        sent[name] = {str(token): bias for token, bias in value} if name == "logit_bias" else value
    if call.stop:
        sent["stop"] = list(call.stop)
    if call.top_logprobs is not None:
        sent |= {"logprobs": True, "top_logprobs": call.top_logprobs} if chat else {"logprobs": call.top_logprobs}
    return sent | _grammar(call, dialect, chat=chat)


def _grammar(call: Call, dialect: Dialect, *, chat: bool) -> dict[str, Any]:
    grammar = call.grammar
    if grammar is None:
        return {}
    if grammar.kind is GrammarKind.JSON_SCHEMA:
        if dialect is Dialect.OPENAI and not chat:
            raise _nameless("json_schema", "Use Api.CHAT, which has response_format.")
        schema = {"name": "answer", "schema": json.loads(grammar.text), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    name = _GRAMMARS[grammar.kind]
    if dialect is Dialect.OPENAI:
        raise _nameless(name, "Use json_schema with Api.CHAT, which every such server has.")
    return {name: json.loads(grammar.text) if grammar.kind is GrammarKind.CHOICE else grammar.text}


def _nameless(name: str, remedy: str = "Leave it out.") -> ProgramError:
    return ProgramError(
        f"the OpenAI API has no {name}",
        where=name,
        remedy=f"{remedy} If the server is Cupola's, say Endpoint(..., dialect=Dialect.CUPOLA).",
    )


class Wire:
    """A server's address and how to speak to it; used by any number of threads.

    Args:
        url: up to and with /v1.
        key: sent as a bearer token; "" sends none.
        timeout_seconds: without a byte from the server.
        attempts: for a request that the server has not begun to answer.
        transport: in the place of the network, for tests.
    """

    def __init__(
        self, url: str, key: str, timeout_seconds: float, attempts: int, transport: httpx2.BaseTransport | None = None
    ):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx2.Client(
            headers=headers, timeout=timeout_seconds, limits=limits, transport=transport, trust_env=False
        )
        self.url, self._attempts = url.rstrip("/"), attempts

    def ask(self, path: str, body: Mapping[str, Any]) -> Any:
        """Returns the JSON that answers a POST.

        Raises:
            RequestError: the server refused.
            BackendError: it could not be reached, or its answer is no JSON.
        """
        with contextlib.closing(self._open(path, body)) as response:
            try:
                response.read()
            except httpx2.TransportError as error:
                raise self._unreached(path, error) from None
            return _json(response.text, self.url + path)

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yields the JSON of each event that answers a POST; leaving early ends the request.

        Raises:
            RequestError: the server refused, before or in the stream.
            BackendError: as `ask`; or the stream ended without [DONE].
        """
        with contextlib.closing(self._open(path, body)) as response:
            try:
                for line in response.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    chunk = _json(data, self.url + path)
                    if "error" in chunk:
                        raise _told(500, chunk, self.url + path)
                    yield chunk
            except httpx2.TransportError as error:
                raise self._unreached(path, error) from None
        raise BackendError("the stream broke off", where=self.url + path, remedy="Run it again.")

    def _open(self, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        """A response whose status is good and whose body has not been read."""
        for attempt in range(1, self._attempts + 1):
            try:
                response = self._client.send(
                    self._client.build_request("POST", self.url + path, json=body), stream=True
                )
            except httpx2.TransportError as error:
                if attempt == self._attempts:
                    raise self._unreached(path, error) from None
                _wait(attempt, None)
                continue
            if response.is_success:
                return response
            response.read()
            response.close()
            if response.status_code not in _AGAIN or attempt == self._attempts:
                raise _told(response.status_code, _json_or_none(response.text), self.url + path)
            _wait(attempt, response.headers.get("retry-after"))
        raise BackendError("no attempt was made", where="attempts", remedy="Use attempts=1 or more.")

    def _unreached(self, path: str, error: Exception) -> BackendError:
        return BackendError(
            f"the server did not answer ({type(error).__name__}: {error})",
            where=self.url + path,
            remedy="Start it, or give the address of one that runs: Endpoint(url=..., model=...).",
        )


def _wait(attempt: int, told_seconds: str | None) -> None:
    usual = 0.25 * 2**attempt * random.uniform(0.5, 1.5)
    told = float(told_seconds) if told_seconds and told_seconds.isdigit() else 0.0
    time.sleep(min(_LONGEST_WAIT_SECONDS, max(usual, told)))


def _json(text: str, where: str) -> Any:
    value = _json_or_none(text)
    if not isinstance(value, dict):
        raise BackendError(f"the answer is no JSON object: {text[:80]!r}", where=where, remedy="Check the address.")
    return value


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _told(status: int, answer: Any, where: str) -> RequestError | BackendError:
    error = answer.get("error") if isinstance(answer, dict) else None
    told = error if isinstance(error, dict) else {}
    message = str(told.get("message") or f"the server answered {status}")
    problem, _, remedy = message.partition("\n")
    if told.get("code") == ContextOverflow.code:
        return ContextOverflow(problem, where=where, remedy=remedy)
    kind = _KINDS.get(status)
    if kind is None:
        return BackendError(problem, where=where, remedy=remedy or "The server's log says more.")
    return kind(problem, where=str(told.get("param") or where), remedy=remedy)
