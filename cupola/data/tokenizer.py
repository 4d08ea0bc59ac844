"""Tokenizers: text to token ids and back, over the library `tokenizers`.

Not here: corpora of tokens (`tokens.py`), chat templates, files of others (`interop/`). Text is only ever text: "<|end|>" written
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
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, SupportsIndex

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

_BYTE = re.compile("<0x([0-9A-F]{2})>")
"""A token for one byte, in tokenizers in the manner of SentencePiece."""

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

    def encode_special(self, text: str) -> Int32[np.ndarray, " T"]:
        """Returns the token ids of a text in which names of special tokens are these tokens.

        For text that is trusted; whoever writes it can end a turn or a document.

        Raises:
            TokenizerError: as `encode`.
        """
        pattern = "|".join(map(re.escape, sorted(self.special_names, key=len, reverse=True)))
        pieces = re.split(f"({pattern})", text) if pattern else [text]
        return self.encode_parts(
            self.special_names.get(piece, piece) if i % 2 else piece for i, piece in enumerate(pieces)
        )

    def encode_parts(self, parts: Iterable[str | int]) -> Int32[np.ndarray, " T"]:
        """Returns the token ids of texts with tokens between them; in the texts nothing is special.

        The texts are split as the library splits a text around its special tokens, some of which
        take the white space beside them away.

        Raises:
            TokenizerError: as `encode`, or a token outside the vocabulary.
        """
        ids: list[int] = []
        listed, added = list(parts), self._inner.get_added_tokens_decoder()
        for i, part in enumerate(listed):
            if not isinstance(part, str):
                self._check_token(part)
                ids.append(part)
                continue
            before, after = ([*listed, ""][k] if k >= 0 else "" for k in (i - 1, i + 1))
            if isinstance(before, int) and before in added and added[before].rstrip:
                part = part.lstrip()
            if isinstance(after, int) and after in added and added[after].lstrip:
                part = part.rstrip()
            inner = self._following if i else self._inner
            ids += inner.encode(_checked(part), add_special_tokens=False).ids
        return np.asarray(ids, np.int32)

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

    @functools.cached_property
    def special_names(self) -> dict[str, int]:
        """The id of each special token: those that stand for no text, such as the end of a turn."""
        added = self._inner.get_added_tokens_decoder()
        return {token.content: i for i, token in sorted(added.items()) if token.special}

    @functools.cached_property
    def special(self) -> frozenset[int]:
        """The ids of the special tokens."""
        return frozenset(self.special_names.values())

    def token(self, token: int) -> str:
        """Returns the text of one token, broken characters as U+FFFD; of a special token, its name.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        if token in self.special:
            return next(name for name, i in self.special_names.items() if i == token)
        return self.token_bytes(token).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Returns what one token adds to a text, as UTF-8, a part of a character perhaps.

        Empty for special tokens and for ids that are not used. The space that some tokenizers take
        away at the beginning of a text is there.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        self._check_token(token)
        return self._token_bytes[token]

    def check_vocabulary(self, model_vocabulary: int) -> None:
        """Checks that a model knows every token of this vocabulary.

        A model may know more: tables of embeddings are padded to sizes that devices like, and no text
        ever becomes a row of the padding. Whoever samples must keep to this vocabulary.

        Raises:
            TokenizerError: the model knows fewer.
        """
        if model_vocabulary < self.vocabulary:
            self._refuse_vocabulary(model_vocabulary)

    def check_exact_vocabulary(self, model_vocabulary: int) -> None:
        """Checks that a model was made for this vocabulary and none else, as one that is trained here is.

        Raises:
            TokenizerError: the sizes differ.
        """
        if model_vocabulary != self.vocabulary:
            self._refuse_vocabulary(model_vocabulary)

    def _refuse_vocabulary(self, model_vocabulary: int) -> NoReturn:
        raise TokenizerError(
            f"the tokenizer has {self.vocabulary} tokens, but the model has {model_vocabulary}",
            where="vocabulary",
            remedy=f"Use vocabulary={self.vocabulary} in the model, or the tokenizer that it was trained with.",
        )

    def _check_token(self, token: int) -> None:
        if not 0 <= token < self.vocabulary:
            raise TokenizerError(
                f"token {token} is outside the vocabulary of {self.vocabulary}",
                remedy="Use the tokenizer that the model was trained with.",
            )

    @property
    def _bytes(self) -> list[bytes] | None:
        """The bytes of each token; None where those depend on the tokens around it."""
        return self._token_bytes if isinstance(self._inner.decoder, decoders.ByteLevel) else None

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        table = [b""] * self.vocabulary
        added = self._inner.get_added_tokens_decoder()
        read = _byte_level if isinstance(self._inner.decoder, decoders.ByteLevel) else _metaspace
        for token, i in self._inner.get_vocab().items():
            if i not in self.special:
                # What was added stands in the text as it is; only a piece of the model is written in code.
                table[i] = token.encode() if i in added and read is _metaspace else read(token)
        return table

    @functools.cached_property
    def _following(self) -> tokenizers.Tokenizer:
        """The library's tokenizer for a text that does not stand first: no space is put before it."""
        settings = json.loads(self._inner.to_str())
        changed = False
        for part in _steps(settings["pre_tokenizer"], "pretokenizers"):
            if part["type"] == "Metaspace" and part.get("prepend_scheme") == "first":
                part["prepend_scheme"], changed = "never", True
        if not changed:
            return self._inner
        inner = tokenizers.Tokenizer.from_str(json.dumps(settings))
        inner.encode_special_tokens = True
        return inner


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
        self._tokenizer._check_token(token)
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


@functools.cache
def _alphabet() -> dict[str, int]:
    """The character that stands for each byte: itself where it can be seen, else from 256 upwards."""
    seen = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    unseen = [b for b in range(256) if b not in seen]
    return {chr(b): b for b in seen} | {chr(256 + n): b for n, b in enumerate(unseen)}


def _byte_level(token: str) -> bytes:
    alphabet = _alphabet()
    # An added token may hold characters that stand for no byte; then it is its own text.
    written = all(c in alphabet for c in token)
    return bytes(map(alphabet.__getitem__, token)) if written else token.encode()


def _metaspace(token: str) -> bytes:
    """The bytes of a piece in the manner of SentencePiece: "▁" is a space, "<0x0A>" a byte."""
    if byte := _BYTE.fullmatch(token):
        return bytes([int(byte[1], 16)])
    return token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()


def _steps(part: dict[str, Any] | None, inside: str) -> Iterator[dict[str, Any]]:
    """Yields a part of a tokenizer's settings, or the parts of which it is a sequence."""
    if part is not None:
        yield part
        for step in part.get(inside, ()):
            yield from _steps(step, inside)


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
