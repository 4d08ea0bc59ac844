"""How an engine is set up: what a user may choose, and what follows from it for a model on this machine.

Not here: the limits of one request (`admit.py`), of HTTP (`http/limits.py`).
"""

import enum

import psutil

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.models.decoder import Decoder
from cupola.serve.admit import Cache, Limits, Policy
from cupola.serve.run import bytes_per_token
from cupola.serve.shapes import LEAST_ROWS, Shapes
from cupola.serve.speculate import Speculation, SpeculationKind

SHARE_OF_FREE = 0.15
"""Which part of the free memory keys and values take where nobody says how much."""
SEQUENCES_AT_LEAST = 2
"""Of the full length; more memory than all running ones can fill is never taken."""


class WarmUp(enum.Enum):
    """Which shapes of steps are compiled before they are needed."""

    ESSENTIAL = "essential"
    """Those that every plan fits; nothing more is ever compiled."""
    ALL = "all"
    """The others too, while the engine serves: smaller steps then take less time."""


class Options(Value):
    """How an engine is set up.

    Args:
        max_running: requests that run at once.
        max_waiting: requests in the queue; more are refused.
        max_length: most tokens of prompt and output together; None: what the model can.
        memory_bytes: for keys and values; None: a part of what is free.
        page_size: tokens in a page: prefixes are shared in whole pages.
        budget_tokens: of prompts, computed in one step beside those that decode.
        policy: which waiting request goes first.
        max_wait_steps: a request that this many steps passed over goes first.
        cache: whether prefixes are kept and shared.
        speculation: guessing ahead.
        adapters: places for low-rank adapters; each request may choose one.
        adapter_rank: largest rank of an adapter.
        warm_up: which steps are compiled before they are needed.
    """

    max_running: int = 32
    max_waiting: int = 1024
    max_length: int | None = None
    memory_bytes: int | None = None
    page_size: int = 16
    budget_tokens: int = 512
    policy: Policy = Policy.LONGEST_PREFIX
    max_wait_steps: int = 256
    cache: Cache = Cache.ON
    speculation: Speculation = Speculation()
    adapters: int = 0
    adapter_rank: int = 16
    warm_up: WarmUp = WarmUp.ALL

    def check(self) -> None:
        if self.budget_tokens % (4 * self.page_size):
            size = 4 * self.page_size
            raise ConfigError(
                f"budget_tokens={self.budget_tokens} is no multiple of four pages of {self.page_size}",
                where="budget_tokens",
                remedy=f"Use {max(1, round(self.budget_tokens / size)) * size}.",
            )

    def shapes(self, least: int = LEAST_ROWS) -> Shapes:
        """Returns the shapes that steps are compiled for.

        Args:
            least: rows of the smallest step.
        """
        most = self.max_running
        decodes = tuple(sorted({n for n in (1, 4, 8, 16, 32, 64, 128, 256, 512) if n < most} | {most}))
        few, most_tokens = 4 * self.page_size, self.budget_tokens
        widths = [width for n in range(most_tokens.bit_length()) if (width := few << n) < most_tokens] + [most_tokens]
        chunks = sorted({(1, width) for width in widths} | {(most_tokens // width, width) for width in widths})
        draft = 0 if self.speculation.kind is SpeculationKind.NONE else self.speculation.count
        return Shapes(decodes=decodes, mixed=(most,), chunks=tuple(chunks), draft=draft, least=least)

    def limits(self, model: Decoder, draft: Decoder | None = None) -> Limits:
        """Returns what the scheduler may use for a model.

        Args:
            draft: the model that guesses: its keys and values take a share of the memory.

        Raises:
            ConfigError: the memory does not hold one sequence.
        """
        length = min(self.max_length or model.max_length, model.max_length)
        pages_each = -(-length // self.page_size)
        page_bytes = sum(bytes_per_token(held) for held in (model, draft) if held is not None) * self.page_size
        memory = self.memory_bytes
        if memory is None:
            free = _rounded(int(SHARE_OF_FREE * psutil.virtual_memory().available) // page_bytes)
            pages = min(max(free, SEQUENCES_AT_LEAST * pages_each), self.max_running * pages_each)
            memory = pages * page_bytes
        pages = 1 + memory // page_bytes
        if pages < 2:
            raise ConfigError(
                f"memory_bytes={memory} does not hold one page of {page_bytes} bytes",
                where="memory_bytes",
                remedy=f"Give {page_bytes * pages_each} for one sequence of {length} tokens.",
            )
        shapes = self.shapes()
        return Limits(
            max_running=self.max_running,
            max_waiting=self.max_waiting,
            budget_tokens=self.budget_tokens,
            max_chunks=max(count for count, _ in shapes.chunks),
            chunk_widths=tuple(sorted({width for _, width in shapes.chunks})),
            page_size=self.page_size,
            pages=pages,
            max_length=length,
            policy=self.policy,
            max_wait_steps=self.max_wait_steps,
            cache=self.cache,
        )


def _rounded(pages: int) -> int:
    """Returns a number of pages with few digits: compiled steps are found again though less memory is free."""
    unit = 1 << max(0, pages.bit_length() - 3)
    return pages // unit * unit
