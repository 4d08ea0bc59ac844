"""Recordings in files: any format to one channel of float32, and clips to the formats that people play.

Read by libsndfile where it can (WAV, FLAC, OGG, MP3) and by FFmpeg, which PyAV brings in its wheel,
where it cannot (G.722, M4A, WebM, AAC). Not here: what is done to a clip (`clip.py`), sound that is sent
while it is made (`streams.py`).
Invariant: 16-bit samples come back from a file of 16 bits as they were; channels are averaged block by block, and
a file that lasts longer than is wanted is refused as soon as that is known, whatever its header says.
"""

import contextlib
import enum
import io
import itertools
import logging
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32

from cupola.core.errors import AudioError
from cupola.core.extra import bring
from cupola.data.audio.clip import Clip
from cupola.data.files import whole

logger = logging.getLogger(__name__)

_BLOCK = 2**16
"""Samples read or written at a time: libsndfile overflows its stack on a long clip in one piece of Vorbis."""

_USUAL_RATE_HZ = 48_000
"""A second of a higher rate counts as more than one: what is bounded is memory."""


class Encoding(enum.Enum):
    """How samples are stored in a file."""

    WAV = "wav"
    """16 bits."""
    WAV_FLOAT = "wav-float"
    """32-bit floats: nothing is lost."""
    FLAC = "flac"
    """16 bits, about half the size."""
    OGG = "ogg"
    """Vorbis."""
    OPUS = "opus"
    """Opus in OGG; at 8, 12, 16, 24 or 48 kHz."""
    MP3 = "mp3"

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> "Encoding":
        """Returns the encoding that a file's ending stands for.

        Raises:
            AudioError: it stands for none.
        """
        ending = Path(path).suffix.lower().removeprefix(".")
        known = {each.value: each for each in cls if each is not cls.WAV_FLOAT}
        if ending not in known:
            raise AudioError(
                f"{ending!r} is no ending of a sound file that can be written",
                where=os.fspath(path),
                remedy=f"Endings: {', '.join(known)}; or name the encoding.",
            )
        return known[ending]


_FORMATS = {
    Encoding.WAV: ("WAV", "PCM_16"),
    Encoding.WAV_FLOAT: ("WAV", "FLOAT"),
    Encoding.FLAC: ("FLAC", "PCM_16"),
    Encoding.OGG: ("OGG", "VORBIS"),
    Encoding.OPUS: ("OGG", "OPUS"),
    Encoding.MP3: ("MP3", "MPEG_LAYER_III"),
}


def read(path: str | os.PathLike[str], *, rate_hz: int | None = None) -> Clip:
    """Returns the sound in a file, its channels averaged.

    Args:
        path: a file of any format that libsndfile or FFmpeg knows. Raw G.722 is known by its ending.
        rate_hz: the rate to return it at; None means the file's own.

    Raises:
        AudioError: there is no such file, or it holds no sound that can be read, or no samples.
        Unsupported: the extra `speech` is not installed.
    """
    where = Path(path)
    try:
        data = where.read_bytes()
    except OSError as error:
        raise AudioError(
            f"cannot be read ({error.strerror})", where=os.fspath(path), remedy="Name a sound file that exists."
        ) from None
    try:
        return decode(data, rate_hz=rate_hz, raw_g722=where.suffix.lower() == ".g722")
    except AudioError as error:
        raise AudioError(error.problem, where=os.fspath(path), remedy=error.remedy) from error


def decode(data: bytes, *, rate_hz: int | None = None, raw_g722: bool = False, most_seconds: float = math.inf) -> Clip:
    """Returns the sound in the bytes of a file, its channels averaged.

    Args:
        data: the whole file.
        rate_hz: the rate to return it at; None means the file's own.
        raw_g722: whether these are G.722 at 64 kbit/s, which has no header to know it by.
        most_seconds: decoding ends with an error once there is more: a small file may hold days of silence.

    Raises:
        AudioError: the bytes hold no sound that can be read, or no samples, or too many.
        Unsupported: the extra `speech` is not installed.
    """
    if not data:
        raise AudioError("the file is empty", remedy="Give a recording that has any samples.")
    if raw_g722:
        clip = _by_ffmpeg(data, "g722", most_seconds)
    else:
        clip = _by_libsndfile(data, most_seconds) or _by_ffmpeg(data, None, most_seconds)
    return clip if rate_hz is None else clip.at_rate(rate_hz)


def rate_of(path: str | os.PathLike[str]) -> int:
    """Returns the samples a second of the sound in a file, which is not decoded.

    Raises:
        AudioError: there is no such file, or it holds no sound that can be read.
        Unsupported: the extra `speech` is not installed.
    """
    soundfile, where = bring("soundfile", "speech"), Path(path)
    raw_g722 = where.suffix.lower() == ".g722"
    try:
        with where.open("rb") as file:
            if not raw_g722:
                with contextlib.suppress(soundfile.SoundFileError):
                    return soundfile.info(file).samplerate
                file.seek(0)
            return _rate_by_ffmpeg(file, "g722" if raw_g722 else None)
    except OSError as error:
        raise AudioError(
            f"cannot be read ({error.strerror})", where=os.fspath(path), remedy="Name a sound file that exists."
        ) from None
    except AudioError as error:
        raise AudioError(error.problem, where=os.fspath(path), remedy=error.remedy) from error


def write(clip: Clip, path: str | os.PathLike[str], *, encoding: Encoding | None = None) -> None:
    """Writes a clip to a file, which appears whole or not at all.

    Args:
        clip: the sound.
        path: the file; one that is there is replaced.
        encoding: None means what the file's ending stands for.

    Raises:
        AudioError: the ending stands for nothing, or the encoding cannot hold this rate.
        OSError: the file could not be written.
        Unsupported: the extra `speech` is not installed.
    """
    data = encode(clip, encoding or Encoding.of(path))
    with whole(Path(path)) as unfinished:
        unfinished.write_bytes(data)


def encode(clip: Clip, encoding: Encoding) -> bytes:
    """Returns the bytes of a file that holds a clip. Samples above full scale are cut, with a warning, where they must be.

    Raises:
        AudioError: the encoding cannot hold this rate.
        Unsupported: the extra `speech` is not installed.
    """
    soundfile = bring("soundfile", "speech")
    container, subtype = _FORMATS[encoding]
    samples = clip.samples if encoding is Encoding.WAV_FLOAT else _within_scale(clip.samples)
    if subtype == "PCM_16":
        # libsndfile scales by 32,767 on the way out and by 32,768 on the way in.
        samples = np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", clip.rate_hz, 1, subtype, format=container) as file:
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioError(
            f"{encoding.value} cannot hold {clip.rate_hz} Hz ({error})",
            remedy="Use clip.at_rate(48000) or 24000, or another encoding.",
        ) from None
    return buffer.getvalue()


def _within_scale(samples: Float32[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
    above = int(np.count_nonzero(np.abs(samples) > 1))
    if above:
        logger.warning("cut %d of %d samples, which are above full scale; at_peak() prevents it", above, len(samples))
        return np.clip(samples, -1, 1)
    return samples


def _by_libsndfile(data: bytes, most_seconds: float) -> Clip | None:
    soundfile = bring("soundfile", "speech")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            # Read to the end rather than for as many samples as the header claims, which may be none or wrong.
            return _joined(_blocks(file), file.samplerate, most_seconds)
    except soundfile.SoundFileError:
        return None


def _blocks(file: Any) -> Iterator[Float32[np.ndarray, "N channels"]]:
    size = max(1, _BLOCK // file.channels)
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        yield block


def _by_ffmpeg(data: bytes, container: str | None, most_seconds: float) -> Clip:
    av = bring("av", "speech")
    try:
        with av.open(io.BytesIO(data), format=container) as file:
            if not file.streams.audio:
                raise AudioError("holds no sound", remedy="Give a file that has a sound track.")
            planar = av.AudioResampler(format="fltp")
            frames = (out for frame in file.decode(audio=0) for out in planar.resample(frame))
            first = next(frames, None)
            if first is None:
                raise AudioError("holds no samples", remedy="Give a recording that has any.")
            blocks = (frame.to_ndarray().T for frame in itertools.chain([first], frames))
            return _joined(blocks, first.sample_rate, most_seconds)
    except av.FFmpegError as error:
        raise AudioError(
            f"no sound that can be read ({error.strerror})",
            remedy="Give a recording, such as WAV, FLAC, OGG, MP3, M4A or G.722.",
        ) from None


def _rate_by_ffmpeg(file: BinaryIO, container: str | None) -> int:
    av = bring("av", "speech")
    try:
        with av.open(file, format=container) as opened:
            if not opened.streams.audio:
                raise AudioError("holds no sound", remedy="Give a file that has a sound track.")
            return opened.streams.audio[0].rate
    except av.FFmpegError as error:
        raise AudioError(
            f"no sound that can be read ({error.strerror})",
            remedy="Give a recording, such as WAV, FLAC, OGG, MP3, M4A or G.722.",
        ) from None


def _joined(blocks: Iterable[Float32[np.ndarray, "N channels"]], rate_hz: int, most_seconds: float) -> Clip:
    """One channel of all blocks, which are taken only as long as they are not too many."""
    most, count = most_seconds * min(rate_hz, _USUAL_RATE_HZ), 0
    parts = []
    for block in blocks:
        count += len(block)
        if count > most:
            raise AudioError(
                f"the recording lasts more than {_spoken_length(most / rate_hz)}",
                remedy=f"Send at most {_spoken_length(most / rate_hz)} at once.",
            )
        parts.append(np.ascontiguousarray(block.mean(axis=1, dtype=np.float32)))
    return Clip(np.concatenate(parts) if parts else np.zeros(0, np.float32), rate_hz)


def _spoken_length(seconds: float) -> str:
    return f"{seconds / 3600:.3g} hours" if seconds >= 3600 else f"{seconds:.3g} seconds"
