"""A file of claims, of whichever kind it is.

Not here: the kinds (`spicedb.py`, `store.py`), running them (`run.py`).
Invariant: a key that no kind knows is named, never passed over.
"""

from pathlib import Path

from cupola.access.validate.document import read_document
from cupola.access.validate.place import FileError, Place, did_you_mean
from cupola.access.validate.spicedb import KEYS, read_validation
from cupola.access.validate.store import STORE, is_staged, read_stages, read_store
from cupola.access.validate.suite import Suite

SUFFIXES = (".yaml", ".yml")


def read_suites(path: Path) -> tuple[Suite, ...]:
    """Returns what a file says: one suite, or one for each test of a staged one.

    Raises:
        FileError: it cannot be read, or is of no kind that is known.
    """
    document = read_document(path)
    names = [name for name, _ in document.pairs()]
    if is_staged(document):
        return read_stages(document)
    if any(name in STORE for name in names) and not any(name in KEYS for name in names):
        return (read_store(path, document),)
    if any(name in KEYS for name in names):
        return (read_validation(path, document),)
    place = Place(str(path), 1, 1)
    if not names:
        raise FileError("there is nothing in it", place, remedy="Write schema:, relationships: and assertions:.")
    field = dict(document.pairs())[names[0]]
    raise FileError(
        f"there is no key {names[0]!r} here", field.key or field.place, remedy=did_you_mean(names[0], (*KEYS, *STORE))
    )


def find_files(path: Path) -> list[Path]:
    """Returns the files of claims in a folder and below it, sorted; of a file, itself.

    Files that are there to be named by others (tuples, parts of a configuration) are not among them.

    Raises:
        FileError: there is no such file or folder.
    """
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file())
        return [each for each in found if not any(part.startswith(".") for part in each.relative_to(path).parts)]
    if not path.exists():
        raise FileError("there is no such file or folder", Place(str(path)), remedy="Look at its name.")
    return [path]
