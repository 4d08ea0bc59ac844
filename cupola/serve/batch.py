"""A plan as the arrays of one compiled step.

Not here: how tokens are drawn (`rows.py`), what the step computes (`run.py`).
Invariant: arrays are new in each call, for the step before may still be reading its own; padding
writes to page 0 and is read by nobody.
"""

import numpy as np
from jaxtyping import Int32

from cupola.core.record import record
from cupola.layers.kv import Begin, Rows
from cupola.serve.sample import Given
from cupola.serve.sequence import Plan, Row, Sequence
from cupola.serve.shapes import Shape


@record
class Batch:
    """What a step computes, tokens of all sequences in one row.

    Args:
        tokens: known ones; 0 where the slot's last drawn token stands in.
        slots: of the sequence whose last drawn token is taken; -1 takes `tokens`.
        positions: of the tokens in their sequences.
        groups: pages and starts of the decoding sequences, then of the prompts.
        wanted: which tokens' successors are drawn.
        drawn_slots: where each drawn token is kept for the next step; past the last slot: nowhere.
        adapters: of each token; 0 is none.
    """

    tokens: Int32[Given, " T"]
    slots: Int32[Given, " T"]
    positions: Int32[Given, " T"]
    groups: tuple[Rows, ...]
    wanted: Int32[Given, " R"]
    drawn_slots: Int32[Given, " R"]
    adapters: Int32[Given, " T"]


class Tables:
    """The page tables of running sequences, one line a slot, written as pages are added.

    Args:
        slots: how many sequences may run.
        length: pages of the longest sequence.
    """

    def __init__(self, slots: int, length: int):
        self._pages = np.zeros((slots, length), np.int32)
        self._known: list[tuple[list[int], int]] = [([], 0)] * slots

    def of(self, sequence: Sequence) -> Int32[np.ndarray, " N"]:
        """Returns the line of a running sequence, brought up to date; copy it before the next call."""
        held, written = self._known[sequence.slot]
        line = self._pages[sequence.slot]
        if held is not sequence.pages or len(held) < written:
            line[:] = 0
            written = 0
        line[written : len(sequence.pages)] = sequence.pages[written:]
        self._known[sequence.slot] = (sequence.pages, len(sequence.pages))
        return line

    @property
    def length(self) -> int:
        """Pages of the longest sequence."""
        return self._pages.shape[1]


class _Filling:
    """Arrays of a step while they are filled."""

    def __init__(self, shape: Shape, tables: Tables, slots: int):
        self._tables = tables
        self.tokens = np.zeros(shape.tokens, np.int32)
        self.slots = np.full(shape.tokens, -1, np.int32)
        self.positions = np.zeros(shape.tokens, np.int32)
        self.adapters = np.zeros(shape.tokens, np.int32)
        self.wanted = np.zeros(shape.draws, np.int32)
        self.drawn_slots = np.full(shape.draws, slots, np.int32)
        self.draws = 0

    def group(
        self, rows: tuple[Row, ...], size: int, width: int, first: int, begin: Begin, adapters: dict[str, int]
    ) -> Rows:
        """Fills in the rows of one group, whose tokens begin at `first`."""
        table, start = np.zeros((size, self._tables.length), np.int32), np.zeros(size, np.int32)
        for index, row in enumerate(rows):
            at, sequence = first + index * width, row.sequence
            table[index], start[index] = self._tables.of(sequence), row.start
            self.positions[at : at + width] = range(row.start, row.start + width)
            if row.unknown:
                self.slots[at] = sequence.slot
            else:
                self.tokens[at : at + row.count] = row.tokens
            if sequence.request.adapter is not None:
                self.adapters[at : at + width] = adapters[sequence.request.adapter]
            if row.draws:
                count = 1 + len(row.draft)
                self.wanted[self.draws : self.draws + count] = range(at + row.count - count, at + row.count)
                self.drawn_slots[self.draws + count - 1] = sequence.slot
                self.draws += count
        return Rows(table=table, start=start, width=width, begin=begin)


def batch_of(plan: Plan, shape: Shape, tables: Tables, *, slots: int, adapters: dict[str, int]) -> Batch:
    """Returns the arrays of a plan, padded to a shape that holds it.

    Args:
        slots: how many sequences may run.
        adapters: the number of each adapter, from 1.
    """
    filling = _Filling(shape, tables, slots)
    groups = []
    if shape.decodes:
        groups.append(filling.group(plan.decodes, shape.decodes, shape.width, 0, Begin.ANYWHERE, adapters))
    if shape.chunks:
        first = shape.decodes * shape.width
        groups.append(filling.group(plan.chunks, shape.chunks, shape.chunk_width, first, Begin.PAGE, adapters))
    return Batch(
        tokens=filling.tokens,
        slots=filling.slots,
        positions=filling.positions,
        groups=tuple(groups),
        wanted=filling.wanted,
        drawn_slots=filling.drawn_slots,
        adapters=filling.adapters,
    )
