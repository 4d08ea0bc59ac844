"""The few shapes that steps are compiled for, and which of them a plan fits.

Not here: compiling (`run.py`), filling the arrays (`batch.py`).
Invariant: a plan within the limits fits one of the essential shapes, so that a server can begin with
those and compile the others while it serves; a row's result is the same bits in every shape.
"""

import dataclasses

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.serve.sequence import Plan

LEAST_ROWS = 8
"""Tokens of the smallest step, padding included, for the compiler's products: with fewer rows they are others on a CPU."""


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """Sizes of one compiled step.

    Args:
        decodes: sequences that decode.
        width: tokens of each: one, or one and a draft.
        chunks: sequences whose prompt is computed.
        chunk_width: tokens of each.
        least: rows of the smallest step, padding included.
    """

    decodes: int
    width: int
    chunks: int
    chunk_width: int
    least: int = LEAST_ROWS

    @property
    def tokens(self) -> int:
        """Tokens of the step."""
        return max(self.least, self.decodes * self.width + self.chunks * self.chunk_width)

    @property
    def draws(self) -> int:
        """Rows of logits of the step."""
        return max(self.least, self.decodes * self.width + self.chunks)

    def __str__(self) -> str:
        parts = [f"{self.decodes} x {self.width}"] if self.decodes else []
        return " + ".join([*parts, f"{self.chunks} x {self.chunk_width}"] if self.chunks else parts)


class Shapes(Value):
    """Which shapes there are.

    Args:
        decodes: numbers of decoding sequences, ascending; the last is the most that may run.
        mixed: the numbers that a step with prompts is compiled for; the last is that of `decodes`.
        chunks: (sequences, tokens) of the prompts' part, the fewest tokens first.
        draft: tokens that speculation may add to a decoding sequence.
        least: rows of the smallest step; native products are the same for one row as for many.
    """

    decodes: tuple[int, ...] = (1, 4, 8, 16, 32)
    mixed: tuple[int, ...] = (4, 32)
    chunks: tuple[tuple[int, int], ...] = ((1, 64), (4, 64), (1, 512))
    draft: int = 0
    least: int = LEAST_ROWS

    def check(self) -> None:
        for name in ("decodes", "mixed"):
            sizes = getattr(self, name)
            if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
                raise ConfigError(f"{name}={sizes} do not ascend from 1 or more", where=name, remedy="Sort them.")
        if self.mixed[-1] != self.decodes[-1]:
            raise ConfigError(
                f"mixed ends with {self.mixed[-1]}, but {self.decodes[-1]} may run",
                where="mixed",
                remedy=f"End it with {self.decodes[-1]}: prompts may come while all run.",
            )

    @property
    def essential(self) -> tuple[Shape, ...]:
        """Shapes that together take every plan."""
        most = self.decodes[-1]
        mixed = (self._shape(most, *chunk) for chunk in self.chunks if self._needed(chunk))
        return (self._shape(most, 0, 0), *mixed)

    def _shape(self, decodes: int, chunks: int, chunk_width: int) -> Shape:
        return Shape(decodes, 1 + self.draft, chunks, chunk_width, self.least)

    def _needed(self, chunk: tuple[int, int]) -> bool:
        """Whether no other chunk shape holds all that this one does."""
        return not any(other != chunk and other[0] >= chunk[0] and other[1] >= chunk[1] for other in self.chunks)

    @property
    def all(self) -> tuple[Shape, ...]:
        """Every shape, the essential ones first, then those of fewer tokens first."""
        decode = [self._shape(n, 0, 0) for n in self.decodes]
        alone = [self._shape(0, *chunk) for chunk in self.chunks]
        mixed = [self._shape(n, *chunk) for n in self.mixed for chunk in self.chunks]
        first = self.essential
        return (*first, *sorted({*decode, *alone, *mixed} - {*first}, key=lambda shape: shape.tokens))

    def holds(self, shape: Shape, plan: Plan) -> bool:
        """Whether a plan fits a shape."""
        longest = max((row.count for row in plan.chunks), default=0)
        return len(plan.decodes) <= shape.decodes and len(plan.chunks) <= shape.chunks and longest <= shape.chunk_width
