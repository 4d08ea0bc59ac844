"""Where metrics, pictures and sounds go: JSON lines, TensorBoard, or several at once.

Not here: what is measured, and the live display (`progress.py`).
Invariant: every line of JSON is legal: a number that is not finite is written as null, and under
"nonfinite" by name as text ("nan", "inf", "-inf"), so that columns stay numbers for any reader.
"""

import contextlib
import io
import json
import logging
import math
import os
import socket
import time
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.image import imsave
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from cupola.observe.errors import ObserveError
from cupola.observe.units import Number

log = logging.getLogger(__name__)

FLUSH_SECONDS = 10.0
"""Between two flushes of event files; lines of JSON are flushed each."""


@runtime_checkable
class Sink(Protocol):
    """Takes the metrics of a step."""

    def write(self, step: int, metrics: Mapping[str, Number]) -> None:
        """Records the metrics of `step`."""

    def close(self) -> None:
        """Ends the record."""


@runtime_checkable
class MediaSink(Sink, Protocol):
    """Takes pictures and sounds too; a sink of numbers alone has no place for them."""

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        """Records a picture.

        Args:
            array: uint8, [height, width, 3] or, with opacity, [height, width, 4].
        """

    def audio(self, name: str, samples: np.ndarray, rate: int, step: int) -> None:
        """Records a sound.

        Args:
            samples: floats [time] in [-1, 1]; what is beyond is clipped.
            rate: samples a second.
        """


class JSONL:
    """A file with one JSON object a line: {"step": 3, "loss": 2.5}.

    Each line reaches the file before `write` returns, so a killed run keeps all but the line
    being written.

    Args:
        path: it is appended to; folders above it are made.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            _drop_half_a_line(self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, Number]) -> None:
        if taken := {"step", "nonfinite"} & metrics.keys():
            raise ObserveError(f"{taken} cannot name metrics", where=str(self.path), remedy="Use other names.")
        odd = {name: repr(float(value)) for name, value in metrics.items() if not math.isfinite(value)}
        told: dict[str, Any] = {"step": int(step)}
        told |= {name: None if name in odd else _number(value) for name, value in metrics.items()}
        self._file.write(json.dumps(told | ({"nonfinite": odd} if odd else {}), allow_nan=False) + "\n")
        self._file.flush()

    def truncate_after(self, step: int) -> None:
        """Drops the lines of later steps, as a run that resumes at `step` will write them again."""
        self._file.close()
        kept = "".join(f"{line}\n" for line, told in _lines(self.path) if told["step"] <= step)
        beside = self.path.with_name(f"{self.path.name}.new")
        beside.write_text(kept, encoding="utf-8")
        os.replace(beside, self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        self._file.close()


def read(path: str | Path) -> list[dict[str, Any]]:
    """Returns what a `JSONL` wrote, each line with its numbers, those that are not finite too.

    Raises:
        ObserveError: a line is not what `JSONL` writes; a last one without its end is left out.
    """
    found = []
    for _, told in _lines(Path(path)):
        odd = told.pop("nonfinite", {})
        found.append(told | {name: float(value) for name, value in odd.items()})
    return found


class TensorBoard:
    """Event files for TensorBoard.

    Written by the caller's own thread: the library's `SummaryWriter` hands records to another one,
    and waits for ever when that has died of a full disk.

    Args:
        folder: where they go.
        purge_step: a run that resumes hides what was written from this step on.
    """

    def __init__(self, folder: str | Path, *, purge_step: int | None = None):
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer, self._flushed = RecordWriter(str(Path(folder) / name)), time.monotonic()
        self._record(file_version="brain.Event:2")
        if purge_step is not None:
            self._record(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, metrics: Mapping[str, Number]) -> None:
        self._summarize(step, *(Summary.Value(tag=name, simple_value=float(x)) for name, x in metrics.items()))

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        _check_array(name, array, np.uint8, array.ndim == 3 and array.shape[2] in (3, 4), "[height, width, 3 or 4]")
        height, width, colours = array.shape
        coded = io.BytesIO()
        imsave(coded, array, format="png")
        image = Summary.Image(height=height, width=width, colorspace=colours, encoded_image_string=coded.getvalue())
        self._summarize(step, Summary.Value(tag=name, image=image))

    def audio(self, name: str, samples: np.ndarray, rate: int, step: int) -> None:
        _check_array(name, samples, np.floating, samples.ndim == 1 and np.isfinite(samples).all(), "[time], finite")
        whole = np.round(32767 * np.clip(samples.astype(np.float64), -1, 1)).astype("<i2")
        coded = io.BytesIO()
        with wave.open(coded, "wb") as file:
            file.setparams((1, 2, rate, len(whole), "NONE", ""))
            file.writeframes(whole.tobytes())
        audio = Summary.Audio(
            sample_rate=rate,
            num_channels=1,
            length_frames=len(whole),
            content_type="audio/wav",
            encoded_audio_string=coded.getvalue(),
        )
        self._summarize(step, Summary.Value(tag=name, audio=audio))

    def _summarize(self, step: int, *values: Any) -> None:
        self._record(step=int(step), summary=Summary(value=values))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._writer.close()

    def _record(self, **fields: Any) -> None:
        self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())


class Sinks:
    """Several sinks as one; a sink that fails is named in one warning and left out from then on.

    Pictures and sounds go to those that take them; one that is none is a warning, and no sink's failure.

    Args:
        sinks: written to in this order.
    """

    def __init__(self, *sinks: Sink):
        self._sinks = list(sinks)

    def write(self, step: int, metrics: Mapping[str, Number]) -> None:
        for sink in tuple(self._sinks):
            with self._dropped_if_it_fails(sink):
                sink.write(step, metrics)

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        for sink in self._of_media():
            with self._dropped_if_it_fails(sink), _told_where_refused():
                sink.image(name, array, step)

    def audio(self, name: str, samples: np.ndarray, rate: int, step: int) -> None:
        for sink in self._of_media():
            with self._dropped_if_it_fails(sink), _told_where_refused():
                sink.audio(name, samples, rate, step)

    def _of_media(self) -> list[MediaSink]:
        return [sink for sink in self._sinks if isinstance(sink, MediaSink)]

    def close(self) -> None:
        for sink in tuple(self._sinks):
            with self._dropped_if_it_fails(sink):
                sink.close()

    @contextlib.contextmanager
    def _dropped_if_it_fails(self, sink: Sink) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._sinks.remove(sink)
            with contextlib.suppress(Exception):
                sink.close()
            log.warning("%s failed and is left out from here on: %s", type(sink).__name__, error)


@contextlib.contextmanager
def _told_where_refused() -> Iterator[None]:
    """A model that says NaN is worth a warning and its numbers."""
    try:
        yield
    except ObserveError as error:
        log.warning("%s", error)


def _check_array(name: str, array: np.ndarray, kind: type, fits: bool | np.bool_, form: str) -> None:
    if not fits or not np.issubdtype(array.dtype, kind):
        raise ObserveError(
            f"an array of {array.dtype} {list(array.shape)} cannot be recorded",
            where=name,
            remedy=f"Give {kind.__name__} {form}.",
        )


def _number(value: Number) -> Number:
    return value if isinstance(value, int) else float(value)


def _drop_half_a_line(path: Path) -> None:
    """A run that is killed may leave its last line without an end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    *lines, _ = path.read_text("utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            told = json.loads(line)
            told["step"] + 0
        except (ValueError, KeyError, TypeError):
            raise ObserveError(
                f"line {number} is no JSON object with a step", where=str(path), remedy="Remove that line."
            ) from None
        yield line, told
