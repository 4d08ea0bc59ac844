"""Loaders: batches by index, prefetched by a thread, from a position that can be saved.

Not here: what is in a row (`pack.py`, `mixture.py`), moving batches to devices.
Invariant: batch n of rows depends on the rows, the batch size and n alone: not on what was read before, on
prefetching, or on how many hosts share the work.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Array, Float, Int

from cupola.config.value import Value
from cupola.core.errors import ConfigError, DataError, ShapeError
from cupola.core.record import record
from cupola.data.pack import Packed, Row

MOST_BATCHES = 2**62
"""No run has more; a position is a machine word."""

Ids: Any = Int[Array | np.ndarray, "B T"]
Shares: Any = Float[Array | np.ndarray, "B T"]


@record
class Batch:
    """Rows to train or evaluate on: numpy arrays from the loader, jax arrays inside a step.

    Args:
        tokens: inputs.
        targets: what follows each token.
        weights: how much each target counts; 0 on padding.
        segments: which document of its row a token belongs to, from 1; 0 is padding.
        positions: place of the token in its segment, from 0.

    Raises:
        ShapeError: arrays that are not all [B, T].
        DataError: another kind of number, a negative one, or weight on padding.

    Numerics: numpy arrays are checked when a batch is made; jax arrays, in a step, are not.
    """

    tokens: Ids
    targets: Ids
    weights: Shares
    segments: Ids
    positions: Ids

    def __post_init__(self):
        arrays = vars(self)
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            return
        shapes = {name: array.shape for name, array in arrays.items()}
        if len(set(shapes.values())) > 1 or self.tokens.ndim != 2:
            raise ShapeError(f"arrays of a batch have shapes {shapes}", remedy="All are [B, T]: rows by tokens.")
        for name, array in arrays.items():
            if array.dtype.kind not in ("f" if name == "weights" else "iu"):
                raise DataError(
                    f"holds {array.dtype}", where=name, remedy="Weights are floats, the others whole numbers."
                )
            if array.size and array.min() < 0:
                raise DataError(f"holds {array.min()}", where=name, remedy="Ids, weights and positions count from 0.")
        if np.any((self.segments == 0) & (self.weights > 0)):
            raise DataError("a target on padding counts", where="weights", remedy="Use weight 0 where segments are 0.")

    @classmethod
    def stack(cls, rows: Iterable[Row]) -> "Batch":
        """Returns the batch of these rows."""
        listed = list(rows)
        return cls(**{field.name: np.stack([row[field.name] for row in listed]) for field in dataclasses.fields(cls)})


@runtime_checkable
class Rows(Protocol):
    """Endless rows that can be had by index: `Packed` or `Mixed`."""

    length_tokens: int
    seed: int

    @property
    def parts(self) -> tuple[tuple[float, Packed], ...]:
        """The packed corpora that it draws from, with their weights."""

    def __getitem__(self, index: int) -> Row: ...


@runtime_checkable
class Indexed(Protocol):
    """Endless batches that can be had by index, in any order and from another thread."""

    def __getitem__(self, index: int, /) -> Any:
        """Returns batch `index`, counted from 0."""


class Shard(Value):
    """Which host this is, of how many that read one batch together.

    Args:
        index: this host, counted from 0.
        count: how many hosts there are.
    """

    index: int = 0
    count: int = 1

    def check(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"host {self.index} of {self.count}",
                where="index",
                remedy=f"Hosts count from 0 to {self.count - 1}." if self.count > 0 else "Use count=1 for one host.",
            )

    def share(self, step: int, batch: int) -> range:
        """Returns which rows of batch `step` are this host's: i, i + count, ... of each batch."""
        return range(step * batch + self.index, (step + 1) * batch, self.count)


class Prefetched:
    """Iterates without end over batches that can be had by index, made ahead by a thread.

    Use it as a context, or `close` it, so that its thread stops.

    Args:
        source: `source[n]` is batch n, whichever were had before.
        identity: what the source gives its batches from, as JSON: a saved position is one in equal data alone.
        prefetch_batches: how many batches to have ready.

    Raises:
        ConfigError: a size is negative, or the identity is no JSON or speaks of "step".

    Example:
        with Prefetched(source, identity={"recordings": fingerprint, "seed": 0}) as batches:
            for batch in batches: ...
    """

    def __init__(self, source: Indexed, *, identity: Mapping[str, Any], prefetch_batches: int = 4):
        if prefetch_batches < 0:
            raise ConfigError(f"{prefetch_batches} batches", where="prefetch_batches", remedy="Use 0 for none, or 4.")
        self._identity = _as_json(identity)
        dataset = grain.MapDataset.range(MOST_BATCHES).map(source.__getitem__)
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch_batches)
        self._iterator = iter(dataset.to_iter_dataset(options))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._iterator)

    def state(self) -> dict[str, Any]:
        """Returns the position of the next batch to be handed out, and what it is a position in, as JSON.

        The same on every host, and valid for any number of hosts.
        """
        return {"step": self._iterator.get_state()["next_index"], **self._identity}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a position that `state` gave.

        Raises:
            DataError: it is a position in other data; the message names what differs.
        """
        for name, now in self._identity.items():
            if state.get(name) != now:
                raise DataError(
                    f"the saved position has {name}={state.get(name)!r}, but here it is {now!r}",
                    where=name,
                    remedy="Resume with the data, batch and seed of the run, or start a new run.",
                )
        step = state.get("step")
        if not isinstance(step, int) or step < 0:
            raise DataError(f"the saved position is {step!r}", where="step", remedy="Use what state() returned.")
        self._iterator.set_state({"next_index": step})

    def close(self) -> None:
        """Stops the thread; no batch can be had afterwards."""
        self._iterator.close()

    def __enter__(self) -> "Prefetched":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Loader(Prefetched):
    """Iterates over batches of rows; several hosts get disjoint rows of the same batches.

    Host i of n holds rows i, i + n, ... of every batch.

    Args:
        rows: where rows come from.
        batch: rows in a batch, over all hosts.
        shard: which of the rows are this host's.
        prefetch_batches: how many batches to have ready.

    Raises:
        ConfigError: the batch does not divide over the hosts, or a size is negative.

    Example:
        with Loader(Packed(corpus, length_tokens=256), batch=8) as loader:
            for batch in loader: ...
    """

    def __init__(self, rows: Rows, *, batch: int, shard: Shard = Shard(), prefetch_batches: int = 4):
        _check_divides(batch, shard)
        self.rows, self.batch, self.shard = rows, batch, shard
        identity = {
            "corpora": [packed.corpus.fingerprint for _, packed in rows.parts],
            "weights": [weight for weight, _ in rows.parts],
            "length_tokens": rows.length_tokens,
            "batch": batch,
            "seed": rows.seed,
        }
        super().__init__(_Stacked(rows, batch, shard), identity=identity, prefetch_batches=prefetch_batches)


@dataclasses.dataclass(frozen=True)
class _Stacked:
    """The batches of rows, by index."""

    rows: Rows
    batch: int
    shard: Shard

    def __getitem__(self, index: int) -> Batch:
        return Batch.stack(self.rows[i] for i in self.shard.share(index, self.batch))


def _as_json(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the identity as it comes back from a saved position: tuples have become lists."""
    try:
        told = json.loads(json.dumps(dict(identity), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot be saved with a position ({error})", where="identity", remedy="Use text, numbers and lists."
        ) from None
    if "step" in told:
        raise ConfigError("'step' names the position itself", where="identity", remedy="Use another name.")
    return told


def batches(rows: Sequence[Row], *, batch: int, shard: Shard = Shard()) -> Iterator[Batch]:
    """Yields every row once, in batches of one size; the last is filled up with rows of padding.

    Args:
        rows: to evaluate on, such as `Windows`.
        batch: rows in a batch, over all hosts.
        shard: which of the rows are this host's.

    Raises:
        ConfigError: the batch does not divide over the hosts.
    """
    _check_divides(batch, shard)
    padding = {name: np.zeros_like(array) for name, array in rows[0].items()}
    for step in range(-(-len(rows) // batch)):
        yield Batch.stack(rows[i] if i < len(rows) else padding for i in shard.share(step, batch))


def _check_divides(batch: int, shard: Shard) -> None:
    if batch < 1 or batch % shard.count:
        below = max(batch // shard.count, 0) * shard.count
        sizes = f"{below} or {below + shard.count}" if below else f"{shard.count}"
        raise ConfigError(
            f"a batch of {batch} rows does not divide over {shard.count} hosts",
            where="batch",
            remedy=f"Use batch={sizes}.",
        )
