"""Sources: values that say where documents come from.

Not here: tokens (`tokens.py`), several sources at once (`mixture.py`). A source reads when it is
asked for documents, never when it is made, so it can be printed and diffed on another machine.
Invariant: the same files give the same documents in the same order on every machine.
"""

import collections
import dataclasses
import difflib
import enum
import hashlib
import itertools
import json
import logging
import math
import os
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cupola.config.suggest import did_you_mean
from cupola.config.value import Value
from cupola.core.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "idlelib", "lib2to3"}
"""Folders of the library that hold other people's packages, test suites or programs."""

_MADE_BY_THE_BUILD = ("_sysconfigdata", "config-")
"""How names begin that differ between machines with the same Python."""


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One text and its name, which is unique in its source and the same on every machine."""

    name: str
    text: str


class Source(Value):
    """Where documents come from."""

    def documents(self) -> Iterator[Document]:
        """Yields the documents, sorted by name; those without text are left out.

        Raises:
            DataError: there is nothing to read, or it cannot be read as text.
        """
        raise NotImplementedError


class PythonLibrary(Source):
    """The running interpreter's own standard library: every module and package, without test suites.

    About 600 files and 11 MB in Python 3.11, 550 and 10.5 in 3.12, 565 and 10.7 in 3.13.
    """

    def documents(self) -> Iterator[Document]:
        root = Path(sysconfig.get_path("stdlib"))
        found = 0
        files = [path for path in _walk(root, _is_library) if path.suffix == ".py"]
        for document in _read(root, files):
            found += 1
            yield document
        if not found:
            raise DataError(
                "this Python comes without the source of its standard library",
                where=str(root),
                remedy="Give a text of your own: TextFiles(path=...).",
            )


def _is_library(name: str) -> bool:
    return name not in _NOT_LIBRARY and not name.startswith(_MADE_BY_THE_BUILD)


class TextFiles(Source):
    """A text file, or every text file in a folder and the folders inside it.

    Hidden files and folders (names that begin with a dot) are left out. Files that are not text are
    left out of a folder with a warning that counts them; one that is named itself is refused.

    Args:
        path: the file or folder.
        patterns: which files of a folder to read, such as ("*.md", "*.txt").
    """

    path: str
    patterns: tuple[str, ...] = ("*",)

    def documents(self) -> Iterator[Document]:
        root = _existing(self.path)
        if root.is_file():
            text = _text(root)
            if not text:
                raise DataError("the file is empty", where=self.path, remedy="Name a file that holds text.")
            yield Document(root.name, text)
            return
        seen = [path for path in _walk(root, lambda name: not name.startswith(".")) if path.is_file()]
        files = [p for p in seen if any(p.relative_to(root).match(pattern) for pattern in self.patterns)]
        found = 0
        for document in _read(root, files):
            found += 1
            yield document
        if not found:
            endings = collections.Counter(f"*{p.suffix}" for p in seen).most_common(5)
            here = ", ".join(f"{ending} ({count})" for ending, count in endings) or "no file at all"
            raise DataError(
                f"no text in files that match {' or '.join(self.patterns)}",
                where=self.path,
                remedy=f"The folder holds: {here}. Name another folder, or other patterns.",
            )


class JSONL(Source):
    """A file with one JSON object per line, the text in one of its fields; blank lines are passed over.

    Args:
        path: the file.
        field: the field that holds the text.
    """

    path: str
    field: str = "text"

    def documents(self) -> Iterator[Document]:
        path = _existing(self.path)
        if path.is_dir():
            raise DataError(
                "this is a folder", where=self.path, remedy=f"Name one file, such as {_an_example(path, '*.jsonl')}."
            )
        found = 0
        with _open(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip() and (text := self._text(line, f"{self.path}:{number}")):
                    found += 1
                    yield Document(f"{path.name}:{number:09d}", text)
        if not found:
            raise DataError(
                "no line holds any text", where=self.path, remedy=f'Write lines like {{"{self.field}": "..."}}.'
            )

    def _text(self, line: bytes, where: str) -> str:
        try:
            held: Any = json.loads(line)
        except ValueError as error:
            raise DataError(f"not JSON ({error})", where=where, remedy="Write one JSON object per line.") from None
        if not isinstance(held, dict):
            raise DataError(
                f"holds a {type(held).__name__}, not an object", where=where, remedy=f'Write {{"{self.field}": "..."}}.'
            )
        if self.field not in held:
            raise DataError(f"has no field {self.field!r}", where=where, remedy=did_you_mean(self.field, held))
        text = held[self.field]
        if not isinstance(text, str):
            texts = [name for name, value in held.items() if isinstance(value, str)]
            instead = f"Fields that hold text here: {', '.join(texts)}." if texts else "No field here holds text."
            raise DataError(f"{self.field} holds {type(text).__name__}, not text", where=where, remedy=instead)
        if not _is_unicode(text):
            raise DataError(
                f"{self.field} holds half of a surrogate pair, which is no character",
                where=where,
                remedy="Write the pair whole, or the character itself.",
            )
        return text


class Split(enum.Enum):
    """Which side of a held-out split."""

    TRAIN = "train"
    """What a model may learn from."""
    HELD_OUT = "held out"
    """What it is measured on."""
    ALL = "all"
    """Both."""


class HeldOut(Source):
    """One side of a source of which some documents are held out.

    A document's side depends on its name alone, so it is the same on every machine and stays so
    when documents are added. Where so few documents hold out none, the one whose name falls
    nearest is held out; of a source that is one document, the tail.

    Args:
        source: what to split.
        fraction: the share to hold out, above 0 and below 1.
        split: which side to give.
    """

    source: Source
    fraction: float = 0.05
    split: Split = Split.TRAIN

    def check(self) -> None:
        if not 0 < self.fraction < 1:
            raise ConfigError(f"{self.fraction} is no share", where="fraction", remedy="Use a number such as 0.05.")

    def documents(self) -> Iterator[Document]:
        documents = self.source.documents()
        if self.split is Split.ALL:
            yield from documents
            return
        # Of so many documents, none would be held out once in 20,000 times.
        first = list(itertools.islice(documents, math.ceil(10 / self.fraction)))
        if len(first) < 2:
            yield from map(self._part, first)
            return
        bound = max(self.fraction, math.nextafter(min(place(document.name) for document in first), 1))
        any_left = False
        for document in itertools.chain(first, documents):
            held = place(document.name) < bound
            any_left = any_left or not held
            if held == (self.split is Split.HELD_OUT):
                yield document
        if not any_left:
            # With three times as many as leave one on average, none is left once in twenty.
            need = math.ceil(3 / (1 - self.fraction))
            raise DataError(
                f"fraction={self.fraction:g} leaves no document to learn from",
                where=type(self.source).__name__,
                remedy=f"Use about {need} documents or more, or a smaller fraction.",
            )

    def _part(self, document: Document) -> Document:
        held = math.ceil(len(document.text) * self.fraction)
        cut = len(document.text) - held
        if not cut:
            need = math.ceil(round(1 / (1 - self.fraction), 6))
            raise DataError(
                f"its one document has {len(document.text)} characters, too few to hold out {self.fraction:g} of them",
                where=document.name,
                remedy=f"It needs at least {need} characters, and thousands to mean anything.",
            )
        text = document.text[cut:] if self.split is Split.HELD_OUT else document.text[:cut]
        return Document(document.name, text)


def place(name: str) -> float:
    """Returns where a name falls in [0, 1), the same everywhere."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _existing(path: str) -> Path:
    found = Path(path).expanduser()
    if found.exists():
        return found
    above = next(p for p in found.absolute().parents if p.is_dir())
    wanted = found.absolute().relative_to(above).parts[0]
    near = difflib.get_close_matches(wanted, (p.name for p in above.iterdir()), n=1)
    remedy = f"Did you mean {above / near[0]}?" if near else f"{above} is as far as the path exists."
    raise DataError("there is no such file or folder", where=path, remedy=remedy)


def _walk(root: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Yields the files under `root` whose own name, and those of the folders on the way, are wanted."""

    def warn(error: OSError) -> None:
        logger.warning("%s: left out this folder, which cannot be read (%s)", error.filename, error.strerror)

    for folder, folders, names in os.walk(root, onerror=warn):
        folders[:] = filter(wanted, folders)
        yield from (Path(folder, name) for name in filter(wanted, names))


def _an_example(folder: Path, pattern: str) -> str:
    return str(next(iter(sorted(folder.glob(pattern))), folder / pattern))


def _read(root: Path, files: list[Path]) -> Iterator[Document]:
    """Yields the texts among files under `root`, sorted by name, and warns of those that are not text."""
    left_out = []
    for name, path in sorted((p.relative_to(root).as_posix(), p) for p in files):
        try:
            text = _text(path)
        except DataError:
            left_out.append(name)
            continue
        if text:
            yield Document(name, text)
    if left_out:
        logger.warning(
            "%s: left out %d files that cannot be read as UTF-8 text, such as %s", root, len(left_out), left_out[0]
        )


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})", where=os.fspath(path), remedy=f"Try: chmod u+r {path}."
        ) from None


def _text(path: Path) -> str:
    with _open(path) as file:
        data = file.read()
    remedy = f"Save it as UTF-8: iconv -f ENCODING -t UTF-8 {path.name}."
    if b"\0" in data:
        raise DataError(
            "a binary file (it holds zero bytes)", where=os.fspath(path), remedy=f"Name a text file. {remedy}"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text (byte {error.start})", where=os.fspath(path), remedy=remedy) from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
