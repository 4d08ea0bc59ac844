"""YAML with the place of everything in it.

Not here: what a file of ours may say (`spicedb.py`, `store.py`, `stages.py`).
Invariant: what is read does not depend on the version of YAML that its writer had in mind: `yes`, `1:30` and dates
are texts. No document takes more time or memory than its length allows, however often it repeats itself by aliases.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cupola.access.validate.place import FileError, Place, did_you_mean, read_text

DEEPEST = 64
"""Values within values."""
MOST_VALUES = 2_000_000
"""Of a document, those that aliases repeat included."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_PLAIN = (
    (re.compile(r"(?:null|Null|NULL|~|)"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?(?:0|[1-9][0-9]{0,400})"), int),
    (re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"), float),
)
"""What is no text where it stands without quotes."""


@dataclasses.dataclass(eq=False)
class Field:
    """A value of a document.

    Args:
        place: where it begins.
        value: a scalar; a list of fields; or a list of pairs of fields, for a mapping.
        raw: lines of the file, for a text of several.
        size: values in it, itself included.
        block: whether it is a text whose lines stand below its mark.
        mapping: whether it is one.
        key: place of the key that it is the value of.
    """

    place: Place
    value: Any
    raw: list[str] = dataclasses.field(default_factory=list, repr=False)
    size: int = 1
    block: bool = False
    mapping: bool = False
    key: Place | None = None

    def __bool__(self) -> bool:
        """Whether there is anything: null counts as left out."""
        return self.value is not None

    def error(self, problem: str, remedy: str = "") -> FileError:
        """Returns the error that something is wrong with it."""
        return FileError(problem, self.place, remedy=remedy)

    def pairs(self) -> list[tuple[str, "Field"]]:
        """Returns keys and values of a mapping; those that are null too.

        Raises:
            FileError: it is none, a key is no text, or is there twice.
        """
        if self.value is None:
            return []
        if not self.mapping:
            raise self.error("is no mapping", "Write KEY: VALUE lines.")
        found: dict[str, Field] = {}
        for key, value in self.value:
            name = key.text()
            if name in found:
                raise key.error(f"{name!r} is there twice", f"It stands in line {found[name].place.line} already.")
            found[name] = dataclasses.replace(value, key=key.place)
        return list(found.items())

    def fields(self, *known: str, required: tuple[str, ...] = ()) -> dict[str, "Field"]:
        """Returns the fields of a record; what is not there is a null.

        Args:
            known: names that it may have.
            required: names that it must have too.

        Raises:
            FileError: it has another, or lacks one.
        """
        names = (*required, *known)
        found = {}
        for name, value in self.pairs():
            if name not in names:
                raise FileError(
                    f"there is no key {name!r} here", value.key or value.place, remedy=did_you_mean(name, names)
                )
            found[name] = value
        lacking = [name for name in required if not found.get(name)]
        if lacking:
            raise self.error(f"lacks {', '.join(lacking)}", f"Write {lacking[0]}: ...")
        return {name: found.get(name, Field(self.place, None)) for name in names}

    def items(self) -> list["Field"]:
        """Returns the fields of a list; of null, none."""
        if self.value is None:
            return []
        if self.mapping or not isinstance(self.value, list):
            raise self.error("is no list", "Write its items below, each after a dash.")
        return self.value

    def text(self) -> str:
        """Returns a text; a number is one too."""
        if isinstance(self.value, list | bool) or self.value is None:
            raise self.error("is no text", "Put it in quotes.")
        return str(self.value)

    def truth(self) -> bool:
        """Returns true or false."""
        if not isinstance(self.value, bool):
            raise self.error("is neither true nor false", "Write one of them, without quotes.")
        return self.value

    def number(self) -> int:
        """Returns a whole number."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.error("is no whole number")
        return self.value

    def plain(self) -> Any:
        """Returns it as JSON has it, without places."""
        if self.mapping:
            return {name: value.plain() for name, value in self.pairs()}
        return [one.plain() for one in self.value] if isinstance(self.value, list) else self.value

    def record(self) -> dict[str, Any]:
        """Returns a mapping as JSON has it; of null, an empty one."""
        if self.value is not None and not self.mapping:
            raise self.error("is no mapping", "Write KEY: VALUE lines.")
        return self.plain() or {}

    def lines(self) -> list[tuple[str, Place]]:
        """Returns the lines of a text, each with the place of its first character in the file."""
        found, at = [], self.place.line if self.block else self.place.line - 1
        for line in _BREAK.split(self.text()):
            start = line.lstrip()
            following = range(at, len(self.raw)) if start else range(0)
            here = next((n for n in following if _begins(start, self.raw[n].strip())), None)
            if here is None:
                found.append((line, Place(self.place.source, min(at + 1, max(len(self.raw), 1)), 1)))
                continue
            raw = self.raw[here]
            column = raw.find(start) if start in raw else len(raw) - len(raw.lstrip())
            indent = len(line) - len(start)
            found.append((line, Place(self.place.source, here + 1, max(column - indent, 0) + 1)))
            at = here + 1
        return found


def _begins(line: str, raw: str) -> bool:
    """Whether a line of a text begins with one of the file, which may be only a part of it where lines are folded."""
    return bool(raw) and (line.startswith(raw) or raw.endswith(line))


def read_document(path: Path) -> Field:
    """Returns what a YAML or JSON file says.

    Raises:
        FileError: it cannot be read, or is no YAML.
    """
    return parse_document(read_text(path), str(path))


def parse_document(text: str, source: str) -> Field:
    """Returns what a YAML or JSON text says.

    Args:
        source: name of the file.

    Raises:
        FileError: it is no YAML, is nested too deeply, or is more than one document.
    """
    raw = _BREAK.split(text)
    try:
        return _build(yaml.parse(text, Loader=_LOADER), source, raw)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise FileError(f"this is no YAML: {problem}", place, remedy="Look at quotes and indentation.") from None
    except yaml.YAMLError as error:
        raise FileError(f"this is no YAML: {error}".splitlines()[0], Place(source)) from None


def _build(events: Iterator[Any], source: str, raw: list[str]) -> Field:
    """Makes the fields of the one document, without recursion: depth is the writer's to choose."""
    anchors: dict[str, Field] = {}
    way: list[tuple[Field, str | None]] = []
    top: Field | None = None
    for event in events:
        place = Place(source, event.start_mark.line + 1, event.start_mark.column + 1)
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.DocumentStartEvent) and top is not None:
            raise FileError("a second document begins here", place, remedy="Keep one document in a file.")
        if isinstance(event, yaml.ScalarEvent):
            done = Field(place, _scalar(event, place), raw, block=event.style in ("|", ">"))
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            if len(way) >= DEEPEST:
                raise FileError(f"more than {DEEPEST} values within values", place, remedy="Nest less.")
            mapping = isinstance(event, yaml.MappingStartEvent)
            way.append((Field(place, [], raw, mapping=mapping), anchor))
            continue
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            done, anchor = way.pop()
            if done.mapping:
                done.value = list(zip(done.value[::2], done.value[1::2], strict=True))
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in anchors:
                raise FileError(f"there is no &{anchor} before this", place)
            done = dataclasses.replace(anchors[str(anchor)], place=place)
            anchor = None
        else:
            continue
        if anchor:
            anchors[anchor] = done
        if way:
            holder = way[-1][0]
            holder.value.append(done)
            holder.size += done.size
            if holder.size > MOST_VALUES:
                raise FileError(f"more than {MOST_VALUES} values", place, remedy="Repeat less by aliases.")
        else:
            top = done
    return top or Field(Place(source, 1, 1), None, raw)


def _scalar(event: Any, place: Place) -> Any:
    if event.tag not in (None, "!", f"{_TAG}str"):
        raise FileError(f"the tag {event.tag} means nothing here", place, remedy="Leave it out.")
    if event.tag is None and event.implicit[0]:
        for pattern, make in _PLAIN:
            if pattern.fullmatch(event.value):
                return make(event.value)
    return event.value
