"""OpenFGA's tuples in files: YAML, JSON and CSV.

Invariant: a tuple is read as it is written; whether it is a relationship shows when it is needed as one.
"""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

from cupola.access.errors import AccessError
from cupola.access.relation import Caveated, Object, Relationship, Subject
from cupola.access.validate.document import Field, read_document
from cupola.access.validate.place import FileError, Place, beside, did_you_mean, read_text
from cupola.access.validate.suite import Fact, Tuple

COLUMNS = ("user_type", "user_id", "relation", "object_type", "object_id")
OPTIONAL = ("user_relation", "condition_name", "condition_context")


def read_tuple(field: Field, *, lenient: bool = False) -> Tuple:
    """Returns the tuple of a record.

    Args:
        lenient: whether parts may be missing, for questions that are to be refused.

    Raises:
        FileError: it has another form.
    """
    names = ("user", "relation", "object")
    fields = field.fields("condition", *names, required=() if lenient else names)
    user, relation, object = (fields[name].text() if fields[name] else "" for name in names)
    condition = fields["condition"].fields("context", required=("name",)) if fields["condition"] else None
    if condition is None:
        return Tuple(object, relation, user, "", {}, field.place)
    return Tuple(object, relation, user, condition["name"].text(), condition["context"].record(), field.place)


def relationship_of(one: Tuple) -> Relationship:
    """Returns a tuple as the graph takes it.

    Raises:
        InvalidArgument: a part is malformed.
    """
    caveat = Caveated.of(one.condition, one.context) if one.condition else None
    return Relationship(Object.parse(one.object), one.relation, Subject.parse(one.user), caveat)


def facts_of(tuples: Iterable[Tuple]) -> tuple[Fact, ...]:
    """Returns tuples as facts; one that is there twice counts once.

    Raises:
        FileError: one is malformed, or is there twice with two conditions.
    """
    found: dict[object, Fact] = {}
    for one in tuples:
        try:
            fact = Fact(relationship_of(one), one.place)
        except AccessError as error:
            raise FileError(error.problem, one.place, remedy=error.remedy) from None
        before = found.setdefault(fact.relationship.key, fact)
        if before.relationship != fact.relationship:
            raise FileError(
                "the tuple is there twice, with two conditions",
                one.place,
                remedy=f"The other stands at {before.place}.",
            )
    return tuple(found.values())


def tuple_files(path: Path, fields: dict[str, Field]) -> tuple[Tuple, ...]:
    """Returns the tuples of a record's `tuples`, `tuple_file` and `tuple_files`.

    Args:
        path: of the file that has the record.

    Raises:
        FileError: a file is not there or cannot be read.
    """
    found = [read_tuple(one) for one in fields["tuples"].items()]
    named = [fields["tuple_file"]] if fields["tuple_file"] else []
    for name in [*named, *fields["tuple_files"].items()]:
        found += read_tuples(beside(path, name.text(), name.place), name.place)
    return tuple(found)


def read_tuples(path: Path, named_at: Place | None = None) -> list[Tuple]:
    """Returns the tuples of a file: a list in YAML or JSON, or CSV with a line of names.

    Raises:
        FileError: it is not there, or of another kind.
    """
    if path.suffix == ".csv":
        return _csv(read_text(path, named_at), str(path))
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise FileError(f"{path.name} is no file of tuples", named_at or Place(str(path)), remedy="Use .yaml or .csv.")
    if named_at is not None:
        read_text(path, named_at)
    return [read_tuple(one) for one in read_document(path).items()]


def _csv(text: str, source: str) -> list[Tuple]:
    reader = csv.reader(io.StringIO(text), strict=True)
    rows = []
    try:
        for row in reader:
            rows.append((Place(source, reader.line_num, 1), row))
    except csv.Error as error:
        raise FileError(f"this is no CSV: {error}", Place(source, reader.line_num, 1)) from None
    rows = [(place, row) for place, row in rows if row]
    if not rows:
        raise FileError("lacks the line of names", Place(source, 1, 1), remedy=f"Begin with {','.join(COLUMNS)}")
    (first, names), *rest = rows
    names = [name.strip() for name in names]
    for name in names:
        if name not in (*COLUMNS, *OPTIONAL):
            raise FileError(f"there is no column {name!r}", first, remedy=did_you_mean(name, (*COLUMNS, *OPTIONAL)))
    lacking = [name for name in COLUMNS if name not in names]
    if lacking or len(set(names)) < len(names):
        problem = f"lacks the column {lacking[0]}" if lacking else "a column is there twice"
        raise FileError(problem, first, remedy=f"Begin with {','.join(COLUMNS)}")
    return [_row(place, names, row) for place, row in rest]


def _row(place: Place, names: list[str], row: list[str]) -> Tuple:
    if len(row) != len(names):
        raise FileError(f"has {len(row)} columns, and there are {len(names)} names", place)
    found = dict.fromkeys(OPTIONAL, "") | dict(zip(names, row, strict=True))
    user = f"{found['user_type']}:{found['user_id']}"
    if found["user_relation"]:
        user += f"#{found['user_relation']}"
    try:
        context = json.loads(found["condition_context"] or "{}")
    except ValueError as error:
        raise FileError(f"condition_context is no JSON: {error}", place) from None
    if not isinstance(context, dict) or (context and not found["condition_name"]):
        problem = (
            "has a context and no condition_name" if isinstance(context, dict) else "condition_context is no object"
        )
        raise FileError(problem, place)
    object = f"{found['object_type']}:{found['object_id']}"
    return Tuple(object, found["relation"], user, found["condition_name"], context, place)
