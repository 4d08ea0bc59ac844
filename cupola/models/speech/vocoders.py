"""Learned vocoders: Vocos, which streams and runs in a fraction of real time, and WaveNet.

Not here: what a vocoder is (`data/audio/vocoder.py`), how they are trained. Invariant: streamed samples
are those made at once, to float32: frames are looked at as far as the network reaches, no less.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from cupola.core.errors import ConfigError
from cupola.core.module import Tree
from cupola.data.audio.clip import Clip
from cupola.data.audio.spectrum import OverlapAdd
from cupola.data.audio.vocoder import Vocoder
from cupola.models.speech.vocos import Vocos
from cupola.models.speech.wavenet import WaveNet, sound


class VocosVocoder(Vocoder):
    """A trained Vocos.

    Args:
        front: made the features.
        model: makes spectra of them.
        chunk_frames: frames that are made sound of together when they come bit by bit; the first sound needs
            these and `model.reach` more.
    """

    model: Vocos
    chunk_frames: int = 24

    def check(self) -> None:
        if self.model.bins != self.front.bins:
            raise ConfigError(
                f"the model takes frames of {self.model.bins} bins, and the front end makes {self.front.bins}",
                where="model.bins",
                remedy=f"Use model.bins={self.front.bins}.",
            )
        ours, theirs = self.model.stft, self.front.stft
        if (ours.hop, ours.padding) != (theirs.hop, theirs.padding):
            raise ConfigError(
                f"hop={ours.hop} and {ours.padding} do not fit frames of hop={theirs.hop} and {theirs.padding}",
                where="model.stft",
                remedy=f"Use model.stft.hop={theirs.hop} and model.stft.padding={theirs.padding.name}.",
            )
        if self.chunk_frames < 1:
            raise ConfigError(f"{self.chunk_frames}", where="chunk_frames", remedy="Use 1 or more, such as 24.")

    def specs(self) -> Tree:
        return self.model.specs()

    def of(self, features: Float[np.ndarray, "T M"], *, params: Tree, seed: int = 0) -> Clip:
        self.check_features(features)
        frames = len(features)
        # Few lengths, few compilations: frames that are not there reach none that are.
        there = np.arange(-(-frames // 64) * 64) < frames
        made = self._frames(params, np.pad(features, ((0, len(there) - frames), (0, 0))), there)
        overlap = OverlapAdd(self.model.stft)
        begun = overlap.add(made[:frames])
        return Clip(np.concatenate([begun, overlap.finish(self.front.samples(frames))]), self.front.rate_hz)

    def stream(
        self, features: Iterable[Float[np.ndarray, "_ M"]], *, params: Tree, seed: int = 0
    ) -> Iterator[Float32[np.ndarray, " N"]]:
        overlap, reach = OverlapAdd(self.model.stft), self.model.reach
        held, begin, given, came = np.zeros((0, self.front.bins), np.float32), 0, 0, 0

        def made(stop: int) -> Float32[np.ndarray, " N"]:
            """The samples that are complete with the frames from `given` to `stop`."""
            time = np.arange(given - reach, given + self.chunk_frames + reach)
            there = (time >= 0) & (time < came)
            window = np.where(there[:, None], held[np.clip(time - begin, 0, len(held) - 1)], 0)
            return overlap.add(self._frames(params, window, there)[reach:][: stop - given])

        for part in features:
            if not len(part):
                continue
            self.check_features(part)
            held, came = np.concatenate([held, part.astype(np.float32)]), came + len(part)
            while came - reach >= given + self.chunk_frames:
                yield from _some(made(given + self.chunk_frames))
                given += self.chunk_frames
                held, begin = held[max(0, given - reach - begin) :], max(begin, given - reach)
        while given < came:
            stop = min(came, given + self.chunk_frames)
            yield from _some(made(stop))
            given = stop
        if came:
            yield from _some(overlap.finish(self.front.samples(came)))

    def _frames(
        self, params: Tree, features: Float[np.ndarray, "T M"], there: Bool[np.ndarray, " T"]
    ) -> Float32[np.ndarray, "T size"]:
        return np.asarray(_windowed(self.model)(params, features[None].astype(np.float32), there[None]))[0]


class WaveNetVocoder(Vocoder):
    """A trained WaveNet: sample by sample, which is slower than real time on a CPU at the paper's size.

    Args:
        front: made the features.
        model: makes samples of them.
    """

    model: WaveNet

    def check(self) -> None:
        if self.model.bins != self.front.bins:
            raise ConfigError(
                f"the model takes frames of {self.model.bins} bins, and the front end makes {self.front.bins}",
                where="model.bins",
                remedy=f"Use model.bins={self.front.bins}.",
            )
        if self.model.hop != self.front.stft.hop:
            raise ConfigError(
                f"{self.model.strides} make {self.model.hop} samples of a frame, whose hop is {self.front.stft.hop}",
                where="model.strides",
                remedy=f"Use strides whose product is {self.front.stft.hop}.",
            )

    def specs(self) -> Tree:
        return self.model.specs()

    def of(self, features: Float[np.ndarray, "T M"], *, params: Tree, seed: int = 0) -> Clip:
        samples = np.concatenate(list(self.stream([features], params=params, seed=seed)))
        return Clip(samples, self.front.rate_hz)

    def stream(
        self, features: Iterable[Float[np.ndarray, "_ M"]], *, params: Tree, seed: int = 0
    ) -> Iterator[Float32[np.ndarray, " N"]]:
        """Yields samples as they are drawn, when all frames have come."""
        parts = [part for part in features if len(part)]
        if not parts:
            return
        whole = np.concatenate(parts)
        self.check_features(whole)
        left = self.front.samples(len(whole))
        for (samples,) in sound(self.model, params, whole[None], key=jax.random.key(seed)):
            yield from _some(samples[:left])
            left -= len(samples[:left])


def _some(samples: Float32[np.ndarray, " N"]) -> tuple[Float32[np.ndarray, " N"], ...]:
    return (samples,) if len(samples) else ()


@functools.lru_cache(maxsize=8)
def _windowed(model: Vocos) -> Callable[..., Any]:
    def windowed(params: Tree, features: Float[Array, "B T M"], there: Bool[Array, "B T"]) -> Float[Array, "B T size"]:
        return model.stft.windowed(model.spectrum(params, features, there))

    return jax.jit(windowed)
