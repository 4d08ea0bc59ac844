"""Any OpenAI-compatible server as a program's back-end.

Not here: bodies and errors (`wire.py`). What the server cannot do is refused: scores without
log-probabilities of prompts, an answer that goes on from text which the program wrote.
Invariant: text generated ahead is used only where the same call would have been made for it.
Source: API speculative execution, arXiv 2312.07104, section 4.
"""

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from cupola.core.errors import ConfigError
from cupola.serve.program.backend import Call
from cupola.serve.program.choose import Method, Score
from cupola.serve.program.errors import BackendError, ProgramError
from cupola.serve.program.transcript import Transcript, Turn
from cupola.serve.program.wire import Dialect, Wire, body
from cupola.serve.request import Finish, Piece, Reason, Token, Usage


class Api(enum.Enum):
    """Which of the two ways of asking a program uses."""

    CHAT = "chat"
    """/chat/completions: turns of roles."""
    COMPLETIONS = "completions"
    """/completions: text without roles, and `select`."""


class Endpoint:
    """A server that speaks the OpenAI API.

    Args:
        url: its address up to and with /v1, such as "http://localhost:8000/v1".
        model: as the server calls it.
        key: sent as a bearer token; "" sends none.
        api: which way of asking.
        dialect: which fields the server knows.
        ahead_tokens: generated past a stop text at most, in the hope that what the program writes next,
            and the place after it, are already there: several `gen` in one turn then cost one request.
            0 asks for each of them.
        attempts: for a request that the server has not begun to answer, and for an answer of which
            the program has written a part.
        timeout_seconds: without a byte from the server.
        transport: in the place of the network.

    Raises:
        ConfigError: no http address, or a number below its least.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str = "",
        api: Api = Api.CHAT,
        dialect: Dialect = Dialect.OPENAI,
        ahead_tokens: int = 0,
        attempts: int = 3,
        timeout_seconds: float = 600.0,
        transport: httpx2.BaseTransport | None = None,
    ):
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no address", where="url", remedy="Use http://localhost:8000/v1 or the like.")
        if attempts < 1 or ahead_tokens < 0:
            raise ConfigError(
                f"attempts={attempts}, ahead_tokens={ahead_tokens}", where="Endpoint", remedy="Use at least 1, and 0."
            )
        self.model, self.api, self.dialect = model, api, dialect
        self.ahead_tokens, self.attempts = ahead_tokens, attempts
        self.wire = Wire(url, key, timeout_seconds, attempts, transport)

    def session(self) -> "EndpointSession":
        return EndpointSession(self)


@dataclasses.dataclass(frozen=True)
class _Reply:
    """A turn that was generated past a stop.

    Args:
        before: the turns it answers.
        text: of the whole turn, what the program wrote at its beginning too.
        ended: whether the model ended it, rather than the limit.
        sampling: it was drawn with.
    """

    before: tuple[Turn, ...]
    text: str
    ended: bool
    sampling: Mapping[str, Any]


class EndpointSession:
    """One state of a program on a server."""

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint
        self._reply: _Reply | None = None

    def fork(self) -> "EndpointSession":
        # Branches draw each for itself, so what one was promised is not the others'.
        return EndpointSession(self._endpoint)

    def generate(self, transcript: Transcript, call: Call) -> Iterator[Piece]:
        self._check(transcript)
        said = transcript.open.text if transcript.open else ""
        if self._may_ask_ahead(call):
            text = self._from_reply(transcript, said, call)
            if text is not None:
                yield Piece(text=text, finish=Finish(Reason.STOP, Usage(0)))
                return
            yield from self._ask_ahead(transcript, said, call)
        elif said and self._endpoint.api is Api.CHAT:
            raise _cannot_go_on(said)
        else:
            yield from self._ask(transcript, call)

    def score(self, transcript: Transcript, choices: tuple[str, ...], method: Method) -> tuple[Score, ...]:
        if self._endpoint.api is Api.CHAT:
            raise ProgramError(
                "chat answers hold no log-probabilities of a prompt, which `select` compares",
                remedy="Use gen(..., choices=[...]), or text without roles and Endpoint(..., api=Api.COMPLETIONS).",
            )
        self._check(transcript)
        given = [self._log_probs(transcript.text, choice) for choice in choices]
        alone: list[tuple[float, ...]] = [()] * len(choices)
        if method is Method.UNCONDITIONAL_NORMALIZED:
            alone = [self._log_probs("", choice) for choice in choices]
        return tuple(Score(g, a) for g, a in zip(given, alone, strict=True))

    def cache(self, transcript: Transcript) -> None:
        # A server of others bills for what is asked; only ours is known to share prefixes by itself.
        if self._endpoint.dialect is Dialect.CUPOLA and (self._endpoint.api is Api.COMPLETIONS or transcript.turns):
            self._endpoint.wire.ask(
                self._path, self._body(dataclasses.replace(transcript, open=self._text_only(transcript)), Call(1))
            )

    @property
    def _path(self) -> str:
        return "/chat/completions" if self._endpoint.api is Api.CHAT else "/completions"

    def _text_only(self, transcript: Transcript) -> Turn | None:
        return transcript.open if self._endpoint.api is Api.COMPLETIONS else None

    def _check(self, transcript: Transcript) -> None:
        roles = any(turn.role is not None for turn in transcript.all)
        if self._endpoint.api is Api.CHAT and not roles:
            raise ProgramError(
                "text without roles cannot be asked as a chat",
                remedy="Use system, user and assistant, or Endpoint(..., api=Api.COMPLETIONS).",
            )
        if self._endpoint.api is Api.COMPLETIONS and roles:
            raise ProgramError(
                "turns of roles cannot be asked as a completion: the chat template is the server's",
                remedy="Use Endpoint(..., api=Api.CHAT), or write the text without roles.",
            )

    def _body(self, transcript: Transcript, call: Call) -> dict[str, Any]:
        chat = self._endpoint.api is Api.CHAT
        if chat:
            messages = [{"role": t.role.value, "content": t.text} for t in transcript.turns if t.role is not None]
            asked: dict[str, Any] = {"messages": messages}
        else:
            asked = {"prompt": transcript.text}
        return {"model": self._endpoint.model, **asked, **body(call, self._endpoint.dialect, chat=chat)}

    def _ask(self, transcript: Transcript, call: Call) -> Iterator[Piece]:
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        reason, usage = None, Usage(0)
        for chunk in self._endpoint.wire.stream(self._path, self._body(transcript, call) | streamed):
            usage = _usage(chunk) or usage
            for choice in chunk.get("choices") or ():
                reason = choice.get("finish_reason") or reason
                if text := (choice.get("delta") or {}).get("content") or choice.get("text"):
                    yield Piece(text=text, tokens=_tokens(choice))
        if reason not in ("stop", "length"):
            raise BackendError(
                f"the server ended with finish_reason={reason!r}",
                where=self._endpoint.wire.url + self._path,
                remedy="A program takes texts: give the model no tools, and ask for nothing that is filtered.",
            )
        yield Piece(finish=Finish(Reason(reason), usage))

    def _may_ask_ahead(self, call: Call) -> bool:
        plain = call.grammar is None and call.top_logprobs is None
        return plain and self._endpoint.ahead_tokens > 0 and (bool(call.stop) or self._reply is not None)

    def _from_reply(self, transcript: Transcript, said: str, call: Call) -> str | None:
        reply = self._reply
        if reply is None or reply.before != transcript.turns or reply.sampling != call.sampling:
            return None
        return _cut(reply.text[len(said) :], call, reply.ended) if reply.text.startswith(said) else None

    def _ask_ahead(self, transcript: Transcript, said: str, call: Call) -> Iterator[Piece]:
        """Asks for more than the call, and answers it from that; a turn that the program began must fit."""
        chat = self._endpoint.api is Api.CHAT
        longer = Call(call.limit_tokens + self._endpoint.ahead_tokens, call.sampling)
        for _ in range(self._endpoint.attempts if chat and said else 1):
            answer = self._endpoint.wire.ask(self._path, self._body(transcript, longer))
            text, ended = _answered(answer, self._endpoint.wire.url + self._path)
            whole = text if chat else said + text
            self._reply = _Reply(transcript.turns, whole, ended, call.sampling)
            found = self._from_reply(transcript, said, call)
            if found is not None:
                yield Piece(text=found, finish=Finish(Reason.STOP, _usage(answer) or Usage(0)))
                return
        self._reply = None
        if chat and said:
            raise _cannot_go_on(said, whole)
        yield from self._ask(transcript, call)

    def _log_probs(self, prompt: str, choice: str) -> tuple[float, ...]:
        asked = {"model": self._endpoint.model, "prompt": prompt + choice, "max_tokens": 0, "echo": True, "logprobs": 1}
        answer = self._endpoint.wire.ask(self._path, asked)
        try:
            told = answer["choices"][0]["logprobs"]
            tokens, values = told["tokens"], told["token_logprobs"]
            offsets = told.get("text_offset") or _offsets(tokens)
            ends = [*offsets[1:], len(prompt + choice)]
            # Without a prompt the first token has none; as in SGLang, it then counts for nothing.
            found = tuple(v or 0.0 for v, end in zip(values, ends, strict=True) if end > len(prompt))
        except (KeyError, IndexError, TypeError, ValueError):
            found = ()
        if not found:
            raise ProgramError(
                "the server gave no log-probabilities of the prompt (echo with logprobs), which `select` compares",
                where=self._endpoint.wire.url,
                remedy="Use gen(..., choices=[...]), or a server that gives them, such as `cupola serve`.",
            )
        return found


def _cut(text: str, call: Call, ended: bool) -> str | None:
    """The answer to a call at the beginning of a longer text; None: it is not known to be there."""
    places = [place for stop in call.stop if (place := text.find(stop)) >= 0]
    if not places and not ended:
        return None
    found = text[: min(places)] if places else text
    # Without the server's tokenizer only this is sure: a token holds at least a byte.
    return found if len(found.encode()) <= call.limit_tokens else None


def _answered(answer: Mapping[str, Any], where: str) -> tuple[str, bool]:
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return text or "", choice.get("finish_reason") == "stop"
    except (KeyError, IndexError, TypeError):
        raise BackendError("the answer holds no choice", where=where, remedy="Check the address.") from None


def _usage(answer: Mapping[str, Any]) -> Usage | None:
    told = answer.get("usage")
    if not told:
        return None
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(told.get("prompt_tokens", 0), cached, told.get("completion_tokens", 0))


def _tokens(choice: Mapping[str, Any]) -> tuple[Token, ...]:
    """Tokens with log-probabilities; a server tells their texts, not their ids, so these are -1."""
    told = choice.get("logprobs") or {}
    values = [entry.get("logprob") for entry in told.get("content") or ()] or told.get("token_logprobs") or ()
    return tuple(Token(-1, value) for value in values)


def _offsets(tokens: list[str]) -> list[int]:
    places = [0]
    for token in tokens:
        places.append(places[-1] + len(token))
    return places[:-1]


def _cannot_go_on(said: str, told: str | None = None) -> ProgramError:
    if told is None:
        return ProgramError(
            f"a chat server cannot go on from {said[-40:]!r}, which the program wrote for it",
            remedy="Ask for the form in the user's turn and use Endpoint(..., ahead_tokens=256), "
            "which matches the answer; or begin the turn with gen.",
        )
    return ProgramError(
        f"the model's answer {told[:60]!r} does not go on from what the program wrote, {said[-60:]!r}",
        remedy="Show the form in the user's turn, raise ahead_tokens or limit_tokens, or use several turns.",
    )
