"""Models that hear or speak, as they are listed beside those that answer in text.

Not here: what they do (`transcriptions.py`, `speech.py`).
"""

import dataclasses
import enum


class Skill(enum.Enum):
    """What a model does besides answering in text."""

    HEARS = "hears"
    SPEAKS = "speaks"

    @property
    def path(self) -> str:
        """Where it is asked."""
        return "/v1/audio/transcriptions" if self is Skill.HEARS else "/v1/audio/speech"


@dataclasses.dataclass(frozen=True)
class Skilled:
    """A model that hears or speaks, as it is listed.

    Args:
        name: what clients send as `model`.
        skill: what it does.
        created: seconds since 1970.
    """

    name: str
    skill: Skill
    created: int = 0
