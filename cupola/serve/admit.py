"""What the scheduler may use, and whether a request can be served within that at all.

Not here: when it is served (`schedule.py`). Invariant: a request that passes here fits into the
memory alone, so it always gets through.
"""

import enum
from collections.abc import Collection

from cupola.config.suggest import did_you_mean
from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.serve.errors import Busy, ContextOverflow, InvalidRequest, NotFound
from cupola.serve.request import Request, Task


class Policy(enum.Enum):
    """Which of the waiting requests of one priority goes first."""

    LONGEST_PREFIX = "longest_prefix"
    """The one of which the cache holds most."""
    FIRST_COME = "first_come"
    RANDOM = "random"
    """For comparison."""


class Cache(enum.Enum):
    """Whether prefixes are kept and shared."""

    ON = "on"
    OFF = "off"


class Limits(Value):
    """What one engine may use.

    Args:
        max_running: sequences with pages at once.
        max_waiting: requests in the queue; more are refused.
        budget_tokens: of prompts, computed in one step beside the rows that decode.
        max_chunks: prompts that one step computes parts of.
        chunk_widths: widths that the rows of a step's prompts are padded to, all to the same, ascending;
            rows x width stays within the budget. None: rows are not padded.
        page_size: tokens in a page.
        pages: in all, page 0 (which padding writes to) among them.
        max_length: most tokens of prompt and output together.
        policy: who goes first.
        max_wait_steps: a request that this many steps passed over (they admitted others) goes first.
        cache: whether prefixes are kept.
        seed: of the random policy.
    """

    max_running: int = 32
    max_waiting: int = 1024
    budget_tokens: int = 512
    max_chunks: int = 1
    chunk_widths: tuple[int, ...] = ()
    page_size: int = 16
    pages: int = 1025
    max_length: int = 2048
    policy: Policy = Policy.LONGEST_PREFIX
    max_wait_steps: int = 256
    cache: Cache = Cache.ON
    seed: int = 0

    def check(self) -> None:
        least = {"pages": 2}
        counts = ("max_running", "max_waiting", "budget_tokens", "max_chunks", "page_size", "pages", "max_length")
        for name in (*counts, "max_wait_steps"):
            low = least.get(name, 1)
            if getattr(self, name) < low:
                raise ConfigError(f"{name}={getattr(self, name)} is too few", where=name, remedy=f"Use {low} or more.")
        widths = self.chunk_widths
        if list(widths) != sorted(set(widths)) or (widths and not 1 <= widths[0] <= widths[-1] <= self.budget_tokens):
            raise ConfigError(
                f"chunk_widths={widths} do not ascend from 1 or more to at most budget_tokens={self.budget_tokens}",
                where="chunk_widths",
                remedy="Write each width once, the smallest first.",
            )
        name, widest = ("chunk_widths", widths[-1]) if widths else ("budget_tokens", self.budget_tokens)
        if widest < self.page_size:
            raise ConfigError(
                f"parts of a prompt end where pages do, but none of {widest} tokens ends a page of {self.page_size}",
                where=name,
                remedy=f"Use {self.page_size} or more, or smaller pages.",
            )

    def padded_tokens(self, tokens: int) -> int:
        """Returns how many tokens a prompt takes with its padding."""
        least = self.chunk_widths[0] if self.chunk_widths else 1
        return -(-tokens // least) * least

    @property
    def pool_tokens(self) -> int:
        """How many tokens all pages hold."""
        return (self.pages - 1) * self.page_size


def admit(request: Request, limits: Limits, *, vocabulary: int, adapters: Collection[str] = ()) -> None:
    """Raises unless a request can be served within the limits. Reads its arguments only: any thread may ask.

    Args:
        vocabulary: number of token ids.
        adapters: names of those that are loaded.

    Raises:
        InvalidRequest: the prompt is empty or holds a token id that does not exist, or the limit is negative.
        ContextOverflow: prompt and limit exceed the context or the memory.
        NotFound: no such adapter.
    """
    prompt = request.prompt
    if not prompt:
        raise InvalidRequest("the prompt has no tokens", where="prompt", remedy="Send at least one token.")
    if min(prompt) < 0 or max(prompt) >= vocabulary:
        place, token = next((i, t) for i, t in enumerate(prompt) if not 0 <= t < vocabulary)
        raise InvalidRequest(
            f"token {token} at position {place} does not exist",
            where="prompt",
            remedy=f"This model's token ids are 0 to {vocabulary - 1}.",
        )
    if request.limit_tokens < 0:
        raise InvalidRequest(
            f"a limit of {request.limit_tokens} tokens cannot be met", where="limit_tokens", remedy="Use 0 or more."
        )
    if request.adapter is not None and request.adapter not in adapters:
        loaded = did_you_mean(request.adapter, sorted(adapters)) if adapters else "No adapter is loaded."
        raise NotFound(f"there is no adapter {request.adapter!r}", where="model", remedy=loaded)
    _check_length(request, limits)


def check_queue(waiting: int, limits: Limits) -> None:
    """Raises where the queue is full.

    Raises:
        Busy: it is; a second is told for every time that all running requests must be replaced before.
    """
    if waiting >= limits.max_waiting:
        seconds = -(-waiting // limits.max_running)
        raise Busy(
            f"{waiting} requests wait already, which is the limit",
            remedy=f"Try again in {seconds} seconds.",
            retry_after_seconds=seconds,
        )


def _check_length(request: Request, limits: Limits) -> None:
    prompt, limit = len(request.prompt), request.limit_tokens if request.task is Task.GENERATE else 0
    # The last token that is generated is never computed, so it takes no place in the pages.
    rooms = {"the context": limits.max_length, "the server's memory": limits.pool_tokens + (limit > 0)}
    name, most = min(rooms.items(), key=lambda room: room[1])
    if prompt + limit <= most:
        return
    fits = most - prompt
    shorten = f"Shorten the prompt by {prompt + limit - most} tokens"
    raise ContextOverflow(
        f"{prompt} prompt tokens and {limit} to generate are {prompt + limit}, but {name} holds {most}",
        where="prompt" if fits < 1 else "limit_tokens",
        remedy=f"{shorten}, or generate at most {fits}." if fits > 0 and limit else f"{shorten}.",
    )
