"""How speech becomes text: what is searched for, and when a text is good enough.

Not here: the search (`search.py`), the recordings (`transcribe.py`).
Source: Radford et al., arXiv 2212.04356, section 4.5, and the defaults of OpenAI's command.
"""

import dataclasses
import enum

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.models.speech.recognizer import Recognizer
from cupola.models.speech.whisper_tokens import Task, Times


class Earlier(enum.Enum):
    """Whether the model is shown what was said in earlier windows."""

    SHOWN = "shown"
    """It keeps names and style, and may repeat its mistakes."""
    HIDDEN = "hidden"


@dataclasses.dataclass(frozen=True)
class Heard:
    """What was found in one window.

    Args:
        tokens: of the text, its times among them.
        words: of the text.
        average_log_prob: of the tokens, in nats.
        no_speech: the probability that nothing is said.
        temperature: with which it was found.
        compression_ratio: bytes of the words for each byte of them compressed.
    """

    tokens: tuple[int, ...]
    words: str
    average_log_prob: float
    no_speech: float
    temperature: float
    compression_ratio: float


class Listening(Value):
    """How recordings are transcribed.

    Args:
        task: what becomes of speech.
        language: its code, such as "en"; None finds it in the first window.
        times: whether segments are found; without them a window is one.
        prompt: a text that could stand before: names, spelling, style.
        earlier: whether what was said is shown to the model.
        beams: texts that go on at once.
        patience: beams end when this many times as many texts have ended.
        draws: texts that are drawn at a temperature above 0, of which the likeliest counts.
        length_penalty: a text's log-probability is divided by its length to this power.
        temperatures: tried one after the other until a text is good enough; 0 searches by beams.
        repeats_above: a text of this compression ratio repeats itself; None: no text does.
        unlikely_below: a text of this average log-probability is too unlikely; None: no text is.
        silent_above: a window of this probability of no speech is silent if its text is unlikely too; None: none is.
        suppress: more tokens that no text may hold.
        latest_first_seconds: the latest time in a window at which a text may begin.
        seed: of what is drawn.
    """

    task: Task = Task.TRANSCRIBE
    language: str | None = None
    times: Times = Times.SEGMENTS
    prompt: str = ""
    earlier: Earlier = Earlier.SHOWN
    beams: int = 5
    patience: float = 1.0
    draws: int = 5
    length_penalty: float = 1.0
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    repeats_above: float | None = 2.4
    unlikely_below: float | None = -1.0
    silent_above: float | None = 0.6
    suppress: tuple[int, ...] = ()
    latest_first_seconds: float = 1.0
    seed: int = 0

    def check(self) -> None:
        for name in ("beams", "draws"):
            if not 1 <= getattr(self, name) <= 64:
                raise ConfigError(f"{getattr(self, name)}", where=name, remedy="Use 1 to 64; 5 is usual.")
        if not self.temperatures or not all(0 <= each <= 2 for each in self.temperatures):
            remedy = "Use one or more of 0 to 2, such as (0.0, 0.2, 0.4)."
            raise ConfigError(f"{self.temperatures}", where="temperatures", remedy=remedy)
        if not 0 < self.patience <= 8:
            raise ConfigError(f"{self.patience}", where="patience", remedy="Use 1.0, or up to 8.")
        if not 0 <= self.latest_first_seconds <= 30:
            remedy = "Use seconds from 0 to 30; 1.0 is usual."
            raise ConfigError(f"{self.latest_first_seconds}", where="latest_first_seconds", remedy=remedy)

    def check_for(self, recognizer: Recognizer) -> None:
        """Checks that a model can do what is asked.

        Raises:
            ConfigError: it does not know the language, has not learned the task, or has no such token.
        """
        tokens = recognizer.tokens
        if not tokens.is_multilingual and (self.task is Task.TRANSLATE or self.language not in (None, "en")):
            raise ConfigError(
                f"{recognizer.name} knows English alone",
                where="language" if self.task is Task.TRANSCRIBE else "task",
                remedy="Use a Whisper of many languages, or leave language and task out.",
            )
        if self.language is not None and tokens.is_multilingual:
            tokens.check_language(self.language)
        for token in self.suppress:
            if not 0 <= token < recognizer.model.vocabulary:
                remedy = f"Use tokens from 0 to {recognizer.model.vocabulary - 1}."
                raise ConfigError(f"there is no token {token}", where="suppress", remedy=remedy)

    def repeats(self, text: Heard) -> bool:
        """Returns whether a text repeats itself."""
        return self.repeats_above is not None and text.compression_ratio > self.repeats_above

    def is_unlikely(self, text: Heard) -> bool:
        """Returns whether a text is too unlikely."""
        return self.unlikely_below is not None and text.average_log_prob < self.unlikely_below

    def is_silence(self, text: Heard) -> bool:
        """Returns whether nothing is said in a text's window."""
        if self.silent_above is None or text.no_speech <= self.silent_above:
            return False
        return self.unlikely_below is None or text.average_log_prob <= self.unlikely_below

    def is_enough(self, text: Heard) -> bool:
        """Returns whether no other temperature is tried."""
        if self.unlikely_below is not None and self.is_silence(text):
            return True
        return not self.repeats(text) and not self.is_unlikely(text)

    def remembers(self, text: Heard) -> bool:
        """Returns whether later windows are shown a text; what was drawn at a high temperature is often wrong."""
        return self.earlier is Earlier.SHOWN and text.temperature <= 0.5
