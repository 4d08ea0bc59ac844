"""An engine in this process as a program's back-end: prompts as tokens, branches over one prefix cache.

Not here: the engine (`generator.py` has its protocol).
Invariant: what was generated stays as the tokens it was generated as, so that the next prompt of the
same state begins with what the cache holds, wherever the template lets it.
"""

import dataclasses
import logging
import queue
import uuid
from collections.abc import Iterator

from cupola.data.tokenizer import Tokenizer
from cupola.serve.generator import Served, iterate
from cupola.serve.program.backend import Call
from cupola.serve.program.choose import Method, Score
from cupola.serve.program.errors import ProgramError
from cupola.serve.program.transcript import Role, Span, Transcript, Turn
from cupola.serve.request import Piece, Reason, Request, Sampling, Task

logger = logging.getLogger(__name__)

Tokens = tuple[int, ...]


class Local:
    """A served model.

    Args:
        served: engine, tokenizer and template.
        namespace: whose cached prefixes are shared.
        priority: of every request; see `Request`.
        timeout_seconds: of every request; see `Request`.
    """

    def __init__(self, served: Served, *, namespace: str = "", priority: int = 0, timeout_seconds: float | None = None):
        self.served, self.namespace = served, namespace
        self.priority, self.timeout_seconds = priority, timeout_seconds
        self._warned = False

    def session(self) -> "LocalSession":
        return LocalSession(self, {})

    def request(self, prompt: Tokens, limit_tokens: int) -> Request:
        """Returns a request of a prompt's likeliest continuation."""
        return Request(
            id=f"program-{uuid.uuid4().hex}",
            prompt=prompt or (self.served.tokenizer.end,),
            limit_tokens=limit_tokens,
            sampling=Sampling(temperature=0.0),
            stop_tokens=self.served.stop_tokens,
            adapter=self.served.adapter,
            namespace=self.namespace,
            priority=self.priority,
            timeout_seconds=self.timeout_seconds,
        )

    def warn(self) -> None:
        """Says once that the template makes prompts anew."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "the chat template of %s writes earlier turns otherwise than they were generated; "
                "prompts stay right, but what follows such a turn is not found in the prefix cache",
                self.served.name,
            )


class LocalSession:
    """One state of a program on an engine.

    Args:
        backend: whose.
        heads: tokens of prompts before earlier answers, by the turns in them.
    """

    def __init__(self, backend: Local, heads: dict[tuple[Turn, ...], Tokens]):
        self._backend, self._served, self._heads = backend, backend.served, heads

    def fork(self) -> "LocalSession":
        return LocalSession(self._backend, dict(self._heads))

    def generate(self, transcript: Transcript, call: Call) -> Iterator[Piece]:
        request = dataclasses.replace(
            self._backend.request(self.prompt(transcript), call.limit_tokens),
            sampling=dataclasses.replace(self._served.sampling, **call.sampling),
            stop=call.stop,
            grammar=call.grammar,
            top_logprobs=call.top_logprobs,
        )
        return iterate(self._served.engine, request)

    def score(self, transcript: Transcript, choices: tuple[str, ...], method: Method) -> tuple[Score, ...]:
        prompt = self.prompt(transcript) or (self._served.tokenizer.end,)
        options = [self._encode(choice) for choice in choices]
        if not all(options):
            raise ProgramError("a choice has no token", remedy="Leave out choices that the tokenizer drops.")
        prompts = [prompt + option for option in options]
        if method is Method.UNCONDITIONAL_NORMALIZED:
            prompts += [(self._served.tokenizer.end, *option) for option in options]
        else:
            self._compute(prompt)  # once, for all choices
        scored = self._log_probs(prompts)
        given, alone = scored[: len(options)], scored[len(options) :] or [()] * len(options)
        return tuple(
            Score(g[-len(option) :], a[-len(option) :], option)
            for g, a, option in zip(given, alone, options, strict=True)
        )

    def cache(self, transcript: Transcript) -> None:
        prefix = self.prefix(transcript)
        if prefix:
            self._compute(prefix)

    def prompt(self, transcript: Transcript) -> Tokens:
        """Returns the tokens that a model goes on from.

        Raises:
            ProgramError: there are turns, and the model has no chat template.
            TemplateError: the template refuses the turns.
        """
        if not transcript.turns and (transcript.open is None or transcript.open.role is None):
            return self._spans(transcript.open.spans if transcript.open else ())
        said = transcript.open.spans if transcript.open else ()
        return self._as_generated(transcript.turns, self._head(transcript.turns)) + self._spans(said)

    def prefix(self, transcript: Transcript) -> Tokens:
        """Returns the tokens that every prompt after this transcript begins with."""
        turns, last = transcript.turns, transcript.open
        if last is None and not turns:
            return ()
        if last is not None and last.role in (None, Role.ASSISTANT):
            return self.prompt(transcript)
        if last is None:
            last = Turn(Role.ASSISTANT if turns[-1].role is Role.USER else Role.USER)
        # What two different continuations have in common does not depend on how the text goes on.
        one, other = (self._rendered((*turns, Turn(last.role, (*last.spans, Span(text))))) for text in ("A", "\n\n1"))
        shared = next(
            (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        return self._as_generated(turns, one[:shared])

    def _head(self, turns: tuple[Turn, ...]) -> Tokens:
        if turns not in self._heads:
            self._heads[turns] = self._rendered(turns, answer=True)
        return self._heads[turns]

    def _rendered(self, turns: tuple[Turn, ...], *, answer: bool = False) -> Tokens:
        template = self._served.template
        if template is None:
            raise ProgramError(
                f"{self._served.name} has no chat template, so it knows no roles",
                remedy="Write the text without system, user and assistant, or serve a model that chats.",
            )
        messages = [{"role": turn.role.value, "content": turn.text} for turn in turns if turn.role is not None]
        return template.encode(self._served.tokenizer, messages, add_generation_prompt=answer)

    def _as_generated(self, turns: tuple[Turn, ...], rendered: Tokens) -> Tokens:
        """`rendered`, with the answers in it as the tokens they were generated as, where it goes on from them."""
        actual: Tokens = ()
        canonical: Tokens = ()
        for index, turn in enumerate(turns):
            if any(span.tokens for span in turn.spans):
                actual, canonical = self._go_on(actual, canonical, self._head(turns[:index]))
                actual, canonical = actual + self._spans(turn.spans), canonical + self._encode(turn.text)
        return self._go_on(actual, canonical, rendered)[0]

    def _go_on(self, actual: Tokens, canonical: Tokens, rendered: Tokens) -> tuple[Tokens, Tokens]:
        if rendered[: len(canonical)] == canonical:
            return actual + rendered[len(canonical) :], rendered
        self._backend.warn()
        return rendered, rendered

    def _spans(self, spans: tuple[Span, ...]) -> Tokens:
        return tuple(token for span in spans for token in kept(self._served.tokenizer, span))

    def _encode(self, text: str) -> Tokens:
        return tuple(self._served.tokenizer.encode(text).tolist())

    def _compute(self, prompt: Tokens) -> None:
        for piece in iterate(self._served.engine, self._backend.request(prompt, 1)):
            if piece.finish is not None and piece.finish.reason is Reason.ERROR and piece.finish.error is not None:
                raise piece.finish.error

    def _log_probs(self, prompts: list[Tokens]) -> list[tuple[float, ...]]:
        """Log-probabilities of each prompt's tokens after the first; all are asked for at once."""
        answers: queue.SimpleQueue[tuple[int, Piece]] = queue.SimpleQueue()
        found: dict[int, tuple[float, ...]] = {}
        asked: list[str] = []
        try:
            for index, prompt in enumerate(prompts):
                request = dataclasses.replace(self._backend.request(prompt, 1), task=Task.SCORE, prompt_logprobs=True)
                self._served.engine.submit(request, lambda piece, index=index: answers.put((index, piece)))
                asked.append(request.id)
            while len(found) < len(prompts):
                index, piece = answers.get()
                if piece.finish is not None:
                    found[index] = _scores(piece)
        finally:
            if len(found) < len(prompts):
                for request_id in asked:
                    self._served.engine.abort(request_id)
        return [found[index] for index in range(len(prompts))]


def kept(tokenizer: Tokenizer, span: Span) -> Tokens:
    """Returns the tokens of a span: those it was generated as, without what is no part of its text."""
    stream, text = tokenizer.stream(), ""
    best, length = 0, 0
    for index, token in enumerate(span.tokens):
        text += stream.feed(token)
        if not span.text.startswith(text):
            break
        if len(text) > length:
            best, length = index + 1, len(text)
    held = span.tokens[:best]
    if tokenizer.decode(held) != span.text[:length]:
        held, length = (), 0  # the cut went through a character
    return held + tuple(tokenizer.encode(span.text[length:]).tolist())


def _scores(piece: Piece) -> tuple[float, ...]:
    finish = piece.finish
    if finish is None or finish.error is not None or not finish.prompt:
        if finish is not None and finish.error is not None:
            raise finish.error
        raise ProgramError(
            "the engine gave no scores" + (f", but ended with {finish.reason.value!r}" if finish else ""),
            remedy="Run it again; the engine's log says more.",
        )
    return tuple(0.0 if token.log_prob is None else token.log_prob for token in finish.prompt)
