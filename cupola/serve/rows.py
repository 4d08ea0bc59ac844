"""Packing the settings of sequences into the arrays of one step.

Not here: what the arrays do (`sample.py`). Everything that stays the same for a request is computed once, when
it is submitted; a step copies one line of numbers for each row.
Invariant: arrays are new in each call, for the step before may still be reading its own.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32, UInt32

from cupola.serve.errors import InvalidRequest
from cupola.serve.request import Sampling
from cupola.serve.sample import Bias, Penalties, Rows

_NEUTRAL = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0)
"""Temperature, top_p, min_p, repetition, presence and frequency of a row that nobody reads."""
_LEAST, _GROWTH = 64, 4
"""Lists of ids have 64, 256, 1024, ... places, so that few lengths are compiled."""


class Settings:
    """What holds for all draws of one request.

    Args:
        sampling: as the client asked.
        seed: of this request's randomness; any integer, taken modulo 2**64.
        vocabulary: of the model.

    Raises:
        InvalidRequest: a bias for a token that the model does not have.
    """

    def __init__(self, sampling: Sampling, *, seed: int, vocabulary: int):
        self.numbers = np.asarray(
            (
                sampling.temperature,
                sampling.top_p,
                sampling.min_p,
                sampling.repetition_penalty,
                sampling.presence_penalty,
                sampling.frequency_penalty,
            ),
            np.float32,
        )
        self.top_k = min(sampling.top_k or 0, vocabulary)
        word = 2**32 - 1
        self.seed = np.asarray((seed >> 32 & word, seed & word), np.uint32)
        self.penalizes = sampling.penalizes
        self._repeats = sampling.repetition_penalty != 1
        for token, _ in sampling.logit_bias:
            if not 0 <= token < vocabulary:
                raise InvalidRequest(
                    f"there is no token {token}: the model has {vocabulary}",
                    where="logit_bias",
                    remedy=f"Use token ids from 0 to {vocabulary - 1}, of this model's own tokenizer.",
                )
        self.bias_ids = np.asarray([token for token, _ in sampling.logit_bias], np.int32)
        self.bias_values = np.asarray([bias for _, bias in sampling.logit_bias], np.float32)

    def history(self, prompt: Sequence[int]) -> "History | None":
        """Returns what the penalties must know of a sequence; None where there are none."""
        return History(prompt if self._repeats else ()) if self.penalizes else None


class History:
    """Which tokens stand in a sequence, and how often each was generated.

    Args:
        prompt: tokens that count as seen, but not as generated.
    """

    def __init__(self, prompt: Sequence[int] = ()):
        self._prompt = set(prompt)
        self._place = {token: i for i, token in enumerate(dict.fromkeys(prompt))}
        room = _bucket(len(self._place))
        self._ids, self._counts = np.full(room, -1, np.int32), np.zeros(room, np.int32)
        self._ids[: len(self._place)] = list(self._place)

    def append(self, token: int) -> None:
        """Counts a generated token."""
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.full_like(self._ids, -1)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token
        self._counts[place] += 1

    def pop(self, token: int) -> None:
        """Takes back the last `append`, which was of this token."""
        place = self._place[token]
        self._counts[place] -= 1
        # A token seen first is listed last: those listed after it have been taken back before it.
        if not self._counts[place] and token not in self._prompt:
            self._ids[place] = -1
            del self._place[token]

    def __len__(self) -> int:
        """How many different tokens."""
        return len(self._place)

    def write(self, ids: Int32[np.ndarray, " N"], counts: Int32[np.ndarray, " N"]) -> None:
        """Fills in one row of `Penalties`."""
        size = len(self._place)
        ids[:size], counts[:size] = self._ids[:size], self._counts[:size]


@dataclasses.dataclass(slots=True)
class Place:
    """Where one sequence draws in a step: its next token, and one after each drafted token.

    Args:
        settings: of its request.
        position: of the next token in the sequence, prompt included.
        history: of the sequence; None where nothing is penalized.
        draft: tokens that are guessed to come; each gives one more row.
    """

    settings: Settings
    position: int
    history: History | None = None
    draft: Sequence[int] = ()


def rows_of(places: Sequence[Place], *, rows: int, mask: UInt32[np.ndarray, "R W"] | None = None) -> Rows:
    """Returns the arrays of a step: the rows of each place stand together, in order.

    Args:
        places: whose tokens are drawn.
        rows: how many rows the step is compiled for; those left over are drawn greedily, for nobody.
        mask: of the grammars, for all rows; all bits set where a row has no grammar. None: no row has one.
    """
    numbers = np.full((rows, len(_NEUTRAL)), _NEUTRAL, np.float32)
    top_k, position = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    seed = np.zeros((rows, 2), np.uint32)
    row = 0
    for place in places:
        end = row + 1 + len(place.draft)
        numbers[row:end], seed[row:end] = place.settings.numbers, place.settings.seed
        top_k[row:end] = place.settings.top_k
        position[row:end] = range(place.position, place.position + end - row)
        row = end
    temperature, top_p, min_p, *penalties = (np.ascontiguousarray(column) for column in numbers.T)
    return Rows(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        position=position,
        penalties=_penalties(places, rows, *penalties),
        bias=_bias(places, rows),
        mask=mask,
    )


def _penalties(
    places: Sequence[Place],
    rows: int,
    repetition: Float32[np.ndarray, " R"],
    presence: Float32[np.ndarray, " R"],
    frequency: Float32[np.ndarray, " R"],
) -> Penalties | None:
    longest = max((len(p.history) + len(p.draft) for p in places if p.history is not None), default=None)
    if longest is None:
        return None
    ids = np.full((rows, _bucket(longest)), -1, np.int32)
    counts = np.zeros_like(ids)
    row = 0
    for place in places:
        if place.history is not None:
            place.history.write(ids[row], counts[row])
            for i, token in enumerate(place.draft):
                place.history.append(token)
                place.history.write(ids[row + i + 1], counts[row + i + 1])
            for token in reversed(place.draft):
                place.history.pop(token)
        row += 1 + len(place.draft)
    return Penalties(ids=ids, counts=counts, repetition=repetition, presence=presence, frequency=frequency)


def _bias(places: Sequence[Place], rows: int) -> Bias | None:
    longest = max((len(p.settings.bias_ids) for p in places), default=0)
    if not longest:
        return None
    ids = np.full((rows, _bucket(longest)), -1, np.int32)
    values = np.zeros(ids.shape, np.float32)
    row = 0
    for place in places:
        end = row + 1 + len(place.draft)
        size = len(place.settings.bias_ids)
        ids[row:end, :size], values[row:end, :size] = place.settings.bias_ids, place.settings.bias_values
        row = end
    return Bias(ids=ids, values=values)


def _bucket(size: int) -> int:
    bucket = _LEAST
    while bucket < size:
        bucket *= _GROWTH
    return bucket
