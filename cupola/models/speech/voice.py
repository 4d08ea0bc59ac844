"""A voice: text in, sound out, sentence by sentence or as early as it can be had.

Text is put in words, cut at its sentences, read as symbols, spoken as frames, and turned into sound by
a vocoder. Not here: the parameters, which every call is given: {"model": ..., "vocoder": ...}.
Invariant: what `say` returns is what `stream` yields, joined, and that is what `pieces` yields, joined;
text, seed and parameters decide it.
"""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Float32

from cupola.config.value import Value
from cupola.core.errors import AudioError, ConfigError, TextError
from cupola.core.module import Tree
from cupola.data.audio.clip import Clip
from cupola.data.audio.vocoder import Vocoder
from cupola.data.spoken.english import English
from cupola.data.spoken.sentences import sentences
from cupola.data.spoken.symbols import Characters, Symbols
from cupola.models.speech.generate import Speaking, Utterance
from cupola.models.speech.generate import stream as spoken_frames
from cupola.models.speech.pace import FASTEST, SLOWEST, Pace
from cupola.models.speech.tacotron import Tacotron2


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """A part of a sentence, as soon as it has sound.

    Args:
        text: of the sentence, in words.
        samples: of its sound, with the silence after it where it ends the sentence.
        utterance: all frames of the sentence where it ends it, else None.
    """

    text: str
    samples: Float32[np.ndarray, " N"]
    utterance: Utterance | None


@dataclasses.dataclass(frozen=True, eq=False)
class Sentence:
    """A sentence that was said.

    Args:
        text: in words.
        utterance: its frames; `stopped` is False where it was cut.
        clip: its sound, with the silence after it.
    """

    text: str
    utterance: Utterance
    clip: Clip


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """A text that was said.

    Args:
        clip: the sound of all of it.
        cut: the sentences that the model did not end by itself.
    """

    clip: Clip
    cut: tuple[str, ...]


def _nothing() -> None:
    pass


class Voice(Value):
    """What speaks: a model, the symbols that it reads, and what makes sound of its frames.

    Args:
        model: makes frames.
        vocoder: makes sound of them, such as Griffin-Lim; its front end is what the model was taught with.
        symbols: what the model reads.
        language: puts text in words.
        speaking: how long and how steadily.
        speed: how many times as fast as it was taught; pitch stays.
        pause_seconds: silence after each sentence but the last.
        fade_seconds: over which a sentence begins and ends, so that nothing clicks.
        most_characters: a sentence of more is broken at a comma or a space.
        most_text_characters: a text of more is refused.

    Example:
        said = voice.say(params, "The furnace is ready. Pour at 5 pm.")
        write("ready.wav", said.clip)
    """

    model: Tacotron2
    vocoder: Vocoder
    symbols: Symbols = Characters()
    language: English = English()
    speaking: Speaking = Speaking()
    speed: float = 1.0
    pause_seconds: float = 0.2
    fade_seconds: float = 0.005
    most_characters: int = 240
    most_text_characters: int = 10_000

    def check(self) -> None:
        if self.model.vocabulary != self.symbols.vocabulary:
            raise ConfigError(
                f"the model reads {self.model.vocabulary} symbols, and there are {self.symbols.vocabulary}",
                where="symbols",
                remedy="Use the symbols that it was trained with.",
            )
        if self.model.bins != self.vocoder.front.bins:
            raise ConfigError(
                f"the model makes frames of {self.model.bins} bins, and the vocoder takes {self.vocoder.front.bins}",
                where="vocoder",
                remedy="Use the front end that the model was trained with.",
            )
        if self.pause_seconds < 0 or self.fade_seconds < 0 or min(self.most_characters, self.most_text_characters) < 1:
            raise ConfigError(
                f"pause_seconds={self.pause_seconds}, fade_seconds={self.fade_seconds}, "
                f"most_characters={self.most_characters}, most_text_characters={self.most_text_characters}",
                where="pause_seconds",
                remedy="Use such as 0.2, 0.005, 240 and 10000.",
            )
        if not SLOWEST <= self.speed <= FASTEST:
            raise ConfigError(f"{self.speed:g}", where="speed", remedy=f"Use {SLOWEST} to {FASTEST:g}; 1.0 is usual.")

    def specs(self) -> Tree:
        """Returns the tree of all `Param`s: the model's under "model", the vocoder's, if any, under "vocoder"."""
        return {"model": self.model.specs(), "vocoder": self.vocoder.specs()}

    def say(self, params: Tree, text: str, *, seed: int = 0) -> Said:
        """Returns the sound of a text, and which of its sentences were cut.

        Args:
            params: in the form of `specs`.
            seed: draws whatever is drawn.

        Raises:
            TextError: there is nothing to say, it is too long, or it holds a character that is no symbol.
            AudioError: the model stops at once, or makes what is not finite.
            Unsupported: a package or program that transcribes is not installed.
        """
        said = list(self.stream(params, text, seed=seed))
        samples = np.concatenate([sentence.clip.samples for sentence in said])
        cut = tuple(sentence.text for sentence in said if not sentence.utterance.stopped)
        return Said(clip=Clip(samples, self.vocoder.front.rate_hz), cut=cut)

    def stream(self, params: Tree, text: str, *, seed: int = 0) -> Iterator[Sentence]:
        """Yields each sentence as soon as it is said; the whole text is read first, and its errors raised.

        Raises:
            TextError: there is nothing to say, it is too long, or it holds a character that is no symbol.
            AudioError: while it speaks: the model stops at once, or makes what is not finite.
            Unsupported: a package or program that transcribes is not installed.
        """
        return self._sentences(self.pieces(params, text, seed=seed))

    def pieces(
        self, params: Tree, text: str, *, seed: int = 0, between: Callable[[], None] = _nothing
    ) -> Iterator[Piece]:
        """Yields sound as early as it can be had: with a vocoder that streams, long before a sentence is ready.

        Args:
            params: in the form of `specs`.
            seed: draws whatever is drawn.
            between: called again and again while frames are made; what it raises ends the speaking.

        Raises:
            As `stream`.
        """
        if len(text) > self.most_text_characters:
            raise TextError(
                f"{len(text)} characters, where {self.most_text_characters} are the most",
                where="text",
                remedy="Say it in parts, or give the voice a larger most_text_characters.",
            )
        parts = sentences(self.language(text), most_characters=self.most_characters)
        read = [self.symbols.encode(part) for part in parts]
        return self._spoken(params, parts, read, seed, between)

    def _sentences(self, pieces: Iterator[Piece]) -> Iterator[Sentence]:
        held = []
        for piece in pieces:
            held.append(piece.samples)
            if piece.utterance is not None:
                clip = Clip(np.concatenate(held), self.vocoder.front.rate_hz)
                yield Sentence(text=piece.text, utterance=piece.utterance, clip=clip)
                held = []

    def _spoken(
        self, params: Tree, parts: tuple[str, ...], read: list[np.ndarray], seed: int, between: Callable[[], None]
    ) -> Iterator[Piece]:
        root = jax.random.key(seed)
        for number, (part, ids) in enumerate(zip(parts, read, strict=True)):
            made: list[Utterance] = []
            frames = self._frames(params, part, ids, jax.random.fold_in(root, number), between, made)
            pause = 0 if number == len(parts) - 1 else round(self.pause_seconds * self.vocoder.front.rate_hz)
            for samples, is_last in self._faded(self.vocoder.stream(frames, params=params["vocoder"], seed=seed)):
                ended = np.pad(samples, (0, pause)) if is_last else samples
                yield Piece(text=part, samples=ended, utterance=_joined(made) if is_last else None)

    def _frames(
        self,
        params: Tree,
        part: str,
        ids: np.ndarray,
        key: jax.Array,
        between: Callable[[], None],
        made: list[Utterance],
    ) -> Iterator[Float32[np.ndarray, "T M"]]:
        """Yields frames at the voice's speed, and keeps them as they were made."""
        pace = Pace(self.speed)
        held, count = [], 0
        for some in spoken_frames(self.model, params["model"], ids, key=key, speaking=self.speaking):
            between()
            made.append(some)
            held.append(some.features)
            count += len(some.features)
            # A single frame is no sound; whether there are more is known soon.
            if count >= 2:
                if len(ready := pace.feed(np.concatenate(held))):
                    yield ready
                held = []
        if count < 2:
            raise AudioError(
                f"the model stopped at the first frame of {part!r}",
                where="voice",
                remedy="It has not learned to read this; train it longer, or raise speaking.threshold.",
            )
        if len(ready := pace.finish()):
            yield ready

    def _faded(self, parts: Iterator[Float32[np.ndarray, " N"]]) -> Iterator[tuple[Float32[np.ndarray, " N"], bool]]:
        """Rises from 0 and falls to 0, so that silence may follow; says of each part whether it is the last."""
        front = self.vocoder.front
        length = min(round(self.fade_seconds * front.rate_hz), front.samples(2) // 2)
        rise = (np.sin(np.pi / 2 * np.arange(length) / max(length, 1)) ** 2).astype(np.float32)
        begun, held = False, np.zeros(0, np.float32)
        for part in parts:
            held = np.concatenate([held, part])
            if not begun and len(held) >= length:
                held[:length] *= rise
                begun = True
            ready = len(held) - max(length, 1)
            if begun and ready > 0:
                yield held[:ready], False
                held = held[ready:]
        if length:
            held[-length:] *= rise[::-1]
        yield held, True


def _joined(parts: list[Utterance]) -> Utterance:
    return Utterance(
        features=np.concatenate([part.features for part in parts]),
        weights=np.concatenate([part.weights for part in parts]),
        stopped=parts[-1].stopped,
    )
