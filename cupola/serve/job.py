"""One request inside the engine: its sequence, and all that follows its tokens.

Not here: the loop (`engine.py`), pages (`schedule.py`).
Invariant: what receives pieces gets exactly one with a `Finish`, and none after it.
"""

import logging
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, UInt32

from cupola.core.errors import CupolaError
from cupola.data.tokenizer import Tokenizer
from cupola.serve.grammar import Matcher
from cupola.serve.output import Output
from cupola.serve.request import Finish, Piece, Reason, Receive, Request, Task, Token, Usage
from cupola.serve.rows import Place, Settings, rows_of
from cupola.serve.run import embedding_of
from cupola.serve.sample import Rows
from cupola.serve.sequence import Row, Sequence, State
from cupola.serve.speculate import Proposer, accept

logger = logging.getLogger(__name__)

ALL_ALLOWED = 0xFFFFFFFF
"""A word of a mask that forbids nothing."""


class Job:
    """A request on its way.

    Args:
        request: what was asked.
        receive: takes its pieces.
        tokenizer: of the model.
        settings: how its tokens are drawn.
        matcher: of its grammar.
        proposer: guesses its next tokens; None: nobody does.
    """

    def __init__(
        self,
        request: Request,
        receive: Receive,
        tokenizer: Tokenizer,
        settings: Settings,
        matcher: Matcher | None,
        proposer: Proposer | None,
    ):
        self.request, self.settings, self.matcher, self.proposer = request, settings, matcher, proposer
        self.sequence: Sequence | None = None
        self.drafted = self.accepted = self.completed = 0
        self._receive = receive
        self._output = Output(request, tokenizer)
        self._history = settings.history(request.prompt)
        self._scored: list[Token] = []
        self._states: list[tuple[int, Float[np.ndarray, "T D"]]] = []

    @property
    def needs_sync(self) -> bool:
        """Whether its next row can be planned only when its last token is known: what follows is guessed from it."""
        return self.proposer is not None

    @property
    def ended(self) -> bool:
        """Whether its tokens have come to an end."""
        return self._output.ending is not None

    def place(self, row: Row) -> Place:
        """Returns where a row of it draws."""
        position = row.stop - len(row.draft)
        return Place(settings=self.settings, position=position, history=self._history, draft=row.draft)

    def write_masks(self, out: UInt32[np.ndarray, "N W"], row: Row) -> None:
        """Writes which tokens each draw of a row may give."""
        if self.matcher is not None:
            self.matcher.masks(out[: 1 + len(row.draft)], row.draft)

    def draw(self, row: Row, drawn: list[Token]) -> list[int]:
        """Takes in what a row drew, hands on what is certain, and returns the tokens that stand."""
        stand = drawn[: len(accept(row.draft, [token.id for token in drawn]))]
        if self.proposer is not None and row.draft:
            self.proposer.learn(len(row.draft), len(stand) - 1)
            self.drafted += len(row.draft)
            self.accepted += len(stand) - 1
        return self._take(stand)

    def forced(self, least: int) -> list[int]:
        """Returns the tokens that the grammar forces next, without taking them; none where they are fewer."""
        if self.matcher is None or self.ended or self.request.top_logprobs is not None:
            return []
        return self.matcher.forced(least)

    def jump(self, forced: list[int]) -> list[int]:
        """Takes in tokens that the grammar forces, and returns those that stand."""
        return self._take([Token(token) for token in forced])

    def _take(self, tokens: list[Token]) -> list[int]:
        taken: list[int] = []
        for token in tokens:
            taken.append(token.id)
            complete = False
            if self.matcher is not None and token.id not in self.request.stop_tokens:
                self.matcher.accept(token.id)
                complete = self.matcher.ended
            if self._history is not None:
                self._history.append(token.id)
            self.completed += 1
            self._send(self._output.feed([token], complete=complete))
            if self.ended:
                break
        return taken

    def read(self, start: int, scored: list[Token], states: Array | None) -> None:
        """Keeps what is wanted of the prompt itself, of the tokens from position `start` on.

        What came for these before a retraction is replaced.
        """
        self._scored[start:] = scored
        if states is not None:
            self._states = [(at, kept) for at, kept in self._states if at < start] + [(start, np.asarray(states))]

    def finish(self, reason: Reason | None = None, error: Exception | None = None) -> Finish:
        """Sends the last piece, and returns the end of it.

        Args:
            reason: why it ends; None: as its tokens say, or its prompt was all that was wanted.
            error: where the reason is ERROR.
        """
        ending = self._output.ending
        if reason is None:
            reason = ending.reason if ending is not None else Reason.LENGTH
        done = reason in (Reason.STOP, Reason.LENGTH)
        finish = Finish(
            reason=reason,
            usage=Usage(
                prompt_tokens=len(self.request.prompt),
                cached_tokens=self.sequence.cached_tokens if self.sequence else 0,
                completion_tokens=self.completed,
                drafted_tokens=self.drafted,
                accepted_tokens=self.accepted,
            ),
            stop=ending.stop if ending is not None else None,
            error=error,
            embedding=embedding_of([states for _, states in self._states])
            if done and self.request.task is Task.EMBED
            else None,
            prompt=tuple(self._scored),
        )
        self._send(Piece(finish=finish))
        return finish

    def _send(self, piece: Piece) -> None:
        if not (piece.text or piece.tokens or piece.finish):
            return
        try:
            self._receive(piece)
        # A receiver that fails must not take the others' engine with it.
        except Exception:
            logger.exception("the receiver of %s failed", self.request.id)


def draws_of(
    drawing: list[tuple[Row, Job]], rows: int, *, vocabulary: int, failed: Callable[[Job, CupolaError], None]
) -> Rows:
    """Returns how the rows of a step draw.

    Args:
        drawing: rows that draw, in order; nobody reads what those of ended sequences draw.
        rows: how many the step is compiled for.
        vocabulary: of the model.
        failed: told of a job whose grammar took too much work.
    """
    mask = None
    if any(job.matcher is not None for _, job in drawing):
        mask = np.full((rows, -(-vocabulary // 32)), ALL_ALLOWED, np.uint32)
        first = 0
        for row, job in drawing:
            if row.sequence.state is not State.FINISHED:
                try:
                    job.write_masks(mask[first:], row)
                except CupolaError as error:
                    mask[first:] = ALL_ALLOWED
                    failed(job, error)
            first += 1 + len(row.draft)
    return rows_of([job.place(row) for row, job in drawing], rows=rows, mask=mask)
