"""What was said, and when: the records that a transcription gives, and the formats that people read.

Not here: how they are made (`transcribe.py`).
"""

import dataclasses
import enum
import json

from cupola.models.speech.whisper_tokens import Task


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a recording, a sentence or so.

    Args:
        start: seconds from the beginning of the recording.
        end: likewise.
        window: likewise where the window begins in which it was found.
        text: what is said in it; mostly it begins with a space.
        tokens: of the text, its times among them.
        average_log_prob: of the tokens of its window, in nats.
        no_speech: the probability that nothing is said in its window.
        temperature: with which it was found; 0 by beams.
        compression_ratio: of the text of its window: what repeats itself is above 2.4.
    """

    start: float
    end: float
    window: float
    text: str
    tokens: tuple[int, ...]
    average_log_prob: float
    no_speech: float
    temperature: float
    compression_ratio: float


@dataclasses.dataclass(frozen=True)
class Transcript:
    """All that is said in a recording.

    Args:
        language: its code, such as "en".
        language_prob: of that language among all; 1 where it was given.
        segments: in order.
        duration_seconds: of the recording.
        task: what was done with the words.
    """

    language: str
    language_prob: float
    segments: tuple[Segment, ...]
    duration_seconds: float
    task: Task

    @property
    def text(self) -> str:
        """All words."""
        return "".join(segment.text for segment in self.segments).strip()


class Format(enum.Enum):
    """How a transcript is written."""

    TEXT = "text"
    """The words, one segment a line."""
    SRT = "srt"
    VTT = "vtt"
    JSON = "json"
    """All that is known."""

    def write(self, transcript: Transcript) -> str:
        """Returns a transcript in this format, with a line break at its end."""
        match self:
            case Format.TEXT:
                return "".join(f"{segment.text.strip()}\n" for segment in transcript.segments)
            case Format.SRT:
                return "\n".join(
                    f"{number}\n{_clock(each.start, ',')} --> {_clock(each.end, ',')}\n{_in_cue(each.text)}\n"
                    for number, each in enumerate(transcript.segments, 1)
                )
            case Format.VTT:
                cues = (
                    f"\n{_clock(each.start, '.')} --> {_clock(each.end, '.')}\n{_in_cue(each.text)}\n"
                    for each in transcript.segments
                )
                return f"WEBVTT\n{''.join(cues)}"
            case Format.JSON:
                told = dataclasses.asdict(transcript) | {"task": transcript.task.value, "text": transcript.text}
                return json.dumps(told, ensure_ascii=False, indent=2) + "\n"


def _clock(seconds: float, point: str) -> str:
    thousandths = round(seconds * 1000)
    hours, rest = divmod(thousandths, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _in_cue(text: str) -> str:
    # An arrow would be read as times.
    return text.strip().replace("-->", "->")
