"""Speaking: frames of symbols, where the decoder sees nothing but its own.

Frames are made in chunks of one compiled scan, until every row has stopped or `most_frames` are made; a
row that did not stop is cut and says so. The post-net runs over what is finished on both sides of a
frame, so streamed frames equal those made at once.
Not here: sound (`voice.py`). Invariant: frames depend on the seed and not on the length of chunks.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key

from cupola.config.value import Value
from cupola.core.context import Context
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.module import Tree
from cupola.core.record import record
from cupola.layers.location_attention import Memory
from cupola.models.speech.decoder import FrameState
from cupola.models.speech.tacotron import Tacotron2


class Speaking(Value):
    """How long and how steadily a model speaks.

    Args:
        most_frames: a row that has not stopped by then is cut.
        threshold: probability above which a frame is the last.
        chunk_frames: frames that are made before anybody looks whether it stopped; any number gives the
            same frames.
    """

    most_frames: int = 1000
    threshold: float = 0.5
    chunk_frames: int = 32

    def check(self) -> None:
        if min(self.most_frames, self.chunk_frames) < 1 or not 0 < self.threshold < 1:
            raise ConfigError(
                f"most_frames={self.most_frames}, threshold={self.threshold}, chunk_frames={self.chunk_frames}",
                where="speaking",
                remedy="Use such as 1000, 0.5 and 32.",
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Utterance:
    """What was said of one row of symbols.

    Args:
        features: log-mel frames, after the post-net.
        weights: of each frame over the symbols.
        stopped: whether it came to its end; False: it was cut.
    """

    features: Float32[np.ndarray, "T M"]
    weights: Float32[np.ndarray, "T S"]
    stopped: bool


@record
class _Going:
    """What a chunk leaves to the next: the decoder's state, the last frame, and how many steps there were."""

    state: FrameState
    frame: Float[Array, "B M"]
    time: Int[Array, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class _Chunk:
    frames: Float32[np.ndarray, "B T M"]
    weights: Float32[np.ndarray, "B T S"]
    lengths: Int32[np.ndarray, " B"]
    """How many frames each row has so far, this chunk's included."""
    stopped: Bool[np.ndarray, " B"]


def generate(
    model: Tacotron2,
    params: Tree,
    symbols: Sequence[Int32[np.ndarray, " _"]],
    *,
    key: Key[Array, ""],
    speaking: Speaking = Speaking(),
) -> tuple[Utterance, ...]:
    """Returns what is said of each row.

    Args:
        symbols: ids of each utterance, of any lengths.
        key: of the pre-net's dropout, which does not rest.

    Raises:
        ShapeError: there is no row, an empty one, or an id that is no symbol.
    """
    chunks = list(_chunks(model, params, symbols, key, speaking))
    frames, weights = (np.concatenate([getattr(c, name) for c in chunks], axis=1) for name in ("frames", "weights"))
    lengths, stopped = chunks[-1].lengths, chunks[-1].stopped
    mended = _mended(model)(params, frames, np.arange(frames.shape[1])[None] < lengths[:, None])
    return tuple(
        Utterance(
            features=np.asarray(mended)[row, :length],
            weights=weights[row, :length, : len(symbols[row])],
            stopped=bool(stopped[row]),
        )
        for row, length in enumerate(lengths)
    )


def stream(
    model: Tacotron2,
    params: Tree,
    symbols: Int32[np.ndarray, " S"],
    *,
    key: Key[Array, ""],
    speaking: Speaking = Speaking(),
) -> Iterator[Utterance]:
    """Yields what is said of one row, a few frames at a time; `stopped` is True of the last where it stopped.

    A frame comes as soon as the frames are made that the post-net needs beside it.

    Raises:
        ShapeError: an empty row, or an id that is no symbol.
    """
    reach = model.post_net.net.reach
    window = speaking.chunk_frames + 2 * reach
    held = np.zeros((0, model.bins), np.float32)
    weights = np.zeros((0, len(symbols)), np.float32)
    given = 0
    for chunk in _chunks(model, params, [symbols], key, speaking):
        length, stopped = int(chunk.lengths[0]), bool(chunk.stopped[0])
        last = stopped or len(held) + chunk.frames.shape[1] >= speaking.most_frames
        held = np.concatenate([held, chunk.frames[0]])[:length]
        weights = np.concatenate([weights, chunk.weights[0, :, : len(symbols)]])[:length]
        while given < length and (last or given + reach < length):
            ready = min(given + speaking.chunk_frames, length if last else length - reach)
            ends = last and ready == length
            yield Utterance(
                features=_part(model, params, held, given, ready, window),
                weights=weights[given:ready],
                stopped=stopped and ends,
            )
            given = ready


def _part(
    model: Tacotron2, params: Tree, held: Float[np.ndarray, "T M"], start: int, stop: int, window: int
) -> Float32[np.ndarray, "U M"]:
    """Frames start to stop after the post-net, found from a window around them of one size for ever."""
    begin = start - model.post_net.net.reach
    time = np.arange(begin, begin + window)
    there = (time >= 0) & (time < len(held))
    frames = np.where(there[:, None], held[np.clip(time, 0, len(held) - 1)], 0)
    mended = _mended(model)(params, frames[None].astype(np.float32), there[None])
    return np.asarray(mended)[0, start - begin : stop - begin]


def _chunks(
    model: Tacotron2, params: Tree, symbols: Sequence[Int32[np.ndarray, " _"]], key: Key[Array, ""], speaking: Speaking
) -> Iterator[_Chunk]:
    """Yields chunks until every row has stopped or the most frames are made."""
    ids, counts = _padded(model, symbols)
    memory, going = _begin(model)(params, ids, counts)
    lengths = np.full(len(counts), speaking.most_frames, np.int32)
    stopped = np.zeros(len(counts), bool)
    made = 0
    while made < speaking.most_frames and not stopped.all():
        going, (frames, stops, weights) = _advance(model, speaking.chunk_frames)(params, memory, going, key)
        ends = np.asarray(jax.nn.sigmoid(stops)) > speaking.threshold
        ends[:, speaking.most_frames - made :] = False
        newly = ends.any(1) & ~stopped
        lengths = np.where(newly, made + ends.argmax(1) + 1, lengths).astype(np.int32)
        stopped |= newly
        made += frames.shape[1]
        yield _Chunk(
            frames=np.asarray(frames, np.float32),
            weights=np.asarray(weights, np.float32),
            lengths=np.minimum(lengths, made).astype(np.int32),
            stopped=stopped.copy(),
        )


def _padded(
    model: Tacotron2, symbols: Sequence[Int32[np.ndarray, " _"]]
) -> tuple[Int32[np.ndarray, "B padded"], Int32[np.ndarray, " B"]]:
    """Ids at one of few lengths, so that few programs are compiled."""
    if not symbols or not all(len(row) for row in symbols):
        raise ShapeError("there is nothing to say", where="symbols", remedy="Give at least one symbol in each row.")
    for row in symbols:
        if row.min() < 0 or row.max() >= model.vocabulary:
            raise ShapeError(
                f"id {max(row.max(), -row.min())} is none of {model.vocabulary} symbols",
                where="symbols",
                remedy="Encode the text with the symbols that the model was trained with.",
            )
    counts = np.asarray([len(row) for row in symbols], np.int32)
    ids = np.zeros((len(symbols), -(-counts.max() // 32) * 32), np.int32)
    for at, own in enumerate(symbols):
        ids[at, : len(own)] = own
    return ids, counts


@functools.lru_cache(maxsize=8)
def _begin(model: Tacotron2) -> Callable[..., Any]:
    def begin(params: Tree, ids: Int[Array, "B S"], counts: Int[Array, " B"]) -> tuple[Memory, _Going]:
        encoded, _ = model.encoder(params["encoder"], ids, counts)
        memory = model.decoder.memory(params["decoder"], encoded, counts)
        frame = jnp.zeros((len(ids), model.bins), model.precision.output)
        going = _Going(state=model.decoder.empty_state(memory), frame=frame, time=jnp.zeros((), jnp.int32))
        return memory, going

    return jax.jit(begin)


@functools.lru_cache(maxsize=8)
def _advance(model: Tacotron2, frames: int) -> Callable[..., Any]:
    """So many frames, or as many more as fill the last step."""
    each = model.decoder.frames_per_step

    def advance(params: Tree, memory: Memory, going: _Going, key: Key[Array, ""]) -> tuple[_Going, Any]:
        def step(going: _Going, _: None) -> tuple[_Going, Any]:
            context = Context(key=key).at(going.time)
            (made, stops, weights), state = model.decoder.step(
                params["decoder"], going.frame, going.state, memory, context=context
            )
            weights = jnp.repeat(weights[:, None], each, axis=1)
            return _Going(state=state, frame=made[:, -1], time=going.time + 1), (made, stops, weights)

        going, made = jax.lax.scan(step, going, None, length=-(-frames // each))
        # [steps, B, frames of a step, ...] as [B, frames, ...]
        return going, jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(x.shape[1], -1, *x.shape[3:]), made)

    return jax.jit(advance, donate_argnums=2)


@functools.lru_cache(maxsize=8)
def _mended(model: Tacotron2) -> Callable[..., Any]:
    def mended(params: Tree, frames: Float[Array, "B T M"], mask: Bool[Array, "B T"]) -> Float[Array, "B T M"]:
        return model.post_net(params["post_net"], frames, mask)[0]

    return jax.jit(mended)
