"""Tokenizers: text to token ids and back, over the library `tokenizers`.

Not here: corpora of tokens (`tokens.py`), chat templates. Text is only ever text: "<|end|>" written
in a document is encoded as its characters, never as the special token.
Invariant: a byte-level tokenizer gives back every text unchanged.
Source: byte-level BPE, Radford et al. 2019, section 2.2.
"""

import codecs
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import tokenizers
from jaxtyping import Int32
from tokenizers import decoders, models, pre_tokenizers, trainers

from cupola.config.suggest import did_you_mean
from cupola.core.errors import TokenizerError
from cupola.data.files import whole

logger = logging.getLogger(__name__)

END = "<|end|>"
"""The token between documents in tokenizers that are trained here."""

_USUAL_ENDS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "</s>",
    "<eos>",
    "[EOS]",
    END,
    "<|im_end|>",
)
"""Names of the end of a document, those that mean only that before those that also end a turn."""

_SMALLEST = 257
"""Every byte, and the end."""

_BATCH_CHARACTERS = 4_000_000
"""Enough work for all threads; bounds the memory that a batch of encodings takes."""


class Tokenizer:
    """A vocabulary and how text is split into it; immutable.

    Args:
        inner: the library's tokenizer.
        end: name of the token that ends a document; None finds it among the usual names.
        where: the file it came from, for errors.

    Raises:
        TokenizerError: it has no such token.
    """

    def __init__(self, inner: tokenizers.Tokenizer, *, end: str | None = None, where: str = "tokenizer"):
        self._inner = tokenizers.Tokenizer.from_str(inner.to_str())
        # A file may ask for texts to be cut or padded, which would lose or add tokens silently.
        self._inner.no_truncation()
        self._inner.no_padding()
        self._inner.encode_special_tokens = True
        self._end = _find_end(self._inner, end, where)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int = 8192) -> "Tokenizer":
        """Returns a byte-level BPE tokenizer made for these texts; the same texts give the same one.

        A piece becomes a token only if it occurs twice, so that few texts may give a smaller
        vocabulary than was asked for; a warning says so.

        Args:
            texts: what to count pieces in.
            vocabulary: how many tokens to make, the 256 bytes and the end among them.

        Raises:
            TokenizerError: the vocabulary cannot hold all bytes.
        """
        if vocabulary < _SMALLEST:
            raise TokenizerError(
                f"vocabulary={vocabulary} cannot hold the 256 bytes and {END}",
                remedy=f"Use vocabulary={_SMALLEST} or more; 8192 is usual for 10 MB of text.",
            )
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(map(_checked, texts), trainer)
        made = inner.get_vocab_size()
        if made < vocabulary:
            logger.warning("the texts gave a vocabulary of %d, not %d: no other piece occurs twice", made, vocabulary)
        return cls(inner)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, end: str | None = None) -> "Tokenizer":
        """Returns the tokenizer in a `tokenizer.json`.

        Args:
            path: the file.
            end: name of the token that ends a document; None finds it among the usual names.

        Raises:
            TokenizerError: no such file, not a tokenizer, or it has no such token.
        """
        where = os.fspath(path)
        remedy = "Name a tokenizer.json, as this package or Hugging Face tokenizers write it."
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise TokenizerError(f"cannot be read ({error.strerror})", where=where, remedy=remedy) from None
        except UnicodeDecodeError:
            raise TokenizerError("is not a text file", where=where, remedy=remedy) from None
        try:
            inner = tokenizers.Tokenizer.from_str(text)
        # The library raises plain Exception for whatever it cannot read.
        except Exception as error:
            raise TokenizerError(f"is no tokenizer, or a truncated one ({error})", where=where, remedy=remedy) from None
        return cls(inner, end=end, where=where)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a `tokenizer.json`: either the whole file is there afterwards, or what was there before.

        Raises:
            TokenizerError: it could not be written.
        """
        try:
            with whole(Path(path)) as file:
                file.write_text(self._inner.to_str(pretty=True), encoding="utf-8")
        except OSError as error:
            raise TokenizerError(
                f"could not be written ({error.strerror})",
                where=os.fspath(path),
                remedy="Free some space or name another folder; nothing that was there is lost.",
            ) from None

    @functools.cached_property
    def vocabulary(self) -> int:
        """How many token ids there are, counted from 0; a few files leave ids between unused."""
        return max(self._inner.get_vocab().values()) + 1

    @property
    def end(self) -> int:
        """The id of the token that stands between documents."""
        return self._end

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON: equal for tokenizers that encode alike."""
        canonical = json.dumps(json.loads(self._inner.to_str()), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode(self, text: str) -> Int32[np.ndarray, " T"]:
        """Returns the token ids of a text, without any special token.

        Raises:
            TokenizerError: the text holds half of a surrogate pair, which is no character.
        """
        return np.asarray(self._inner.encode(_checked(text), add_special_tokens=False).ids, np.int32)

    def encode_all(self, texts: Iterable[str]) -> Iterator[Int32[np.ndarray, " T"]]:
        """Yields the token ids of each text, as `encode` gives them, on all threads of the machine."""
        for batch in _batches(map(_checked, texts)):
            for encoding in self._inner.encode_batch_fast(batch, add_special_tokens=False):
                yield np.asarray(encoding.ids, np.int32)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of token ids; special tokens have none, broken characters become U+FFFD.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        stream = self.stream()
        return "".join([stream.feed(int(i)) for i in ids]) + stream.flush()

    def stream(self) -> "Stream":
        """Returns a decoder that takes one token at a time."""
        return Stream(self)

    def check_vocabulary(self, model_vocabulary: int) -> None:
        """Checks that a model was made for this vocabulary.

        Raises:
            TokenizerError: the sizes differ.
        """
        if model_vocabulary != self.vocabulary:
            raise TokenizerError(
                f"the tokenizer has {self.vocabulary} tokens, but the model has {model_vocabulary}",
                where="vocabulary",
                remedy=f"Use vocabulary={self.vocabulary} in the model, or the tokenizer that it was trained with.",
            )

    @functools.cached_property
    def _bytes(self) -> list[bytes] | None:
        """The bytes of each token; None where those depend on the tokens around it."""
        if not isinstance(self._inner.decoder, decoders.ByteLevel):
            return None
        special = {i for i, token in self._inner.get_added_tokens_decoder().items() if token.special}
        alphabet = _alphabet()
        table = [b""] * self.vocabulary
        for token, i in self._inner.get_vocab().items():
            # An added token may hold characters that stand for no byte; then it is its own text.
            written = all(c in alphabet for c in token)
            table[i] = b"" if i in special else bytes(map(alphabet.__getitem__, token)) if written else token.encode()
        return table


class Stream:
    """Decodes token by token; what it has given out is never taken back and never half a character.

    All that is fed and flushed, joined, is the text of all tokens. With a tokenizer that is not
    byte-level, characters of several tokens are held back until they are whole or flushed.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._inner, self._bytes = tokenizer._inner, tokenizer._bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._context: list[int] = []
        self._held: list[int] = []

    def feed(self, token: int) -> str:
        """Returns the text that is certain once this token is known, often the token's own.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        if not 0 <= token < self._tokenizer.vocabulary:
            raise TokenizerError(
                f"token {token} is outside the vocabulary of {self._tokenizer.vocabulary}",
                remedy="Use the tokenizer that the model was trained with.",
            )
        if self._bytes is not None:
            return self._utf8.decode(self._bytes[token])
        self._held.append(token)
        text = self._text_of_held()
        return "" if text.endswith("\N{REPLACEMENT CHARACTER}") else self._release(text)

    def flush(self) -> str:
        """Returns what is held back, a broken character as U+FFFD, and starts anew."""
        if self._bytes is not None:
            return self._utf8.decode(b"", final=True)
        text = self._release(self._text_of_held())
        self._context = []
        return text

    def _text_of_held(self) -> str:
        # The tokens before decide about spaces, so the text of the held ones is what they add to those.
        before = self._inner.decode(self._context)
        return self._inner.decode(self._context + self._held)[len(before) :]

    def _release(self, text: str) -> str:
        if text:
            self._context, self._held = self._held, []
        return text


def _alphabet() -> dict[str, int]:
    """The character that stands for each byte: itself where it can be seen, else from 256 upwards."""
    seen = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    unseen = [b for b in range(256) if b not in seen]
    return {chr(b): b for b in seen} | {chr(256 + n): b for n, b in enumerate(unseen)}


def _find_end(inner: tokenizers.Tokenizer, end: str | None, where: str) -> int:
    for name in (end,) if end is not None else _USUAL_ENDS:
        found = inner.token_to_id(name)
        if found is not None:
            return found
    special = [token.content for token in inner.get_added_tokens_decoder().values() if token.special]
    if end is None:
        known = f"Special tokens here: {', '.join(special)}." if special else "It has no special token."
        raise TokenizerError(
            "no token ends a document by one of the usual names", where=where, remedy=f'Say which: end="...". {known}'
        )
    raise TokenizerError(f"there is no token {end!r}", where=where, remedy=did_you_mean(end, special))


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} of a text is half of a surrogate pair, which is no character",
            remedy="Repair the text: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace').",
        ) from None
    return text


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    yield batch
