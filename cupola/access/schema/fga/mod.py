"""The file that lists the modules of a model, `fga.mod`: a schema version and the files.

Not here: the modules (`modules.py`). Of YAML only what such a file needs is read: two keys, one of them
with a list of items that stand on lines of their own.
Invariant: a path stays inside the folder of the file.
Source: openfga/language, the rules of its fga.mod reader.
"""

import re
import urllib.parse
from typing import NamedTuple

from cupola.access.schema.fga.errors import FgaError, Kind, Place, collect

MOD = "fga.mod"
VERSION = "1.2"
"""Of the language, from which on there are modules."""
_KEYS = ("schema", "contents")
_KEY = re.compile(r"(?P<key>[^\s:#\[\]-][^\s:]*)[ \t]*:(?=\s|$)")
_ITEM = re.compile(r"[ \t]*-[ \t]+")
_VALUE = re.compile(
    r"""'(?P<single>(?:[^']|'')*)'|"(?P<double>(?:\\.|[^"\\])*)"|(?P<plain>[^\s#,\[\]](?:[^#,\]\n]|(?<!\s)\#)*)"""
)
_NO_TEXT = re.compile(r"true|false|null|~|[-+]?[0-9][0-9_]*(?:\.[0-9]*)?|[\[{].*", re.IGNORECASE)


class Entry(NamedTuple):
    """A value of the file and its place.

    Args:
        text: of the value; None where it is no text but a number, a truth value or the like.
        raw: as it is written.
    """

    text: str | None
    raw: str
    place: Place


class Mod(NamedTuple):
    """What the file says."""

    schema: Entry
    contents: tuple[Entry, ...]


def read_mod(text: str, *, source: str = MOD) -> Mod:
    """Returns what an `fga.mod` says.

    Raises:
        FgaError: a key is missing or strange, the version is not 1.2, or a path is not one of a `.fga` file inside
            the folder. `others` holds the further errors.
    """
    values, items, errors = _split(text, source)
    for key in _KEYS:
        if key not in values:
            errors.append(_error(f"missing {key} field", Place(1, 1, 1, source), f"Write {key}: as a line of its own."))
    if "schema" in values:
        errors += _schema_errors(values["schema"])
    if "contents" in values:
        errors += _contents_errors(values["contents"], items)
    if errors:
        raise collect(errors)
    return Mod(values["schema"], tuple(items))


def _split(text: str, source: str) -> tuple[dict[str, Entry], list[Entry], list[FgaError]]:
    """Returns the value behind each key, the items of the list, and what is neither."""
    values: dict[str, Entry] = {}
    items: list[Entry] = []
    errors: list[FgaError] = []
    for number, line in enumerate(text.splitlines(), 1):
        start = len(line) - len(line.lstrip())
        if not line.strip() or line.lstrip().startswith("#") or line.rstrip() == "---":
            continue
        key, item = _KEY.match(line), _ITEM.match(line)
        if key and key["key"] in _KEYS and key["key"] not in values:
            values[key["key"]] = _entry(line, key.end(), number, source)
        elif item and list(values)[-1:] == ["contents"]:
            items.append(_entry(line, item.end(), number, source))
        else:
            place = Place(number, start + 1, len(line.rstrip()) + 1, source)
            errors.append(_error(f"`{line.strip()}` has no place here", place, "Write schema, contents and its items."))
    return values, items, errors


def _entry(line: str, start: int, number: int, source: str) -> Entry:
    """Returns the value that begins somewhere behind a place of a line."""
    start += len(line[start:]) - len(line[start:].lstrip())
    found = _VALUE.match(line, start)
    if found is None or not re.fullmatch(r"\s*(?:#.*)?", line[found.end() :]):
        rest = "" if line[start : start + 1] == "#" else line[start:].rstrip()
        return Entry(None, rest, Place(number, start + 1, start + len(rest) + 1, source))
    raw = found[0].rstrip()
    place = Place(number, start + 1, start + len(raw) + 1, source)
    if found["single"] is not None:
        return Entry(found["single"].replace("''", "'"), raw, place)
    if found["double"] is not None:
        return Entry(re.sub(r"\\(.)", r"\1", found["double"]), raw, place)
    return Entry(None if _NO_TEXT.fullmatch(raw) else raw, raw, place)


def _schema_errors(schema: Entry) -> list[FgaError]:
    remedy = f"Write schema: '{VERSION}'."
    if schema.text is None:
        return [_error(f"unexpected schema type, expected string got value {schema.raw}", schema.place, remedy)]
    if schema.text != VERSION:
        problem = f"unsupported schema version, fga.mod only supported in version `{VERSION}`"
        return [_error(problem, schema.place, remedy)]
    return []


def _contents_errors(contents: Entry, items: list[Entry]) -> list[FgaError]:
    if contents.raw:
        problem = f"unexpected contents type, expected list of strings got value {contents.raw}"
        return [_error(problem, contents.place, "Write each file on a line of its own, after a dash.")]
    errors = []
    for item in items:
        path = urllib.parse.unquote(item.text or "").replace("\\", "/")
        if item.text is None:
            problem = f"unexpected contents item type, expected string got value {item.raw}"
            errors.append(_error(problem, item.place))
        elif path.startswith("/") or ".." in path.split("/"):
            remedy = "Write a path that stays inside the folder of the file."
            errors.append(_error(f"invalid contents item {item.text}", item.place, remedy))
        elif not path.endswith(".fga"):
            errors.append(_error(f"contents items should use fga file extension, got {item.text}", item.place))
    return errors


def _error(problem: str, place: Place, remedy: str = "") -> FgaError:
    return FgaError(problem, Kind.MODULE, place=place, remedy=remedy)
