"""Sound that is sent while it is made: samples in as they come, bytes of a file out as early as they can be.

Not here: whole files (`files.py`). A stream's head cannot know its length: WAV says the most it can, FLAC says
nothing, and players read both to their end. Invariant: the bytes, joined, are one file of one channel.
"""

import enum
import io
import struct
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from cupola.core.errors import AudioError
from cupola.core.extra import bring

PCM_RATE_HZ = 24_000
"""PCM has no head that could say another: what clients of speech endpoints expect."""


class Streaming(enum.Enum):
    """The form of sound that is sent while it is made."""

    MP3 = "mp3"
    OPUS = "opus"
    """In OGG."""
    AAC = "aac"
    """In ADTS."""
    FLAC = "flac"
    WAV = "wav"
    """16 bits."""
    PCM = "pcm"
    """16 bits, little-endian, 24 kHz, no head."""

    @property
    def media_type(self) -> str:
        """Its name in HTTP."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    Streaming.MP3: "audio/mpeg",
    Streaming.OPUS: "audio/ogg",
    Streaming.AAC: "audio/aac",
    Streaming.FLAC: "audio/flac",
    Streaming.WAV: "audio/wav",
    Streaming.PCM: "audio/pcm",
}
_CONTAINERS: dict[Streaming, tuple[str, str, dict[str, str]]] = {
    Streaming.MP3: ("mp3", "libmp3lame", {"write_xing": "0"}),
    # A page of the usual second would keep the first sound back for as long.
    Streaming.OPUS: ("ogg", "libopus", {"page_duration": "100000"}),
    Streaming.AAC: ("adts", "aac", {}),
    Streaming.FLAC: ("flac", "flac", {}),
}
_OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
_MOST_BYTES = 2**32 - 1
"""What a head of 32 bits can say at most, and what it says where nobody knows."""


@runtime_checkable
class Encoder(Protocol):
    """Takes samples and gives bytes."""

    def feed(self, samples: Float32[np.ndarray, " N"]) -> bytes:
        """Returns what can be sent now; the first time with the head."""

    def finish(self) -> bytes:
        """Returns what is left."""


def encoder(form: Streaming, rate_hz: int) -> Encoder:
    """Returns what encodes samples of a rate; PCM and Opus change it to the nearest that they can have.

    Raises:
        AudioError: the form cannot hold this rate.
        Unsupported: the extra `speech` is not installed.
    """
    wanted = rate_hz
    if form is Streaming.PCM:
        wanted = PCM_RATE_HZ
    elif form is Streaming.OPUS:
        wanted = next((each for each in _OPUS_RATES_HZ if each >= rate_hz), _OPUS_RATES_HZ[-1])
    made: Encoder = _Plain(form, wanted) if form in (Streaming.WAV, Streaming.PCM) else _Compressed(form, wanted)
    return made if wanted == rate_hz else _Resampled(made, rate_hz, wanted)


class _Plain:
    """Samples of 16 bits, after a head or none."""

    def __init__(self, form: Streaming, rate_hz: int):
        self._head = b""
        if form is Streaming.WAV:
            sizes = struct.pack("<HHIIHH", 1, 1, rate_hz, 2 * rate_hz, 2, 16)
            whole, data = struct.pack("<I", _MOST_BYTES), struct.pack("<I", _MOST_BYTES)
            self._head = b"RIFF" + whole + b"WAVEfmt " + struct.pack("<I", len(sizes)) + sizes + b"data" + data

    def feed(self, samples: Float32[np.ndarray, " N"]) -> bytes:
        head, self._head = self._head, b""
        return head + np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype("<i2").tobytes()

    def finish(self) -> bytes:
        return b""


class _Compressed:
    """What FFmpeg makes of the samples."""

    def __init__(self, form: Streaming, rate_hz: int):
        self._av = bring("av", "speech")
        container, codec, options = _CONTAINERS[form]
        self._sink = _Sink()
        try:
            self._file: Any = self._av.open(self._sink, "w", format=container, options=options)
            self._stream: Any = self._file.add_stream(codec, rate=rate_hz, layout="mono")
            self._stream.codec_context.open()
        except (self._av.FFmpegError, ValueError) as error:
            raise AudioError(
                f"{form.value} cannot hold {rate_hz} Hz ({error})", remedy="Use wav, flac, opus or pcm."
            ) from None
        context = self._stream.codec_context
        self._shape = self._av.AudioResampler(context.format, "mono", rate_hz, frame_size=context.frame_size or None)
        self._rate_hz, self._fed = rate_hz, 0

    def feed(self, samples: Float32[np.ndarray, " N"]) -> bytes:
        if len(samples):
            plane = np.clip(samples, -1, 1).astype(np.float32)[None]
            frame = self._av.AudioFrame.from_ndarray(plane, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = self._rate_hz, self._fed
            self._fed += len(samples)
            self._encode(self._shape.resample(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        self._encode([*self._shape.resample(None), None])
        self._file.close()
        return self._sink.take()

    def _encode(self, frames: list[Any]) -> None:
        for frame in frames:
            self._file.mux(self._stream.encode(frame))


class _Resampled:
    """An encoder whose samples are first brought to its rate."""

    def __init__(self, inner: Encoder, rate_hz: int, wanted_hz: int):
        self._inner = inner
        self._change: Any = bring("soxr", "speech").ResampleStream(rate_hz, wanted_hz, 1, dtype="float32", quality="HQ")

    def feed(self, samples: Float32[np.ndarray, " N"]) -> bytes:
        return self._inner.feed(self._change.resample_chunk(samples))

    def finish(self) -> bytes:
        return self._inner.feed(self._change.resample_chunk(np.zeros(0, np.float32), last=True)) + self._inner.finish()


class _Sink(io.RawIOBase):
    """A file that keeps what is written until it is taken; it cannot go back, as a connection cannot."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        return len(data)

    def take(self) -> bytes:
        """Returns what was written since the last time."""
        held, self._held = bytes(self._held), bytearray()
        return held
