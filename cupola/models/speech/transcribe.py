"""Recordings of any length to text, by windows of 30 seconds; several recordings at once.

Not here: one window (`search.py`), reading files (`data/audio/files.py`), formats (`transcript.py`).
Invariant: what a recording gives does not depend on the recordings beside it, and nothing is compiled
anew for another recording or window.
Source: Radford et al., arXiv 2212.04356, section 4.5; OpenAI's `whisper/transcribe.py`, whose defaults
these are.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from cupola.data.audio.clip import Clip
from cupola.layers.cross_attention import Memory
from cupola.models.speech.listening import Heard, Listening
from cupola.models.speech.recognizer import Recognizer
from cupola.models.speech.search import (
    Choice,
    Found,
    Plan,
    Prompts,
    compiled_first,
    compiled_listen,
    compiled_search,
)
from cupola.models.speech.transcript import Segment, Transcript
from cupola.models.speech.whisper_tokens import TIME_STEP_SECONDS

_FRAMES_PER_POSITION = 2
_SHORT_PROMPT = 8
"""Prompts are padded to this or to all that there is room for, so that two lengths are compiled."""


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What is asked of the search for one window: the tokens before its text, and where it begins."""

    prompt: list[int]
    seek: int


@dataclasses.dataclass(eq=False)
class _Recording:
    """A recording on its way.

    Args:
        features: of all of it.
        seek: the first frame of the next window.
        said: tokens of the segments so far, and of the hint before them.
        forgotten: so many of those are no longer shown to the model.
    """

    features: Float32[np.ndarray, "T M"]
    seconds: float
    language: str | None
    language_prob: float
    said: list[int]
    seek: int = 0
    forgotten: int = 0
    segments: list[Segment] = dataclasses.field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether there is another window."""
        return self.seek < len(self.features)

    def transcript(self, listening: Listening) -> Transcript:
        """Returns what was found so far."""
        return Transcript(
            language=self.language or "en",
            language_prob=self.language_prob,
            segments=tuple(self.segments),
            duration_seconds=self.seconds,
            task=listening.task,
        )


def transcribe(recognizer: Recognizer, clip: Clip, listening: Listening = Listening()) -> Transcript:
    """Returns what is said in a recording; arguments and errors as of `transcribe_all`."""
    return transcribe_all(recognizer, [clip], listening)[0]


def follow(recognizer: Recognizer, clip: Clip, listening: Listening = Listening()) -> Iterator[Transcript]:
    """Yields what is said in a recording up to the end of each window, the last time all of it.

    Arguments and errors are those of `transcribe_all`.
    """
    listening.check_for(recognizer)
    recording = _begun(recognizer, clip, listening)
    while recording.goes_on:
        _advance(recognizer, [recording], listening)
        yield recording.transcript(listening)


def transcribe_all(
    recognizer: Recognizer, clips: Sequence[Clip], listening: Listening = Listening(), *, batch: int = 4
) -> list[Transcript]:
    """Returns what is said in each of some recordings.

    Args:
        recognizer: the model.
        clips: of any rate and length.
        listening: how.
        batch: windows of different recordings that are listened to at once.

    Raises:
        AudioError: a recording holds nothing but silence.
        ConfigError: a language that the model does not know, or a task that it has not learned.
    """
    listening.check_for(recognizer)
    recordings = [_begun(recognizer, clip, listening) for clip in clips]
    waiting = list(recordings)
    while waiting:
        # A power of two, so that few sizes are compiled and none is padded.
        together = waiting[: 1 << (min(batch, len(waiting)).bit_length() - 1)]
        _advance(recognizer, together, listening)
        waiting = [recording for recording in waiting if recording.goes_on]
    return [recording.transcript(listening) for recording in recordings]


def _begun(recognizer: Recognizer, clip: Clip, listening: Listening) -> _Recording:
    clip.check_sound()
    front = recognizer.front
    heard = clip.at_rate(front.rate_hz)
    frames = max(1, len(heard.samples) // front.stft.hop)
    # Silence after the end, as in training, where the front end would mirror what is before it.
    padded = Clip(np.pad(heard.samples, (0, 3 * front.stft.size)), front.rate_hz)
    hint = listening.prompt.strip()
    return _Recording(
        features=front.of(padded)[:frames],
        seconds=clip.seconds,
        language=listening.language if recognizer.tokens.is_multilingual else "en",
        language_prob=1.0,
        said=recognizer.tokens.tokenizer.encode(f" {hint}").tolist() if hint else [],
    )


def _advance(recognizer: Recognizer, recordings: Sequence[_Recording], listening: Listening) -> None:
    """Listens to the next window of each recording."""
    model, params = recognizer.model, recognizer.params
    size = model.encoder.positions * _FRAMES_PER_POSITION
    windows = np.zeros((len(recordings), size, model.mels), np.float32)
    for row, recording in enumerate(recordings):
        window = recording.features[recording.seek : recording.seek + size]
        windows[row, : len(window)] = window
    memories = compiled_listen(model)(params, windows)
    _find_languages(recognizer, recordings, memories)
    asked = [_Asked(_prompt(recognizer, each, listening), each.seek) for each in recordings]
    for recording, text in zip(recordings, _texts(recognizer, memories, asked, listening), strict=True):
        _take(recognizer, recording, text, min(size, len(recording.features) - recording.seek), listening)


def _find_languages(recognizer: Recognizer, recordings: Sequence[_Recording], memories: tuple[Memory, ...]) -> None:
    if all(recording.language for recording in recordings):
        return
    names = list(recognizer.tokens.languages)
    ids = jnp.asarray([recognizer.tokens.languages[name] for name in names])
    start = jnp.asarray(recognizer.tokens.start)
    probs = np.asarray(compiled_first(recognizer.model)(recognizer.params, memories, start, ids))
    for recording, row in zip(recordings, probs, strict=False):
        if recording.language is None:
            recording.language, recording.language_prob = names[int(row.argmax())], float(row.max())


def _prompt(recognizer: Recognizer, recording: _Recording, listening: Listening) -> list[int]:
    tokens = recognizer.tokens
    return tokens.prompt(
        language=recording.language if tokens.is_multilingual else None,
        task=listening.task,
        times=listening.times,
        before=recording.said[recording.forgotten :],
        most=_longest(recognizer) - 1,
    )


def _longest(recognizer: Recognizer) -> int:
    """Tokens of a text, and of what was said before it: half of what the decoder has room for."""
    return recognizer.model.decoder.max_length // 2


def _texts(
    recognizer: Recognizer, memories: tuple[Memory, ...], asked: Sequence[_Asked], listening: Listening
) -> list[Heard]:
    """Returns the text of each window: the first that is good enough, at rising temperatures."""
    tried: list[list[Heard]] = [[] for _ in asked]
    poor = list(range(len(asked)))
    for temperature in listening.temperatures:
        found = _search(recognizer, memories, asked, poor, temperature, listening)
        for row, text in zip(poor, found, strict=True):
            tried[row].append(text)
        poor = [row for row in poor if not listening.is_enough(tried[row][-1])]
        if not poor:
            break
    chosen = [texts[-1] for texts in tried]
    for row in poor:
        # None was: the likeliest, of those that do not repeat themselves if there are any.
        best = max(tried[row], key=lambda text: (not listening.repeats(text), text.average_log_prob))
        chosen[row] = dataclasses.replace(best, temperature=listening.temperatures[-1])
    return chosen


def _search(
    recognizer: Recognizer,
    memories: tuple[Memory, ...],
    asked: Sequence[_Asked],
    rows: Sequence[int],
    temperature: float,
    listening: Listening,
) -> Iterator[Heard]:
    """Yields the text of each of some rows at one temperature."""
    tokens, vocabulary = recognizer.tokens, recognizer.model.vocabulary
    # The next power of two, so that few sizes are compiled.
    padded = [*rows, *[rows[0]] * ((1 << (len(rows) - 1).bit_length()) - len(rows))]
    if padded != list(range(len(asked))):
        chosen = jnp.asarray(padded)
        memories = jax.tree.map(lambda x: x[chosen], memories)
    first = np.zeros(vocabulary, bool)
    first[tokens.blank] = True
    run: Any = compiled_search(recognizer.model, _plan(recognizer, temperature, listening))
    found: Found = jax.device_get(
        run(
            recognizer.params,
            memories,
            _prompts(recognizer, [asked[row] for row in padded], listening.seed),
            tokens.suppressed(vocabulary, listening.suppress),
            first,
            # Beams do not look at it.
            jnp.float32(temperature or 1.0),
        )
    )
    for place in range(len(rows)):
        length = int(found.lengths[place])
        ids = tuple(found.tokens[place, :length].tolist())
        words = tokens.text(ids)
        yield Heard(
            tokens=ids,
            words=words,
            average_log_prob=float(found.log_probs[place]) / (length + 1),
            no_speech=float(found.no_speech[place]),
            temperature=temperature,
            compression_ratio=_compression_ratio(words.strip()),
        )


def _prompts(recognizer: Recognizer, asked: Sequence[_Asked], seed: int) -> Prompts:
    longest = max(len(each.prompt) for each in asked)
    width = _SHORT_PROMPT if longest <= _SHORT_PROMPT else _longest(recognizer) + _SHORT_PROMPT
    held = np.full((len(asked), width), recognizer.tokens.codes.end, np.int32)
    for row, each in enumerate(asked):
        held[row, : len(each.prompt)] = each.prompt
    return Prompts(
        tokens=jnp.asarray(held),
        lengths=jnp.asarray([len(each.prompt) for each in asked], jnp.int32),
        starts=jnp.asarray([each.prompt.index(recognizer.tokens.start) for each in asked], jnp.int32),
        keys=jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray([each.seek for each in asked])),
    )


def _plan(recognizer: Recognizer, temperature: float, listening: Listening) -> Plan:
    by_beams = temperature == 0
    rows = listening.beams if by_beams else listening.draws
    return Plan(
        codes=recognizer.tokens.codes,
        choice=Choice.LIKELIEST if by_beams else Choice.DRAWN,
        rows=rows,
        ended=max(1, round(rows * listening.patience)) if by_beams else rows,
        limit=_longest(recognizer),
        length_penalty=listening.length_penalty,
        times=listening.times,
        latest_first=round(listening.latest_first_seconds / TIME_STEP_SECONDS),
    )


def _take(recognizer: Recognizer, recording: _Recording, text: Heard, frames: int, listening: Listening) -> None:
    """Adds the segments of a window to a recording, and moves on to where the next one begins."""
    if listening.is_silence(text):
        recording.seek += frames
        return
    begin = recording.seek * recognizer.front.frame_seconds
    parts, moved = cut_at_times(text.tokens, recognizer.tokens.codes.times, frames)
    recording.seek += moved
    for start, end, tokens in parts:
        words = recognizer.tokens.text(tokens)
        if start == end or not words.strip():
            continue
        recording.said += tokens
        recording.segments.append(
            Segment(
                start=round(begin + start * TIME_STEP_SECONDS, 3),
                end=round(begin + end * TIME_STEP_SECONDS, 3),
                window=round(begin, 3),
                text=words,
                tokens=tokens,
                average_log_prob=text.average_log_prob,
                no_speech=text.no_speech,
                temperature=text.temperature,
                compression_ratio=text.compression_ratio,
            )
        )
    if not listening.remembers(text):
        recording.forgotten = len(recording.said)


def cut_at_times(
    tokens: tuple[int, ...], times: int, frames: int
) -> tuple[list[tuple[float, float, tuple[int, ...]]], int]:
    """Returns the parts of a window's text, cut at its pairs of times.

    Returns:
        start and end of each part, in steps of time, with its tokens; and how many frames are done with: all, or
        those up to the last pair, after which a part begins that the window cuts off.
    """
    is_time = [token >= times for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i] and is_time[i - 1]]
    ends_alone = len(tokens) >= 2 and is_time[-1] and not is_time[-2]
    if not cuts:
        said = [token - times for token in tokens if token > times]
        end = said[-1] if said else frames / _FRAMES_PER_POSITION
        return [(0.0, float(end), tokens)], frames
    stops = [*cuts, len(tokens)] if ends_alone else cuts
    parts = [tokens[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
    moved = frames if ends_alone else (tokens[cuts[-1] - 1] - times) * _FRAMES_PER_POSITION
    return [(float(part[0] - times), float(part[-1] - times), part) for part in parts], moved


def _compression_ratio(words: str) -> float:
    data = words.encode()
    return len(data) / len(zlib.compress(data))
