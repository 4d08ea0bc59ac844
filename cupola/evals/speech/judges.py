"""Judges of speech: those that write down what they hear, and those that rate how it sounds.

Not here: the errors of what was heard (`words.py`). Invariant: a judge that is not installed is an error that
says what to type, never a judge that says nothing.
Source: Reddy, Gopal and Cutler 2021, arXiv 2110.01763 (DNSMOS P.835); its polynomials are those of its authors' code.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from cupola.core.errors import Unsupported
from cupola.core.extra import bring
from cupola.data.audio.clip import Clip
from cupola.models.speech.listening import Listening
from cupola.models.speech.recognizer import Recognizer
from cupola.models.speech.transcribe import transcribe_all
from cupola.models.speech.whisper_tokens import Times

EXTRA = "judge"
_RATE_HZ = 16_000


@runtime_checkable
class Listener(Protocol):
    """Writes down what it hears."""

    name: str

    def hear(self, clips: Sequence[Clip]) -> list[str]:
        """Returns the text of each; "" where there is nothing to hear."""


@runtime_checkable
class Rater(Protocol):
    """Says how speech sounds, from 1 to 5."""

    name: str

    def rate(self, clips: Sequence[Clip]) -> dict[str, float]:
        """Returns means over all clips, by what they are of."""


class WhisperListener:
    """A Whisper of ours; it guesses words from their context.

    Args:
        recognizer: the model.
        language: that is spoken.
    """

    def __init__(self, recognizer: Recognizer, language: str = "en"):
        self.name = recognizer.name
        self._recognizer = recognizer
        self._listening = Listening(language=language, times=Times.NONE)

    def hear(self, clips: Sequence[Clip]) -> list[str]:
        heard = [""] * len(clips)
        loud = [number for number, clip in enumerate(clips) if not clip.is_silent]
        made = transcribe_all(self._recognizer, [clips[number] for number in loud], self._listening) if loud else []
        for number, transcript in zip(loud, made, strict=True):
            heard[number] = transcript.text
        return heard


class SphinxListener:
    """PocketSphinx with its own English model: it errs often, in other ways than Whisper.

    Raises:
        Unsupported: it is not installed.
    """

    def __init__(self) -> None:
        self.name = "pocketsphinx"
        self._decoder: Any = bring("pocketsphinx", EXTRA).Decoder(samprate=_RATE_HZ, loglevel="FATAL")

    def hear(self, clips: Sequence[Clip]) -> list[str]:
        # Of silence it would make a word.
        return ["" if clip.is_silent else self._one(clip) for clip in clips]

    def _one(self, clip: Clip) -> str:
        samples = np.clip(clip.at_rate(_RATE_HZ).samples, -1, 1)
        self._decoder.start_utt()
        self._decoder.process_raw((samples * (2**15 - 1)).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return "" if found is None else str(found.hypstr)


class Dnsmos:
    """DNSMOS: a network that was taught what people say of the noise in calls.

    Only its weights are taken from the package speechmos, and nothing in it is run.

    Raises:
        Unsupported: it is not installed.
    """

    _SECONDS = 9.01
    _POLYNOMIALS = {
        "signal": (-0.08397278, 1.22083953, 0.0052439),
        "background": (-0.13166888, 1.60915514, -0.39604546),
        "overall": (-0.06766283, 1.11546468, 0.04602535),
    }

    def __init__(self) -> None:
        self.name = "DNSMOS"
        runtime = bring("onnxruntime", EXTRA)
        found = importlib.util.find_spec("speechmos")
        if found is None or found.origin is None:
            # Says what to type, as for any other package.
            bring("speechmos", EXTRA)
            raise Unsupported("speechmos is there without its files", where=EXTRA, remedy="Install it again.")
        weights = Path(found.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
        self._session: Any = runtime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])

    def rate(self, clips: Sequence[Clip]) -> dict[str, float]:
        rated = np.mean([self._one(clip.at_rate(_RATE_HZ)) for clip in clips], axis=0)
        return dict(zip(self._POLYNOMIALS, map(float, rated), strict=True))

    def _one(self, clip: Clip) -> Float[np.ndarray, "3"]:
        """Means over windows that begin every second; what is shorter than one is said again and again."""
        size = int(self._SECONDS * _RATE_HZ)
        samples = np.clip(clip.samples, -1, 1)
        if len(samples) < size:
            samples = np.tile(samples, -(-size // len(samples)))[: max(size, len(samples))]
        starts = range(0, len(samples) - size + 1, _RATE_HZ)
        return np.mean([self._window(samples[start : start + size]) for start in starts], axis=0)

    def _window(self, samples: Float32[np.ndarray, " N"]) -> Float[np.ndarray, "3"]:
        (raw,) = self._session.run(None, {"input_1": samples[None].astype(np.float32)})
        return np.asarray(
            [np.polyval(terms, value) for terms, value in zip(self._POLYNOMIALS.values(), raw[0], strict=True)]
        )


def present(judges: dict[str, Callable[[], Any]]) -> tuple[list[Any], dict[str, Unsupported]]:
    """Returns the judges that are installed, and why each of the others is not there."""
    here: list[Any] = []
    absent: dict[str, Unsupported] = {}
    for name, make in judges.items():
        try:
            here.append(make())
        except Unsupported as error:
            absent[name] = error
    return here, absent
