"""What a client asks of speech: the form of a transcription, read into how to listen.

Not here: listening (`transcriptions.py`).
"""

import dataclasses
import enum
import math

from cupola.config.suggest import did_you_mean
from cupola.models.speech.listening import Listening
from cupola.models.speech.whisper_tokens import Task
from cupola.serve.errors import InvalidRequest
from cupola.serve.http.form import File, Form

_FIELDS = ("model", "language", "prompt", "response_format", "temperature", "timestamp_granularities[]")
_REFUSED = {
    "chunking_strategy": "recordings are cut where speech pauses, always",
    "include[]": "log-probabilities come with verbose_json",
    "known_speaker_names[]": "speakers are not told apart",
    "known_speaker_references[]": "speakers are not told apart",
}
_PROMPT_CHARACTERS = 4096


class Reply(enum.Enum):
    """In which form the text is sent back."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VERBOSE_JSON = "verbose_json"
    VTT = "vtt"


@dataclasses.dataclass(frozen=True)
class AudioBody:
    """A request for a text.

    Args:
        model: the name that was asked for.
        file: the recording.
        listening: how.
        reply: in which form the text is sent back.
    """

    model: str
    file: File
    listening: Listening
    reply: Reply


def read_audio_body(form: Form, task: Task) -> AudioBody:
    """Returns what a form asks for.

    Raises:
        InvalidRequest: something is missing, unknown or impossible.
    """
    known = [name for name in _FIELDS if task is Task.TRANSCRIBE or name not in ("language", _FIELDS[-1])]
    fields = dict(form.fields)
    if fields.pop("stream", ["false"]) != ["false"]:
        raise InvalidRequest("a text is sent whole", where="stream", remedy="Leave stream out, or send false.")
    for name in [*fields, *form.files]:
        if name in _REFUSED:
            raise InvalidRequest(f"{name} is not supported: {_REFUSED[name]}", where=name, remedy=f"Leave {name} out.")
        if name not in known and (name != "file" or name in fields):
            remedy = did_you_mean(name[:100], [*known, "file"])
            raise InvalidRequest(f"there is no field {name[:100]!r}", where=name[:100], remedy=remedy)
    if "file" not in form.files:
        raise InvalidRequest("file is missing", where="file", remedy="Send a recording: curl -F file=@talk.mp3.")
    if "model" not in fields:
        raise InvalidRequest("model is missing", where="model", remedy="Send model, such as whisper-base.")
    for asked in fields.get(_FIELDS[-1], []):
        if asked != "segment":
            remedy = "Use segment, or leave it out."
            raise InvalidRequest(f"times of each {asked[:20]} are not found", where=_FIELDS[-1], remedy=remedy)
    return AudioBody(
        model=fields["model"][0],
        file=form.files["file"],
        listening=_listening(fields, task),
        reply=_reply(fields.get("response_format", ["json"])[0]),
    )


def _listening(fields: dict[str, list[str]], task: Task) -> Listening:
    prompt = fields.get("prompt", [""])[0]
    if len(prompt) > _PROMPT_CHARACTERS:
        raise InvalidRequest(
            f"the prompt has {len(prompt)} characters", where="prompt", remedy=f"Send up to {_PROMPT_CHARACTERS}."
        )
    listening = Listening(task=task, language=fields.get("language", [None])[0] or None, prompt=prompt)
    temperature = _temperature(fields.get("temperature", ["0"])[0])
    # At 0 the model itself raises it where a text is poor.
    return listening.replace("temperatures", (temperature,)) if temperature else listening


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise InvalidRequest(
            f"the temperature is {text[:40]!r}", where="temperature", remedy="Send a number from 0 to 1."
        )
    return value


def _reply(name: str) -> Reply:
    known = {each.value: each for each in Reply}
    if name not in known:
        remedy = did_you_mean(name[:40], known) or f"Use one of {', '.join(known)}."
        raise InvalidRequest(f"{name[:40]!r} is no form of a text", where="response_format", remedy=remedy)
    return known[name]
