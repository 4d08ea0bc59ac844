"""A request on its way through the engine, and what a step computes of it.

Not here: who goes first (`waiting.py`), what a step holds (`schedule.py`).
Invariant: of a running sequence, all but the last of known and drawn tokens are computed or being
computed once its prefill is done; a waiting one holds no page.
"""

import dataclasses
import enum
import math
from typing import NamedTuple

from cupola.serve.radix import Key, Node
from cupola.serve.request import Request, Task


class State(enum.Enum):
    """Where a sequence is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclasses.dataclass(eq=False, slots=True)
class Sequence:
    """One request: its tokens, where their keys and values are, and how far they are computed.

    The engine reads all of it, and writes `draft` and `needs_sync` only.

    Args:
        request: what was asked.
        arrival: its number in the order of submission.
        deadline_seconds: on the clock of `Scheduler.submit`.
        needs_sync: the next row can be planned only after the last token is known to the host: drafts, or a
            grammar that is about to force some.
        state: where it is.
        tokens: prompt and known generated tokens.
        computed: tokens whose keys and values are in pages, or will be after the steps in flight.
        in_flight: tokens that steps in flight are drawing.
        draft: guesses of what follows `tokens`, for the next step to verify; taken by `plan`.
        pages: page i holds the tokens from i * page_size on.
        slot: a number below `max_running` that no other running sequence has; -1 while it waits.
        cached_tokens: of the prompt, how many were found in the cache when it first ran.
        node: of the tree, locked, where what it shares ends; None while it waits or with the cache off.
        stored_tokens: how many tokens stand in the tree down to `node`.
        retracted: whether it gave up its place and waits again, or did.
        urgent: whether it was passed over for as long as the limits allow.
        shared_tokens: while it waits, how many tokens the tree was seen to hold.
        seen_version: of the tree, when that was seen.
        enqueued: how many steps had admitted anyone when it was queued.
        order: its place in the queue; the least goes first.
    """

    request: Request
    arrival: int
    deadline_seconds: float = math.inf
    needs_sync: bool = False
    state: State = State.WAITING
    tokens: list[int] = dataclasses.field(default_factory=list)
    computed: int = 0
    in_flight: int = 0
    draft: list[int] = dataclasses.field(default_factory=list)
    pages: list[int] = dataclasses.field(default_factory=list)
    slot: int = -1
    cached_tokens: int = 0
    node: Node | None = None
    stored_tokens: int = 0
    retracted: bool = False
    urgent: bool = False
    shared_tokens: int = 0
    seen_version: int = -1
    enqueued: int = 0
    order: tuple[float, ...] = ()
    key: Key = dataclasses.field(init=False)
    prompt_tokens: int = dataclasses.field(init=False)
    most_tokens: int = dataclasses.field(init=False)
    """Of prompt and output together, when its limit is reached."""
    reads_prompt: bool = dataclasses.field(init=False)
    """Whether something of every prompt position is wanted, so that none may be skipped."""
    matchable: tuple[int, ...] = dataclasses.field(init=False)
    """What may be looked up in the tree: all but the last token, which is always computed."""

    def __post_init__(self):
        request = self.request
        self.tokens = list(request.prompt)
        self.key = (request.namespace, request.adapter)
        self.prompt_tokens = len(request.prompt)
        self.most_tokens = self.prompt_tokens + (request.limit_tokens if request.task is Task.GENERATE else 0)
        self.reads_prompt = request.prompt_logprobs or request.task is not Task.GENERATE
        self.matchable = request.prompt[:-1]

    @property
    def generated(self) -> list[int]:
        """The known generated tokens."""
        return self.tokens[self.prompt_tokens :]


@dataclasses.dataclass(eq=False, slots=True)
class Row:
    """What one step computes of one sequence: `count` tokens from position `start` on. Nobody changes it.

    Args:
        sequence: whose tokens they are.
        start: position of the first.
        count: of tokens, the draft among them.
        draws: whether a token is drawn after the last (and after each of a draft's).
        unknown: the one token is what the sequence's last row drew, and the host has not seen it yet.
        draft: guesses that stand after the known tokens.
    """

    sequence: Sequence
    start: int
    count: int
    draws: bool
    unknown: bool = False
    draft: tuple[int, ...] = ()

    @property
    def stop(self) -> int:
        """The position after the last."""
        return self.start + self.count

    @property
    def tokens(self) -> list[int]:
        """The tokens to compute; none where they are unknown."""
        return self.sequence.tokens[self.start : self.stop - len(self.draft)] + list(self.draft)

    def guessing(self, tokens: list[int]) -> "Row":
        """Returns the row with other guesses in the place of its draft, the first of these."""
        return dataclasses.replace(self, draft=tuple(tokens[: len(self.draft)]))


class Plan(NamedTuple):
    """What one step computes; no sequence has more than one row.

    Attributes:
        decodes: rows of one token, or of one and a draft.
        chunks: rows of prompt tokens (or of any that are known and not computed).
    """

    decodes: tuple[Row, ...]
    chunks: tuple[Row, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of them, those that decode first."""
        return self.decodes + self.chunks
