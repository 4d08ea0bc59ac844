"""Where something stands in a file, and the error of a file that cannot be read.

Invariant: lines and columns count from 1; 0 is the file as a whole.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cupola.access.errors import AccessError, InvalidArgument

LONGEST_BYTES = 256 << 20
"""Of a file."""


class Place(NamedTuple):
    """A place in a file."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join(str(part) for part in self if part)


class FileError(InvalidArgument):
    """A file that cannot be read, or says what cannot be.

    Args:
        problem: what is so, and why it cannot be.
        place: where.
        remedy: what to write instead.
    """

    def __init__(self, problem: str, place: Place, *, remedy: str = ""):
        super().__init__(problem, where=str(place), remedy=remedy)
        self.place = place
        self.source, self.line, self.column = place

    @classmethod
    def of(cls, error: AccessError, place: Place) -> "FileError":
        """Returns an error of what a file says, with the place where it says so."""
        return cls(f"{error.where}: {error.problem}" if error.where else error.problem, place, remedy=error.remedy)


def read_text(path: Path, named_at: Place | None = None) -> str:
    """Returns the text of a file.

    Args:
        named_at: where another file names it.

    Raises:
        FileError: it is not there, too large, or no UTF-8.
    """
    place = named_at or Place(str(path))
    try:
        if path.is_file() and path.stat().st_size > LONGEST_BYTES:
            raise FileError(f"{path} has more than {LONGEST_BYTES >> 20} MiB", place, remedy="Split it.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", place, remedy="Look at its name.") from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        broken = named_at or Place(str(path), line, column)
        raise FileError(f"{path} is no UTF-8 text", broken, remedy="Save it as UTF-8.") from None


def beside(path: Path, name: str, place: Place) -> Path:
    """Returns the path of a file that another one names, relative to where that lies.

    Args:
        path: of the file that names it.
        place: where it does.

    Raises:
        FileError: it lies outside the folder: a test that somebody sends must not read what it likes.
    """
    folder = path.parent.resolve()
    found = (folder / name).resolve()
    if not found.is_relative_to(folder):
        raise FileError(f"{name!r} leaves the folder of this file", place, remedy="Put it into the folder, or below.")
    return path.parent / name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the remedy for a name that is not known."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Use {', '.join(names)}."
