"""Whisper's special tokens: what stands before a text, which tokens it may hold, and what times mean.

Not here: the search that obeys (`search.py`). Invariant: all of it is read from the tokenizer, so that
models of one language, of many, and of other vocabularies are served alike.
Source: Radford et al., arXiv 2212.04356, section 2.3 and figure 1; OpenAI's `whisper/tokenizer.py` for
which tokens are no speech.
"""

import dataclasses
import enum
import functools
import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool

from cupola.config.suggest import did_you_mean
from cupola.core.errors import ConfigError, TokenizerError
from cupola.data.tokenizer import Tokenizer

TIME_STEP_SECONDS = 0.02
"""From one time token to the next: two frames."""

_END = "<|endoftext|>"
_ENGLISH_END = 50_256
"""Id of the end in GPT-2's tokens, which the models of English alone use."""
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
_SYMBOLS = [
    *'"#()*+/:;<=>@[\\]^_`{|}~',
    *"\N{LEFT CORNER BRACKET}\N{RIGHT CORNER BRACKET}\N{LEFT WHITE CORNER BRACKET}\N{RIGHT WHITE CORNER BRACKET}",
    *["<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}"],
    *("\N{EIGHTH NOTE}\N{EIGHTH NOTE}", "\N{EIGHTH NOTE}\N{EIGHTH NOTE}\N{EIGHTH NOTE}"),
]
"""Whose tokens are suppressed where they are one token: notes of what is heard, not what is said."""
_MUSIC = [chr(code) for code in range(0x2669, 0x2670)]
"""Of these the first token is suppressed, which they share with other symbols like them."""


class Task(enum.Enum):
    """What becomes of speech."""

    TRANSCRIBE = "transcribe"
    """Its words."""
    TRANSLATE = "translate"
    """Its words in English."""


class Times(enum.Enum):
    """Whether a text says when its parts are spoken."""

    SEGMENTS = "segments"
    NONE = "none"


@dataclasses.dataclass(frozen=True)
class Codes:
    """Ids of the tokens that the search has to know; hashed, since programs are compiled for them.

    Args:
        end: ends a text.
        times: the first of the time tokens, which come last in the vocabulary.
        no_speech: says that there is none.
    """

    end: int
    times: int
    no_speech: int


class WhisperTokens:
    """A tokenizer with what Whisper's special tokens mean.

    Args:
        tokenizer: that the model was trained with.

    Raises:
        TokenizerError: it has not the special tokens.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        named = tokenizer.special_names
        self.start = self._find("<|startoftranscript|>")
        found = ((_LANGUAGE.fullmatch(name), i) for name, i in named.items() if i > self.start)
        self.languages = {match[1]: i for match, i in found if match is not None}
        self.previous = self._find("<|startofprev|>")
        self.no_times = self._find("<|notimestamps|>")
        self._tasks = {task: self._find(f"<|{task.value}|>") for task in Task}
        no_speech = named["<|nospeech|>"] if "<|nospeech|>" in named else self._find("<|nocaptions|>")
        self.codes = Codes(end=self._find(_END), times=self.no_times + 1, no_speech=no_speech)

    def _find(self, name: str) -> int:
        if name in self.tokenizer.special_names:
            return self.tokenizer.special_names[name]
        raise TokenizerError(
            f"has no token {name}", where="tokenizer", remedy="Use the tokenizer.json that belongs to the model."
        )

    @property
    def is_multilingual(self) -> bool:
        """Whether languages and tasks are told apart; the models of English alone have the special tokens too."""
        return self.codes.end != _ENGLISH_END

    def check_language(self, language: str) -> None:
        """Checks that there is a token for a language.

        Raises:
            ConfigError: there is none.
        """
        if language not in self.languages:
            known = did_you_mean(language, self.languages)
            raise ConfigError(
                f"{language!r} is no language of this model",
                where="language",
                remedy=f"{known} It knows: {', '.join(sorted(self.languages))}.",
            )

    def prompt(
        self,
        *,
        language: str | None,
        task: Task = Task.TRANSCRIBE,
        times: Times = Times.SEGMENTS,
        before: Sequence[int] = (),
        most: int = 223,
    ) -> list[int]:
        """Returns the tokens that stand before a text.

        Args:
            language: None for a model of one language.
            before: tokens of what was said earlier, or of a hint.
            most: so many of the last ones of those are taken.
        """
        tokens = [self.previous, *before[-most:]] if before else []
        tokens.append(self.start)
        if language is not None:
            tokens += [self.languages[language], self._tasks[task]]
        return tokens if times is Times.SEGMENTS else [*tokens, self.no_times]

    def suppressed(self, vocabulary: int, also: Iterable[int] = ()) -> Bool[np.ndarray, " V"]:
        """Returns which tokens no text may hold: special ones, and symbols for what is not said."""
        hidden = np.zeros(vocabulary, bool)
        special = [i for i in self.tokenizer.special if i != self.codes.end and i < self.codes.times]
        hidden[[*special, *self._not_said, *also]] = True
        return hidden

    @functools.cached_property
    def _not_said(self) -> list[int]:
        encode = self.tokenizer.encode
        # Within a word a hyphen and an apostrophe are said, at its beginning they are not.
        found = {int(encode(" -")[0]), int(encode(" '")[0])}
        for symbol in (*_SYMBOLS, *_MUSIC):
            for tokens in (encode(symbol), encode(f" {symbol}")):
                if len(tokens) == 1 or symbol in _MUSIC:
                    found.add(int(tokens[0]))
        return sorted(found)

    @property
    def blank(self) -> list[int]:
        """Tokens with which no text begins: a space and the end."""
        return [int(self.tokenizer.encode(" ")[0]), self.codes.end]

    def text(self, tokens: Iterable[int]) -> str:
        """Returns the words of tokens: neither times nor special tokens."""
        return self.tokenizer.decode(token for token in tokens if token < self.codes.end)
