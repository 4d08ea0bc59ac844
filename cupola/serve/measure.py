"""How fast an engine is under a load: throughput, time to the first token, time per token, hit rate.

Not here: the loads (`workloads.py`), peers (`bench/`).
Invariant: every number is of requests that ended by their limit; any other end is an error.
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cupola.serve.errors import Unavailable
from cupola.serve.generator import Generator, iterate
from cupola.serve.request import Reason, Request, Sampling
from cupola.serve.workloads import Prompt, Session

_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class Answer:
    """One request, measured.

    Args:
        tokens: that were generated.
        first_seconds: from submission to the first token.
        token_seconds: between tokens after the first, on average.
        prompt_tokens: of the prompt.
        cached_tokens: of these, found in the cache.
    """

    tokens: Prompt
    first_seconds: float
    token_seconds: float
    prompt_tokens: int
    cached_tokens: int


@dataclasses.dataclass(frozen=True)
class Report:
    """A load, measured.

    Args:
        seconds: from the first submission to the last token.
        answers: of all requests.
    """

    seconds: float
    answers: tuple[Answer, ...]

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens of all requests over the whole time."""
        return sum(len(answer.tokens) for answer in self.answers) / self.seconds

    @property
    def first_seconds(self) -> float:
        """The median time to the first token."""
        return statistics.median(answer.first_seconds for answer in self.answers)

    @property
    def token_seconds(self) -> float:
        """The median time between tokens after the first."""
        return statistics.median(answer.token_seconds for answer in self.answers)

    @property
    def hit_rate(self) -> float:
        """Which part of the prompts' tokens was found in the cache."""
        return sum(a.cached_tokens for a in self.answers) / sum(a.prompt_tokens for a in self.answers)


def ask(engine: Generator, prompt: Prompt, limit_tokens: int, sampling: Sampling = Sampling(temperature=0.0)) -> Answer:
    """Sends one request and measures it.

    Raises:
        Unavailable: it ended otherwise than by its limit.
    """
    begun = time.perf_counter()
    times, tokens = [], []
    request = Request(id=f"measure-{next(_numbers)}", prompt=prompt, limit_tokens=limit_tokens, sampling=sampling)
    for piece in iterate(engine, request):
        if piece.tokens:
            times.append(time.perf_counter())
            tokens += [token.id for token in piece.tokens]
        if piece.finish is not None and piece.finish.reason is not Reason.LENGTH:
            raise Unavailable(f"a measured request ended with {piece.finish.reason.value}: {piece.finish.error}")
        finish = piece.finish
    return Answer(
        tokens=tuple(tokens),
        first_seconds=times[0] - begun,
        token_seconds=(times[-1] - times[0]) / max(1, len(tokens) - 1),
        prompt_tokens=finish.usage.prompt_tokens if finish else 0,
        cached_tokens=finish.usage.cached_tokens if finish else 0,
    )


def run(engine: Generator, sessions: Sequence[Session], *, limit_tokens: int) -> Report:
    """Runs sessions side by side and measures all that they ask."""
    answers: list[Answer] = []

    def play(session: Session) -> None:
        with ThreadPoolExecutor(max_workers=64) as several:
            prompts = next(session)
            while True:
                got = list(several.map(lambda prompt: ask(engine, prompt, limit_tokens), prompts))
                answers.extend(got)
                try:
                    prompts = session.send([answer.tokens for answer in got])
                except StopIteration:
                    return

    begun = time.perf_counter()
    with ThreadPoolExecutor(max_workers=len(sessions)) as all_at_once:
        list(all_at_once.map(play, sessions))
    return Report(seconds=time.perf_counter() - begun, answers=tuple(answers))


def streams(engine: Generator, prompts: Sequence[Prompt], *, limit_tokens: int) -> Report:
    """Sends prompts at once and measures them."""

    def one(prompt: Prompt) -> Session:
        yield [prompt]

    return run(engine, [one(prompt) for prompt in prompts], limit_tokens=limit_tokens)
