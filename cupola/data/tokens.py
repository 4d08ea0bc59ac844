"""Corpora of tokens: documents as one flat array of ids, in memory or mapped from files.

Not here: text (`sources.py`), rows of fixed length (`pack.py`).
Invariant: every document is stored as [end, t1, ..., tn] and one more `end` follows the last, so the
target of the token at i is always the token at i + 1.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt

from cupola.core.errors import DataError, TokenizerError
from cupola.data.files import whole
from cupola.data.sources import Document, Source
from cupola.data.tokenizer import Tokenizer

_MANIFEST = "manifest.json"
_ARRAYS = ("tokens", "offsets", "document_bytes")
_FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False)
class TokenCorpus:
    """Documents as token ids.

    Args:
        tokens: all documents one after another, and a last `end`; uint16 where the vocabulary allows.
        offsets: where each document begins in `tokens`, and where the last one stops.
        document_bytes: UTF-8 bytes of the text of each document.
        vocabulary: how many tokens the tokenizer has.
        end: id of the token that begins every document.
        tokenizer: fingerprint of the tokenizer.
    """

    tokens: UInt[np.ndarray, " tokens"]
    offsets: Int64[np.ndarray, " bounds"]
    document_bytes: Int64[np.ndarray, " documents"]
    vocabulary: int
    end: int
    tokenizer: str

    @classmethod
    def encode(cls, source: Source, tokenizer: Tokenizer) -> "TokenCorpus":
        """Returns the documents of a source as tokens.

        Raises:
            DataError: the source has no document, or cannot be read.
        """
        dtype = np.uint16 if tokenizer.vocabulary <= 2**16 else np.uint32
        end = np.asarray([tokenizer.end], dtype)
        document_bytes: list[int] = []
        pieces: list[np.ndarray] = []
        for ids in tokenizer.encode_all(_texts(source.documents(), document_bytes)):
            pieces += [end, ids.astype(dtype)]
        if not pieces:
            raise DataError("has no document", where=type(source).__name__, remedy="Give a source that holds text.")
        lengths = [1 + len(ids) for ids in pieces[1::2]]
        return cls(
            tokens=np.concatenate([*pieces, end]),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            document_bytes=np.asarray(document_bytes, np.int64),
            vocabulary=tokenizer.vocabulary,
            end=tokenizer.end,
            tokenizer=tokenizer.fingerprint,
        )

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.document_bytes)

    @property
    def size_tokens(self) -> int:
        """How many tokens all documents have, each with its `end`; as many targets."""
        return int(self.offsets[-1])

    @property
    def size_bytes(self) -> int:
        """How many UTF-8 bytes the text of all documents has."""
        return int(self.document_bytes.sum())

    def texts(self, tokenizer: Tokenizer) -> Iterator[str]:
        """Yields the text of each document; exact for a byte-level tokenizer."""
        for start, stop in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield tokenizer.decode(self.tokens[start + 1 : stop].tolist())

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tokens, their documents and the tokenizer: equal for equal corpora."""
        return hashlib.sha256(json.dumps(self._manifest, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def _manifest(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "documents": self.documents,
            "tokens": self.size_tokens,
            "bytes": self.size_bytes,
            "vocabulary": self.vocabulary,
            "end": self.end,
            "tokenizer": self.tokenizer,
            "sha256": {name: hashlib.sha256(getattr(self, name).data).hexdigest() for name in _ARRAYS},
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the corpus into a new folder, which appears whole or not at all.

        Saving where this same corpus already is does nothing.

        Raises:
            DataError: the folder holds anything else, or could not be written.
        """
        target = Path(folder)
        if target.exists() and (target.is_file() or any(target.iterdir())):
            if _read_manifest(target) != self._manifest:
                raise DataError(
                    "holds something else than this corpus",
                    where=os.fspath(folder),
                    remedy="Name a new folder, or delete this one first.",
                )
            return
        try:
            with whole(target) as unfinished:
                unfinished.mkdir()
                for name in _ARRAYS:
                    np.save(unfinished / f"{name}.npy", getattr(self, name))
                (unfinished / _MANIFEST).write_text(json.dumps(self._manifest, indent=2), encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"could not be written ({error.strerror})",
                where=os.fspath(folder),
                remedy=f"It needs {self.tokens.nbytes / 2**20:.0f} MiB and the right to write there; nothing is lost.",
            ) from None

    @classmethod
    def load(cls, folder: str | os.PathLike[str], tokenizer: Tokenizer) -> "TokenCorpus":
        """Returns the corpus in a folder, its arrays mapped rather than read, after verifying them.

        Raises:
            DataError: no corpus there, or its files are not what was written.
            TokenizerError: it was made with another tokenizer.
        """
        where = os.fspath(folder)
        manifest = _read_manifest(Path(folder))
        if manifest is None:
            raise DataError(
                "holds no corpus of tokens", where=where, remedy=f"Name a folder with a {_MANIFEST} that save() wrote."
            )
        if manifest.get("tokenizer") != tokenizer.fingerprint:
            raise TokenizerError(
                f"made with tokenizer {str(manifest.get('tokenizer'))[:12]}, but this one is {tokenizer.fingerprint[:12]}",
                where=where,
                remedy="Load the tokenizer that was saved with it, or encode the text again.",
            )
        try:
            arrays = {name: np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
            corpus = cls(**arrays, vocabulary=tokenizer.vocabulary, end=tokenizer.end, tokenizer=tokenizer.fingerprint)
            found = corpus._manifest
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise _broken(where, str(error)) from None
        if found != manifest:
            differing = [name for name in found | manifest if found.get(name) != manifest.get(name)]
            raise _broken(where, f"{' and '.join(differing)} differ")
        return corpus


def _texts(documents: Iterator[Document], document_bytes: list[int]) -> Iterator[str]:
    """Yields the texts while counting their bytes, so that no text is kept."""
    for document in documents:
        document_bytes.append(len(document.text.encode()))
        yield document.text


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        held = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def _broken(where: str, reason: str) -> DataError:
    return DataError(
        f"truncated or changed since it was written ({reason})",
        where=where,
        remedy="Delete the folder and encode the text again.",
    )
